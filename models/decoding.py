"""The decoding loop: one token a step, keys and values cached, all inside one graph.

Comes in: source ids [B, S] to translate, or a prompt [B, P] to go on from. Goes out: the best hypotheses of each row.
Read next: inference.py for a step of the decoder, search.py and sampling.py for how a token is chosen.

Two nested loops. The inner one writes tokens; its tensors have fixed shapes, so the caches are updated in place. The
outer one makes room for the next CHUNK tokens and drops the rows that are done, so nobody pays for them. The two halves
of a batch have loops of their own, which TensorFlow's executor runs side by side on two inter-op threads: the products
of one step are too small to be split among threads themselves (`intra_op_parallelism_threads=1` is best).
"""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from models.attention import causal_mask, mask_bias
from models.inference import Past, StepDecoder, Weights, attend, attend_of_few, prepare, put
from models.sampling import Sampling, SamplingOptions
from models.search import BeamSearch, Hypotheses, Limits, begin

CHUNK = 16  # tokens of room added at a time: less wastes time on copies, more on attention to empty places

# Up to so many rows with so many places each, `attend_of_few` is used: it is the faster with 1 row and 64 places, the
# slower with 32 rows or with 200 places.
FEW, NEAR = 8, 64


MANY = 8  # rows from which a batch is halved: below, a step costs hardly less for half of them


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
    """What belongs to the rows still being written. Their P places of prompt come first in the caches.

    Args:
        number: int32 [B], their places in the batch that came in.
        limits: of each row.
        padding: int32 [B], places of the prompt that hold none of it.
        hypotheses: C tokens of room in each.
        seen: float [B, K, (P + C) * K], added to attention scores: 0 where a hypothesis sees a place of the cache. What
            a hypothesis wrote stays where it is when beams change places; it is these rows that are reordered.
        caches: for each layer the keys and values of the tokens so far, [2 * B * H, (P + C) * K * d].
        memories: for each layer those of the source, [2, B, H, S, d]; empty where there is none.
        memory_bias: float [B, 1, 1, S]; empty where there is no source.
    """

    number: tf.Tensor
    limits: Limits | SamplingOptions
    padding: tf.Tensor
    hypotheses: Hypotheses
    seen: tf.Tensor
    caches: tuple
    memories: tuple
    memory_bias: tf.Tensor | tuple[()]


def translate(
    model, source: tf.Tensor, search: BeamSearch | Sampling, limits, bos_id: int = 2, weights: Weights | None = None
) -> Result:
    """Writes the target of each source.

    Args:
        model: a built models.transformer.Transformer.
        source: int32 [B, S], 0 where padded.
        search: how tokens are chosen.
        limits: each row's lengths, Limits; for Sampling its SamplingOptions.
        bos_id: the begin marker.
        weights: `prepare(model)`, tensors or variables; None prepares them anew in every call.
    Returns:
        A Result for B rows.
    """
    decoder = _decoder(model, search.beams, weights)
    return _by_halves(lambda *half: _translate(model, decoder, search, bos_id, *half), source, limits)


def complete(
    model, prompt: tf.Tensor, search: BeamSearch | Sampling, limits, bos_id: int = 2, weights: Weights | None = None
) -> Result:
    """Goes on from each prompt with a language model.

    Args:
        model: a built models.transformer.DecoderLanguageModel.
        prompt: int32 [B, P], 0 where padded, without begin marker; a row may be empty.
        search: how tokens are chosen.
        limits: each row's lengths, the prompt not counted: Limits; for Sampling its SamplingOptions.
        bos_id: the begin marker.
        weights: `prepare(model)`, tensors or variables; None prepares them anew in every call.
    Returns:
        A Result for B rows, without the prompts.
    """
    decoder = _decoder(model, search.beams, weights)
    return _by_halves(lambda *half: _complete(model, decoder, search, bos_id, *half), prompt, limits)


