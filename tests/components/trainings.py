"""Trains again and again, each time in a process forked from this one, which has imported what takes long.

Comes in: a list of trainings as JSON, each to be killed or interrupted after a step, or to have so many devices.
Goes out: for each a line of JSON: how its process ended and what it said. Read next: test_trainer.py.
"""

import dataclasses
import json
import os
import signal
import sys

# Beside what this uses, what the Trainer would import only when it runs.
import models.tokenizer
import models.transformer  # noqa: F401
from components import interrupt, trainer, trainer_callbacks, trainer_tensorboard  # noqa: F401
from components.artifact import Artifact
from components.component import Context
from components.tasks import TASKS, TRANSLATION
from models.config import DecodingConfig, ModelConfig, TrainingConfig

watch = trainer_callbacks.Watch.on_train_batch_end
move_bar = trainer_callbacks.ProgressBar.on_train_batch_end


def end_after(training: dict) -> None:
    """Lets this process be interrupted in the midst of a step's callbacks, or killed at their end."""

    def done(callback, event: str) -> bool:
        return trainer_callbacks.steps_done(callback.model.optimizer) == training.get(event)

    def watch_and_be_interrupted(self, batch, logs=None) -> None:
        watch(self, batch, logs)
        if done(self, "interrupted_after"):
            os.kill(os.getpid(), signal.SIGINT)

    def move_bar_and_die(self, batch, logs=None) -> None:
        move_bar(self, batch, logs)
        if done(self, "killed_after"):
            os.kill(os.getpid(), signal.SIGKILL)

    trainer_callbacks.Watch.on_train_batch_end = watch_and_be_interrupted
    trainer_callbacks.ProgressBar.on_train_batch_end = move_bar_and_die


def have_devices(number: int) -> None:
    """Makes so many devices of the processor."""
    import tensorflow as tf

    devices = [tf.config.LogicalDeviceConfiguration()] * number
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)


def run(training: dict) -> None:
    """Trains in this process."""
    end_after(training)
    if "devices" in training:
        have_devices(training["devices"])
    TASKS[training["task"]] = dataclasses.replace(TRANSLATION, export=lambda *_: None)
    sizes, learning, writing = (training["recipe"][part] for part in ("model", "training", "decoding"))
    with interrupt.listening():
        trainer.Trainer.function(
            **{key: Artifact(**artifact) for key, artifact in training["artifacts"].items()},
            task=training["task"],
            recipe=trainer.Recipe(ModelConfig(**sizes), TrainingConfig(**learning), DecodingConfig(**writing)),
            context=Context(scratch=training["scratch"]),
        )


def fork(training: dict) -> tuple[int, str]:
    """Trains in a process of its own; returns its exit code and what it wrote to stderr."""
    reader, writer = os.pipe()
    if not (process := os.fork()):
        os.dup2(writer, 2)
        try:
            run(training)
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for training in json.loads(sys.argv[1]):
        print(json.dumps(fork(training)), flush=True)
