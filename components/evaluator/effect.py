"""The effect of a training: on old and new rows, and on corpora that a pretrained model answered better."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from seq2serve.components.base.artifact import CORPUS, BaseModel
from seq2serve.components.base.progress import note
from seq2serve.components.evaluator.comparison import BlessedModel
from seq2serve.components.evaluator.report import Evaluated, query
from seq2serve.components.evaluator.slices import NEW, OLD, ROWS
from seq2serve.components.tasks.bootstrap import MIN_ROWS, compare
from seq2serve.components.tasks.data import PRETRAINED, Row
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError


def describe_effect(
    task: Task, evaluated: Evaluated, rows: Sequence[Row], blessed: BlessedModel | None, base_model: BaseModel | None
) -> None:
    """Adds the metrics of earlier models to the slices of old and new rows in a report, if there are any.

    Args:
        task: of the models.
        evaluated: the answers of the new model; the slices in its report get "last_blessed" or "base_model".
        rows: the test rows.
        blessed: the last blessed model, which answered the old rows.
        base_model: the model that training started from; it answers the new rows here.
    """
    for part, entry in zip(evaluated.parts, evaluated.report["slices"], strict=True):
        if part.by != ROWS:
            continue
        if part.name == OLD and blessed:
            entry["last_blessed"] = blessed.statistics.total()
        if part.name == NEW and base_model:
            metrics = _base_metrics(task, evaluated, [rows[i] for i in part.rows], base_model)
            entry.update({"base_model": metrics} if metrics else {})
        note(f"Evaluator: {_sentence(evaluated.metric, entry)}")


def warn_of_forgetting(evaluated: Evaluated) -> None:
    """Warns of each corpus in the test rows that the pretrained model answered significantly better before training."""
    if PRETRAINED not in evaluated.baselines:
        return
    after, before = evaluated.measurement.statistics, evaluated.baselines[PRETRAINED].statistics
    text = evaluated.metric.text
    for part in evaluated.parts:
        if part.by != CORPUS or len(part.rows) < MIN_ROWS:
            continue
        comparison = compare(after.take(part.rows), before.take(part.rows), evaluated.metric)
        if comparison.worse:
            lower, upper = map(text, comparison.interval)
            note(
                f"Evaluator: warning: {comparison.metric} on {len(part.rows):,} test rows of {part.name} is "
                f"{text(comparison.ours)}, before training {text(comparison.theirs)} (difference {lower} to {upper}): "
                "training has made the pretrained model worse on this corpus; add text like it to train, or set a "
                "smaller training.learning_rate or training.epochs"
            )


def _sentence(metric: Metric, entry: Mapping[str, Any]) -> str:
    earlier = [
        f"{metric.text(entry[key][metric.name])} {of}"
        for key, of in (("last_blessed", "of the last blessed model"), ("base_model", "of the base model"))
        if key in entry
    ]
    numbers = " against ".join([metric.text(entry["model"][metric.name]), *earlier])
    return f"{metric.name} on {entry['num_examples']:,} {entry['name']} test rows: {numbers}"


def _base_metrics(
    task: Task, evaluated: Evaluated, rows: Sequence[Row], base_model: BaseModel
) -> dict[str, float] | None:
    """Returns the metrics of the base model on some rows; None if it has no SavedModel or another task."""
    folder = os.path.join(os.path.dirname(base_model.keras_folder), "Format-Serving")
    if not os.path.isdir(folder):
        return None
    try:
        with SavedModelRuntime(folder) as model:
            # A model of another task has no such signature, or one with other outputs.
            if task.judged not in model.signatures or query(model, task, rows[:1]).keys() != evaluated.answers.keys():
                return None
            answers = query(model, task, rows)
    except (ValueError, TensorFlowError) as error:
        note(f"Evaluator: warning: the base model in {folder} cannot be queried: {error}")
        return None
    return task.measure(answers, rows, evaluated.report["lowercase"]).metrics