def _by_halves(write, rows: tf.Tensor, limits) -> Result:
    """Lets `write(rows, limits)` -> Result work on each half of a batch; a small batch is all in the first."""
    write = tf.function(write, autograph=False)  # so that an exported graph holds it once
    rows, limits = tf.nest.map_structure(tf.convert_to_tensor, (rows, limits))
    batch = tf.shape(rows)[0]
    half = tf.where(batch < MANY, batch, batch - batch // 2)
    first, second = (tf.nest.map_structure(cut, (rows, limits)) for cut in (lambda x: x[:half], lambda x: x[half:]))
    results = [write(*first)]
    # Made of nothing that was written: the second half must not wait for the first.
    empty = tf.nest.map_structure(lambda x: tf.zeros([0, *[size or 0 for size in x.shape[1:]]], x.dtype), results[0])
    results.append(tf.cond(half < batch, lambda: write(*second), lambda: empty))
    width = tf.reduce_max([tf.shape(result.ids)[2] for result in results])
    ids = [tf.pad(result.ids, [[0, 0], [0, 0], [0, width - tf.shape(result.ids)[2]]]) for result in results]
    results = [result._replace(ids=wide) for result, wide in zip(results, ids, strict=True)]
    return Result(*(tf.concat(parts, 0) for parts in zip(*results, strict=True)))


def _translate(model, decoder: StepDecoder, search, bos_id: int, source: tf.Tensor, limits) -> Result:
    with tf.name_scope("encoder"):
        memory, memory_mask = model.encode(source)
        memories, bias = decoder.memories(memory), mask_bias(memory_mask, memory.dtype)
    batch, heads = tf.shape(source)[0], model.config.num_heads
    empty = tf.zeros([2 * batch * heads, 0], memory.dtype)
    rows = _Rows(
        number=tf.range(batch),
        limits=limits,
        padding=tf.zeros([batch], tf.int32),
        hypotheses=begin(tf.fill([batch], bos_id), search.beams, search.n_best, CHUNK),
        seen=tf.zeros([batch, search.beams, 0], memory.dtype),
        caches=(empty,) * model.config.num_decoder_layers,
        memories=memories,
        memory_bias=bias,
    )
    return _loop(model, decoder, search, _widen(rows, decoder, CHUNK), tf.constant(0))


def _complete(model, decoder: StepDecoder, search, bos_id: int, prompt: tf.Tensor, limits) -> Result:
    ids = _align_right(tf.pad(prompt, [[0, 0], [1, 0]], constant_values=bos_id))
    earlier, batch = ids[:, :-1], tf.shape(ids)[0]
    caches = _read(model, decoder, earlier)
    # Of the K slots that a place has in the cache, a prompt's tokens take the first.
    seen = tf.pad(tf.not_equal(earlier, 0)[..., tf.newaxis], [[0, 0], [0, 0], [0, search.beams - 1]])
    seen = tf.repeat(tf.reshape(seen, [batch, 1, -1]), search.beams, axis=1)
    rows = _Rows(
        number=tf.range(batch),
        limits=limits,
        padding=tf.math.count_nonzero(earlier == 0, 1, dtype=tf.int32),
        hypotheses=begin(ids[:, -1], search.beams, search.n_best, CHUNK),
        seen=mask_bias(seen, caches[0].dtype),
        caches=caches,
        memories=((),) * model.config.num_decoder_layers,
        memory_bias=(),
    )
    return _loop(model, decoder, search, _widen(rows, decoder, CHUNK), tf.shape(earlier)[1])


def _decoder(model, beams: int, weights: Weights | None) -> StepDecoder:
    return StepDecoder(
        model.config, tf.nest.map_structure(tf.convert_to_tensor, weights or prepare(model)), beams, attend
    )


def _align_right(ids: tf.Tensor) -> tf.Tensor:
    """Moves each row's padding from its end to its beginning, where there is at least one: int [B, P] -> [B, P + 1]."""
    lengths = tf.math.count_nonzero(ids, 1, dtype=tf.int32)
    return tf.pad(tf.reverse(tf.reverse_sequence(ids, lengths, seq_axis=1), [1]), [[0, 0], [1, 0]])


def _read(model, decoder: StepDecoder, ids: tf.Tensor) -> tuple:
    """Decodes all of a prompt at once; returns the caches, with room for it alone and K slots at each place.

    Args:
        model: for its positions.
        decoder: of one token a step.
        ids: int32 [B, P], padded at the beginning.
    """
    batch, width, size = tf.shape(ids)[0], tf.shape(ids)[1], decoder.size
    known, place = tf.not_equal(ids, 0), tf.range(width)
    positions = tf.cumsum(tf.cast(known, tf.int32), 1, exclusive=True)
    encoding = model.decoder.positions(tf.zeros([batch, width, model.config.d_model], model.compute_dtype), positions)
    reader = dataclasses.replace(decoder, beams=width)
    seen = mask_bias(causal_mask(width) & known[:, tf.newaxis, tf.newaxis], encoding.dtype)
    past = Past(seen, ((),) * model.config.num_decoder_layers, (), reader.places(batch))
    empty = tf.zeros([2 * batch * model.config.num_heads, width * size], encoding.dtype)
    _, caches = reader(ids, place, encoding, (empty,) * model.config.num_decoder_layers, past)
    slots = [[0, 0], [0, 0], [0, (decoder.beams - 1) * size]]
    rows = tf.shape(empty)[0]
    return tuple(
        tf.reshape(tf.pad(tf.reshape(cache, [rows, width, size]), slots), [rows, width * decoder.beams * size])
        for cache in caches
    )


def _loop(model, decoder: StepDecoder, search, rows: _Rows, prefix: tf.Tensor) -> Result:
    """Writes until every row is done; the first `prefix` places of the caches are a prompt's."""
    h = rows.hypotheses
    result = Result(h.best_ids, h.best_lengths, h.best_scores, h.best_log_probs)

    def outer(step, rows, result):
        step, rows = _write(model, decoder, search, step, rows, prefix)
        result = _record(result, rows)
        done = rows.hypotheses.done
        rows = _if(tf.reduce_any(done), lambda: _keep(rows, tf.where(~done)[:, 0]), rows)
        full = step == tf.shape(rows.hypotheses.ids)[2]
        return step, _if(full, lambda: _grow(rows, decoder), rows), result

    loop = (tf.constant(0), rows, result)
    _, _, result = tf.while_loop(
        lambda step, rows, result: tf.size(rows.number) > 0, outer, loop, shape_invariants=_any_size(*loop)
    )
    return result


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
        padding=free(0)(rows.padding),
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


def _write(model, decoder: StepDecoder, search, step, rows: _Rows, prefix) -> tuple[tf.Tensor, _Rows]:
    """Writes tokens until there is no more room or half of the rows are done."""

    def write(how):
        return _write_with(model, dataclasses.replace(decoder, attend=how), search, step, rows, prefix)

    if search.beams > 1:
        return write(attend)
    few = (tf.size(rows.number) <= FEW) & (tf.shape(rows.seen)[2] <= NEAR)
    return tf.cond(few, lambda: write(attend_of_few), lambda: write(attend))


def _write_with(model, decoder: StepDecoder, search, step, rows: _Rows, prefix) -> tuple[tf.Tensor, _Rows]:
    batch, room, beams = tf.size(rows.number), tf.shape(rows.hypotheses.ids)[2], search.beams
    places, all_places = decoder.places(batch), tf.range(prefix + room)
    table = model.decoder.positions(tf.zeros([prefix + room, model.config.d_model], rows.seen.dtype), all_places)
    own = tf.repeat(mask_bias(tf.eye(beams, dtype=tf.bool), rows.seen.dtype)[tf.newaxis], batch, axis=0)

    def unfinished(step, hypotheses, seen, caches):
        return (step < room) & (2 * tf.math.count_nonzero(hypotheses.done, dtype=tf.int32) < batch)

    def body(step, hypotheses, seen, caches):
        place = prefix + step
        seen = put(seen, place * beams, own)
        past = Past(seen[:, tf.newaxis], rows.memories, rows.memory_bias, places)
        position = tf.gather(table, place - rows.padding)[:, tf.newaxis]
        logits, caches = decoder(hypotheses.tokens, place[tf.newaxis], position, caches, past)
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


def _grow(rows: _Rows, decoder: StepDecoder) -> _Rows:
    """Makes room for CHUNK more tokens."""
    ids, best_ids = (
        tf.pad(ids, [[0, 0], [0, 0], [0, CHUNK]]) for ids in (rows.hypotheses.ids, rows.hypotheses.best_ids)
    )
    return _widen(rows._replace(hypotheses=rows.hypotheses._replace(ids=ids, best_ids=best_ids)), decoder, CHUNK)


def _widen(rows: _Rows, decoder: StepDecoder, places: int) -> _Rows:
    """Makes room in the caches, which nothing sees yet."""
    slots = places * decoder.beams
    seen = tf.pad(rows.seen, [[0, 0], [0, 0], [0, slots]], constant_values=_hidden(rows.seen.dtype))
    caches = tuple(tf.pad(cache, [[0, 0], [0, slots * decoder.size]]) for cache in rows.caches)
    return rows._replace(seen=seen, caches=caches)


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
        padding=by_row(rows.padding),
        hypotheses=by_row(rows.hypotheses),
        seen=by_row(rows.seen),
        caches=tuple(keep_cache(cache) for cache in rows.caches),
        memories=tf.nest.map_structure(lambda memory: tf.gather(memory, kept, axis=1), rows.memories),
        memory_bias=by_row(rows.memory_bias),
    )
