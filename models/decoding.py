"""The decoding loop: one token a step, keys and values cached, all inside one graph.

Comes in: source ids [B, S]. Goes out: the best hypotheses of each row.
Read next: inference.py for a step of the decoder, search.py for how a token is chosen.

Two nested loops. The inner one writes tokens; its tensors have fixed shapes, so the caches are updated in place. The
outer one makes room for the next CHUNK tokens and drops the rows that are done, so nobody pays for them.
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from models.attention import mask_bias
from models.inference import StepDecoder, Weights, attend, attend_of_few, prepare, put
from models.search import BeamSearch, Hypotheses, Limits, begin

CHUNK = 16  # tokens of room added at a time: less wastes time on copies, more on attention to empty places

FEW = 8  # rows up to which `attend_of_few` is used: it is the faster with 1 row and the slower with 32


class Result(NamedTuple):
    """The best hypotheses of each row, best first.

    Args:
        ids: int32 [B, N, T], 0 after the end; no markers.
        lengths: int32 [B, N].
        scores: float32 [B, N], log probability over length penalty.
        log_probs: float32 [B, N].
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor
    log_probs: tf.Tensor


class _Rows(NamedTuple):
    """What belongs to the rows still being written.

    Args:
        number: int32 [B], their places in the batch that came in.
        limits: of each row.
        hypotheses: C tokens of room in each.
        seen: float [B, K, C * K], added to attention scores: 0 where a hypothesis sees a place of the cache. What a
            hypothesis wrote stays where it is when beams change places; it is these rows that are reordered.
        caches: for each layer the keys and values of the tokens so far, [2 * B * H, C * K * d].
        memories: for each layer those of the source, [2, B, H, S, d].
        memory_bias: float [B, 1, 1, S].
    """

    number: tf.Tensor
    limits: Limits
    hypotheses: Hypotheses
    seen: tf.Tensor
    caches: tuple
    memories: tuple
    memory_bias: tf.Tensor


def translate(
    model, source: tf.Tensor, search: BeamSearch, limits: Limits, bos_id: int = 2, weights: Weights | None = None
) -> Result:
    """Writes the target of each source.

    Args:
        model: a built models.transformer.Transformer.
        source: int32 [B, S], 0 where padded.
        search: how tokens are chosen.
        limits: each row's lengths.
        bos_id: the begin marker.
        weights: `prepare(model)`, tensors or variables; None prepares them anew in every call.
    Returns:
        A Result for B rows.
    """
    weights = tf.nest.map_structure(tf.convert_to_tensor, weights or prepare(model))
    decoder = StepDecoder(model.config, weights, search.beams, attend)
    rows = _begin(model, decoder, source, search, limits, bos_id)
    h = rows.hypotheses
    result = Result(h.best_ids, h.best_lengths, h.best_scores, h.best_log_probs)

    def outer(step, rows, result):
        step, rows = _write(model, decoder, search, step, rows)
        result = _record(result, rows)
        done = rows.hypotheses.done
        rows = _if(tf.reduce_any(done), lambda: _keep(rows, tf.where(~done)[:, 0]), rows)
        full = step == tf.shape(rows.hypotheses.ids)[2]
        return step, _if(full, lambda: _grow(rows, search.beams), rows), result

    loop = (tf.constant(0), rows, result)
    _, _, result = tf.while_loop(
        lambda step, rows, result: tf.size(rows.number) > 0, outer, loop, shape_invariants=_any_size(*loop)
    )
    return result


