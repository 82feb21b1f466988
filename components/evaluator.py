"""Evaluator: the exported SavedModel and the raw test text -> metrics and a blessing (TFX: Evaluator).

Comes in: Examples and a Model. Goes out: a ModelEvaluation (metrics, predictions) and a ModelBlessing.
Read next: task.py for metrics and baselines, bootstrap.py for how sure they are, evaluator_comparison.py for the model
to beat, models/runtime.py for what answers, pusher.py for who obeys.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from components.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from components.component import Input, Output, component
from components.progress import progress
from components.task import Answers, Measurement, Row, Task
from components.tasks import get_task

if TYPE_CHECKING:
    from components.bootstrap import Comparison
    from components.evaluator_comparison import Blessed
    from components.slices import Slice

BATCH_ROWS = 64
NUM_SHOWN = 10  # best and worst examples
MAX_SHOWN_CHARACTERS = 500  # of a text


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
    """Asks the exported model, strings in and strings out, as a server would be asked, and compares what it answers.

    It is blessed if it is better than the baseline by a margin, and not significantly worse than the last blessed model
    of the same pipeline root that was asked the same.

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
    from components.evaluator_comparison import last_blessed, prediction_lines
    from components.slices import slices

    spec = get_task(task)
    kept = examples.properties.get("slice_columns", [])
    rows = _rows(examples, "test", [*spec.columns, *kept])[: num_examples or None]
    answers = _ask(model, spec, [row[spec.text_columns[0]] for row in rows])
    measured = spec.measure(answers, rows)
    baselines = spec.baselines(lambda: _rows(examples, "train", spec.columns), rows)
    compared = {name: spec.measure(costs_little, rows) for name, costs_little in baselines.items()}
    parts = slices(spec, rows, kept)
    lines = list(prediction_lines(spec, answers, rows))
    report = {
        **_described(measured, compared),
        "slices": _measure_slices(parts, measured, next(iter(compared.values()))),
        "examples": _extremes(spec, measured, lines),
        "num_examples": len(rows),
    }
    report = json.loads(json.dumps(report))  # tuples are lists there, and so here
    _write_json(evaluation.path("metrics.json"), report)
    _write_lines(evaluation.path("predictions.jsonl"), lines)
    evaluation.properties.update(report)
    blessed = last_blessed(spec, model, rows, blessing)
    beside = _compare(spec, answers, rows, parts, blessed) if blessed else None
    _bless(blessing, spec, report, min_over_baseline, beside)


def _described(measured: Measurement, baselines: dict[str, Measurement]) -> dict:
    """Returns what is known of the whole split."""
    from components.bootstrap import intervals

    return {
        "model": measured.metrics,
        "baseline": next(iter(baselines.values())).metrics,
        "baselines": {name: baseline.metrics for name, baseline in baselines.items()},
        "intervals": {
            "model": intervals(measured.tally),
            "baselines": {name: intervals(baseline.tally) for name, baseline in baselines.items()},
        },
        "signature": measured.signature,
        "tables": [dataclasses.asdict(table) for table in measured.tables],
    }


def _measure_slices(parts: Sequence["Slice"], measured: Measurement, baseline: Measurement) -> list[dict]:
    from components.bootstrap import intervals

    return [
        {
            "by": part.by,
            "name": part.name,
            "num_examples": len(part.rows),
            "model": measured.tally.take(part.rows).total(),
            "baseline": baseline.tally.take(part.rows).total(),
            "intervals": intervals(measured.tally.take(part.rows)),
        }
        for part in parts
    ]


def _extremes(spec: Task, measured: Measurement, lines: Sequence[dict]) -> dict:
    """Returns the best and the worst answers, each text once, of equally good ones the longest."""
    sign = 1 if spec.higher_is_better else -1
    shown = [{name: _clipped(value) for name, value in line.items()} for line in lines]
    keys = [tuple(line[column] for column in spec.columns) for line in lines]
    different = {key: i for i, key in reversed(list(enumerate(keys)))}.values()
    length = [len(line[spec.text_columns[0]]) for line in lines]
    order = sorted(different, key=lambda i: (sign * measured.quality[i], -length[i], i))
    best = sorted(different, key=lambda i: (-sign * measured.quality[i], -length[i], i))
    chosen = {"worst": order[:NUM_SHOWN], "best": best[:NUM_SHOWN]}
    found = {name: [{**shown[i], "quality": float(measured.quality[i])} for i in rows] for name, rows in chosen.items()}
    return {"quality": measured.quality_name, **found}


def _clipped(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_SHOWN_CHARACTERS:
        return value[: MAX_SHOWN_CHARACTERS - 1] + "…"
    return value


def _compare(spec: Task, answers: Answers, rows: Sequence[Row], parts: Sequence["Slice"], blessed: "Blessed") -> dict:
    """Returns how the last blessed model stands beside this one."""
    from components.evaluator_comparison import blessed_by_slice, compare_with

    comparison: Comparison = compare_with(spec, answers, rows, blessed)
    by_slice = blessed_by_slice(spec, blessed, parts)
    return {**dataclasses.asdict(comparison), "evaluation": blessed.evaluation, "slices": by_slice}


def _rows(examples: Examples, split: str, columns: Sequence[str]) -> list[dict[str, str]]:
    from components.examples_io import read_batches
    from components.shards import shard_paths

    rows: list[dict[str, str]] = []
    for path in shard_paths(examples, split):
        for batch in read_batches(path, list(columns)):
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


def _bless(blessing: ModelBlessing, spec: Task, report: dict, margin: float, compared: dict | None) -> None:
    value, baseline = report["model"][spec.headline], report["baseline"][spec.headline]
    if spec.higher_is_better:
        blessed, sign = value >= baseline + margin, "+"
        relation = "at least" if blessed else "below"
    else:
        blessed, sign = value <= baseline - margin, "-"
        relation = "at most" if blessed else "above"
    asked = f"{baseline:.2f} {sign} {margin:g} ({spec.unit})"
    reason = f"{spec.headline} {value:.2f} is {relation} the baseline's {asked}"
    if not blessed:
        reason += "; train longer (training.steps) or on more text, or lower evaluation.min_over_baseline"
    if compared:
        blessed, reason = blessed and not compared["worse"], f"{reason}; {_beside(compared)}"
    word = {"blessed": blessed, "reason": reason, **({"last_blessed": compared} if compared else {})}
    word = json.loads(json.dumps(word))
    blessing.properties.update(word)
    _write_json(blessing.path("BLESSED" if blessed else "NOT_BLESSED"), word)


def _beside(compared: dict) -> str:
    """Says how the model does beside the last blessed one."""
    lower, upper = compared["interval"]
    found = (
        f"{compared['ours']:.2f} beside {compared['theirs']:.2f} of the last blessed model "
        f"(Evaluator/evaluation/{compared['evaluation']}) on {compared['num_examples']} texts that both were asked "
        f"(paired bootstrap: the difference lies between {lower:.2f} and {upper:.2f})"
    )
    if compared["worse"]:
        p_value = f"p = {compared['p_value']:.3f}"
        return f"significantly worse, {p_value}: {found}; where that is wanted, take another --pipeline-root"
    return f"{'significantly better' if compared['better'] else 'not significantly different'}: {found}"


def _write_json(path: str, value: dict) -> None:
    _write_lines(path, [value], indent=2)


def _write_lines(path: str, values: Iterable[dict], indent: int | None = None) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(json.dumps(value, ensure_ascii=False, indent=indent) + "\n" for value in values))
