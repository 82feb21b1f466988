"""The Trainer's announcement of how long it will take."""

import keras
import pytest
import tensorflow as tf

from seq2serve.components.trainer import callbacks
from seq2serve.components.trainer.callbacks import ESTIMATE_STEPS, TimeEstimate
from seq2serve.models.config import TrainingConfig


@pytest.fixture
def train(monkeypatch, capsys):
    """Makes steps that take a number of seconds each, and returns what was said."""

    def call(total, seconds, minutes=0.0, epochs=0.0, steps=2 * ESTIMATE_STEPS):
        clock = iter([float(value) for step in range(steps) for value in (step * 1e6, step * 1e6 + seconds(step))])
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse")
        estimate = TimeEstimate(total, TrainingConfig(minutes=minutes, epochs=epochs))
        estimate.set_model(model)
        for step in range(steps):
            estimate.on_train_batch_begin(step)
            model.optimizer.iterations.assign(step + 1)
            estimate.on_train_batch_end(step)
        return capsys.readouterr().err

    return call


def test_it_is_said_once_and_slow_first_steps_do_not_count(train):
    assert train(ESTIMATE_STEPS + 120, lambda step: 9 if step < 5 else 1).splitlines() == [
        "Trainer: 120 more steps take about 2 minutes, and the evaluations"
    ]


def test_more_than_an_hour_names_the_settings_that_make_it_shorter(train):
    (line,) = train(ESTIMATE_STEPS + 7200, lambda step: 1).splitlines()
    assert "about 2.0 hours" in line
    assert "smaller training.steps" in line
    assert "training.minutes=60" in line
    assert "smaller training.epochs" in train(ESTIMATE_STEPS + 7200, lambda step: 1, epochs=2.0)


def test_slow_steps_are_reported_after_a_minute(train):
    assert "about 1.9 hours" in train(350, lambda step: 20, steps=5)


def test_nothing_is_said_if_the_time_is_limited_or_training_is_over_soon(train):
    assert not train(tf.Variable(5000.0), lambda step: 1, minutes=5)
    assert not train(10, lambda step: 1, steps=ESTIMATE_STEPS - 1)
    assert not train(ESTIMATE_STEPS + 50, lambda step: 1)
