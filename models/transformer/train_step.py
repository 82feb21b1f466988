"""The training step: forward pass, backward pass and update, with gradient accumulation, on one or several replicas.

A replica is a device with a copy of the weights, on this machine or on another one.
"""

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
    those in one part or on one replica. A replica's share may have any number of rows, also none.

    Args:
        batch_parts: number of parts that a batch is split into and computed in sequence (gradient accumulation).
        gradient_dtype: dtype in which replicas add up their gradients.
    """

    batch_parts = 1
    gradient_dtype = "float32"
    train_function: Any

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Updates the weights with one batch.

        Args:
            data: this replica's share of the batch: inputs, int32 [B, ...] or a dictionary of them, and labels, int32
                [B, ...].
        Returns:
            Numbers of the whole batch: `loss`, in nats per label; `gradient_norm`, before clipping; `right` and
            `labels` (see LossSums); `tokens`, without padding; `cells`, tokens with padding.
        """
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        replica = tf.distribute.get_replica_context()
        weight = replica.all_reduce("sum", tf.reduce_sum(self.loss.weights(labels)))
        gradients, sums = self._add_parts(inputs, labels, tf.maximum(weight, 1.0))
        ids = tf.nest.flatten(inputs)
        sizes = [tf.add_n([_count(column != 0) for column in ids]), tf.cast(tf.add_n([*map(tf.size, ids)]), tf.float32)]
        gradients, (sums, (tokens, cells)) = self._added_up(gradients, (sums, sizes), replica)
        norm = tf.linalg.global_norm(gradients) / self.optimizer.scale_loss(1.0)
        self.optimizer.apply(gradients, self.trainable_variables)
        metrics = {"loss": sums.loss / tf.maximum(sums.weight, 1.0), "gradient_norm": norm}
        return {**metrics, "right": sums.right, "labels": sums.labels, "tokens": tokens, "cells": cells}

    def make_train_function(self, force: bool = False) -> None:
        """Compiles the step that `fit` calls. With several replicas its numbers are those of the first.

        They are sums over all replicas already. Keras would average them, which fails if replicas are in several
        processes (Keras issue 20585).
        """
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            super().make_train_function(force)
        elif force or self.train_function is None:

            def step(batches: Any) -> dict[str, tf.Tensor]:
                numbers = strategy.run(self.train_step, args=(next(batches),))
                return {name: strategy.experimental_local_results(value)[0] for name, value in numbers.items()}

            self.train_function = tf.function(step, reduce_retracing=True, autograph=False)

    def _maybe_symbolic_build(self, *_batch: Any, **_iterator: Any) -> None:
        """Does nothing: the model is built, and Keras's version fails if devices get batches of different shapes."""

    def _added_up(
        self, gradients: list[tf.Tensor], numbers: Any, replica: tf.distribute.ReplicaContext
    ) -> tuple[list[tf.Tensor], Any]:
        """Returns gradients and numbers summed over all replicas, float32; `gradient_dtype` counts on the way."""
        if self.gradient_dtype == "float32" or replica.num_replicas_in_sync == 1:
            return replica.all_reduce("sum", (gradients, numbers))  # together: a round trip takes time, too
        narrow = replica.all_reduce("sum", [tf.cast(gradient, self.gradient_dtype) for gradient in gradients])
        return [tf.cast(gradient, tf.float32) for gradient in narrow], replica.all_reduce("sum", numbers)

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
