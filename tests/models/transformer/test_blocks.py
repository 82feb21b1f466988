"""Encoder and decoder layers combine their sub-layers as in section 3.1, with pre-norm and post-norm."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.transformer.attention import causal_mask
from seq2serve.models.transformer.blocks import DecoderLayer, EncoderLayer, Residual
from seq2serve.models.transformer.layers import LayerNormalization

CONFIG = ModelConfig(d_model=8, num_heads=2, dff=16, dropout=0.0)
BOTH_NORMS = pytest.mark.parametrize("norm_first", [True, False])


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def built(kind: type, seed: int = 1, **changes) -> keras.Layer:
    keras.utils.set_random_seed(seed)
    layer = kind(dataclasses.replace(CONFIG, **changes))
    layer.build(None)
    return layer


def with_residual(residual: Residual, norm_first: bool, x: tf.Tensor, sub_layer: Callable) -> tf.Tensor:
    """Computes a sub-layer with its residual connection by definition."""
    return x + sub_layer(residual.norm(x)) if norm_first else residual.norm(x + sub_layer(x))


@BOTH_NORMS
def test_encoder_layer_is_self_attention_then_feed_forward(norm_first):
    layer, x = built(EncoderLayer, norm_first=norm_first), normal(2, 4, 8)
    mask = tf.constant([True, True, True, False])
    expected = with_residual(layer.self_residual, norm_first, x, lambda y: layer.self_attention(y, attention_mask=mask))
    expected = with_residual(layer.feed_residual, norm_first, expected, layer.feed_forward)
    np.testing.assert_allclose(layer(x, mask), expected, rtol=1e-5, atol=1e-6)


@BOTH_NORMS
def test_decoder_layer_is_self_attention_then_cross_attention_then_feed_forward(norm_first):
    layer, x, memory = built(DecoderLayer, norm_first=norm_first), normal(2, 3, 8), normal(2, 4, 8, seed=1)
    mask, memory_mask = causal_mask(3), tf.constant([True, True, False, True])
    expected = with_residual(layer.self_residual, norm_first, x, lambda y: layer.self_attention(y, attention_mask=mask))
    expected = with_residual(
        layer.cross_residual,
        norm_first,
        expected,
        lambda y: layer.cross_attention(y, memory, attention_mask=memory_mask),
    )
    expected = with_residual(layer.feed_residual, norm_first, expected, layer.feed_forward)
    np.testing.assert_allclose(layer(x, mask, memory, memory_mask), expected, rtol=1e-5, atol=1e-6)


@BOTH_NORMS
def test_a_recurrent_decoder_layer_has_an_ssru_instead_of_self_attention(norm_first):
    layer, x, memory = (
        built(DecoderLayer, norm_first=norm_first, decoder="ssru"),
        normal(2, 3, 8),
        normal(2, 4, 8, seed=1),
    )
    expected = with_residual(layer.self_residual, norm_first, x, layer.ssru)
    expected = with_residual(layer.cross_residual, norm_first, expected, lambda y: layer.cross_attention(y, memory))
    expected = with_residual(layer.feed_residual, norm_first, expected, layer.feed_forward)
    np.testing.assert_allclose(layer(x, causal_mask(3), memory), expected, rtol=1e-5, atol=1e-6)
    _, weights = layer(x, causal_mask(3), memory, return_weights=True)
    assert [tensor.shape for tensor in weights] == [(2, 2, 3, 4)]


def test_the_output_of_post_norm_is_normalised():
    y = built(EncoderLayer, norm_first=False)(normal(2, 4, 8), None)
    np.testing.assert_allclose(tf.reduce_mean(y, -1), np.zeros((2, 4)), atol=1e-5)
    np.testing.assert_allclose(tf.math.reduce_std(y, -1), np.ones((2, 4)), rtol=1e-3)


@BOTH_NORMS
def test_dropout_applies_to_the_sub_layer_and_not_to_the_residual(norm_first):
    residual = Residual(0.5, norm_first, LayerNormalization())
    residual.build((None, 1000))
    y, _ = residual.around(tf.ones([1, 1000]), lambda x: (tf.ones_like(x), None), training=True)
    assert len(np.unique(y)) == 2  # 1 + 0 and 1 + 2, before normalisation
    if norm_first:
        assert set(np.unique(y)) == {1.0, 3.0}


def test_a_decoder_layer_without_cross_attention_has_no_weights_for_it():
    with_cross, without = DecoderLayer(CONFIG), DecoderLayer(CONFIG, cross_attention=False)
    with_cross.build(None)
    without.build(None)
    cross = 4 * 8 * 8 + 4 * 8 + 2 * 8  # projections, biases, norm
    assert with_cross.count_params() - without.count_params() == cross
    assert without(normal(2, 3, 8), causal_mask(3)).shape == (2, 3, 8)


def test_only_self_attention_is_rotated():
    layer = DecoderLayer(dataclasses.replace(CONFIG, positions="rotary"))
    assert layer.self_attention.rotary
    assert not hasattr(layer.cross_attention, "rotary")


@pytest.mark.parametrize(
    "layer",
    [
        EncoderLayer(dataclasses.replace(CONFIG, activation="swiglu", norm_first=False)),
        DecoderLayer(dataclasses.replace(CONFIG, positions="rotary")),
        DecoderLayer(dataclasses.replace(CONFIG, decoder="ssru")),
        DecoderLayer(CONFIG, cross_attention=False),
    ],
    ids=["encoder", "decoder", "recurrent_decoder", "language_model"],
)
def test_blocks_can_be_rebuilt_from_their_config(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    for block in (layer, copy):
        block.build((None, None, 8))
    copy.set_weights(layer.get_weights())
    x = normal(2, 3, 8)
    arguments = {
        EncoderLayer: (x, causal_mask(3)),
        DecoderLayer: (x, causal_mask(3), normal(2, 4, 8, seed=1)),
    }[type(layer)]
    np.testing.assert_array_equal(copy(*arguments), layer(*arguments))
    assert copy.get_config() == layer.get_config()
