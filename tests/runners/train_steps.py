"""Trains a tiny Transformer in several processes of this machine, which find each other by TF_CONFIG.

The arguments are a number of steps and a JSON list of trainings {"processes", "ports", "optimizer", "model",
"attributes"}. For each process of each training, a line of JSON has its losses and the SHA-256 of its final weights.
All processes are forked from this one, which has imported TensorFlow.
"""

import hashlib
import itertools
import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

from seq2serve.models.config import ModelConfig, TrainingConfig
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.training.optimizer import make_optimizer
from seq2serve.models.training.replicas import shared_batches
from seq2serve.models.transformer.models import Transformer

VOCAB_SIZE = 20
ROWS = (7, 1, 2, 3, 5)  # of the batches: with three processes, a batch of one row leaves two of them without any


def batches():
    """Yields endless batches of copied rows; rows of a batch differ in length, so shares differ in tokens."""
    rng = np.random.default_rng(0)
    for rows in itertools.cycle(ROWS):
        width = rng.integers(3, 9)
        lengths = rng.integers(1, width + 1, (rows, 1))
        ids = np.where(np.arange(width) < lengths, rng.integers(4, VOCAB_SIZE, (rows, width)), 0).astype(np.int32)
        yield {"source": ids, "target": np.pad(ids[:, :-1], [(0, 0), (1, 0)], constant_values=2)}, ids


def train(training: dict, steps: int) -> dict:
    """Trains in this process, as one replica of the training."""
    strategy = tf.distribute.get_strategy()
    if training["processes"] > 1:  # before anything else of TensorFlow runs
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32}
        model = Transformer(ModelConfig(**sizes, **training["model"]), VOCAB_SIZE)
        model.build()
        changes = {"average_decay": 0.9, "clip_norm": 0.5, "optimizer": training["optimizer"]}
        config = TrainingConfig(warmup_steps=20, learning_rate=0.01, **changes)
        model.compile(make_optimizer(config), MaskedCrossEntropy(0.1), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    for name, value in training["attributes"].items():
        setattr(model, name, value)
    ids = tf.TensorSpec([None, None], tf.int32)
    data = tf.data.Dataset.from_generator(batches, output_signature=({"source": ids, "target": ids}, ids)).prefetch(8)
    losses = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: losses.append(float(logs["loss"])))
    model.fit(shared_batches(data, strategy), steps_per_epoch=steps, callbacks=[record], verbose=0)
    weights = b"".join(variable.numpy().tobytes() for variable in model.variables)
    return {"losses": losses, "weights": hashlib.sha256(weights).hexdigest()}


def fork(training: dict, index: int, steps: int) -> int:
    """Trains in a forked process, which prints its line; returns its number."""
    if process := os.fork():
        return process
    workers = [f"127.0.0.1:{port}" for port in training["ports"]]
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    os.write(1, (json.dumps(train(training, steps)) + "\n").encode())
    os._exit(0)


if __name__ == "__main__":
    for training in json.loads(sys.argv[2]):
        processes = [fork(training, index, int(sys.argv[1])) for index in range(training["processes"])]
        states = [os.waitpid(process, 0)[1] for process in processes]
        if any(states):
            sys.exit(f"{training} failed")
