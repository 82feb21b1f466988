"""The report on a model's answers to some rows: metrics, slices, baselines, best and worst examples."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seq2serve.components.base.artifact import CORPUS, Examples
from seq2serve.components.base.progress import progress
from seq2serve.components.evaluator.comparison import prediction_lines
from seq2serve.components.evaluator.slices import Slice, slices
from seq2serve.components.evaluator.verdict import best
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.tasks.bootstrap import intervals
from seq2serve.components.tasks.data import PRETRAINED, Answers, Baseline, Row
from seq2serve.components.tasks.measurement import Measurement
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.answers import count_cuts, json_value
from seq2serve.models.runtime.runtime import SavedModelRuntime

BATCH_ROWS = 64
NUM_SHOWN = 10  # best and worst examples
MAX_SHOWN_CHARACTERS = 500  # per text


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Rows that a model answered.

    Args:
        answers: its answers to the task's `judged` signature.
        metric: the headline, as a value of the task.
        measurement: of the answers.
        baselines: the measurements of the baselines, by name.
        trivial: the names of the trivial ones.
        parts: the slices of the rows.
        lines: the objects of predictions.jsonl; see artifact.ModelEvaluation.
        report: the content of metrics.json; without baselines, it and its slices have no "baseline".
    """

    answers: Answers
    metric: Metric
    measurement: Measurement
    baselines: Mapping[str, Measurement]
    trivial: Sequence[str]
    parts: Sequence[Slice]
    lines: list[dict]
    report: dict[str, Any]


def evaluate_rows(
    model: SavedModelRuntime,
    task: Task,
    properties: Mapping[str, Any],
    rows: Sequence[Row],
    slice_columns: Sequence[str],
    baselines: Callable[[], Mapping[str, Baseline]],
    more_slices: Sequence[Slice] = (),
) -> Evaluated:
    """Queries a model with rows, and measures its answers and those of the baselines.

    Args:
        model: the exported model.
        task: its task.
        properties: of the Model: `lowercase`, whether it writes lower case only, and `headline`.
        rows: at least one.
        slice_columns: further columns to slice the rows by.
        baselines: returns the baselines by name, or none.
        more_slices: in addition to those by length, label and slice column.
    """
    lowercase = properties.get("lowercase", False)
    headline = properties.get("headline") or dataclasses.asdict(task.headline({}))
    metric = task.metric(headline["metric"])
    answers = query(model, task, rows)
    measurement = task.measure(answers, rows, lowercase)
    cheap = baselines()
    trivial = [name for name, baseline in cheap.items() if baseline.is_trivial]
    measured = {name: task.measure(baseline.answers, rows, lowercase) for name, baseline in cheap.items()}
    name = best(metric, measured) if measured else ""
    parts = [*slices(task, rows, slice_columns), *more_slices]
    before = cheap[PRETRAINED].answers if PRETRAINED in cheap else None
    lines = list(prediction_lines(task, answers, rows, before))
    report = {
        "headline": headline,
        **_report_on_split(measurement, measured, name),
        "slices": _measure_slices(parts, measurement, measured.get(name)),
        "examples": _best_and_worst(task, measurement, lines),
        "num_examples": len(rows),
        "lowercase": lowercase,
        "num_cut": dict(zip(("texts", "answers"), count_cuts(answers), strict=True)),
    }
    # Properties of an artifact must equal its file, where tuples are lists.
    return Evaluated(answers, metric, measurement, measured, trivial, parts, lines, json.loads(json.dumps(report)))


def read_rows(examples: Examples, split: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads columns of the rows of a split."""
    rows: list[dict[str, str]] = []
    for path in shard_paths(examples, split):
        for batch in read_batches(path, list(columns)):
            texts = ((values[0].decode() for values in row) for row in zip(*batch.values(), strict=True))
            rows += [dict(zip(batch, row, strict=True)) for row in texts]
    return rows


def columns_to_slice_by(examples: Examples) -> list[str]:
    """Returns the columns of the test split that slice metrics: those that were chosen, and that of several corpora."""
    corpus = [CORPUS] if "corpora" in examples.properties else []
    return [*examples.properties.get("slice_columns", []), *corpus]


def unknown_labels(task: Task, answers: Answers, rows: Sequence[Row]) -> Counter[str]:
    """Returns label -> number of rows, for labels that the model does not know; its answers name those it knows."""
    known = set(answers["labels"][0]) if task.label_columns else set()
    labels = (row[column] for row in rows for column in task.label_columns)
    return Counter(label for label in labels if label not in known)


def query(model: SavedModelRuntime, task: Task, rows: Sequence[Row]) -> Answers:
    """Returns the model's answers in the order of the rows. Batches have texts of similar length, to save padding."""
    texts = [row[task.text_columns[0]] for row in rows]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers: Answers = {}
    with progress("Evaluator", len(texts), "examples") as reporter:
        for first in range(0, len(order), BATCH_ROWS):
            batch = order[first : first + BATCH_ROWS]
            for name, values in model.run(task.judged, {"text": [texts[i] for i in batch]}).items():
                column = answers.setdefault(name, [None] * len(texts))
                for i, value in zip(batch, json_value(values), strict=True):
                    column[i] = value
            reporter.update(first + len(batch))
    return answers


def _report_on_split(measurement: Measurement, baselines: dict[str, Measurement], strongest: str) -> dict:
    """Returns the part of the report that is about the whole split; `strongest` is empty without any."""
    return {
        "model": measurement.metrics,
        **({"strongest": strongest, "baseline": baselines[strongest].metrics} if strongest else {}),
        "baselines": {name: baseline.metrics for name, baseline in baselines.items()},
        "intervals": {
            "model": intervals(measurement.statistics),
            "baselines": {name: intervals(baseline.statistics) for name, baseline in baselines.items()},
        },
        "signature": measurement.signature,
        "tables": [dataclasses.asdict(table) for table in measurement.tables],
    }


def _measure_slices(parts: Sequence[Slice], measurement: Measurement, baseline: Measurement | None) -> list[dict]:
    return [
        {
            "by": part.by,
            "name": part.name,
            "num_examples": len(part.rows),
            "model": measurement.statistics.take(part.rows).total(),
            **({"baseline": baseline.statistics.take(part.rows).total()} if baseline else {}),
            "intervals": intervals(measurement.statistics.take(part.rows)),
        }
        for part in parts
    ]


def _best_and_worst(task: Task, measurement: Measurement, lines: Sequence[dict]) -> dict:
    """Returns the best and the worst predictions, without duplicate rows; longer texts first among equals."""
    sign = task.metrics[0].sign
    quality, text_column = measurement.quality, task.text_columns[0]
    shown = [{name: _truncated(value) for name, value in line.items()} for line in lines]
    keys = [tuple(line[column] for column in task.columns) for line in lines]
    unique = {key: i for i, key in reversed(list(enumerate(keys)))}.values()
    lengths = [len(line[text_column]) for line in lines]
    worst = sorted(unique, key=lambda i: (sign * quality[i], -lengths[i], i))[:NUM_SHOWN]
    best = sorted(unique, key=lambda i: (-sign * quality[i], -lengths[i], i))[:NUM_SHOWN]
    return {
        "quality": measurement.quality_name,
        "worst": [{**shown[i], "quality": float(quality[i])} for i in worst],
        "best": [{**shown[i], "quality": float(quality[i])} for i in best],
    }


def _truncated(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_SHOWN_CHARACTERS:
        return value[: MAX_SHOWN_CHARACTERS - 1] + "…"
    return value
