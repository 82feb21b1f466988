"""Evaluator: the exported SavedModel and the raw test text -> metrics and a blessing (TFX: Evaluator).

Comes in: Examples and a Model. Goes out: a ModelEvaluation (metrics, predictions) and a ModelBlessing.
Read next: task.py for metrics and baselines, models/runtime.py for what answers, pusher.py for who obeys.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from components.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from components.component import Input, Output, component
from components.progress import progress
from components.task import Answers, Task
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
        min_over_baseline: how much better than the baseline the model must be, in the task's headline metric.
        num_examples: how many test examples are asked, the first ones; 0 for all.
    Source: https://www.tensorflow.org/tfx/guide/evaluator
    """
    spec = get_task(task)
    rows = _rows(examples, "test", spec)[: num_examples or None]
    answers = _ask(model, spec, [row[spec.text_columns[0]] for row in rows])
    measured = spec.measure(answers, rows)
    baselines = spec.baselines(lambda: _rows(examples, "train", spec), rows)
    metrics = {name: spec.measure(costs_little, rows).metrics for name, costs_little in baselines.items()}
    report = {
        "model": measured.metrics,
        "baseline": next(iter(metrics.values())),
        "baselines": metrics,
        "signature": measured.signature,
        "tables": [dataclasses.asdict(table) for table in measured.tables],
        "num_examples": len(rows),
    }
    report = json.loads(json.dumps(report))  # tuples are lists there, and so here
    _write_json(evaluation.path("metrics.json"), report)
    shown = {"prediction": answers[spec.output]} if spec.output in answers else answers
    lines = ({**row, **{name: values[i] for name, values in shown.items()}} for i, row in enumerate(rows))
    _write_lines(evaluation.path("predictions.jsonl"), lines)
    evaluation.properties.update(report)
    _bless(blessing, spec, report, min_over_baseline)


def _rows(examples: Examples, split: str, spec: Task) -> list[dict[str, str]]:
    from components.examples_io import read_batches
    from components.shards import shard_paths

    rows: list[dict[str, str]] = []
    for path in shard_paths(examples, split):
        for batch in read_batches(path, list(spec.columns)):
            texts = ((values[0].decode() for values in row) for row in zip(*batch.values(), strict=True))
            rows += [dict(zip(batch, row, strict=True)) for row in texts]
    return rows


def _ask(model: Model, spec: Task, inputs: list[str]) -> Answers:
    """Asks for texts of like length together, so that little padding is computed."""
    from models.runtime import SavedModelRuntime

    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
    answers: Answers = {}
    served = SavedModelRuntime(model.path("Format-Serving"))
    with served, progress("Evaluator", len(inputs), "examples") as reporter:
        for first in range(0, len(order), BATCH_ROWS):
            chosen = order[first : first + BATCH_ROWS]
            for name, values in served.run(spec.judged, {"text": [inputs[i] for i in chosen]}).items():
                column = answers.setdefault(name, [None] * len(inputs))
                for i, value in zip(chosen, values.tolist(), strict=True):
                    column[i] = _decoded(value)
            reporter.update(first + len(chosen))
    return answers


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _bless(blessing: ModelBlessing, spec: Task, report: dict, margin: float) -> None:
    value, baseline = report["model"][spec.headline], report["baseline"][spec.headline]
    if spec.higher_is_better:
        blessed, sign = value >= baseline + margin, "+"
        relation = "at least" if blessed else "below"
    else:
        blessed, sign = value <= baseline - margin, "-"
        relation = "at most" if blessed else "above"
    reason = f"{spec.headline} {value:.2f} is {relation} the baseline's {baseline:.2f} {sign} {margin:g}"
    blessing.properties.update(blessed=blessed, reason=reason)
    _write_json(blessing.path("BLESSED" if blessed else "NOT_BLESSED"), {"blessed": blessed, "reason": reason})


def _write_json(path: str, value: dict) -> None:
    _write_lines(path, [value], indent=2)


def _write_lines(path: str, values: Iterator[dict] | list[dict], indent: int | None = None) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(json.dumps(value, ensure_ascii=False, indent=indent) + "\n" for value in values))
