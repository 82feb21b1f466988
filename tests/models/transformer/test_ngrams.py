"""The linear classifier of tokens and pairs of tokens: what it counts, and that it learns beside the encoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.transformer.models import EncoderClassifier
from seq2serve.models.transformer.ngrams import SCALE, NGramClassifier
from seq2serve.models.transformer.train_step import loss_sums

VOCAB_SIZE, BUCKETS, CLASSES = 20, 50, 3
TINY = ModelConfig(1, 1, d_model=16, num_heads=2, dff=32, dropout=0.0, ngram_buckets=BUCKETS)


@pytest.fixture
def layer():
    layer = NGramClassifier(VOCAB_SIZE, BUCKETS, CLASSES)
    layer.build()
    layer.matrix.assign(np.random.default_rng(1).normal(size=layer.matrix.shape))
    return layer


def test_weights_of_tokens_and_pairs_are_summed_and_divided_by_the_root_of_their_number(layer):
    matrix = layer.matrix.numpy()
    pair = layer(tf.constant([[5, 7]])).numpy()[0] * 3**0.5 / SCALE - matrix[5] - matrix[7]
    buckets = matrix[VOCAB_SIZE:]
    assert np.isclose(buckets, pair, atol=1e-5).all(axis=1).sum() == 1, "the pair has the weights of one bucket"
    np.testing.assert_allclose(layer(tf.constant([[5]])).numpy()[0], SCALE * matrix[5], rtol=1e-5)


def test_padding_changes_nothing_and_a_text_without_tokens_has_no_preference(layer, random_ids):
    ids = random_ids([6])
    np.testing.assert_allclose(layer(ids), layer(tf.pad(ids, [[0, 0], [0, 3]])), rtol=1e-5, atol=1e-6)
    assert not layer(tf.zeros([1, 4], tf.int32)).numpy().any()


def test_the_order_of_tokens_matters(layer):
    one, other = layer(tf.constant([[5, 7], [7, 5]])).numpy()
    assert not np.allclose(one, other)


def test_pairs_are_spread_over_all_buckets(layer):
    first, second = np.meshgrid(np.arange(1, 60, dtype=np.int32), np.arange(1, 60, dtype=np.int32))
    counts = np.bincount(layer._bucket(tf.constant(first), tf.constant(second)).numpy().ravel(), minlength=BUCKETS)
    expected = first.size / BUCKETS
    statistic = ((counts - expected) ** 2 / expected).sum()  # chi-squared with 49 degrees of freedom
    assert statistic < 85.4, counts  # exceeded with a probability of 0.1 %


def test_each_classifier_has_a_loss_of_its_own_in_training(random_ids):
    """The sum of both, so that the gradient of neither depends on what the other has learnt."""
    keras.utils.set_random_seed(1)
    model = EncoderClassifier(TINY, VOCAB_SIZE, CLASSES)
    model.build()
    ids, labels, loss = random_ids([6, 4]), tf.constant([2, 0]), MaskedCrossEntropy(0.1, -1, (1.0, 2.0, 3.0))
    logits = model(ids, training=True)
    sums = loss_sums(loss, labels, logits)
    parts = [loss_sums(loss, labels, logits[:, path]) for path in range(2)]
    for name in sums._fields:
        np.testing.assert_allclose(getattr(sums, name), sum(getattr(part, name) for part in parts), rtol=1e-6)


def test_the_answer_is_a_product_of_both_probabilities_with_the_weights_of_the_mixture(random_ids):
    keras.utils.set_random_seed(1)
    model = EncoderClassifier(TINY, VOCAB_SIZE, CLASSES)
    model.build()
    model.ngrams.matrix.assign(np.random.default_rng(1).normal(size=model.ngrams.matrix.shape))
    ids = random_ids([6, 4])
    both = tf.nn.softmax(model(ids, training=True)).numpy()
    for weights in ([0.5, 0.5], [0.0, 1.0], [0.3, 1.2]):
        model.mixture.assign(weights)
        product = (both ** np.array(weights)[:, np.newaxis]).prod(1)
        np.testing.assert_allclose(tf.nn.softmax(model(ids)), product / product.sum(1, keepdims=True), rtol=1e-5)
    assert not any(weight is model.mixture for weight in model.trainable_weights)
