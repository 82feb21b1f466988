"""Fixtures for tests of exported models: difficult texts, and comparison of results."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

HOSTILE = [
    "",
    " \t ",
    "a\0b",
    b"\xff\xfe",
    "e\u0301 \U0001f469\u200d\U0001f467 \ufb01",
    "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0627\u0644\u0645",  # right to left
    "</s> <pad> <s> <unk> \u2581",  # control pieces as plain text
    "grün 日本語 \ufeff",
    "word " * 20_000,
]


@pytest.fixture(scope="session")
def hostile_texts() -> list[str | bytes]:
    """Texts that have broken servers: empty, NUL, invalid UTF-8, emoji, right to left, control pieces, very long."""
    return HOSTILE


@pytest.fixture(scope="session")
def assert_same_answers() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Returns a function that compares two results row by row; extra columns of the longer one are padding."""

    def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
        for name, array in actual.items():
            other = np.asarray(expected[name])
            assert len(array) == len(other)
            common = tuple(slice(min(sizes)) for sizes in zip(array.shape, other.shape, strict=True))
            if array.dtype == object:
                assert array[common].tolist() == other[common].tolist(), name
            else:
                np.testing.assert_allclose(array[common], other[common], rtol=1e-3, atol=1e-4, err_msg=name)

    return assert_same


@pytest.fixture(scope="session")
def ask_every_way(assert_same_answers) -> Callable[..., None]:
    """Returns a function that checks a signature in the C++ runtime.

    Results must be the same as in Python, for single rows and for a padded batch. A batch of 0 rows and one of 1,000
    rows must work. Strings must be valid UTF-8.
    """

    def check(runtime, server, signature: str, inputs: dict[str, list]) -> None:
        def run(rows):
            return runtime.run(signature, {name: [values[row] for row in rows] for name, values in inputs.items()})

        size = len(next(iter(inputs.values())))
        batched, python = run(range(size)), getattr(server, signature)
        tensors = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in python.input_signature}
        assert_same_answers(batched, {name: value.numpy() for name, value in python(**tensors).items()})
        padded = run([*range(size), *[0] * 5])
        assert_same_answers({name: array[:size] for name, array in padded.items()}, batched)
        for row in range(size):
            assert_same_answers(run([row]), {name: array[row : row + 1] for name, array in batched.items()})
        all_but_last = [row for row in range(size) if row != size - 1]  # the last text is long
        for rows in ([], (all_but_last * 1000)[:1000]):
            assert {len(array) for array in run(rows).values()} == {len(rows)}
        for array in batched.values():
            for text in array.flat if array.dtype == object else ():
                text.decode()

    return check
