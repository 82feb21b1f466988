"""Which model to beat: the last one that was blessed, by what it answered to the test rows that both were asked.

Comes in: the Model that is judged, its answers. Goes out: a Comparison with the last blessed model of the same rows.
Read next: evaluator.py, which blesses by it; bootstrap.py for the statistics.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence

import numpy as np

from components.artifact import Model, ModelBlessing
from components.bootstrap import Comparison, Tally, compare
from components.slices import Slice
from components.task import Answers, Row, Task

MIN_COMMON_ROWS = 30
MIN_COMMON_SHARE = 0.5  # of the smaller test set; else it is a model of other data


@dataclasses.dataclass(frozen=True)
class Blessed:
    """What an earlier, blessed model answered to rows of this test set.

    Args:
        evaluation: number of its ModelEvaluation.
        rows: numbers of the rows that both models were asked.
        tally: of its answers to them.
    """

    evaluation: int
    rows: np.ndarray
    tally: Tally


def kept_answers(task: Task, answers: Answers) -> Answers:
    """Returns what is kept of a model's answers: the answer itself, or where there is none all that was measured."""
    return {task.output: answers[task.output]} if task.output in answers else answers


def prediction_lines(task: Task, answers: Answers, rows: Sequence[Row]) -> Iterator[dict]:
    """Yields the objects of predictions.jsonl; `last_blessed` reads them."""
    kept = kept_answers(task, answers)
    names = {name: "prediction" if name == task.output else name for name in kept}
    for i, row in enumerate(rows):
        yield {**row, **{names[name]: values[i] for name, values in kept.items()}}


def last_blessed(task: Task, model: Model, rows: Sequence[Row], blessing: ModelBlessing) -> Blessed | None:
    """Finds the last blessed model that was asked the same (TFX: LatestBlessedModelStrategy).

    It looks beside the Model for what an Evaluator has published before this execution of it began. Not for what is
    older than the model: one that is taken up again stands beside those that were blessed since.

    Args:
        task: of both models.
        model: the one that is judged, where the runner published it.
        rows: that it was asked.
        blessing: the one to be given, where the runner staged it: in a folder of the execution's number.
    Returns:
        None where no blessed model was asked enough of these rows.
    """
    root = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(model.uri))), "Evaluator")
    number = os.path.basename(os.path.dirname(blessing.uri))
    if not number.isdecimal() or not os.path.isdir(os.path.join(root, "blessing")):
        return None
    earlier = [int(name) for name in os.listdir(os.path.join(root, "blessing")) if name.isdecimal()]
    for evaluation in sorted((n for n in earlier if n < int(number)), reverse=True):
        if os.path.isfile(os.path.join(root, "blessing", str(evaluation), "BLESSED")):
            found = _in_common(task, os.path.join(root, "evaluation", str(evaluation)), rows)
            if found:
                return Blessed(evaluation, *found)
    return None


def compare_with(task: Task, answers: Answers, rows: Sequence[Row], blessed: Blessed) -> Comparison:
    """Compares a model with the last blessed one, in the task's headline, on the rows that both were asked."""
    ours = _tally(task, kept_answers(task, answers), rows, blessed.rows)
    return compare(ours, blessed.tally, task.headline, task.higher_is_better)


def blessed_by_slice(task: Task, blessed: Blessed, slices: Sequence[Slice]) -> list[float | None]:
    """Returns the last blessed model's headline on what it was asked of each slice; None where that is nothing."""
    values: list[float | None] = []
    for one in slices:
        common = np.flatnonzero(np.isin(blessed.rows, one.rows))
        values.append(blessed.tally.take(common).total()[task.headline] if len(common) else None)
    return values


def read_predictions(task: Task, evaluation: str) -> dict[tuple[str, ...], dict]:
    """Reads the predictions of a ModelEvaluation.

    Args:
        task: of its model.
        evaluation: its folder.
    Returns:
        The text of a row's columns -> the row with what was answered; empty if the rows are another task's.
    """
    with open(os.path.join(evaluation, "metrics.json"), encoding="utf-8") as file:
        measured = json.load(file)["model"]
    with open(os.path.join(evaluation, "predictions.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    # The columns alone do not tell: a classifier's rows have all that a language model's have.
    known = task.headline in measured and lines and set(task.columns) <= set(lines[0])
    return {_key(task, line): line for line in lines} if known else {}


def answers_of(task: Task, lines: Sequence[dict]) -> Answers:
    """Returns what was answered, of lines of predictions.jsonl, in the form that a task's `tally` takes."""
    if "prediction" in lines[0]:
        return {task.output: [line["prediction"] for line in lines]}
    return {name: [line[name] for line in lines] for name in lines[0] if name not in task.columns}


def _in_common(task: Task, evaluation: str, rows: Sequence[Row]) -> tuple[np.ndarray, Tally] | None:
    """Returns the numbers of the rows that an earlier evaluation has, too, and the Tally of its answers to them."""
    theirs = read_predictions(task, evaluation)
    common = [i for i, row in enumerate(rows) if _key(task, row) in theirs]
    if len(common) < max(MIN_COMMON_ROWS, MIN_COMMON_SHARE * min(len(rows), len(theirs))):
        return None
    lines = [theirs[_key(task, rows[i])] for i in common]
    return np.array(common), task.tally(answers_of(task, lines), lines)


def _tally(task: Task, answers: Answers, rows: Sequence[Row], chosen: np.ndarray) -> Tally:
    taken = {name: [values[i] for i in chosen] for name, values in answers.items()}
    return task.tally(taken, [rows[i] for i in chosen])


def _key(task: Task, row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in task.columns)
