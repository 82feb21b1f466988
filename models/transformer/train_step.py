"""The training step: forward pass, backward pass and update, with gradient accumulation and several devices."""

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from keras import Model as _Base  # declares the attributes that the mixin uses
else:
    _Base = object


class LossSums(NamedTuple):
    """Statistics of a batch, float32 scalars. They are sums, so those of parts, devices and batches add up.

    Args:
        loss: total loss in nats, including label smoothing and label weights.
        weight: total weight of the labels; the mean loss is loss / weight.
        right: number of labels that have the highest logit.
        labels: number of labels, without padding.
    """

    loss: tf.Tensor
    weight: tf.Tensor
    right: tf.Tensor
    labels: tf.Tensor


def loss_sums(loss: Any, labels: tf.Tensor, logits: tf.Tensor) -> LossSums:
    """Computes the statistics of a batch.

    Args:
        loss: a MaskedCrossEntropy.
        labels: int32 [B, T] or [B].
        logits: float32 [B, T, V] or [B, V]; [B, P, V] if each of P classifiers learns the labels of [B]. The sums are
            then over all of them.
    """
    if len(labels.shape) == 1 and len(logits.shape) == 3:
        labels = tf.repeat(labels[:, tf.newaxis], logits.shape[1], axis=1)
    counted = labels != loss.pad_id
    right = (tf.argmax(logits, -1, output_type=labels.dtype) == labels) & counted
    return LossSums(loss.total(labels, logits), tf.reduce_sum(loss.weights(labels)), _count(right), _count(counted))


class TrainStepMixin(_Base):
    """Training step of a keras.Model that is compiled with a MaskedCrossEntropy.

    The update is that of the whole batch, however it is split: the loss is divided by the weight of all labels, not of
    those in one part or on one device.

    Args:
        batch_parts: number of parts that a batch is split into and computed in sequence (gradient accumulation).
    """

    batch_parts = 1

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Updates the weights with one batch.

        Args:
            data: inputs, int32 [B, ...] or a dictionary of them, and labels, int32 [B, ...].
        Returns:
            `loss`, in nats per label; `gradient_norm`, before clipping; the batch's `right` and `labels` (see
            LossSums); `tokens`, without padding; `cells`, tokens with padding.
        """
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        replica = tf.distribute.get_replica_context()
        weight = replica.all_reduce("sum", tf.reduce_sum(self.loss.weights(labels)))
        gradients, sums = self._add_parts(inputs, labels, tf.maximum(weight, 1.0))
        ids = tf.nest.flatten(inputs)
        sizes = [tf.add_n([_count(column != 0) for column in ids]), tf.cast(tf.add_n([*map(tf.size, ids)]), tf.float32)]
        gradients, sums, (tokens, cells) = replica.all_reduce("sum", (gradients, sums, sizes))
        norm = tf.linalg.global_norm(gradients) / self.optimizer.scale_loss(1.0)
        # Keras's optimizers clip the gradients of each device and then add them up, so each device gets its share.
        shares = [gradient / replica.num_replicas_in_sync for gradient in gradients]
        self.optimizer.apply(shares, self.trainable_variables)
        metrics = {"loss": sums.loss / tf.maximum(sums.weight, 1.0), "gradient_norm": norm}
        return {**metrics, "right": sums.right, "labels": sums.labels, "tokens": tokens, "cells": cells}

    def _maybe_symbolic_build(self, *_batch: Any, **_iterator: Any) -> None:
        """Does nothing: the model is built, and Keras's version fails if devices get batches of different shapes."""

    def _add_parts(self, inputs: Any, labels: tf.Tensor, weight: tf.Tensor) -> tuple[list[tf.Tensor], LossSums]:
        """Returns the gradients and statistics summed over all parts."""
        total = self._part(0, inputs, labels, weight)
        for part in range(1, self.batch_parts):
            with tf.control_dependencies(tf.nest.flatten(total)):  # run parts in sequence, so that they reuse memory
                sums = self._part(part, inputs, labels, weight)
            total = tf.nest.map_structure(tf.add, total, sums)
        return total

    def _part(self, part: int, inputs: Any, labels: tf.Tensor, weight: tf.Tensor) -> tuple[list[tf.Tensor], LossSums]:
        rows = tf.shape(labels)[0]
        first, end = part * rows // self.batch_parts, (part + 1) * rows // self.batch_parts
        inputs, labels = tf.nest.map_structure(lambda ids: ids[first:end], (inputs, labels))
        with tf.GradientTape() as tape:
            sums = loss_sums(self.loss, labels, self(inputs, training=True))
            scaled = self.optimizer.scale_loss(sums.loss / weight)
        gradients = tape.gradient(scaled, self.trainable_weights)
        return [tf.convert_to_tensor(gradient) for gradient in gradients], sums


def _count(condition: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(condition, dtype=tf.float32)
