"""Warnings about texts beyond the length limit: how many, where, and what to do."""

import pytest

from seq2serve.components.transform.lengths import length_warnings

LENGTHS = {"source": {"p99": 90, "max": 310}, "target": {"p99": 40, "max": 120}}


def properties(num_examples, num_long, num_dropped=0):
    return {
        "num_examples": {"train": num_examples, "eval": 0, "test": 0},
        "num_long": num_long,
        "num_dropped": num_dropped,
        "max_length": 64,
        "token_lengths": LENGTHS,
    }


def test_texts_within_the_limit_give_no_warning():
    assert length_warnings(properties(100, {"source": 0, "target": 0})) == []
    assert length_warnings({"num_examples": {}}) == []  # of an earlier version


def test_dropped_rows_are_one_warning_with_share_columns_and_what_to_do():
    (warning,) = length_warnings(properties(581, {"source": 5000, "target": 5400}, num_dropped=5419))
    assert warning.text == (
        "5,419 of 6,000 rows (90.3 %) were dropped, because a text has more than data.max_length=64 tokens: 5,000 in "
        "source, 5,400 in target. The served model cuts its input there, too. Raise data.max_length to keep more: 310 "
        "keeps all, 90 keeps 99 %"
    )
    assert warning.is_large


@pytest.mark.parametrize(("number", "is_large"), [(5, False), (6, True)])
def test_cut_texts_are_a_warning_per_column_and_more_than_5_percent_are_large(number, is_large):
    (warning,) = length_warnings(properties(100, {"source": 0, "target": number}))
    assert warning.text.startswith(f"{number} of 100 texts in target ({number}.0 %) were cut after data.max_length=64")
    assert warning.is_large == is_large
