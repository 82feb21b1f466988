"""The training step in several processes makes the update of one process with the whole batch."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from seq2serve.components.infra_validator.client import free_port

pytestmark = pytest.mark.runners
PROGRAM = pathlib.Path(__file__).with_name("train_steps.py")
STEPS = 200
EXACT = {"dropout": 0.0}
# Name of a training -> its processes, its optimizer, and changes to the model's config and to the model.
TRAININGS = {
    "one process": (1, "adam", EXACT, {}),
    "two processes": (2, "adam", EXACT, {}),
    "three processes": (3, "adam", EXACT, {}),
    "parts": (2, "adam", EXACT, {"batch_parts": 3}),
    "bfloat16": (2, "adam", EXACT, {"gradient_dtype": "bfloat16"}),
    "dropout": (2, "adam", {"dropout": 0.3}, {}),
    "muon, one process": (1, "muon", EXACT, {}),
    "muon, two processes": (2, "muon", EXACT, {}),
}


@pytest.fixture(scope="module")
def results():
    """Name of a training -> the results of its processes."""
    keys = ("processes", "optimizer", "model", "attributes")
    trainings = [
        {**dict(zip(keys, values, strict=True)), "ports": [free_port() for _ in range(values[0])]}
        for values in TRAININGS.values()
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(STEPS), json.dumps(trainings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {name: [next(lines) for _ in range(number)] for name, (number, *_) in TRAININGS.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, "one process") for name in ("two processes", "three processes", "parts")),
        ("muon, two processes", "muon, one process"),
    ],
)
def test_the_losses_are_those_of_one_process(results, name, expected):
    """Batches have 7, 1, 2, 3 and 5 rows, so shares are unequal, and some are empty."""
    losses, expected = results[name][0]["losses"], results[expected][0]["losses"]
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    np.testing.assert_allclose(losses[:20], expected[:20], rtol=1e-6)  # later, differences of rounding have grown


@pytest.mark.parametrize("name", [name for name, (number, *_) in TRAININGS.items() if number > 1])
def test_all_processes_have_the_same_losses_and_weights_bit_for_bit(results, name):
    first, *others = results[name]
    assert others == [first] * len(others)


def test_gradients_may_be_sent_in_bfloat16(results):
    losses, expected = results["bfloat16"][0]["losses"], results["one process"][0]["losses"]
    assert losses != expected
    np.testing.assert_allclose(np.mean(losses[-50:]), np.mean(expected[-50:]), rtol=0.02)
