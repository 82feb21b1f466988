"""The basic layers follow their equations, and their custom gradients equal those of automatic differentiation."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.transformer.layers import (
    Dropout,
    FeedForward,
    LayerNormalization,
    PositionalEncoding,
    TokenEmbedding,
    linear,
    sinusoids,
)

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 3, 5, 4)])
def test_linear_multiplies_the_last_axis(shape):
    x, kernel, bias = normal(*shape), normal(4, 6), normal(6)
    np.testing.assert_allclose(linear(tf.constant(x), kernel), x @ kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(linear(tf.constant(x), kernel, bias), x @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_sinusoids_follow_the_papers_formula():
    position, d_model = 7, 6
    expected = [f(position / 10000 ** (2 * i / d_model)) for i in range(d_model // 2) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(sinusoids(tf.constant([position]), d_model)[0], expected, rtol=1e-5)


def test_sinusoids_of_tensor2tensor_have_the_sines_first_and_a_slowest_wavelength_of_10000():
    angles = 7 / 10000 ** (np.arange(4) / 3)
    expected = [*np.sin(angles), *np.cos(angles)]
    np.testing.assert_allclose(sinusoids(tf.constant([7]), 8, "tensor2tensor")[0], expected, rtol=1e-5)


def test_sinusoids_in_halves_are_those_of_the_paper_in_another_order():
    paper, halves = sinusoids(tf.range(9), 8).numpy(), sinusoids(tf.range(9), 8, "halves").numpy()
    np.testing.assert_array_equal(halves, np.concatenate([paper[:, ::2], paper[:, 1::2]], 1))


def test_sinusoids_accept_positions_of_any_shape():
    positions = tf.constant([[3, 1], [0, 7]])
    np.testing.assert_array_equal(sinusoids(positions, 8)[1, 1], sinusoids(tf.constant(7), 8))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_rate_and_scales_the_other_values(rate):
    keras.utils.set_random_seed(1)
    y = Dropout(rate)(tf.ones([999, 333]), training=True).numpy()
    assert np.unique(y) == pytest.approx([0, 1 / (1 - rate)], rel=1e-4)
    assert np.mean(y == 0) == pytest.approx(rate, abs=0.005)
    assert y.mean() == pytest.approx(1, abs=0.02)


def test_dropout_depends_only_on_the_seed():
    def draws(seed):
        keras.utils.set_random_seed(seed)
        layer = Dropout(0.5)
        return [layer(tf.ones([101]), training=True).numpy() for _ in range(2)]

    first, again, other_seed = draws(1), draws(1), draws(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first[0], first[1])


def test_dropout_does_nothing_in_inference_or_at_rate_0():
    x = tf.constant(normal(5, 7))
    np.testing.assert_array_equal(Dropout(0.5)(x), x)
    np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)


def test_gradients_of_dropout_use_the_same_mask_and_scale():
    layer, x = Dropout(0.5), tf.Variable(tf.ones([1000]))
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), y)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_normalisation_and_its_gradient_equal_autodiff(shape, kind):
    x, upstream = tf.constant(normal(*shape)), tf.constant(normal(*shape))
    layer = LayerNormalization(1e-3, kind)
    layer.build(shape)
    for number, weight in enumerate(layer.weights):
        weight.assign(normal(8) + number)
    weights = [weight.value for weight in layer.weights]

    def plain(x):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        if kind == "rms":
            return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-3) * weights[0]
        return tf.nn.batch_normalization(x, mean, variance, weights[1], weights[0], 1e-3)

    results = []
    for function in (functools.partial(layer, training=True), layer, plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        results.append([y, *tape.gradient(y, [x, *weights], upstream)])
    for custom, without_training, autodiff in zip(*results, strict=True):
        np.testing.assert_allclose(custom, autodiff, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(without_training, autodiff, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_layer_normalization_computes_in_float32(dtype):
    x = tf.constant(normal(4, 64) * 3e3 + 3e4, tf.float16)  # squares overflow float16
    layer = LayerNormalization(dtype=dtype)
    y = layer(x)
    reference = LayerNormalization()(tf.cast(tf.cast(x, layer.compute_dtype), tf.float32))
    assert y.dtype == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(y, tf.float32), reference, atol=0.02)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "swiglu"])
def test_feed_forward_follows_equation_2(activation):
    layer = FeedForward(4, 6, activation)
    layer.build(None)
    layer.bias_1.assign(normal(*layer.bias_1.shape))
    layer.bias_2.assign(normal(4))
    x = normal(2, 3, 4)
    inner = x @ layer.kernel_1.numpy() + layer.bias_1.numpy()
    if activation == "swiglu":
        gate, value = np.split(inner, 2, axis=-1)
        inner = gate / (1 + np.exp(-gate)) * value
    elif activation == "silu":
        inner = inner / (1 + np.exp(-inner))
    else:
        inner = np.maximum(inner, 0) if activation == "relu" else inner * (1 + tf.math.erf(inner / 2**0.5)) / 2
    expected = inner @ layer.kernel_2.numpy() + layer.bias_2.numpy()
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_embeddings_start_small_and_are_scaled_by_sqrt_d():
    keras.utils.set_random_seed(1)
    layer = TokenEmbedding(1000, 64)
    y = layer(tf.range(1000)[tf.newaxis]).numpy()
    assert layer.matrix.numpy().std() == pytest.approx(64**-0.5, rel=0.02)
    np.testing.assert_allclose(y[0], layer.matrix.numpy() * 8, rtol=1e-6)


def test_embedding_gradients_are_dense_and_summed_over_repeated_rows():
    layer = TokenEmbedding(10, 4)
    layer.build(None)
    upstream = normal(1, 3, 4)
    with tf.GradientTape() as tape:
        y = layer(tf.constant([[7, 2, 7]]))
    gradient = tape.gradient(y, layer.matrix.value, tf.constant(upstream))
    expected = np.zeros((10, 4), np.float32)
    np.add.at(expected, [7, 2, 7], upstream[0] * 2)
    assert isinstance(gradient, tf.Tensor)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_logits_are_dot_products_with_the_embeddings():
    layer = TokenEmbedding(10, 4)
    layer.build(None)
    x = normal(2, 3, 4)
    np.testing.assert_allclose(layer.logits(tf.constant(x)), x @ layer.matrix.numpy().T, rtol=1e-5, atol=1e-6)


def test_positions_may_differ_between_rows():
    for kind in ("sinusoidal", "learned"):
        layer = PositionalEncoding(kind, 8, max_positions=10)
        x = tf.constant(normal(2, 3, 8))
        together = layer(x, tf.constant([[0, 1, 2], [4, 5, 6]]))
        np.testing.assert_allclose(together[1], layer(x[1:], tf.constant([4, 5, 6]))[0], rtol=1e-6)
        assert not np.allclose(together[1], layer(x[1:], tf.constant([0, 1, 2]))[0])


def test_positions_beyond_the_learned_table_share_its_last_row():
    layer = PositionalEncoding("learned", 8, max_positions=4)
    y = layer(tf.zeros([1, 6, 8]), tf.range(6))[0].numpy()
    np.testing.assert_array_equal(y[4:], [y[3]] * 2)
    assert not np.array_equal(y[2], y[3])


def test_rotary_adds_nothing_to_embeddings():
    x = tf.constant(normal(2, 3, 8))
    np.testing.assert_array_equal(PositionalEncoding("rotary", 8, 4)(x, tf.range(3)), x)


@pytest.mark.parametrize("make", [lambda: FeedForward(4, 8, "tanh"), lambda: PositionalEncoding("relative", 8, 4)])
def test_an_unknown_kind_is_an_error_that_lists_the_known_ones(make):
    with pytest.raises(ValueError, match=r"must be .*, not '"):
        make()


@pytest.mark.parametrize(
    "layer",
    [
        Dropout(0.3),
        LayerNormalization(),
        FeedForward(8, 12, "swiglu", 0.1),
        TokenEmbedding(20, 8),
        PositionalEncoding("learned", 8, 5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_can_be_rebuilt_from_their_config(layer):
    x = tf.constant([[4, 7]]) if isinstance(layer, TokenEmbedding) else tf.constant(normal(1, 2, 8))
    arguments = (x, tf.range(2)) if isinstance(layer, PositionalEncoding) else (x,)
    expected = layer(*arguments)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy(*arguments)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(*arguments), expected)
    assert copy.get_config() == layer.get_config()
