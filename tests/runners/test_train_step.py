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
# Name of a training -> its processes, and changes to the model.
TRAININGS = {
    "one process": (1, {"dropout": 0.0}, {}),
    "two processes": (2, {"dropout": 0.0}, {}),
    "three processes": (3, {"dropout": 0.0}, {}),
    "parts": (2, {"dropout": 0.0}, {"batch_parts": 3}),
    "bfloat16": (2, {"dropout": 0.0}, {"gradient_dtype": "bfloat16"}),
    "dropout": (2, {"dropout": 0.3}, {}),
}


@pytest.fixture(scope="module")
def results():
    """Name of a training -> the results of its processes."""
    trainings = [
        {"processes": number, "ports": [free_port() for _ in range(number)], "model": model, "attributes": attributes}
        for number, model, attributes in TRAININGS.values()
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(STEPS), json.dumps(trainings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {name: [next(lines) for _ in range(number)] for name, (number, *_) in TRAININGS.items()}


@pytest.mark.parametrize("name", ["two processes", "three processes", "parts"])
def test_the_losses_are_those_of_one_process(results, name):
    """Batches have 7, 1, 2, 3 and 5 rows, so shares are unequal, and some are empty."""
    np.testing.assert_allclose(results[name][0]["losses"], results["one process"][0]["losses"], rtol=1e-3)
    first = slice(0, 20)  # later, differences of rounding have grown
    np.testing.assert_allclose(results[name][0]["losses"][first], results["one process"][0]["losses"][first], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, (number, *_) in TRAININGS.items() if number > 1])
def test_all_processes_have_the_same_losses_and_weights_bit_for_bit(results, name):
    first, *others = results[name]
    assert others == [first] * len(others)


def test_gradients_may_be_sent_in_bfloat16(results):
    losses, expected = results["bfloat16"][0]["losses"], results["one process"][0]["losses"]
    assert losses != expected
    np.testing.assert_allclose(np.mean(losses[-50:]), np.mean(expected[-50:]), rtol=0.02)
