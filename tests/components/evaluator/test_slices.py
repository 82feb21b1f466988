"""Slices: every row is in exactly one slice of each kind."""

import numpy as np
import pytest

from seq2serve.components.evaluator.slices import LENGTH, MAX_VALUES, OTHERS, slices
from seq2serve.components.tasks.classification.task import Classification
from seq2serve.components.tasks.registry import get_task

CLASSIFICATION = get_task("classification")


class AnotherTask(Classification):
    name = "another task"


def make_rows(texts, **columns):
    return [{"text": text, "label": "a", **{k: v[i] for k, v in columns.items()}} for i, text in enumerate(texts)]


def sizes(parts, by):
    return {part.name: len(part.rows) for part in parts if part.by == by}


def test_length_slices_end_at_powers_of_two():
    parts = slices(CLASSIFICATION, make_rows(["x" * n for n in (0, 1, 16, 17, 32, 33, 64, 2000)]), ())
    assert sizes(parts, LENGTH) == {
        "1 to 16 characters": 3,
        "17 to 32 characters": 2,
        "33 to 64 characters": 2,
        "1,025 to 2,048 characters": 1,
    }


def test_labels_and_slice_columns_have_a_slice_per_value_by_frequency():
    rows = make_rows(["x"] * 5, label=list("abbab"), domain=["news", "news", "law", "news", "law"])
    parts = slices(CLASSIFICATION, rows, ("domain",))
    assert list(sizes(parts, "label").items()) == [("b", 3), ("a", 2)]
    assert list(sizes(parts, "domain").items()) == [("news", 3), ("law", 2)]


@pytest.mark.parametrize("number", [MAX_VALUES + 1, MAX_VALUES + 2])
def test_rare_values_share_a_slice(number):
    values = [f"author {i}" for i in range(number) for _ in range(2 if i < MAX_VALUES else 1)]
    parts = slices(CLASSIFICATION, make_rows(["x"] * len(values), author=values), ("author",))
    by_author = sizes(parts, "author")
    assert sum(by_author.values()) == len(values)
    assert by_author.get(OTHERS) == (None if number == MAX_VALUES + 1 else 2)


def test_a_column_with_one_value_has_no_slices():
    assert not sizes(slices(CLASSIFICATION, make_rows(["x"] * 3), ()), "label")


def test_every_row_is_in_one_slice_of_each_kind():
    rng = np.random.default_rng(1)
    rows = make_rows(["x" * n for n in rng.integers(1, 300, 100)], label=list(rng.choice(list("abc"), 100)))
    parts = slices(AnotherTask(), rows, ())
    kinds = {part.by for part in parts}
    assert len(kinds) == 2
    for by in kinds:
        members = np.concatenate([part.rows for part in parts if part.by == by])
        assert sorted(members) == list(range(100))
