"""Slices of a test set: rows of similar length, with the same label, or with the same value in a slice column."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from seq2serve.components.tasks.data import Row
from seq2serve.components.tasks.task import Task

MAX_VALUES = 20  # of a column; rows with rarer values share a slice
OTHERS = "(all others)"
EMPTY = "(empty)"  # rows without a value
LENGTH = "length"
ROWS, OLD, NEW = "rows", "old", "new"  # the rows that the last blessed model answered, and the others


@dataclasses.dataclass(frozen=True)
class Slice:
    """Rows with a common property.

    Args:
        by: the column that defines the slice, or LENGTH, or ROWS.
        name: the common value or range of lengths.
        rows: indices of the rows.
    """

    by: str
    name: str
    rows: np.ndarray


def slices(task: Task, rows: Sequence[Row], slice_columns: Sequence[str]) -> list[Slice]:
    """Slices a split by length, by label and by every slice column.

    Args:
        task: its first text column determines the length of a row.
        rows: rows of the split.
        slice_columns: columns that ExampleGen stored for slicing.
    Returns:
        Slices by length, then by each label column, then by each slice column. A column with a single value has none.
    """
    lengths = [_length_bucket(len(row[task.text_columns[0]])) for row in rows]
    parts = [_slice(LENGTH, name, lengths, (low, name)) for low, name in sorted(set(lengths))]
    for column in (*task.label_columns, *slice_columns):
        parts += _slices_by_value(column, [row[column] or EMPTY for row in rows])
    return parts


def old_and_new(num_rows: int, old: np.ndarray) -> list[Slice]:
    """Returns the slices of the rows that an earlier model answered, and of the others; none if one would be empty.

    Args:
        num_rows: number of all rows.
        old: indices of the rows that it answered.
    """
    new = np.setdiff1d(np.arange(num_rows), old)
    return [Slice(ROWS, OLD, old), Slice(ROWS, NEW, new)] if len(old) and len(new) else []


def _length_bucket(length: int) -> tuple[int, str]:
    """Returns the smallest length in a bucket and its name. Buckets end at powers of two for every test set."""
    upper = 16
    while upper < length:
        upper *= 2
    low = 1 if upper == 16 else upper // 2 + 1
    return low, f"{low:,} to {upper:,} characters"


def _slices_by_value(column: str, values: list[str]) -> list[Slice]:
    counts = collections.Counter(values)
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    if len(ranked) < 2:
        return []
    shown = set(ranked if len(ranked) <= MAX_VALUES + 1 else ranked[:MAX_VALUES])
    names = [value if value in shown else OTHERS for value in values]
    order = [value for value in ranked if value in shown] + ([OTHERS] if len(shown) < len(ranked) else [])
    return [_slice(column, name, names, name) for name in order]


def _slice(by: str, name: str, row_keys: Sequence, key: object) -> Slice:
    return Slice(by, name, np.array([i for i, row_key in enumerate(row_keys) if row_key == key]))
