"""The decoding loop: one token a step, keys and values cached, all inside one graph.

Comes in: source ids [B, S]. Goes out: the best hypotheses of each row.
Read next: search.py for how a token is chosen, export.py for the strings around it.

Two nested loops. The inner one writes tokens; its tensors have fixed shapes, so the caches are updated in place. The
outer one makes room for the next CHUNK tokens and drops the rows that are done, so nobody pays for them.
"""

from typing import NamedTuple

import tensorflow as tf

from models.attention import mask_bias, rotate
from models.blocks import DecoderLayer
from models.layers import linear
from models.search import BeamSearch, Hypotheses, Limits, begin

CHUNK = 16  # tokens of room added at a time: less wastes time on copies, more on attention to empty places


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

    `number` int32 [B]: their places in the batch that came in. `caches`: for each layer the keys and values of the
    tokens so far, [2 * B * H * C * K, d]. `memories`: for each layer those of the source, [2, B, H, S, d].
    `memory_bias` [B, 1, 1, S].
    """

    number: tf.Tensor
    limits: Limits
    hypotheses: Hypotheses
    caches: tuple
    memories: tuple
    memory_bias: tf.Tensor


def translate(model, source: tf.Tensor, search: BeamSearch, limits: Limits, bos_id: int = 2) -> Result:
    """Writes the target of each source.

    Args:
        model: a built models.transformer.Transformer.
        source: int32 [B, S], 0 where padded.
        search: how tokens are chosen.
        limits: each row's lengths.
        bos_id: the begin marker.
    Returns:
        A Result for B rows.
    """
    memory, memory_mask = model.encode(source)
    batch, beams = tf.shape(source)[0], search.beams
    memories = tuple(tf.stack(layer.cross_attention.project_memory(memory)) for layer in model.decoder.layers)
    hypotheses = begin(batch, beams, search.n_best, CHUNK)
    size = model.config.d_model // model.config.num_heads
    places = 2 * batch * model.config.num_heads * CHUNK * beams
    caches = tuple(tf.zeros([places, size], memory.dtype) for _ in memories)
    rows = _Rows(tf.range(batch), limits, hypotheses, caches, memories, mask_bias(memory_mask, memory.dtype))
    result = Result(hypotheses.best_ids, hypotheses.best_lengths, hypotheses.best_scores, hypotheses.best_log_probs)

    def outer(step, rows, result):
        step, rows = _write(model, search, step, rows, bos_id)
        result = _record(result, rows)
        room = tf.shape(rows.hypotheses.ids)[2]
        rows = _grow(rows, tf.where(step == room, CHUNK, 0), model.config.num_heads, beams)
        return step, _keep(rows, tf.where(~rows.hypotheses.done)[:, 0], model.config.num_heads), result

    loop = (tf.constant(0), rows, result)
    _, _, result = tf.while_loop(
        lambda step, rows, result: tf.size(rows.number) > 0, outer, loop, shape_invariants=_any_size(loop)
    )
    return result


def _any_size(structure):
    """Returns shapes for tf.while_loop: rows, room and source length may change; beams, heads and channels do not."""
    varying = {0: (), 1: (0,), 2: (0,), 3: (0, 2), 4: (0, 3), 5: (1, 3)}

    def shape(tensor):
        free = varying[tensor.shape.rank]
        return tf.TensorShape([None if axis in free else size for axis, size in enumerate(tensor.shape)])

    return tf.nest.map_structure(shape, structure)


def _write(model, search, step, rows: _Rows, bos_id: int) -> tuple[tf.Tensor, _Rows]:
    """Writes tokens until there is no more room or half of the rows are done."""
    room = tf.shape(rows.hypotheses.ids)[2]
    batch = tf.size(rows.number)
    beams = search.beams
    last = tf.fill([batch, beams], bos_id)
    position = tf.maximum(step - 1, 0)
    tokens = tf.ensure_shape(tf.where(step == 0, last, tf.gather(rows.hypotheses.ids, position, axis=2)), [None, beams])

    def unfinished(step, tokens, hypotheses, caches):
        return (step < room) & (2 * tf.math.count_nonzero(hypotheses.done, dtype=tf.int32) < batch)

    def body(step, tokens, hypotheses, caches):
        logits, caches = _step(model, step, tokens, hypotheses.slots, caches, rows)
        hypotheses = search.advance(hypotheses, logits, step, rows.limits)
        tokens = tf.ensure_shape(tf.gather(hypotheses.ids, step, axis=2), [None, beams])
        return step + 1, tokens, hypotheses, caches

    step, _, hypotheses, caches = tf.while_loop(unfinished, body, (step, tokens, rows.hypotheses, rows.caches))
    return step, rows._replace(hypotheses=hypotheses, caches=caches)


def _step(model, step, tokens, slots, caches, rows: _Rows) -> tuple[tf.Tensor, tuple]:
    """Runs the decoder for one token of each hypothesis.

    Args:
        step: int32 scalar, its position.
        tokens: int32 [B, K].
        slots: int32 [B, K, C], see search.Hypotheses.
        caches: see _Rows.
    Returns:
        Logits float32 [B * K, V] and the caches with this position's keys and values.
    """
    decoder, heads = model.decoder, model.config.num_heads
    batch, beams, room = tf.shape(slots)[0], tokens.shape[1], tf.shape(slots)[2]
    x = model.target_embedding(tf.reshape(tokens, [-1]))  # [N, D]
    x = decoder.positions(x, step)
    where = tf.range(2 * batch * heads)[:, tf.newaxis] * (room * beams) + step * beams + tf.range(beams)
    where = tf.reshape(where, [-1, 1])
    bias = _slot_bias(slots, beams, step, x.dtype)
    shape = (batch, beams, heads, room)
    written = []
    for layer, cache, memory in zip(decoder.layers, caches, rows.memories, strict=True):
        x, cache = _layer_step(layer, x, cache, shape, step, where, bias, memory, rows.memory_bias)
        written.append(cache)
    return tf.cast(model.output_embedding.logits(decoder.finish(x)), tf.float32), tuple(written)


def _slot_bias(slots: tf.Tensor, beams: int, step: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Shows each hypothesis the cached positions that are its own: [B, 1, K, C * K]."""
    batch, room = tf.shape(slots)[0], tf.shape(slots)[2]
    position = tf.range(room)
    if beams == 1:
        return mask_bias(position <= step, dtype)
    place = tf.range(beams)
    past = (slots[..., tf.newaxis] == place) & (position < step)[:, tf.newaxis]  # [B, K, C, K]
    own = (place[:, tf.newaxis] == place)[:, tf.newaxis, :] & (position == step)[:, tf.newaxis]
    return mask_bias(tf.reshape(past | own, [batch, 1, beams, room * beams]), dtype)


