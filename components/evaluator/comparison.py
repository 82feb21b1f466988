"""Comparison with the last blessed model, on the test rows that both models answered."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence

import numpy as np

from seq2serve.components.base.artifact import BEFORE, Model, ModelEvaluation
from seq2serve.components.base.component import Earlier
from seq2serve.components.evaluator.slices import Slice
from seq2serve.components.tasks.bootstrap import Comparison, SufficientStatistics, compare
from seq2serve.components.tasks.data import Answers, Row
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.task import Task

MIN_COMMON_ROWS = 30
MIN_COMMON_SHARE = 0.5  # of the smaller test set; with less in common, the models were made for different data


@dataclasses.dataclass(frozen=True)
class BlessedModel:
    """The answers of an earlier, blessed model to rows of this test set.

    Args:
        evaluation: number of the execution of its ModelEvaluation.
        rows: indices of the rows that both models answered.
        statistics: sufficient statistics of its answers to these rows.
        lowercase: whether both models are measured without regard to case, because the new one writes lower case only.
    """

    evaluation: int
    rows: np.ndarray
    statistics: SufficientStatistics
    lowercase: bool


def stored_answers(task: Task, answers: Answers) -> Answers:
    """Returns the outputs to store: the task's answer or, if the judged signature has none, all outputs."""
    return {task.output: answers[task.output]} if task.output in answers else answers


def prediction_lines(
    task: Task, answers: Answers, rows: Sequence[Row], before: Answers | None = None
) -> Iterator[dict]:
    """Yields the objects of predictions.jsonl, which `read_predictions` reads.

    Args:
        task: of the model.
        answers: of the model to the rows.
        rows: their columns.
        before: the answers of a pretrained model before training; None if there is none.
    """
    stored = stored_answers(task, answers)
    names = {name: "prediction" if name == task.output else name for name in stored}
    for i, row in enumerate(rows):
        earlier = {BEFORE: before[task.output][i]} if before and task.output in before else {}
        yield {**row, **{names[name]: values[i] for name, values in stored.items()}, **earlier}


def last_blessed(
    task: Task, model: Model, rows: Sequence[Row], earlier: Sequence[Earlier[ModelEvaluation]]
) -> BlessedModel | None:
    """Finds the last blessed model that answered the same rows (TFX: LatestBlessedModelStrategy).

    It may be newer than the model: if an old model is evaluated again, it is compared with the models that were blessed
    since.

    Args:
        task: task of both models.
        model: the model to evaluate.
        rows: the test rows that it answered.
        earlier: the evaluations of blessed models, newest first.
    Returns:
        None if no blessed model answered enough of these rows.
    """
    lowercase = model.properties.get("lowercase", False)
    for candidate in earlier:
        evaluation = candidate.read()
        if evaluation and (common := _common_rows(task, evaluation.uri, rows, lowercase)):
            return BlessedModel(candidate.execution, *common, lowercase)
    return None


def compare_with(
    task: Task, metric: Metric, answers: Answers, rows: Sequence[Row], blessed: BlessedModel
) -> Comparison:
    """Compares a model with the last blessed one by a metric, on the rows that both answered."""
    stored = stored_answers(task, answers)
    selected = {name: [values[i] for i in blessed.rows] for name, values in stored.items()}
    ours = task.statistics(selected, [rows[i] for i in blessed.rows], blessed.lowercase)
    return compare(ours, blessed.statistics, metric)


def blessed_by_slice(metric: Metric, blessed: BlessedModel, slices: Sequence[Slice]) -> list[float | None]:
    """Returns a metric of the blessed model on its rows in each slice; None for a slice without any."""
    values: list[float | None] = []
    for part in slices:
        common = np.flatnonzero(np.isin(blessed.rows, part.rows))
        values.append(blessed.statistics.take(common).score(metric) if len(common) else None)
    return values


def read_predictions(task: Task, evaluation: str) -> dict[tuple[str, ...], dict]:
    """Reads the predictions of a ModelEvaluation.

    Args:
        task: task of the model.
        evaluation: folder of the ModelEvaluation.
    Returns:
        The values of a row's columns -> the line of predictions.jsonl; empty if the predictions are of another task.
    """
    with open(os.path.join(evaluation, "metrics.json"), encoding="utf-8") as file:
        metrics = json.load(file)["model"]
    with open(os.path.join(evaluation, "predictions.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    # The columns are not sufficient: a classifier's rows have all the columns of a language model's rows.
    is_same_task = task.metrics[0].name in metrics and lines and set(task.columns) <= set(lines[0])
    return {_key(task, line): line for line in lines} if is_same_task else {}


def answers_of(task: Task, lines: Sequence[dict]) -> Answers:
    """Returns the answers in lines of predictions.jsonl, in the form that a task's `statistics` takes."""
    if "prediction" in lines[0]:
        return {task.output: [line["prediction"] for line in lines]}
    return {name: [line[name] for line in lines] for name in lines[0] if name not in task.columns}


def _common_rows(
    task: Task, evaluation: str, rows: Sequence[Row], lowercase: bool
) -> tuple[np.ndarray, SufficientStatistics] | None:
    """Returns the indices of the rows that an earlier evaluation contains, and the statistics of its answers to them.

    Returns None if they are too few to compare the models.
    """
    predictions = read_predictions(task, evaluation)
    common = [i for i, row in enumerate(rows) if _key(task, row) in predictions]
    if len(common) < max(MIN_COMMON_ROWS, MIN_COMMON_SHARE * min(len(rows), len(predictions))):
        return None
    lines = [predictions[_key(task, rows[i])] for i in common]
    return np.array(common), task.statistics(answers_of(task, lines), lines, lowercase)


def _key(task: Task, row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in task.columns)
