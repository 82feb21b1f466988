"""Scores are the log probabilities of the model, and attention weights are those that its layers use."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.decoding.beam_search import BeamSearch
from seq2serve.models.decoding.scoring import attention_weights_of_every_layer, log_probabilities

EOS = 3


def test_scores_equal_log_probabilities_computed_token_by_token(make_transformer, random_ids):
    model = make_transformer()
    source, target = random_ids([4, 2], end=(EOS,)), random_ids([3, 5], seed=1, end=(EOS,))
    scores = log_probabilities(model, source, target).numpy()
    for row in range(2):
        for t, token in enumerate(target[row]):
            before = np.array([[2, *target[row, :t]]], np.int32)
            logits = model({"source": source[row : row + 1], "target": before})[0, -1]
            expected = tf.nn.log_softmax(logits)[token] if token else 0.0
            assert scores[row, t] == pytest.approx(float(expected), abs=1e-4)


def test_probabilities_of_every_next_token_sum_to_one(make_transformer, random_ids):
    model, source = make_transformer(), np.repeat(random_ids([4]), 19, axis=0)
    tokens = np.arange(1, 20, dtype=np.int32)[:, np.newaxis]  # without 0, which is padding
    total = np.exp(log_probabilities(model, source, tokens)).sum()
    padding = tf.nn.softmax(model({"source": source[:1], "target": np.array([[2]])})[0, 0])[0]
    assert total + float(padding) == pytest.approx(1, abs=1e-5)


def test_scores_of_hypotheses_equal_those_of_the_search(noisy_reverser, decode, random_ids):
    source = random_ids([3, 8, 5], end=(EOS,))
    result = decode(noisy_reverser, source, BeamSearch(beams=4, n_best=4, length_penalty=0.0))
    for rank in range(4):
        target = np.pad(result.ids[:, rank], [(0, 0), (0, 1)])
        target[np.arange(3), result.lengths[:, rank]] = EOS
        scores = log_probabilities(noisy_reverser, source, target)
        np.testing.assert_allclose(tf.reduce_sum(scores, 1), result.log_probs[:, rank], atol=1e-4)


def attended(attention, weights, memory, x):
    """Returns the output of an attention layer with the given weights, and None."""
    values = attention.project(x)[2] if memory is None else attention.project_memory(memory)[1]
    values = tf.repeat(values, weights.shape[1] // values.shape[1], axis=1)
    return attention.merge(tf.matmul(weights, values)), None


def test_attention_weights_are_those_the_model_uses(make_transformer, random_ids, translator_kind):
    """The output of every layer stays the same if attention uses the returned weights."""
    model = make_transformer(num_decoder_layers=3, **translator_kind)
    source, target = random_ids([5, 3]), random_ids([4, 2], seed=1, end=(EOS,))
    weights = attention_weights_of_every_layer(model, source, target)
    assert weights.encoder.shape == (2, 2, 2, 5, 5)
    is_recurrent = model.config.decoder == "ssru"
    assert weights.decoder is None if is_recurrent else weights.decoder.shape == (3, 2, 2, 5, 5)
    assert weights.cross.shape == (3, 2, 2, 5, 5)
    memory, _ = model.encode(source)
    x = model.decoder.start(model.target_embedding(np.pad(target, [(0, 0), (1, 0)], constant_values=2)[:, :-1]))
    for number, (layer, cross_weights) in enumerate(zip(model.decoder.layers, weights.cross, strict=True)):
        if is_recurrent:
            x, _ = layer.self_residual.around(x, lambda y, layer=layer: (layer.ssru(y), None))
        else:
            self_weights = weights.decoder[number]
            x, _ = layer.self_residual.around(x, functools.partial(attended, layer.self_attention, self_weights, None))
        x, _ = layer.cross_residual.around(x, functools.partial(attended, layer.cross_attention, cross_weights, memory))
        x, _ = layer.feed_residual.around(x, lambda y, layer=layer: (layer.feed_forward(y), None))
    logits = model.output_embedding.logits(model.decoder.finish(x))
    inputs = {"source": source, "target": np.pad(target, [(0, 0), (1, 0)], constant_values=2)[:, :-1]}
    np.testing.assert_allclose(logits, model(inputs), rtol=1e-4, atol=1e-5)


def test_attention_weights_are_zero_where_masked(make_transformer, random_ids):
    source, target = random_ids([5, 3]), random_ids([4, 2], seed=1)
    weights = attention_weights_of_every_layer(make_transformer(), source, target)
    for tensor in weights:
        np.testing.assert_allclose(tf.reduce_sum(tensor, -1), np.ones(tensor.shape[:-1]), rtol=1e-5)
    assert not weights.encoder[:, 1, :, :, 3:].numpy().any()
    assert not weights.cross[:, 1, :, :, 3:].numpy().any()
    assert not np.triu(weights.decoder.numpy(), 1).any()


def test_a_reverser_attends_to_the_token_that_it_writes(reverser, random_ids):
    """In a model that reverses sequences, token t attends to source position S - 1 - t."""
    source = random_ids([6] * 20, seed=5, end=(EOS,))
    target = np.concatenate([source[:, 5::-1], source[:, 6:]], axis=1)
    cross = attention_weights_of_every_layer(reverser, source, target).cross
    attended = tf.argmax(tf.reduce_max(cross[0], axis=1), axis=-1).numpy()  # by the most confident head
    assert np.mean(attended[:, :6] == np.arange(5, -1, -1)) > 0.8
