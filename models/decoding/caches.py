"""What a decoder keeps of the tokens before: keys and values, or the states of recurrent layers.

Axes: B rows, K hypotheses per row, P positions of the prompt, C capacity for generated tokens, H / G heads of keys and
values, d channels of a head.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from seq2serve.models.transformer.attention import mask_bias
from seq2serve.models.transformer.cache import write_slice


class KeyValueCaches(NamedTuple):
    """The caches of self-attention.

    Args:
        bias: float [B, K, (P + C) * K], added to attention scores; 0 where a hypothesis sees a slot of the caches. When
            beams are reordered, this tensor is reordered and the caches are not.
        layers: keys and values of the previous tokens for each layer, [2 * B * H / G, (P + C) * K * d]. The P positions
            of the prompt come first.
    """

    bias: tf.Tensor
    layers: tuple[tf.Tensor, ...]

    def grow(self, positions: int, head_size: int) -> "KeyValueCaches":
        """Adds empty positions, which nothing sees."""
        slots = positions * self.bias.shape[1]
        hidden = mask_bias(tf.constant(False), self.bias.dtype)
        return KeyValueCaches(
            tf.pad(self.bias, [[0, 0], [0, 0], [0, slots]], constant_values=hidden),
            tuple(tf.pad(cache, [[0, 0], [0, slots * head_size]]) for cache in self.layers),
        )

    def keep(self, rows: tf.Tensor, batch: tf.Tensor) -> "KeyValueCaches":
        """Selects some of B rows by their indices, int64 [rows]."""

        def select(cache: tf.Tensor) -> tf.Tensor:
            width = tf.shape(cache)[1]
            by_row = tf.reshape(cache, [2, batch, -1, width])  # [2, B, H / G, (P + C) * K * d]
            return tf.reshape(tf.gather(by_row, rows, axis=1), [-1, width])

        return KeyValueCaches(tf.gather(self.bias, rows), tuple(map(select, self.layers)))

    def own_slots(self) -> tf.Tensor:
        """Returns the part of the bias for one position, where a hypothesis sees only its own slot: [B, K, K]."""
        own = mask_bias(tf.eye(self.bias.shape[1], dtype=tf.bool), self.bias.dtype)
        return tf.repeat(own[tf.newaxis], tf.shape(self.bias)[0], axis=0)

    def at(self, position: tf.Tensor, own_slots: tf.Tensor) -> "KeyValueCaches":
        """Returns the caches with which the token at a position is decoded."""
        return self._replace(bias=write_slice(self.bias, position * self.bias.shape[1], own_slots))

    def follow(self, parents: tf.Tensor) -> "KeyValueCaches":
        """Reorders by parents, int32 [B, K]: the hypothesis that each of them extends."""
        return self._replace(bias=tf.gather(self.bias, parents, batch_dims=1))

    def free_axes(self) -> "KeyValueCaches":
        """Returns the shape invariants of a loop."""
        return KeyValueCaches(free_axes(self.bias, 0, 2), free_axes(self.layers, 0, 1))


class RecurrentStates(NamedTuple):
    """The states of recurrent layers, which are as large after many tokens as after one.

    Args:
        layers: for each layer float [B * K, D].
    """

    layers: tuple[tf.Tensor, ...]

    def grow(self, positions: int, head_size: int) -> "RecurrentStates":
        """Returns the same states: they need no room for more positions."""
        return self

    def keep(self, rows: tf.Tensor, batch: tf.Tensor) -> "RecurrentStates":
        """Selects some of B rows by their indices, int64 [rows]."""

        def select(states: tf.Tensor) -> tf.Tensor:
            by_row = tf.reshape(states, [batch, -1, states.shape[1]])  # [B, K, D]
            return tf.reshape(tf.gather(by_row, rows), [-1, states.shape[1]])

        return RecurrentStates(tuple(map(select, self.layers)))

    def own_slots(self) -> tuple[()]:
        """Returns nothing: a state has no slots."""
        return ()

    def at(self, position: tf.Tensor, own_slots: tuple[()]) -> "RecurrentStates":
        """Returns the same states: they are those before a token at any position."""
        return self

    def follow(self, parents: tf.Tensor) -> "RecurrentStates":
        """Reorders by parents, int32 [B, K]: the hypothesis that each of them extends."""
        batch, beams = tf.shape(parents)[0], parents.shape[1]
        indices = tf.reshape(parents + tf.range(batch)[:, tf.newaxis] * beams, [-1])  # [B * K]
        return RecurrentStates(tuple(tf.gather(states, indices) for states in self.layers))

    def free_axes(self) -> "RecurrentStates":
        """Returns the shape invariants of a loop."""
        return RecurrentStates(free_axes(self.layers, 0))


Caches = KeyValueCaches | RecurrentStates


def free_axes(structure: Any, *axes: int) -> Any:
    """Returns the shapes of a structure of tensors, with None for the axes that may change."""
    return tf.nest.map_structure(
        lambda tensor: tf.TensorShape([None if axis in axes else size for axis, size in enumerate(tensor.shape)]),
        structure,
    )
