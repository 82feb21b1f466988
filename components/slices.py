"""Slices of a test set: rows of like length, of one label, of one value of a column that was kept for this.

Comes in: the rows of a split. Goes out: named groups of their numbers.
Read next: evaluator.py, which measures each.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from components.task import Row, Task

MAX_VALUES = 20  # of a column; rows with rarer values are a slice together
OTHERS = "(all others)"
LENGTH = "length"


@dataclasses.dataclass(frozen=True)
class Slice:
    """Rows that have something in common.

    Args:
        by: the column that tells it, or LENGTH.
        name: what they have in common.
        rows: their numbers.
    """

    by: str
    name: str
    rows: np.ndarray


def slices(task: Task, rows: Sequence[Row], kept: Sequence[str]) -> list[Slice]:
    """Cuts a split into slices, in every way there is.

    Args:
        task: says which column is the text, by whose length rows are told apart, and which are labels.
        rows: of the split.
        kept: columns that were kept for slicing.
    Returns:
        Slices by length, then by every label column, then by every kept column; of a column with only one value none.
    """
    names = [_length_name(len(row[task.text_columns[0]])) for row in rows]
    shortest_first = sorted(set(names))
    found = [_slice(LENGTH, label, names, (low, label)) for low, label in shortest_first]
    for column in (*task.label_columns, *kept):
        found += _by_value(column, [row[column] for row in rows])
    return found


def _length_name(length: int) -> tuple[int, str]:
    """Returns the smallest length of a bucket and its name; buckets end at powers of two, whatever the test set."""
    upper = 16
    while upper < length:
        upper *= 2
    low = 1 if upper == 16 else upper // 2 + 1
    return low, f"{low:,} to {upper:,} characters"


def _by_value(column: str, values: list[str]) -> list[Slice]:
    counts = collections.Counter(values)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    if len(ranked) < 2:
        return []
    shown = set(ranked if len(ranked) <= MAX_VALUES + 1 else ranked[:MAX_VALUES])
    names = [value if value in shown else OTHERS for value in values]
    order = [value for value in ranked if value in shown] + ([OTHERS] if len(shown) < len(ranked) else [])
    return [_slice(column, name, names, name) for name in order]


def _slice(by: str, name: str, keys: Sequence, key: object) -> Slice:
    return Slice(by, name, np.array([i for i, other in enumerate(keys) if other == key]))
