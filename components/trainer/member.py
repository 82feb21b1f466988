"""The training process of one of several machines: the chief's trains, evaluates and saves, the others follow it."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.trainer.agreement import Agreement, Exchange, share_state
from seq2serve.components.trainer.callbacks import steps_done
from seq2serve.components.trainer.job import TrainingJob
from seq2serve.components.trainer.preparation import prepare
from seq2serve.components.trainer.session import TrainingSession
from seq2serve.models.training.replicas import shared_batches


def main(inputs: Mapping[str, Artifact], arguments: Mapping[str, Any], report: Callable[..., None]) -> None:
    """Trains to the end; the last checkpoint is then in the chief's scratch folder.

    Args:
        inputs: `transformed_examples` and `tokenizer`, as this machine reaches them.
        arguments: see TrainingJob.
        report: see component.Machines.
    Raises:
        UserError: the loss is NaN or diverges.
        Seq2ServeError: the weights of two machines differ.
        KeyboardInterrupt: on the chief, after Ctrl-C, once a checkpoint is saved.
    """
    report(devices=len(tf.config.list_physical_devices("GPU")))
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow runs
    exchange = Exchange(strategy)
    exchange.from_all(0)
    report(joined=True)
    job = TrainingJob.from_arguments(arguments)
    base_model = job.base_model if exchange.is_chief else None
    training = prepare(
        inputs["transformed_examples"],
        inputs["tokenizer"],
        job.task,
        job.recipe,
        base_model,
        job.corpus_weights,
        strategy,
    )
    network = training.network
    names = json.loads(os.environ["TF_CONFIG"])["names"]
    agreement = Agreement(exchange, training.total_steps, job.recipe.training.checkpoint_steps, names)
    if exchange.is_chief:
        session = TrainingSession(training, job.scratch, job.continued)
        share_state(network, exchange)
        session.train(followers=[agreement])
    else:
        share_state(network, exchange)
        batches = shared_batches(training.data.train_batches(steps_done(network.optimizer)), strategy)
        network.fit(batches, callbacks=[agreement], verbose=0)
