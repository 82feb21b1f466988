"""Attention follows equation 1 in every head, respects masks, and rotary scores depend only on distances."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.transformer.attention import (
    CrossAttention,
    Rotary,
    SelfAttention,
    attention_weights,
    causal_mask,
    mask_bias,
    padding_mask,
    rotate,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(kind: type = SelfAttention, d_model: int = 8, num_heads: int = 2, **kwargs) -> SelfAttention | CrossAttention:
    keras.utils.set_random_seed(1)
    layer = kind(d_model, num_heads, **kwargs)
    layer.build(None)
    for number, weight in enumerate(layer.weights):
        if "bias" in weight.name:
            weight.assign(normal(*weight.shape, seed=number + 5))
    return layer


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_every_head_follows_equation_1(kv_heads):
    layer, x, memory = built(CrossAttention, num_kv_heads=kv_heads), normal(2, 3, 8), normal(2, 5, 8, seed=1)
    mask = np.random.default_rng(2).random((2, 2, 3, 5)) < 0.7  # a different mask for every head
    mask[..., 0] = True
    queries, (keys, values) = (
        x @ layer.query_kernel + layer.query_bias,
        np.split(memory @ layer.memory_kernel + layer.memory_bias, 2, -1),
    )
    expected = np.zeros((2, 3, 8), np.float32)
    for row in range(2):
        heads = []
        for head in range(2):
            first, kv_first = head * 4, head * kv_heads // 2 * 4
            q = queries[row, :, first : first + 4]
            k, v = (projected[row, :, kv_first : kv_first + 4] for projected in (keys, values))
            scores = np.where(mask[row, head], np.exp(q @ k.T / 4**0.5), 0)
            heads.append(scores / scores.sum(1, keepdims=True) @ v)
        expected[row] = np.concatenate(heads, 1) @ layer.out_kernel.numpy() + layer.out_bias.numpy()
    np.testing.assert_allclose(layer(x, memory, attention_mask=tf.constant(mask)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_self_attention_is_cross_attention_to_itself(kv_heads):
    layer, cross = (built(kind, num_kv_heads=kv_heads) for kind in (SelfAttention, CrossAttention))
    query, memory = tf.split(layer.in_kernel, [8, 8 * kv_heads], axis=1)
    query_bias, memory_bias = tf.split(layer.in_bias, [8, 8 * kv_heads], axis=0)
    cross.set_weights([query, query_bias, memory, memory_bias, layer.out_kernel, layer.out_bias])
    x = tf.constant(normal(2, 3, 8))
    np.testing.assert_allclose(layer(x), cross(x, x), rtol=1e-5, atol=1e-6)


def test_masks_are_true_at_visible_positions():
    assert padding_mask(tf.constant([[5, 6, 0]])).numpy().tolist() == [[[[True, True, False]]]]
    assert causal_mask(3).numpy().tolist() == [[[[True, False, False], [True, True, False], [True, True, True]]]]


def test_the_returned_weights_are_those_that_call_uses():
    layer, x = built(), tf.constant(normal(2, 4, 8))
    y, weights = layer(x, attention_mask=causal_mask(4), return_weights=True)
    np.testing.assert_allclose(tf.reduce_sum(weights, -1), np.ones((2, 2, 4)), rtol=1e-6)
    assert not np.triu(weights.numpy(), 1).any()
    _, _, values = layer.project(x)
    merged = layer.merge(tf.matmul(weights, values))
    np.testing.assert_allclose(merged, y, rtol=1e-6)
    np.testing.assert_array_equal(layer(x, attention_mask=causal_mask(4)), y)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_a_fully_masked_row_has_finite_weights_that_sum_to_1(dtype):
    query, key = (tf.cast(100 * normal(1, 1, 2, 4, seed=s), dtype) for s in (0, 1))
    mask = tf.constant([[True, False], [False, False]])
    weights = tf.cast(attention_weights(query, key, mask), tf.float32).numpy()[0, 0]
    np.testing.assert_allclose(weights[0], [1, 0])
    assert np.isfinite(weights).all()
    assert weights[1].sum() == pytest.approx(1, abs=0.01)
    assert np.isfinite(tf.cast(mask_bias(mask, dtype), tf.float32)).all()


def test_gradients_of_a_fully_masked_row_are_finite():
    layer, x = built(), tf.Variable(normal(1, 3, 8))
    with tf.GradientTape() as tape:
        y = layer(x, attention_mask=tf.zeros([1, 1, 1, 3], tf.bool))
    assert np.isfinite(tape.gradient(y, x)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.sampled_from(["halves", "interleaved"]))
def test_a_product_of_rotated_vectors_depends_only_on_their_distance(first, second, shift, layout):
    q, k = tf.constant(normal(1, 1, 1, 8)), tf.constant(normal(1, 1, 1, 8, seed=1))

    def product(query_position, key_position):
        rotary = Rotary(1000.0, layout)
        rotated = rotate(q, tf.constant([query_position]), rotary), rotate(k, tf.constant([key_position]), rotary)
        return tf.reduce_sum(rotated[0] * rotated[1]).numpy()

    assert product(first + shift, second + shift) == pytest.approx(product(first, second), abs=2e-3)


def test_rotation_preserves_norms_and_is_the_identity_at_position_0():
    x = tf.constant(normal(2, 3, 5, 8))
    np.testing.assert_allclose(tf.norm(rotate(x, tf.range(5), Rotary()), axis=-1), tf.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(rotate(x, tf.zeros([5], tf.int32), Rotary()), x)
    assert not np.allclose(rotate(x, tf.range(5), Rotary())[:, :, 1:], x[:, :, 1:])


def test_rotation_accepts_different_positions_in_each_row():
    x = tf.constant(normal(2, 3, 4, 8))
    together = rotate(x, tf.constant([[[0, 1, 2, 3]], [[5, 6, 7, 8]]]), Rotary())
    np.testing.assert_allclose(together[1], rotate(x[1:], tf.range(5, 9), Rotary())[0], rtol=1e-6)


def test_rotary_attention_does_not_depend_on_where_a_sequence_starts():
    layer, x, shift = built(rotary=Rotary()), normal(1, 4, 8), 3
    shifted = np.concatenate([normal(1, shift, 8, seed=9), x], 1)
    visible = tf.range(4 + shift) >= shift
    np.testing.assert_allclose(layer(shifted, attention_mask=visible)[:, shift:], layer(x), rtol=1e-3, atol=1e-4)
    assert not np.allclose(layer(x[:, ::-1])[:, ::-1], layer(x), atol=1e-3)  # order matters


def test_dropout_applies_to_attention_weights_only_in_training():
    layer, reference, x = built(dropout=0.5), built(), tf.constant(normal(2, 4, 8))
    reference.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), reference(x))
    assert not np.allclose(layer(x, training=True), layer(x))


def test_fused_projections_have_the_initial_scale_of_separate_ones():
    layer = built(d_model=64, num_heads=4)
    limit = (6 / (64 + 64)) ** 0.5  # Glorot and Bengio 2010, for a 64 x 64 matrix
    for kernel in (layer.in_kernel, layer.out_kernel):
        assert abs(kernel.numpy()).max() == pytest.approx(limit, rel=0.01)


def test_d_model_must_be_a_multiple_of_num_heads():
    with pytest.raises(ValueError, match=r"d_model \(8\) must be a multiple of num_heads \(3\)"):
        SelfAttention(8, 3)
    with pytest.raises(ValueError, match=r"num_heads \(4\), and num_heads of num_kv_heads \(3\)"):
        SelfAttention(8, 4, num_kv_heads=3)


def test_attention_can_be_rebuilt_from_its_config():
    layer, x = built(dropout=0.25, rotary=Rotary(100.0)), tf.constant(normal(2, 4, 8))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(x), layer(x))
    assert copy.get_config() == layer.get_config()
