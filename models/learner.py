"""One step of learning: forward, backward, update; in parts where memory is short, on as many devices as there are.

Comes in: a batch of (inputs, labels). Goes out: changed weights, and numbers to watch.
Read next: transformer.py, whose models learn so; training.py for loss and optimizer.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf


class Tally(NamedTuple):
    """What is counted of a batch, float32 scalars; sums, so that batches, parts and devices add up.

    Args:
        loss: in nats, label smoothing and label weights included.
        weight: what the loss is to be divided by.
        right: labels whose likeliest prediction is right.
        labels: how many there are, padding left out.
    """

    loss: tf.Tensor
    weight: tf.Tensor
    right: tf.Tensor
    labels: tf.Tensor


def tally(loss: Any, labels: tf.Tensor, logits: tf.Tensor) -> Tally:
    """Counts a batch.

    Args:
        loss: a models.training.MaskedCrossEntropy.
        labels: int32 [B, T] or [B].
        logits: float32 [B, T, V] or [B, V].
    """
    counted = labels != loss.pad_id
    right = (tf.argmax(logits, -1, output_type=labels.dtype) == labels) & counted
    return Tally(loss.total(labels, logits), tf.reduce_sum(loss.weights(labels)), _count(right), _count(counted))


class Learner:
    """What `fit` does at each step; to be mixed into a keras.Model that is compiled with a MaskedCrossEntropy.

    The update is that of the whole batch, however it is cut: its loss is divided by the weight of all its labels, not
    of those that one part or one device sees.

    Args:
        batch_parts: parts that a batch is computed in, one after the other (gradient accumulation).
    """

    batch_parts = 1

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Learns from a batch.

        Args:
            data: inputs, int32 [B, ...] or a dictionary of such, and labels, int32 [B, ...].
        Returns:
            `loss`, in nats a label; `gradient_norm` before it is clipped; and of the batch `right` and `labels` (see
            Tally), `tokens` read and `cells` with padding.
        """
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        device = tf.distribute.get_replica_context()
        weight = device.all_reduce("sum", tf.reduce_sum(self.loss.weights(labels)))
        gradients, counts = self._add_parts(inputs, labels, tf.maximum(weight, 1.0))
        ids = tf.nest.flatten(inputs)
        read = [tf.add_n([_count(column != 0) for column in ids]), tf.cast(tf.add_n([*map(tf.size, ids)]), tf.float32)]
        gradients, counts, (tokens, cells) = device.all_reduce("sum", (gradients, counts, read))
        norm = tf.linalg.global_norm(gradients) / self.optimizer.scale_loss(1.0)
        # Keras's optimizers clip what each device has and then add it up, so each is given its share of the sum.
        shares = [gradient / device.num_replicas_in_sync for gradient in gradients]
        self.optimizer.apply(shares, self.trainable_variables)
        numbers = {"loss": counts.loss / tf.maximum(counts.weight, 1.0), "gradient_norm": norm}
        return {**numbers, "right": counts.right, "labels": counts.labels, "tokens": tokens, "cells": cells}

    def _maybe_symbolic_build(self, *_batch, **_iterator) -> None:
        """Keras's `fit` on several devices would build what is built, and needs shares of one shape for it."""

    def _add_parts(self, inputs: Any, labels: tf.Tensor, weight: tf.Tensor) -> tuple[list[tf.Tensor], Tally]:
        """Returns the sums of all parts' gradients and tallies; a part waits for the one before, to have its memory."""
        rows, total = tf.shape(labels)[0], ()
        for part in range(self.batch_parts):
            first, end = part * rows // self.batch_parts, (part + 1) * rows // self.batch_parts
            with tf.control_dependencies(tf.nest.flatten(total)):
                cut = tf.nest.map_structure(lambda ids, first=first, end=end: ids[first:end], (inputs, labels))
                found = self._gradients(*cut, weight)
            total = tf.nest.map_structure(tf.add, total, found) if total else found
        return total

    def _gradients(self, inputs: Any, labels: tf.Tensor, weight: tf.Tensor) -> tuple[list[tf.Tensor], Tally]:
        with tf.GradientTape() as tape:
            counts = tally(self.loss, labels, self(inputs, training=True))
            scaled = self.optimizer.scale_loss(counts.loss / weight)
        gradients = tape.gradient(scaled, self.trainable_weights)
        return [tf.convert_to_tensor(gradient) for gradient in gradients], counts


def _count(which: tf.Tensor) -> tf.Tensor:
    return tf.math.count_nonzero(which, dtype=tf.float32)
