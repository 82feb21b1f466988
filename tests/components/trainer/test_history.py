"""The history of a training survives a checkpoint; it determines points, divergence, exports and patience."""

import math

import pytest

from seq2serve.components.tasks.metric import Metric
from seq2serve.components.trainer.history import DIVERGED_POINTS, CheckpointRanking, History
from seq2serve.models.config import TrainingConfig

STEP = {"loss": 2.0, "gradient_norm": 0.5, "right": 6.0, "labels": 8.0, "tokens": 30.0, "cells": 40.0, "seconds": 0.25}


def ranking(*values, higher_is_better=True):
    history = History([{"step": 10 * number, "bleu": value} for number, value in enumerate(values, 1)])
    return CheckpointRanking(history, Metric("bleu", "", higher_is_better=higher_is_better))


def test_a_restored_history_equals_the_saved_one_and_continues_identically():
    history, restored = History([{"step": 3, "loss": 0.1 + 0.2}], seconds=1 / 3), History()
    history.add_step(STEP)
    restored.restore(history.to_json())
    assert restored == history
    assert restored.lowest_loss == math.inf
    for continued in (history, restored):
        continued.add_step({**STEP, "loss": 1 / 3})
    assert restored.make_point() == history.make_point()


def test_a_point_summarises_only_the_steps_since_the_last_point():
    history = History()
    for loss in (9.0, 2.0, 4.0):
        history.add_step({**STEP, "loss": loss})
        if loss == 9:
            history.make_point()
    assert history.make_point() == {
        "loss": 3.0,
        "gradient_norm": 0.5,
        "accuracy": 75.0,
        "tokens_per_second": 120.0,
        "padding": 0.25,
    }


@pytest.mark.parametrize(
    ("losses", "diverges"),
    [
        ([2.0, 1.0] + [2.1] * DIVERGED_POINTS, True),
        ([2.0, 1.0] + [2.1] * (DIVERGED_POINTS - 1) + [1.9] + [2.1] * (DIVERGED_POINTS - 1), False),
        ([9.0, 1.0] + [1.9] * 20, False),  # a plateau
        ([0.5, 0.001] + [0.19] * 20, False),  # fluctuation near zero
    ],
)
def test_training_diverges_if_the_loss_stays_far_above_its_minimum(losses, diverges):
    history = History()
    for loss in losses:
        history.add_step({**STEP, "loss": loss})
        history.make_point()
    assert history.diverges() == diverges


@pytest.mark.parametrize(("loss", "diverges"), [(2000.0, True), (16.7, True), (16.5, False)])
def test_a_loss_that_starts_and_stays_far_above_that_of_guessing_is_not_learning(loss, diverges):
    """Guessing one of 4,000 pieces has a loss of 8.3; during the warm-up a high loss is not yet divergence."""
    history = History()
    for number in range(3 + DIVERGED_POINTS):
        history.add_step({**STEP, "loss": loss})
        history.make_point(math.inf if number < 3 else math.log(4000))
        assert history.diverges() == (diverges and number == 2 + DIVERGED_POINTS)


def test_equal_evaluations_are_ranked_by_step_and_nan_is_ranked_last():
    assert ranking(1.0, 3.0, math.nan, 3.0, 2.0).best(3) == [20, 40, 50]
    assert ranking(1.0, 3.0, math.nan, 2.0, higher_is_better=False).best(4) == [10, 40, 20, 30]


@pytest.mark.parametrize(
    ("values", "error", "exported"),
    [
        ((10.0, 30.0, 29.8), 0.0, [30]),  # within 1 %
        ((10.0, 30.0, 28.0), 1.0, [20]),  # 2 > sqrt(1 + 1)
        ((10.0, 30.0, 29.0), 1.0, [30]),
        ((0.9, 0.5), 0.03, [10]),
        ((30.0, math.nan), 1.0, [10]),
        ((30.0, 31.0), 0.1, [20]),
    ],
)
def test_the_best_checkpoint_is_exported_if_it_is_better_by_more_than_noise(values, error, exported):
    checkpoints = ranking(*values)
    for evaluation in checkpoints.history.evaluations:
        evaluation["standard_error"] = error
    assert checkpoints.exported(TrainingConfig()) == exported
    assert set(exported) <= set(checkpoints.kept(TrainingConfig()))
    assert "standard_error" not in checkpoints.at(exported[0])


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (TrainingConfig(export="last"), [40]),
        (TrainingConfig(export="last", export_checkpoints=3), [20, 30, 40]),
        (TrainingConfig(export="best"), [20]),
        (TrainingConfig(export="best", export_checkpoints=2), [20, 30]),
        (TrainingConfig(export="best", export_checkpoints=9), [20, 30, 40, 10]),
    ],
)
def test_the_last_or_the_best_checkpoints_are_exported(config, steps):
    assert ranking(1.0, 4.0, 3.0, 2.0).exported(config) == steps


@pytest.mark.parametrize(
    ("values", "number"), [((), 0), ((1.0,), 0), ((1.0, 1.0), 1), ((1.0, 2.0), 0), ((3.0, 1.0, 2.0, math.nan), 3)]
)
def test_patience_counts_the_evaluations_since_the_best(values, number):
    assert ranking(*values).since_best() == number