def _layer_step(layer: DecoderLayer, x, cache, shape, step, where, bias, memory, memory_bias):
    batch, beams, heads, room = shape
    attention = layer.self_attention
    d_model = attention.d_model
    size = d_model // heads
    qkv = linear(layer.self_residual.before(x), attention.in_kernel, attention.in_bias)
    split = tf.transpose(tf.reshape(qkv, [batch, beams, 3, heads, size]), [2, 0, 3, 1, 4])  # [3, B, H, K, d]
    query, new = split[0], split[1:]
    if attention.rotary:
        query = rotate(query, step[tf.newaxis])
        new = tf.concat([rotate(new[0], step[tf.newaxis])[tf.newaxis], new[1:]], 0)
    cache = tf.tensor_scatter_nd_update(cache, where, tf.reshape(new, [-1, size]))
    keys, values = tf.unstack(tf.reshape(cache, [2, batch, heads, room * beams, size]))
    x = layer.self_residual(x, _join(attention, _attend(query, keys, values, bias)))
    if layer.cross_attention is not None:
        attention = layer.cross_attention
        query = linear(layer.cross_residual.before(x), attention.in_kernel[:, :d_model], attention.in_bias[:d_model])
        query = tf.transpose(tf.reshape(query, [batch, beams, heads, size]), [0, 2, 1, 3])
        keys, values = tf.unstack(memory)
        x = layer.cross_residual(x, _join(attention, _attend(query, keys, values, memory_bias)))
    return layer.feed_residual(x, layer.feed_forward(layer.feed_residual.before(x))), cache


def _attend(query, keys, values, bias) -> tf.Tensor:
    scores = tf.matmul(query * query.shape[-1] ** -0.5, keys, transpose_b=True) + bias
    return tf.matmul(tf.nn.softmax(scores), values)


def _join(attention, heads) -> tf.Tensor:
    """[B, H, K, d] -> [B * K, D]"""
    joined = tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [-1, attention.d_model])
    return linear(joined, attention.out_kernel, attention.out_bias)


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


def _grow(rows: _Rows, more: tf.Tensor, heads: int, beams: int) -> _Rows:
    """Makes room for `more` tokens."""
    h, longer = rows.hypotheses, [[0, 0], [0, 0], [0, more]]
    blocks = 2 * tf.size(rows.number) * heads
    room = tf.shape(h.ids)[2]

    def grow(cache):
        size = cache.shape[-1]
        wide = tf.pad(tf.reshape(cache, [blocks, room * beams, size]), [[0, 0], [0, more * beams], [0, 0]])
        return tf.reshape(wide, [-1, size])

    padded = {name: tf.pad(getattr(h, name), longer) for name in ("ids", "slots", "best_ids")}
    return rows._replace(hypotheses=h._replace(**padded), caches=tuple(grow(cache) for cache in rows.caches))


def _keep(rows: _Rows, kept: tf.Tensor, heads: int) -> _Rows:
    """Leaves out the rows that are not in `kept`, int64 [rows]."""

    def by_row(tensor):
        return tf.gather(tensor, kept)

    def keep_cache(cache):
        blocks = tf.reshape(cache, [2, tf.size(rows.number), -1, cache.shape[-1]])
        return tf.reshape(tf.gather(blocks, kept, axis=1), [-1, cache.shape[-1]])

    return _Rows(
        by_row(rows.number),
        Limits(*map(by_row, rows.limits)),
        Hypotheses(*map(by_row, rows.hypotheses)),
        tuple(keep_cache(cache) for cache in rows.caches),
        tuple(tf.gather(memory, kept, axis=1) for memory in rows.memories),
        by_row(rows.memory_bias),
    )
