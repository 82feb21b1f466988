"""An SSRU computes the recurrence of its paper, all positions at once or one after another."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.transformer.ssru import SSRU, recurrence

WIDTH = 6


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(**options) -> SSRU:
    """Returns a layer with random weights and biases."""
    layer = SSRU(WIDTH, **options)
    layer.build()
    for seed, weight in enumerate(layer.weights):
        weight.assign(normal(*weight.shape, seed=seed))
    return layer


def by_definition(layer: SSRU, x: np.ndarray) -> np.ndarray:
    """Computes the equations of the paper with the bias of the candidate, one position after another, in float64."""
    kernel, bias = np.float64(layer.in_kernel), np.float64(layer.in_bias)
    state, outputs = np.zeros(x[:, 0].shape), []
    for t in range(x.shape[1]):
        candidate, forget = np.split(x[:, t] @ kernel + bias, 2, -1)
        forget = 1 / (1 + np.exp(-forget))
        state = forget * state + (1 - forget) * candidate
        outputs.append(np.maximum(state, 0))
    return np.stack(outputs, 1)


def test_the_output_is_that_of_the_equations():
    layer, x = built(), normal(3, 40, WIDTH, seed=9)
    np.testing.assert_allclose(layer(x), by_definition(layer, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"centre": True}])
def test_steps_equal_one_pass(options):
    layer, x = built(**options), tf.constant(normal(2, 5, WIDTH, seed=9))
    state, outputs = tf.zeros([2, WIDTH]), []
    for t in range(5):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)
    np.testing.assert_allclose(tf.stack(outputs, 1), layer(x), rtol=1e-5, atol=1e-6)


def test_a_centred_output_has_the_mean_0_and_else_is_the_same():
    plain, centred = (built(centre=centre)(normal(2, 5, WIDTH, seed=9)) for centre in (False, True))
    np.testing.assert_allclose(tf.reduce_mean(centred, -1), np.zeros((2, 5)), atol=1e-6)
    np.testing.assert_allclose(centred, plain - tf.reduce_mean(plain, -1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_gradient_equals_automatic_differentiation(length):
    decay, inputs = (tf.constant(np.abs(normal(2, length, 3, seed=seed))) for seed in (1, 2))
    upstream = normal(2, length, 3, seed=3)

    def one_after_another() -> tf.Tensor:
        states = [inputs[:, 0]]
        for t in range(1, length):
            states.append(decay[:, t] * states[-1] + inputs[:, t])
        return tf.stack(states, 1)

    def gradients(compute) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([decay, inputs])
            loss = tf.reduce_sum(compute() * upstream)
        return tape.gradient(loss, [decay, inputs], unconnected_gradients="zero")

    ours = tf.function(lambda: gradients(lambda: recurrence(decay, inputs)))()
    for actual, expected in zip(ours, gradients(one_after_another), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_its_states_in_float32():
    """Hundreds of additions to a state in bfloat16 would lose the small ones."""
    layer, x = built(), np.full((1, 500, WIDTH), 0.01, np.float32)
    half = layer.call(tf.cast(x, tf.bfloat16))
    assert half.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(half, tf.float32), by_definition(layer, x), rtol=0.03, atol=0.03)


def test_a_layer_can_be_rebuilt_from_its_config():
    layer = built(use_bias=False, centre=True)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(normal(1, 3, WIDTH)), layer(normal(1, 3, WIDTH)))
