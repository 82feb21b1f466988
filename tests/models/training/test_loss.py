"""The loss equals its definition, ignores padding, and weights labels."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.training.loss import MaskedCrossEntropy, balanced_weights, smoothed_cross_entropy


def one_hot_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, epsilon: float | tf.Tensor) -> tf.Tensor:
    """Computes the definition (section 5.4): cross-entropy against (1 - epsilon) one-hot + epsilon uniform."""
    targets = tf.one_hot(labels, logits.shape[1]) * (1 - epsilon) + epsilon / logits.shape[1]
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0, 0.75), st.integers(1, 6), st.integers(2, 9))
def test_smoothed_cross_entropy_and_its_gradient_equal_the_definition(seed, epsilon, rows, vocab_size):
    rng = np.random.default_rng(seed)
    logits = tf.constant(rng.normal(size=(rows, vocab_size)) * 5, tf.float32)
    labels = tf.constant(rng.integers(0, vocab_size, rows), tf.int32)
    upstream = tf.constant(rng.normal(size=rows), tf.float32)
    values, gradients = [], []
    for function in (smoothed_cross_entropy, one_hot_cross_entropy):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values.append(function(logits, labels, tf.constant(epsilon)))
        gradients.append(tape.gradient(values[-1], logits, upstream))
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_over_labels_without_padding():
    labels = np.array([[4, 5, 0], [6, 0, 0]])
    logits = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    real = labels != 0
    expected = tf.reduce_mean(one_hot_cross_entropy(tf.constant(logits[real]), labels[real], 0.1))
    assert float(MaskedCrossEntropy(0.1)(labels, logits)) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_padding_alone_is_zero_and_has_no_gradient():
    logits = tf.Variable(tf.random.stateless_normal([1, 3, 8], [1, 2]))
    with tf.GradientTape() as tape:
        loss = MaskedCrossEntropy(0.1)(np.zeros((1, 3), np.int32), logits)
    assert loss == 0
    assert not tape.gradient(loss, logits).numpy().any()


def test_a_label_of_weight_two_counts_like_two_rows():
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 2)), tf.float32)
    labels = tf.constant([0, 1, 1])
    weighted = MaskedCrossEntropy(0.1, pad_id=-1, label_weights=[2.0, 1.0])
    repeated = MaskedCrossEntropy(0.1, pad_id=-1)(tf.gather(labels, [0, 0, 1, 2]), tf.gather(logits, [0, 0, 1, 2]))
    assert float(weighted(labels, logits)) == pytest.approx(float(repeated), rel=1e-5)


def test_balanced_weights_give_all_labels_the_same_total_and_a_mean_of_1():
    weights = balanced_weights([90, 10])
    assert 90 * weights[0] == pytest.approx(10 * weights[1])
    assert 90 * weights[0] + 10 * weights[1] == pytest.approx(100)
