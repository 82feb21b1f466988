"""A step of learning is that of the whole batch however it is cut, and its numbers are what they are called."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import TrainingConfig
from models.learner import tally
from models.training import MaskedCrossEntropy, averaged, make_optimizer


@pytest.fixture
def batch(random_ids):
    """Sentences of different lengths, so that parts differ in how much padding they have."""
    source, target = random_ids([7, 2, 5, 3, 1]), random_ids([4, 6, 2, 3, 1], seed=1)
    return {"source": source, "target": np.pad(target, [(0, 0), (1, 0)], constant_values=2)}, np.pad(
        target, [(0, 0), (0, 1)]
    )


@pytest.fixture
def learner(make_transformer):
    """Returns a function that makes a compiled model; its keywords change the TrainingConfig."""

    def make(batch_parts=1, **changes):
        model = make_transformer(num_encoder_layers=1, num_decoder_layers=1)
        model.batch_parts = batch_parts
        config = TrainingConfig(warmup_steps=1, learning_rate=0.01, **changes)
        model.compile(make_optimizer(config), MaskedCrossEntropy(0.1), run_eagerly=True)
        return model

    return make


def test_padding_and_what_is_predicted_for_it_count_for_nothing():
    predicted = tf.one_hot([[4, 5, 6], [4, 4, 4]], 8)
    for labels, right, number in (([[4, 5, 0], [5, 0, 0]], 2, 3), ([[4, 5, 6], [0, 0, 0]], 3, 3)):
        counts = tally(MaskedCrossEntropy(), tf.constant(labels), predicted)
        assert (float(counts.right), float(counts.labels), float(counts.weight)) == (right, number, number)


def test_a_batch_in_parts_makes_the_update_of_the_whole(learner, batch):
    models, numbers = [learner(), learner(batch_parts=3), learner(batch_parts=8)], []
    for model in models:
        # Adam would make of a gradient that is 0 but for rounding a step as long as any other.
        model.compile(keras.optimizers.SGD(1.0), model.loss, run_eagerly=True)
        numbers.append({name: float(value) for name, value in model.train_step(batch).items()})
    for other in (1, 2):  # of eight parts of five sentences some are empty
        assert numbers[other] == pytest.approx(numbers[0], rel=1e-4)
        for left, right in zip(models[0].weights, models[other].weights, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5, err_msg=left.path)


def test_its_numbers_are_those_of_the_batch(learner, batch):
    model, (inputs, labels) = learner(clip_norm=1e-6), batch
    with tf.GradientTape() as tape:
        logits = model(inputs)
        loss = model.loss(labels, logits)
    gradients = tape.gradient(loss, model.trainable_weights)
    norm = np.sqrt(sum(np.square(tf.convert_to_tensor(gradient)).sum() for gradient in gradients))
    right = (np.argmax(logits, -1) == labels) & (labels != 0)
    found = {name: float(value) for name, value in model.train_step(batch).items()}
    assert found == pytest.approx(
        {
            "loss": float(loss),
            "gradient_norm": norm,  # before it is clipped
            "right": right.sum(),
            "labels": (labels != 0).sum(),
            "tokens": sum((ids != 0).sum() for ids in inputs.values()),
            "cells": sum(ids.size for ids in inputs.values()),
        },
        rel=1e-4,
    )


def test_the_averages_of_the_weights_are_lent(learner, batch):
    model = learner(average_decay=0.5)
    seen = []
    for _ in range(3):
        model.train_step(batch)
        seen.append(model.get_weights())
    expected = [0.5 * (0.5 * first + 0.5 * second) + 0.5 * third for first, second, third in zip(*seen, strict=True)]
    with averaged(model):
        for weight, mean in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(weight, mean, atol=1e-6)
    for weight, before in zip(model.get_weights(), seen[-1], strict=True):
        np.testing.assert_array_equal(weight, before)


def test_keras_is_asked_for_no_more_than_a_step(learner, batch):
    """`fit` takes a whole batch for one update, whatever the parts."""
    model = learner(batch_parts=2)
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(2), verbose=0)
    assert int(model.optimizer.iterations) == 2
    assert keras.tree.flatten(model.get_metrics_result())
