"""Trains repeatedly, each time in a new process. It is forked from this one, which has imported the slow libraries.

The argument is a JSON list of trainings. For each, a line of JSON has the exit code and stderr.
"""

import json
import os
import signal
import sys

import tensorflow as tf

import seq2serve.components.trainer.executor  # noqa: F401  # slow; otherwise each forked process would import it
from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.component import Context
from seq2serve.components.tasks.translation.implementation import TranslationImplementation
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.components.trainer import callbacks as trainer_callbacks
from seq2serve.components.trainer.component import Trainer
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig

check_loss = trainer_callbacks.DivergenceGuard.on_train_batch_end
update_bar = trainer_callbacks.ProgressBar.on_train_batch_end


class Implementation(TranslationImplementation):
    def export(self, *_):
        pass


class NotExported(Translation):
    """Translation without the export, which is slow."""

    def implementation(self):
        return Implementation(self)


def schedule_signals(training: dict) -> None:
    """Sends this process SIGINT between the callbacks of a step, or SIGKILL after the last, as the training states."""

    def is_due(callback, event: str) -> bool:
        return trainer_callbacks.steps_done(callback.model.optimizer) == training.get(event)

    def check_loss_and_interrupt(self, batch, logs=None) -> None:
        check_loss(self, batch, logs)
        if is_due(self, "interrupted_after"):
            os.kill(os.getpid(), signal.SIGINT)

    def update_bar_and_kill(self, batch, logs=None) -> None:
        update_bar(self, batch, logs)
        if is_due(self, "killed_after"):
            os.kill(os.getpid(), signal.SIGKILL)

    trainer_callbacks.DivergenceGuard.on_train_batch_end = check_loss_and_interrupt
    trainer_callbacks.ProgressBar.on_train_batch_end = update_bar_and_kill


def split_cpu(number: int) -> None:
    """Splits the CPU into several logical devices."""
    devices = [tf.config.LogicalDeviceConfiguration()] * number
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)


def run(training: dict) -> None:
    """Trains in this process."""
    schedule_signals(training)
    if "devices" in training:
        split_cpu(training["devices"])
    sections = training["recipe"]
    recipe = Recipe(
        ModelConfig(**sections["model"]), TrainingConfig(**sections["training"]), DecodingConfig(**sections["decoding"])
    )
    with interrupt.listening():
        Trainer.function(
            **{key: Artifact(**artifact) for key, artifact in training["artifacts"].items()},
            task=NotExported(),
            recipe=recipe,
            context=Context(scratch=training["scratch"]),
        )


def fork(training: dict) -> tuple[int, str]:
    """Trains in a forked process; returns its exit code and stderr."""
    reader, writer = os.pipe()
    if not (process := os.fork()):
        os.dup2(writer, 2)
        try:
            run(training)
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        stderr = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), stderr


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for training in json.loads(sys.argv[1]):
        print(json.dumps(fork(training)), flush=True)
