"""A training step makes the update of the whole batch, however it is split, and returns the batch's metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import TrainingConfig
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.training.optimizer import make_optimizer
from seq2serve.models.transformer.train_step import loss_sums


@pytest.fixture
def batch(random_ids):
    """Sentences of different lengths, so that parts have different amounts of padding."""
    source, target = random_ids([7, 2, 5, 3, 1]), random_ids([4, 6, 2, 3, 1], seed=1)
    shifted = np.pad(target, [(0, 0), (1, 0)], constant_values=2)
    return {"source": source, "target": shifted}, np.pad(target, [(0, 0), (0, 1)])


@pytest.fixture
def compiled_model(make_transformer):
    """Returns a function that makes a compiled model; its keywords change the TrainingConfig."""

    def make(batch_parts=1, **changes):
        model = make_transformer(num_encoder_layers=1, num_decoder_layers=1)
        model.batch_parts = batch_parts
        config = TrainingConfig(warmup_steps=1, learning_rate=0.01, **changes)
        model.compile(make_optimizer(config), MaskedCrossEntropy(0.1), run_eagerly=True)
        return model

    return make


def test_padding_and_its_predictions_are_not_counted():
    predicted = tf.one_hot([[4, 5, 6], [4, 4, 4]], 8)
    for labels, right, number in (([[4, 5, 0], [5, 0, 0]], 2, 3), ([[4, 5, 6], [0, 0, 0]], 3, 3)):
        sums = loss_sums(MaskedCrossEntropy(), tf.constant(labels), predicted)
        assert (float(sums.right), float(sums.labels), float(sums.weight)) == (right, number, number)


def test_a_batch_in_parts_makes_the_update_of_the_whole_batch(compiled_model, batch):
    # Five rows in eight parts: some parts are empty.
    models, metrics = [compiled_model(), compiled_model(batch_parts=3), compiled_model(batch_parts=8)], []
    for model in models:
        # Not Adam, which makes a step of full size even if a gradient differs from 0 only by rounding.
        model.compile(keras.optimizers.SGD(1.0), model.loss, run_eagerly=True)
        metrics.append({name: float(value) for name, value in model.train_step(batch).items()})
    for in_parts in (1, 2):
        assert metrics[in_parts] == pytest.approx(metrics[0], rel=1e-4)
        for left, right in zip(models[0].weights, models[in_parts].weights, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5, err_msg=left.path)


def test_the_metrics_are_those_of_the_batch(compiled_model, batch):
    model, (inputs, labels) = compiled_model(clip_norm=1e-6), batch
    with tf.GradientTape() as tape:
        logits = model(inputs)
        loss = model.loss(labels, logits)
    gradients = tape.gradient(loss, model.trainable_weights)
    norm = np.sqrt(sum(np.square(tf.convert_to_tensor(gradient)).sum() for gradient in gradients))
    right = (np.argmax(logits, -1) == labels) & (labels != 0)
    metrics = {name: float(value) for name, value in model.train_step(batch).items()}
    assert metrics == pytest.approx(
        {
            "loss": float(loss),
            "gradient_norm": norm,  # before clipping
            "right": right.sum(),
            "labels": (labels != 0).sum(),
            "tokens": sum((ids != 0).sum() for ids in inputs.values()),
            "cells": sum(ids.size for ids in inputs.values()),
        },
        rel=1e-4,
    )


def test_fit_makes_one_update_per_batch_whatever_the_parts(compiled_model, batch):
    model = compiled_model(batch_parts=2)
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(2), verbose=0)
    assert int(model.optimizer.iterations) == 2
    assert keras.tree.flatten(model.get_metrics_result())