def _begin(model, decoder: StepDecoder, source, search: BeamSearch, limits: Limits, bos_id: int) -> _Rows:
    """Encodes the source and makes room for the first CHUNK tokens."""
    with tf.name_scope("encoder"):
        memory, memory_mask = model.encode(source)
        memories = decoder.memories(memory)
    batch, beams, width = tf.shape(source)[0], search.beams, model.config.d_model
    cache = tf.zeros(
        [2 * batch * model.config.num_heads, CHUNK * beams * (width // model.config.num_heads)], memory.dtype
    )
    return _Rows(
        number=tf.range(batch),
        limits=limits,
        hypotheses=begin(batch, beams, search.n_best, CHUNK, bos_id),
        seen=tf.fill([batch, beams, CHUNK * beams], _hidden(memory.dtype)),
        caches=(cache,) * model.config.num_decoder_layers,
        memories=memories,
        memory_bias=mask_bias(memory_mask, memory.dtype),
    )


def _hidden(dtype: tf.DType) -> tf.Tensor:
    return mask_bias(tf.constant(False), dtype)


def _any_size(step, rows: _Rows, result: Result) -> tuple:
    """Returns shapes for tf.while_loop: rows, room and source length may change; beams, heads and channels do not."""

    def free(*axes):
        def shape(tensor):
            return tf.TensorShape([None if axis in axes else size for axis, size in enumerate(tensor.shape)])

        return lambda structure: tf.nest.map_structure(shape, structure)

    hypotheses = free(0)(rows.hypotheses)._replace(ids=free(0, 2)(rows.hypotheses.ids))
    rows_shapes = _Rows(
        number=free(0)(rows.number),
        limits=free(0)(rows.limits),
        hypotheses=hypotheses._replace(best_ids=free(0, 2)(rows.hypotheses.best_ids)),
        seen=free(0, 2)(rows.seen),
        caches=free(0, 1)(rows.caches),
        memories=free(1, 3)(rows.memories),
        memory_bias=free(0, 3)(rows.memory_bias),
    )
    return step.shape, rows_shapes, free(0)(result)._replace(ids=free(0, 2)(result.ids))


def _if(condition: tf.Tensor, change, structure):
    """Returns what `change()` makes of the structure where the condition holds, else the structure."""
    return tf.cond(condition, change, lambda: tf.nest.map_structure(tf.identity, structure))


def _write(model, decoder: StepDecoder, search: BeamSearch, step, rows: _Rows) -> tuple[tf.Tensor, _Rows]:
    """Writes tokens until there is no more room or half of the rows are done."""

    def write(how):
        return _write_with(model, dataclasses.replace(decoder, attend=how), search, step, rows)

    if search.beams > 1:
        return write(attend)
    return tf.cond(tf.size(rows.number) <= FEW, lambda: write(attend_of_few), lambda: write(attend))


def _write_with(model, decoder: StepDecoder, search: BeamSearch, step, rows: _Rows) -> tuple[tf.Tensor, _Rows]:
    batch, room, beams = tf.size(rows.number), tf.shape(rows.hypotheses.ids)[2], search.beams
    places = decoder.places(batch)
    positions = model.decoder.positions(tf.zeros([room, model.config.d_model]), tf.range(room))
    own = tf.repeat(mask_bias(tf.eye(beams, dtype=tf.bool), rows.seen.dtype)[tf.newaxis], batch, axis=0)

    def unfinished(step, hypotheses, seen, caches):
        return (step < room) & (2 * tf.math.count_nonzero(hypotheses.done, dtype=tf.int32) < batch)

    def body(step, hypotheses, seen, caches):
        seen = put(seen, step * beams, own)
        logits, caches = decoder(
            hypotheses.tokens,
            step,
            positions[step],
            caches,
            rows.memories,
            seen[:, tf.newaxis],
            rows.memory_bias,
            places,
        )
        with tf.name_scope("choose"):
            hypotheses = search.advance(hypotheses, logits, step, rows.limits)
        if beams > 1:
            seen = tf.gather(seen, hypotheses.parents, batch_dims=1)
        return step + 1, hypotheses, seen, caches

    loop = (step, rows.hypotheses, rows.seen, rows.caches)
    step, hypotheses, seen, caches = tf.while_loop(unfinished, body, loop)
    return step, rows._replace(hypotheses=hypotheses, seen=seen, caches=caches)


def _record(result: Result, rows: _Rows) -> Result:
    """Copies what the open rows have into the result, whose width follows the room."""
    h, where = rows.hypotheses, rows.number[:, tf.newaxis]
    more = tf.shape(h.best_ids)[2] - tf.shape(result.ids)[2]
    ids = tf.pad(result.ids, [[0, 0], [0, 0], [0, more]])
    put = tf.tensor_scatter_nd_update
    return Result(
        put(ids, where, h.best_ids),
        put(result.lengths, where, h.best_lengths),
        put(result.scores, where, h.best_scores),
        put(result.log_probs, where, h.best_log_probs),
    )


def _grow(rows: _Rows, beams: int) -> _Rows:
    """Makes room for CHUNK more tokens."""
    h, room = rows.hypotheses, tf.shape(rows.hypotheses.ids)[2]
    ids, best_ids = (tf.pad(ids, [[0, 0], [0, 0], [0, CHUNK]]) for ids in (h.ids, h.best_ids))
    seen = tf.pad(rows.seen, [[0, 0], [0, 0], [0, CHUNK * beams]], constant_values=_hidden(rows.seen.dtype))

    wider = [[0, 0], [0, tf.shape(rows.caches[0])[1] // room * CHUNK]]
    caches = tuple(tf.pad(cache, wider) for cache in rows.caches)
    return rows._replace(hypotheses=h._replace(ids=ids, best_ids=best_ids), seen=seen, caches=caches)


def _keep(rows: _Rows, kept: tf.Tensor) -> _Rows:
    """Leaves out the rows that are not in `kept`, int64 [rows]."""

    def by_row(structure):
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, kept), structure)

    def keep_cache(cache):
        width = tf.shape(cache)[1]
        blocks = tf.reshape(cache, [2, tf.size(rows.number), -1, width])
        return tf.reshape(tf.gather(blocks, kept, axis=1), [-1, width])

    return _Rows(
        number=by_row(rows.number),
        limits=by_row(rows.limits),
        hypotheses=by_row(rows.hypotheses),
        seen=by_row(rows.seen),
        caches=tuple(keep_cache(cache) for cache in rows.caches),
        memories=tuple(tf.gather(memory, kept, axis=1) for memory in rows.memories),
        memory_bias=by_row(rows.memory_bias),
    )
