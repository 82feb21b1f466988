"""The state of the decode loop, and its result.

Axes: B rows, K hypotheses per row, C capacity for generated tokens, H / G heads of keys and values, d channels of a
head.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from seq2serve.models.decoding.beam_search import BeamOptions, Hypotheses, LengthLimits
from seq2serve.models.decoding.caches import Caches, free_axes
from seq2serve.models.decoding.sampling import SamplingOptions

CHUNK = 16  # positions added at a time: fewer waste time on copies, more on attention to empty positions

Limits = LengthLimits | BeamOptions | SamplingOptions


class Result(NamedTuple):
    """The best hypotheses of each row, best first.

    Args:
        ids: int32 [B, N, T], 0 after the end; without markers.
        lengths: int32 [B, N].
        scores: float32 [B, N], log probability divided by the length penalty.
        log_probs: float32 [B, N].
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor
    log_probs: tf.Tensor


class DecoderState(NamedTuple):
    """State of the rows that are not done.

    Args:
        rows: int32 [B], indices of the rows in the input batch.
        limits: limits of each row.
        padding: int32 [B], number of padding positions before the prompt.
        hypotheses: with capacity for C tokens.
        caches: what the layers keep of the previous tokens.
        memories: keys and values of the source for each layer, [2, B, H / G, S, d]; empty without a source.
        memory_bias: float [B, 1, 1, S]; empty without a source.
    """

    rows: tf.Tensor
    limits: Limits
    padding: tf.Tensor
    hypotheses: Hypotheses
    caches: Caches
    memories: tuple
    memory_bias: tf.Tensor | tuple[()]

    def grow(self, head_size: int) -> "DecoderState":
        """Adds room for CHUNK tokens to the hypotheses and to the caches."""
        h = self.hypotheses
        ids, best_ids = (tf.pad(ids, [[0, 0], [0, 0], [0, CHUNK]]) for ids in (h.ids, h.best_ids))
        hypotheses = h._replace(ids=ids, best_ids=best_ids)
        return self._replace(hypotheses=hypotheses, caches=self.caches.grow(CHUNK, head_size))

    def keep(self, rows: tf.Tensor) -> "DecoderState":
        """Selects rows by their indices, int64 [rows]."""

        def select(structure: Any, axis: int = 0) -> Any:
            return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows, axis=axis), structure)

        others = {name: select(getattr(self, name)) for name in self._fields if name not in ("caches", "memories")}
        caches = self.caches.keep(rows, tf.size(self.rows))
        return DecoderState(**others, caches=caches, memories=select(self.memories, axis=1))

    def record(self, result: Result) -> Result:
        """Copies the best hypotheses into the result, which grows with the capacity."""
        h, indices, update = self.hypotheses, self.rows[:, tf.newaxis], tf.tensor_scatter_nd_update
        growth = tf.shape(h.best_ids)[2] - tf.shape(result.ids)[2]
        ids = tf.pad(result.ids, [[0, 0], [0, 0], [0, growth]])
        return Result(
            update(ids, indices, h.best_ids),
            update(result.lengths, indices, h.best_lengths),
            update(result.scores, indices, h.best_scores),
            update(result.log_probs, indices, h.best_log_probs),
        )

    def shapes(self) -> "DecoderState":
        """Returns the shape invariants of a loop: the numbers of rows, positions and source tokens may change."""
        free, h = free_axes, self.hypotheses
        return DecoderState(
            rows=free(self.rows, 0),
            limits=free(self.limits, 0),
            padding=free(self.padding, 0),
            hypotheses=free(h, 0)._replace(ids=free(h.ids, 0, 2), best_ids=free(h.best_ids, 0, 2)),
            caches=self.caches.free_axes(),
            memories=free(self.memories, 1, 3),
            memory_bias=free(self.memory_bias, 0, 3),
        )
