"""Training in several processes: Keras's `fit` doesn't support MultiWorkerMirroredStrategy yet.

Two processes on this machine find each other by TF_CONFIG. When this test passes, the Trainer can support the strategy.
"""

import json
import os
import subprocess
import sys

import pytest

from seq2serve.components.infra_validator.client import free_port

pytestmark = pytest.mark.runners
PROGRAM = """
import keras
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
data = tf.data.Dataset.from_tensor_slices((tf.ones((64, 4)), tf.ones((64, 1)))).batch(16)
model.fit(data, verbose=0)
"""


KNOWN = "Keras issue 20585: the first batch is a PerReplica, not a tensor"


@pytest.mark.xfail(reason=KNOWN, raises=pytest.fail.Exception, strict=True)
def test_fit_works_in_two_processes():
    workers = [f"localhost:{free_port()}", f"localhost:{free_port()}"]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-c", PROGRAM]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=120)[1] for process in processes]
    if any(process.returncode for process in processes):
        assert "PerReplica" in errors[0] + errors[1], "it failed for another reason than the known one"
        pytest.fail(errors[0])
