"""Evaluator: metrics, slices, baselines and the verdict on an exported SavedModel."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from seq2serve.components.base.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from seq2serve.components.base.progress import note, progress
from seq2serve.components.evaluator.comparison import (
    BlessedModel,
    blessed_by_slice,
    compare_with,
    last_blessed,
    prediction_lines,
)
from seq2serve.components.evaluator.slices import Slice, slices
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.tasks.bootstrap import CONFIDENCE, intervals
from seq2serve.components.tasks.data import Answers, Row
from seq2serve.components.tasks.implementation import Measurement
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.answers import count_cuts, describe_cuts
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.tokenizers.tokenizer import load_tokenizers

BATCH_ROWS = 64
NUM_SHOWN = 10  # best and worst examples
MAX_SHOWN_CHARACTERS = 500  # per text


def evaluate(
    examples: Examples,
    model: Model,
    evaluation: ModelEvaluation,
    blessing: ModelBlessing,
    task: Task,
    min_over_baseline: float,
    num_examples: int,
) -> None:
    """Executes Evaluator; see component.py for the arguments."""
    implementation = task.judge(model.properties.get("lowercase", False))
    slice_columns = examples.properties.get("slice_columns", [])
    rows = _rows(examples, "test", [*task.columns, *slice_columns])[: num_examples or None]
    answers = _query(model, task, [row[task.text_columns[0]] for row in rows])
    measurement = implementation.measure(answers, rows)
    baseline_answers = implementation.baselines(
        train=lambda: _rows(examples, "train", task.columns),
        rows=rows,
        tokenizers=lambda: load_tokenizers(model.path("Format-Keras", "tokenizer"), task.text_columns),
    )
    baselines = {name: implementation.measure(cheap, rows) for name, cheap in baseline_answers.items()}
    parts = slices(task, rows, slice_columns)
    lines = list(prediction_lines(task, answers, rows))
    report = {
        **_report_on_split(measurement, baselines),
        "slices": _measure_slices(parts, measurement, next(iter(baselines.values()))),
        "examples": _best_and_worst(task, measurement, lines),
        "num_examples": len(rows),
        "lowercase": implementation.lowercase,
        "num_cut": dict(zip(("texts", "answers"), count_cuts(answers), strict=True)),
    }
    report = json.loads(json.dumps(report))  # properties must equal the file, where tuples are lists
    _write_json(evaluation.path("metrics.json"), report)
    _write_lines(evaluation.path("predictions.jsonl"), lines)
    evaluation.properties.update(report)
    for sentence in describe_cuts(**report["num_cut"], number=len(rows)):
        note(f"Evaluator: warning: {sentence}")
    blessed = last_blessed(task, model, rows, blessing)
    comparison = _compare(task, answers, rows, parts, blessed) if blessed else None
    _bless(blessing, task, report, min_over_baseline, comparison)


def _report_on_split(measurement: Measurement, baselines: dict[str, Measurement]) -> dict:
    """Returns the part of the report that is about the whole split."""
    return {
        "model": measurement.metrics,
        "baseline": next(iter(baselines.values())).metrics,
        "baselines": {name: baseline.metrics for name, baseline in baselines.items()},
        "intervals": {
            "model": intervals(measurement.statistics),
            "baselines": {name: intervals(baseline.statistics) for name, baseline in baselines.items()},
        },
        "signature": measurement.signature,
        "tables": [dataclasses.asdict(table) for table in measurement.tables],
    }


def _measure_slices(parts: Sequence[Slice], measurement: Measurement, baseline: Measurement) -> list[dict]:
    return [
        {
            "by": part.by,
            "name": part.name,
            "num_examples": len(part.rows),
            "model": measurement.statistics.take(part.rows).total(),
            "baseline": baseline.statistics.take(part.rows).total(),
            "intervals": intervals(measurement.statistics.take(part.rows)),
        }
        for part in parts
    ]


def _best_and_worst(task: Task, measurement: Measurement, lines: Sequence[dict]) -> dict:
    """Returns the best and the worst predictions, without duplicate rows; longer texts first among equals."""
    sign = 1 if task.higher_is_better else -1
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


def _compare(
    task: Task, answers: Answers, rows: Sequence[Row], parts: Sequence[Slice], blessed: BlessedModel
) -> dict[str, Any]:
    """Returns the comparison with the last blessed model; see artifact.ModelBlessing."""
    comparison = compare_with(task, answers, rows, blessed)
    by_slice = blessed_by_slice(task, blessed, parts)
    return {**dataclasses.asdict(comparison), "evaluation": blessed.evaluation, "slices": by_slice}


def _rows(examples: Examples, split: str, columns: Sequence[str]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for path in shard_paths(examples, split):
        for batch in read_batches(path, list(columns)):
            texts = ((values[0].decode() for values in row) for row in zip(*batch.values(), strict=True))
            rows += [dict(zip(batch, row, strict=True)) for row in texts]
    return rows


def _query(model: Model, task: Task, texts: list[str]) -> Answers:
    """Returns the model's answers in the order of the texts. Batches have texts of similar length, to save padding."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    answers: Answers = {}
    saved_model = SavedModelRuntime(model.path("Format-Serving"))
    with saved_model, progress("Evaluator", len(texts), "examples") as reporter:
        for first in range(0, len(order), BATCH_ROWS):
            batch = order[first : first + BATCH_ROWS]
            for name, values in saved_model.run(task.judged, {"text": [texts[i] for i in batch]}).items():
                column = answers.setdefault(name, [None] * len(texts))
                for i, value in zip(batch, values.tolist(), strict=True):
                    column[i] = _decoded(value)
            reporter.update(first + len(batch))
    return answers


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _bless(blessing: ModelBlessing, task: Task, report: dict, margin: float, comparison: dict | None) -> None:
    value, baseline = report["model"][task.headline], report["baseline"][task.headline]
    if task.higher_is_better:
        blessed, sign = value >= baseline + margin, "+"
        relation = "at least" if blessed else "below"
    else:
        blessed, sign = value <= baseline - margin, "-"
        relation = "at most" if blessed else "above"
    threshold = f"{baseline:.2f} {sign} {margin:g} ({task.unit})"
    reason = f"{task.headline} {value:.2f} is {relation} the baseline's {threshold}"
    if not blessed:
        reason += "; train longer (training.steps) or on more text, or lower evaluation.min_over_baseline"
    if comparison:
        blessed, reason = blessed and not comparison["worse"], f"{reason}; {_explain(comparison)}"
    verdict = {"blessed": blessed, "reason": reason, **({"last_blessed": comparison} if comparison else {})}
    verdict = json.loads(json.dumps(verdict))
    blessing.properties.update(verdict)
    _write_json(blessing.path("BLESSED" if blessed else "NOT_BLESSED"), verdict)


def _explain(comparison: dict) -> str:
    """Returns a sentence about the comparison with the last blessed model."""
    lower, upper = comparison["interval"]
    numbers = (
        f"{comparison['ours']:.2f} against {comparison['theirs']:.2f} of the last blessed model "
        f"(Evaluator/evaluation/{comparison['evaluation']}) on {comparison['num_examples']} shared test rows "
        f"(paired bootstrap: {100 * CONFIDENCE:g} % confidence interval of the difference {lower:.2f} to {upper:.2f})"
    )
    if comparison["worse"]:
        p_value = f"p = {comparison['p_value']:.3f}"
        return f"significantly worse, {p_value}: {numbers}; to accept it anyway, use another --pipeline-root"
    return f"{'significantly better' if comparison['better'] else 'not significantly different'}: {numbers}"


def _write_json(path: str, value: dict) -> None:
    _write_lines(path, [value], indent=2)


def _write_lines(path: str, values: Iterable[dict], indent: int | None = None) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(json.dumps(value, ensure_ascii=False, indent=indent) + "\n" for value in values))
