"""The loss: cross-entropy with label smoothing, padding mask and label weights."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


@tf.custom_gradient
def smoothed_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, epsilon: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple]]:
    """Computes cross-entropy against (1 - epsilon) one-hot + epsilon uniform (section 5.4), without either tensor.

    TensorFlow's fused kernel computes the unsmoothed loss and its gradient in one pass. Smoothing adds
    epsilon (logit of the label - mean logit) to the loss and epsilon (one-hot - 1/V) to the gradient.

    Args:
        logits: float32 [N, V].
        labels: int32 [N].
        epsilon: float32 scalar.
    Returns:
        float32 [N], in nats, and its gradient function.
    """
    vocab_size = tf.cast(tf.shape(logits)[1], logits.dtype)
    plain, plain_gradient = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
    at_label = tf.stack([tf.range(tf.shape(labels)[0]), labels], axis=1)  # [N, 2]
    loss = plain + epsilon * (tf.gather_nd(logits, at_label) - tf.reduce_mean(logits, axis=1))

    def gradient(upstream: tf.Tensor) -> tuple:
        smoothed = plain_gradient - epsilon / vocab_size  # [N, V]
        smoothed = tf.tensor_scatter_nd_add(smoothed, at_label, tf.fill(tf.shape(labels), epsilon))
        return smoothed * upstream[:, tf.newaxis], None, None

    return loss, gradient


class MaskedCrossEntropy(keras.losses.Loss):
    """Label-smoothed cross-entropy, averaged over the labels that are not padding.

    Args:
        label_smoothing: epsilon of section 5.4, 0 to 1.
        pad_id: label that is ignored; an id that never occurs, such as -1, ignores none.
        label_weights: weight of each label, by id; empty weights all labels equally.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        pad_id: int = 0,
        label_weights: Sequence[float] = (),
        name: str = "loss",
    ):
        super().__init__(name=name, reduction=None)
        self.label_smoothing, self.pad_id, self.label_weights = label_smoothing, pad_id, tuple(label_weights)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the weighted mean of the losses.

        Args:
            y_true: labels, int [B, T] or [B].
            y_pred: logits, float32 [B, T, V] or [B, V].
        Returns:
            float32 scalar, nats per label.
        """
        labels = tf.cast(y_true, tf.int32)
        return self.total(labels, y_pred) / tf.maximum(tf.reduce_sum(self.weights(labels)), 1.0)

    def total(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the weighted sum of the losses of all labels, float32 scalar, in nats."""
        labels = tf.reshape(labels, [-1])
        losses = smoothed_cross_entropy(
            tf.reshape(logits, [-1, logits.shape[-1]]), labels, tf.constant(self.label_smoothing)
        )
        return tf.reduce_sum(losses * self.weights(labels))

    def weights(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns the weight of each label, float32 of the shape of `labels`; 0 for padding."""
        weights = tf.cast(labels != self.pad_id, tf.float32)
        return weights * tf.gather(tf.constant(self.label_weights), labels) if self.label_weights else weights


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Returns label weights with which all labels contribute equally to the loss.

    Args:
        counts: number of examples of each label.
    Returns:
        A weight for each label; 0 for a label without examples. The mean over all examples is 1.
    """
    num_present = sum(count > 0 for count in counts)
    return [sum(counts) / (num_present * count) if count else 0.0 for count in counts]
