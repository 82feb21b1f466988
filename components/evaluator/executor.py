"""Evaluator: metrics, slices, baselines and the verdict on an exported SavedModel."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from seq2serve.components.base.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from seq2serve.components.base.progress import note
from seq2serve.components.evaluator.comparison import BlessedModel, blessed_by_slice, compare_with, last_blessed
from seq2serve.components.evaluator.report import evaluate_rows, read_rows
from seq2serve.components.evaluator.slices import Slice
from seq2serve.components.tasks.bootstrap import CONFIDENCE
from seq2serve.components.tasks.data import Answers, Row
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.answers import describe_cuts
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.tokenizers.tokenizer import load_tokenizers


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
    slice_columns = examples.properties.get("slice_columns", [])
    rows = read_rows(examples, "test", [*task.columns, *slice_columns])[: num_examples or None]
    with SavedModelRuntime(model.path("Format-Serving")) as saved_model:
        evaluated = evaluate_rows(
            saved_model,
            task,
            model.properties.get("lowercase", False),
            rows,
            slice_columns,
            lambda implementation: implementation.baselines(
                train=lambda: read_rows(examples, "train", task.columns),
                rows=rows,
                tokenizers=lambda: load_tokenizers(model.path("Format-Keras", "tokenizer"), task.text_columns),
            ),
        )
    report = evaluated.report
    _write_json(evaluation.path("metrics.json"), report)
    _write_lines(evaluation.path("predictions.jsonl"), evaluated.lines)
    evaluation.properties.update(report)
    for sentence in describe_cuts(**report["num_cut"], number=len(rows)):
        note(f"Evaluator: warning: {sentence}")
    blessed = last_blessed(task, model, rows, blessing)
    comparison = _compare(task, evaluated.answers, rows, evaluated.parts, blessed) if blessed else None
    _bless(blessing, task, report, min_over_baseline, comparison)


def _compare(
    task: Task, answers: Answers, rows: Sequence[Row], parts: Sequence[Slice], blessed: BlessedModel
) -> dict[str, Any]:
    """Returns the comparison with the last blessed model; see artifact.ModelBlessing."""
    comparison = compare_with(task, answers, rows, blessed)
    by_slice = blessed_by_slice(task, blessed, parts)
    return {**dataclasses.asdict(comparison), "evaluation": blessed.evaluation, "slices": by_slice}


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
