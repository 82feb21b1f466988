"""Evaluator: the exported SavedModel and the raw test text -> metrics and a blessing (TFX: Evaluator).

Comes in: Examples and a Model. Goes out: a ModelEvaluation (metrics, predictions) and a ModelBlessing.
Read next: tasks.py for metrics and baselines, models/runtime.py for what answers, pusher.py for who obeys.
"""

import json
from collections.abc import Iterator

from components.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from components.component import Input, Output, component
from components.progress import progress
from components.tasks import get_task

BATCH_ROWS = 64


@component
def Evaluator(
    examples: Input[Examples],
    model: Input[Model],
    evaluation: Output[ModelEvaluation],
    blessing: Output[ModelBlessing],
    task: str,
    min_over_baseline: float,
    num_examples: int,
) -> None:
    """Asks the exported model, strings in and strings out, as a server would be asked, and compares with a baseline.

    Args:
        examples: split `test`.
        model: its SavedModel is what is judged.
        evaluation: see artifact.ModelEvaluation.
        blessing: see artifact.ModelBlessing.
        task: name of a Task.
        min_over_baseline: points of the task's headline metric that the model must be above the baseline.
        num_examples: how many test examples are asked, the first ones; 0 for all.
    Source: https://www.tensorflow.org/tfx/guide/evaluator
    """
    spec = get_task(task)
    inputs, references = _test_rows(examples, spec.columns[0], spec.columns[-1], num_examples)
    predictions = _predict(model, spec, inputs)
    metrics, signature = spec.measure(predictions, references)
    baseline, _ = spec.measure(spec.baseline(inputs), references)
    report = {"model": metrics, "baseline": baseline, "signature": signature, "num_examples": len(inputs)}
    _write_json(evaluation.path("metrics.json"), report)
    rows = zip(inputs, references, predictions, strict=True)
    names = (spec.columns[0], spec.columns[-1], "prediction")
    _write_lines(evaluation.path("predictions.jsonl"), (dict(zip(names, row, strict=True)) for row in rows))
    evaluation.properties.update(report)
    _bless(blessing, spec.headline, metrics[spec.headline], baseline[spec.headline], min_over_baseline)


def _test_rows(examples: Examples, source: str, target: str, limit: int) -> tuple[list[str], list[str]]:
    from components.examples_io import read_batches, shard_paths

    rows: list[tuple[str, str]] = []
    for path in shard_paths(examples, "test"):
        for batch in read_batches(path, [source, target]):
            rows += [(s[0].decode(), t[0].decode()) for s, t in zip(batch[source], batch[target], strict=True)]
    inputs, references = zip(*rows[: limit or None], strict=True)
    return list(inputs), list(references)


def _predict(model: Model, spec, inputs: list[str]) -> list[str]:
    """Asks for sentences of like length together, so that little padding is computed."""
    from models.runtime import SavedModelRuntime

    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
    predictions = [""] * len(inputs)
    served = SavedModelRuntime(model.path("Format-Serving"))
    with served, progress("Evaluator", len(inputs), "examples") as reporter:
        for first in range(0, len(order), BATCH_ROWS):
            chosen = order[first : first + BATCH_ROWS]
            answers = served.run("serving_default", {"text": [inputs[i] for i in chosen]})[spec.output]
            for i, answer in zip(chosen, answers, strict=True):
                predictions[i] = answer.decode()
            reporter.update(first + len(chosen))
    return predictions


def _bless(blessing: ModelBlessing, metric: str, value: float, baseline: float, margin: float) -> None:
    blessed = value >= baseline + margin
    relation = "at least" if blessed else "below"
    reason = f"{metric} {value:.2f} is {relation} the baseline's {baseline:.2f} + {margin:g}"
    blessing.properties.update(blessed=blessed, reason=reason)
    _write_json(blessing.path("BLESSED" if blessed else "NOT_BLESSED"), {"blessed": blessed, "reason": reason})


def _write_json(path: str, value: dict) -> None:
    _write_lines(path, [value], indent=2)


def _write_lines(path: str, values: Iterator[dict] | list[dict], indent: int | None = None) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(json.dumps(value, ensure_ascii=False, indent=indent) + "\n" for value in values))
