"""Slices: every row is in one slice of each kind, and their names say which."""

import dataclasses

import numpy as np
import pytest

from components.slices import LENGTH, MAX_VALUES, OTHERS, slices
from components.tasks import get_task

CLASSIFICATION = get_task("classification")


def rows(texts, **columns):
    return [{"text": text, "label": "a", **{k: v[i] for k, v in columns.items()}} for i, text in enumerate(texts)]


def sizes(found, by):
    return {part.name: len(part.rows) for part in found if part.by == by}


def test_lengths_are_told_apart_by_doublings():
    found = slices(CLASSIFICATION, rows(["x" * n for n in (0, 1, 16, 17, 32, 33, 64, 2000)]), ())
    assert sizes(found, LENGTH) == {
        "1 to 16 characters": 3,
        "17 to 32 characters": 2,
        "33 to 64 characters": 2,
        "1,025 to 2,048 characters": 1,
    }


def test_labels_and_kept_columns_are_told_apart_by_value_the_commonest_first():
    given = rows(["x"] * 5, label=list("abbab"), domain=["news", "news", "law", "news", "law"])
    found = slices(CLASSIFICATION, given, ("domain",))
    assert list(sizes(found, "label").items()) == [("b", 3), ("a", 2)]
    assert list(sizes(found, "domain").items()) == [("news", 3), ("law", 2)]


@pytest.mark.parametrize("number", [MAX_VALUES + 1, MAX_VALUES + 2])
def test_rare_values_are_a_slice_together(number):
    values = [f"author {i}" for i in range(number) for _ in range(2 if i < MAX_VALUES else 1)]
    found = sizes(slices(CLASSIFICATION, rows(["x"] * len(values), author=values), ("author",)), "author")
    assert sum(found.values()) == len(values)
    assert found.get(OTHERS) == (None if number == MAX_VALUES + 1 else 2)


def test_a_column_with_one_value_tells_nothing_apart():
    assert not sizes(slices(CLASSIFICATION, rows(["x"] * 3), ()), "label")


def test_every_row_is_in_one_slice_of_each_kind():
    rng = np.random.default_rng(1)
    given = rows(["x" * n for n in rng.integers(1, 300, 100)], label=list(rng.choice(list("abc"), 100)))
    found = slices(dataclasses.replace(CLASSIFICATION, name="mine"), given, ())
    kinds = {part.by for part in found}
    assert len(kinds) == 2
    for by in kinds:
        members = np.concatenate([part.rows for part in found if part.by == by])
        assert sorted(members) == list(range(100))
