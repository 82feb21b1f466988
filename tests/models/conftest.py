"""What tests of exported models share: texts that have broken servers before, and how answers are compared.

Comes in: nothing. Goes out: fixtures. Read next: test_export_translation.py.
"""

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
    "</s> <pad> <s> <unk> \u2581",  # control pieces, written out
    "grün 日本語 \ufeff",
    "word " * 20_000,
]


@pytest.fixture(scope="session")
def hostile_texts():
    """Nothing, a NUL, bytes that are no UTF-8, emoji, right to left, control pieces, 100,000 characters."""
    return HOSTILE


@pytest.fixture(scope="session")
def assert_same_answers():
    """Returns a function that compares answers, row by row; what is longer in one of them is padding."""

    def assert_same(answer, expected):
        for name, array in answer.items():
            other = np.asarray(expected[name])
            assert len(array) == len(other)
            common = tuple(slice(min(sizes)) for sizes in zip(array.shape, other.shape, strict=True))
            if array.dtype == object:
                assert array[common].tolist() == other[common].tolist(), name
            else:
                np.testing.assert_allclose(array[common], other[common], rtol=1e-3, atol=1e-4, err_msg=name)

    return assert_same


@pytest.fixture(scope="session")
def ask_every_way(assert_same_answers):
    """Returns a function that holds a signature's answers in the C++ runtime against those in Python, one by one and
    padded against batched, and asks for an empty batch and for 1,000 rows.
    """

    def ask(runtime, server, signature, inputs):
        def run(rows):
            return runtime.run(signature, {name: [values[row] for row in rows] for name, values in inputs.items()})

        size = len(next(iter(inputs.values())))
        together, python = run(range(size)), getattr(server, signature)
        tensors = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in python.input_signature}
        assert_same_answers(together, {name: value.numpy() for name, value in python(**tensors).items()})
        padded = run([*range(size), *[0] * 5])
        assert_same_answers({name: array[:size] for name, array in padded.items()}, together)
        for row in range(size):
            assert_same_answers(run([row]), {name: array[row : row + 1] for name, array in together.items()})
        short = [row for row in range(size) if row != size - 1]
        for rows in ([], (short * 1000)[:1000]):
            assert {len(array) for array in run(rows).values()} == {len(rows)}
        for array in together.values():
            for text in array.flat if array.dtype == object else ():
                text.decode()

    return ask
