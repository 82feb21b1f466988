"""A linear classifier of the tokens and the pairs of adjacent tokens in a text."""

from typing import Any

import keras
import tensorflow as tf

from seq2serve.models.transformer.layers import lookup

SCALE = 4.0  # logits per unit of weight: a step of the optimizer changes them as fast as those of an encoder


@keras.saving.register_keras_serializable("seq2serve")
class NGramClassifier(keras.layers.Layer):
    """Multinomial logistic regression on the tokens of a text and its pairs of adjacent tokens.

    Pairs share a fixed number of weights by hashing (Weinberger et al. 2009). The weights of a text are summed and
    divided by the square root of their number, as in a bag of words of unit length.

    Args:
        vocab_size: V; each token has weights of its own.
        num_buckets: number of hash values of the pairs.
        num_classes: C.
    """

    def __init__(self, vocab_size: int, num_buckets: int, num_classes: int, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})  # a sum of many small weights
        self.vocab_size, self.num_buckets, self.num_classes = vocab_size, num_buckets, num_classes

    def build(self, *_shapes: Any) -> None:
        """Creates the matrix [V + buckets, C], of zeros. Muon knows an embedding by its name."""
        shape = (self.vocab_size + self.num_buckets, self.num_classes)
        self.matrix = self.add_weight(shape=shape, initializer="zeros", name="ngram_embedding")

    def call(self, source: tf.Tensor) -> tf.Tensor:
        """Classifies texts.

        Args:
            source: int [B, S]; 0 is padding.
        Returns:
            Logits, float32 [B, C]; zeros for a text without tokens.
        """
        following = tf.pad(source[:, 1:], [[0, 0], [0, 1]])  # [B, S]
        ngrams = tf.concat([source, self.vocab_size + self._bucket(source, following)], 1)  # [B, 2S]
        counted = tf.concat([source, following], 1) != 0  # [B, 2S]
        number = tf.maximum(tf.reduce_sum(tf.cast(counted, tf.float32), 1, keepdims=True), 1.0)  # [B, 1]
        weights = lookup(tf.convert_to_tensor(self.matrix), ngrams)  # [B, 2S, C]
        return SCALE * tf.reduce_sum(tf.where(counted[..., tf.newaxis], weights, 0.0), 1) * tf.math.rsqrt(number)

    def _bucket(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Hashes pairs of ids, int [B, S] each, by multiplication (Knuth 1998, section 6.4)."""
        product = (tf.cast(first, tf.int64) * 1_000_003 + tf.cast(second, tf.int64)) * 0x1E3779B97F4A7C15
        high = tf.bitwise.right_shift(
            product, tf.constant(32, tf.int64)
        )  # the lower bits depend on few bits of the ids
        return tf.cast(tf.math.floormod(high, self.num_buckets), first.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `from_config`."""
        sizes = {"vocab_size": self.vocab_size, "num_buckets": self.num_buckets, "num_classes": self.num_classes}
        return {**super().get_config(), **sizes}
