"""The decode loop: generates one token per step with cached keys and values, inside one graph.

There are two nested loops. The inner loop generates tokens; its tensors have fixed shapes, so the caches are updated in
place. The outer loop adds capacity for the next CHUNK tokens and removes the rows that are done, so finished rows cost
nothing.

Each half of a batch has its own loops, which TensorFlow's executor runs in parallel on two inter-op threads. The matrix
products of one step are too small to be split among threads, so `intra_op_parallelism_threads=1` is fastest.

Axes: B rows, K hypotheses per row, P positions of the prompt, C capacity for generated tokens. See also step.py for a
step of the decoder, beam_search.py and sampling.py for the choice of tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from seq2serve.models.decoding.beam_search import (
    BeamOptions,
    Hypotheses,
    LengthLimits,
    SearchStrategy,
    initial_hypotheses,
)
from seq2serve.models.decoding.sampling import SamplingOptions
from seq2serve.models.decoding.step import (
    AttentionContext,
    StepDecoder,
    Weights,
    attend,
    attend_small_batch,
    prepare,
    write_slice,
)
from seq2serve.models.transformer.attention import causal_mask, mask_bias
from seq2serve.models.transformer.models import DecoderLanguageModel, Transformer

CHUNK = 16  # positions added at a time: fewer waste time on copies, more on attention to empty positions

# `attend_small_batch` is used for up to SMALL_BATCH rows with up to SHORT_CACHE positions each. It is faster for 1 row
# with 64 positions, and slower for 32 rows or for 200 positions.
SMALL_BATCH, SHORT_CACHE = 8, 64

MIN_SPLIT_BATCH = 8  # smaller batches are not split in halves: a step takes hardly less time for half of their rows

Model = Transformer | DecoderLanguageModel
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
    """State of the rows that are not done. In the caches, the P positions of the prompt come first.

    Args:
        rows: int32 [B], indices of the rows in the input batch.
        limits: limits of each row.
        padding: int32 [B], number of padding positions before the prompt.
        hypotheses: with capacity for C tokens.
        self_attention_bias: float [B, K, (P + C) * K], added to attention scores; 0 where a hypothesis sees a slot of
            the cache. When beams are reordered, this tensor is reordered and the caches are not.
        caches: keys and values of the previous tokens for each layer, [2 * B * H, (P + C) * K * d].
        memories: keys and values of the source for each layer, [2, B, H, S, d]; empty without a source.
        memory_bias: float [B, 1, 1, S]; empty without a source.
    """

    rows: tf.Tensor
    limits: Limits
    padding: tf.Tensor
    hypotheses: Hypotheses
    self_attention_bias: tf.Tensor
    caches: tuple[tf.Tensor, ...]
    memories: tuple
    memory_bias: tf.Tensor | tuple[()]


def generate(
    model: Model,
    ids: tf.Tensor,
    search: SearchStrategy,
    limits: Limits,
    bos_id: int = 2,
    weights: Weights | None = None,
) -> Result:
    """Generates the target of each source, or the continuation of each prompt.

    Args:
        model: a built Transformer or DecoderLanguageModel.
        ids: int32 [B, S], 0 where padded. For a Transformer the sources; for a language model the prompts without begin
            marker, which may be empty.
        search: a BeamSearch or a Sampler, which chooses the tokens.
        limits: LengthLimits or BeamOptions for a BeamSearch, SamplingOptions for a Sampler; lengths do not include the
            prompt.
        bos_id: the begin marker.
        weights: `prepare(model)`, as tensors or variables; None prepares them in every call.
    Returns:
        A Result for B rows, without the prompts.
    """
    decoder = _decoder(model, search.beams, weights)
    generate_rows = _generate_from_source if isinstance(model, Transformer) else _generate_from_prompt
    return _in_halves(lambda *half: generate_rows(model, decoder, search, bos_id, *half), ids, limits)


def _in_halves(generate_rows: Callable[[tf.Tensor, Limits], Result], ids: tf.Tensor, limits: Limits) -> Result:
    """Calls `generate_rows` on each half of the batch; a small batch is not split."""
    generate_rows = tf.function(generate_rows, autograph=False)  # so that an exported graph contains it once
    ids, limits = tf.nest.map_structure(tf.convert_to_tensor, (ids, limits))
    batch = tf.shape(ids)[0]
    half = tf.where(batch < MIN_SPLIT_BATCH, batch, batch - batch // 2)
    first, second = (tf.nest.map_structure(cut, (ids, limits)) for cut in (lambda x: x[:half], lambda x: x[half:]))
    results = [generate_rows(*first)]
    # Depends on static shapes only, so that the second half does not wait for the first.
    empty = tf.nest.map_structure(lambda x: tf.zeros([0, *[size or 0 for size in x.shape[1:]]], x.dtype), results[0])
    results.append(tf.cond(half < batch, lambda: generate_rows(*second), lambda: empty))
    width = tf.reduce_max([tf.shape(result.ids)[2] for result in results])
    padded = [tf.pad(result.ids, [[0, 0], [0, 0], [0, width - tf.shape(result.ids)[2]]]) for result in results]
    results = [result._replace(ids=ids) for result, ids in zip(results, padded, strict=True)]
    return Result(*(tf.concat(parts, 0) for parts in zip(*results, strict=True)))


def _generate_from_source(
    model: Transformer, decoder: StepDecoder, search: SearchStrategy, bos_id: int, source: tf.Tensor, limits: Limits
) -> Result:
    with tf.name_scope("encoder"):
        memory, memory_mask = model.encode(source)
        memories, bias = decoder.project_memory(memory), mask_bias(memory_mask, memory.dtype)
    batch, heads = tf.shape(source)[0], model.config.num_heads
    empty = tf.zeros([2 * batch * heads, 0], memory.dtype)
    state = DecoderState(
        rows=tf.range(batch),
        limits=limits,
        padding=tf.zeros([batch], tf.int32),
        hypotheses=initial_hypotheses(tf.fill([batch], bos_id), search.beams, search.n_best, CHUNK),
        self_attention_bias=tf.zeros([batch, search.beams, 0], memory.dtype),
        caches=(empty,) * model.config.num_decoder_layers,
        memories=memories,
        memory_bias=bias,
    )
    return _decode(model, decoder, search, _extend_caches(state, decoder, CHUNK), tf.constant(0))


def _generate_from_prompt(
    model: DecoderLanguageModel,
    decoder: StepDecoder,
    search: SearchStrategy,
    bos_id: int,
    prompt: tf.Tensor,
    limits: Limits,
) -> Result:
    ids = _align_right(tf.pad(prompt, [[0, 0], [1, 0]], constant_values=bos_id))  # [B, P + 1]
    prefix, batch = ids[:, :-1], tf.shape(ids)[0]  # the last token is the input of the first step
    caches = _prefill(model, decoder, prefix)
    # Each position has K slots in the cache. A prompt's token uses the first one.
    visible = tf.pad(tf.not_equal(prefix, 0)[..., tf.newaxis], [[0, 0], [0, 0], [0, search.beams - 1]])  # [B, P, K]
    visible = tf.repeat(tf.reshape(visible, [batch, 1, -1]), search.beams, axis=1)  # [B, K, P * K]
    state = DecoderState(
        rows=tf.range(batch),
        limits=limits,
        padding=tf.math.count_nonzero(prefix == 0, 1, dtype=tf.int32),
        hypotheses=initial_hypotheses(ids[:, -1], search.beams, search.n_best, CHUNK),
        self_attention_bias=mask_bias(visible, caches[0].dtype),
        caches=caches,
        memories=((),) * model.config.num_decoder_layers,
        memory_bias=(),
    )
    return _decode(model, decoder, search, _extend_caches(state, decoder, CHUNK), tf.shape(prefix)[1])


def _decoder(model: Model, beams: int, weights: Weights | None) -> StepDecoder:
    tensors = tf.nest.map_structure(tf.convert_to_tensor, weights or prepare(model))
    return StepDecoder(model.config, tensors, beams, attend)


def _align_right(ids: tf.Tensor) -> tf.Tensor:
    """Moves the padding of each row to its start and adds one padding position: int [B, P] -> [B, P + 1]."""
    lengths = tf.math.count_nonzero(ids, 1, dtype=tf.int32)
    return tf.pad(tf.reverse(tf.reverse_sequence(ids, lengths, seq_axis=1), [1]), [[0, 0], [1, 0]])


def _prefill(model: Model, decoder: StepDecoder, ids: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Decodes a whole prompt at once to fill the caches.

    Args:
        model: its positional encoding is used.
        decoder: a decoder of K tokens per row.
        ids: int32 [B, P], padded at the start.
    Returns:
        Keys and values for each layer, [2 * B * H, P * K * d]; only the first slot of each position is used.
    """
    batch, width, size = tf.shape(ids)[0], tf.shape(ids)[1], decoder.head_size
    layers, is_token = model.config.num_decoder_layers, tf.not_equal(ids, 0)
    positions = tf.cumsum(tf.cast(is_token, tf.int32), 1, exclusive=True)  # [B, P], 0 for the first token
    encoding = model.decoder.positions(tf.zeros([batch, width, model.config.d_model], model.compute_dtype), positions)
    prompt_decoder = dataclasses.replace(decoder, tokens_per_row=width)
    bias = mask_bias(causal_mask(width) & is_token[:, tf.newaxis, tf.newaxis], encoding.dtype)  # [B, 1, P, P]
    context = AttentionContext(bias, ((),) * layers, (), prompt_decoder.head_permutation(batch))
    empty = tf.zeros([2 * batch * model.config.num_heads, width * size], encoding.dtype)
    _, caches = prompt_decoder(ids, tf.range(width), encoding, (empty,) * layers, context)
    slots, rows = decoder.tokens_per_row, tf.shape(empty)[0]
    unused = [[0, 0], [0, 0], [0, (slots - 1) * size]]
    return tuple(
        tf.reshape(tf.pad(tf.reshape(cache, [rows, width, size]), unused), [rows, width * slots * size])
        for cache in caches
    )


def _decode(
    model: Model, decoder: StepDecoder, search: SearchStrategy, state: DecoderState, prefix: tf.Tensor
) -> Result:
    """Generates until every row is done; the first `prefix` positions of the caches are those of a prompt."""
    h = state.hypotheses
    result = Result(h.best_ids, h.best_lengths, h.best_scores, h.best_log_probs)

    def body(step: tf.Tensor, state: DecoderState, result: Result) -> tuple[tf.Tensor, DecoderState, Result]:
        step, state = _generate_tokens(model, decoder, search, step, state, prefix)
        result = _update_result(result, state)
        done = state.hypotheses.done
        state = _if(tf.reduce_any(done), lambda: _select_rows(state, tf.where(~done)[:, 0]), state)
        is_full = step == tf.shape(state.hypotheses.ids)[2]
        return step, _if(is_full, lambda: _add_capacity(state, decoder), state), result

    variables = (tf.constant(0), state, result)
    _, _, result = tf.while_loop(
        lambda step, state, result: tf.size(state.rows) > 0, body, variables, shape_invariants=_invariants(*variables)
    )
    return result


def _invariants(step: tf.Tensor, state: DecoderState, result: Result) -> tuple[tf.TensorShape, DecoderState, Result]:
    """Returns the shape invariants for tf.while_loop.

    The number of rows, the capacity and the length of the sources may change; beams, heads and channels may not.
    """

    def free(structure: Any, *axes: int) -> Any:
        """Returns the shapes of a structure of tensors, with None for the axes that may change."""
        return tf.nest.map_structure(
            lambda tensor: tf.TensorShape([None if axis in axes else size for axis, size in enumerate(tensor.shape)]),
            structure,
        )

    h = state.hypotheses
    state_shapes = DecoderState(
        rows=free(state.rows, 0),
        limits=free(state.limits, 0),
        padding=free(state.padding, 0),
        hypotheses=free(h, 0)._replace(ids=free(h.ids, 0, 2), best_ids=free(h.best_ids, 0, 2)),
        self_attention_bias=free(state.self_attention_bias, 0, 2),
        caches=free(state.caches, 0, 1),
        memories=free(state.memories, 1, 3),
        memory_bias=free(state.memory_bias, 0, 3),
    )
    return step.shape, state_shapes, free(result, 0)._replace(ids=free(result.ids, 0, 2))


def _if(condition: tf.Tensor, change: Callable[[], Any], structure: Any) -> Any:
    """Returns `change()` if the condition holds, else the structure."""
    return tf.cond(condition, change, lambda: tf.nest.map_structure(tf.identity, structure))


def _generate_tokens(
    model: Model, decoder: StepDecoder, search: SearchStrategy, step: tf.Tensor, state: DecoderState, prefix: tf.Tensor
) -> tuple[tf.Tensor, DecoderState]:
    """Generates tokens until the capacity is used or half of the rows are done. Returns the next step and the state."""

    def run(attend: Callable) -> tuple[tf.Tensor, DecoderState]:
        return _inner_loop(model, dataclasses.replace(decoder, attend=attend), search, step, state, prefix)

    if search.beams > 1:
        return run(attend)
    is_small = (tf.size(state.rows) <= SMALL_BATCH) & (tf.shape(state.self_attention_bias)[2] <= SHORT_CACHE)
    return tf.cond(is_small, lambda: run(attend_small_batch), lambda: run(attend))


def _inner_loop(
    model: Model, decoder: StepDecoder, search: SearchStrategy, step: tf.Tensor, state: DecoderState, prefix: tf.Tensor
) -> tuple[tf.Tensor, DecoderState]:
    batch, capacity, beams = tf.size(state.rows), tf.shape(state.hypotheses.ids)[2], search.beams
    dtype, length = state.self_attention_bias.dtype, prefix + capacity
    permutation, positions = decoder.head_permutation(batch), tf.range(length)
    table = model.decoder.positions(tf.zeros([length, model.config.d_model], dtype), positions)  # [P + C, D]
    # A hypothesis sees the slot of its own beam at the current position: [B, K, K].
    own_slots = tf.repeat(mask_bias(tf.eye(beams, dtype=tf.bool), dtype)[tf.newaxis], batch, axis=0)

    def unfinished(step: tf.Tensor, hypotheses: Hypotheses, bias: tf.Tensor, caches: tuple) -> tf.Tensor:
        return (step < capacity) & (2 * tf.math.count_nonzero(hypotheses.done, dtype=tf.int32) < batch)

    def body(step: tf.Tensor, hypotheses: Hypotheses, bias: tf.Tensor, caches: tuple) -> tuple:
        position = prefix + step
        bias = write_slice(bias, position * beams, own_slots)
        context = AttentionContext(bias[:, tf.newaxis], state.memories, state.memory_bias, permutation)
        encoding = tf.gather(table, position - state.padding)[:, tf.newaxis]  # [B, 1, D]
        logits, caches = decoder(hypotheses.tokens, position[tf.newaxis], encoding, caches, context)
        with tf.name_scope("choose"):
            hypotheses = search.advance(hypotheses, logits, step, state.limits)
        if beams > 1:
            bias = tf.gather(bias, hypotheses.parents, batch_dims=1)
        return step + 1, hypotheses, bias, caches

    variables = (step, state.hypotheses, state.self_attention_bias, state.caches)
    step, hypotheses, bias, caches = tf.while_loop(unfinished, body, variables)
    return step, state._replace(hypotheses=hypotheses, self_attention_bias=bias, caches=caches)


def _update_result(result: Result, state: DecoderState) -> Result:
    """Copies the best hypotheses of the remaining rows into the result, which grows with the capacity."""
    h, indices = state.hypotheses, state.rows[:, tf.newaxis]
    growth = tf.shape(h.best_ids)[2] - tf.shape(result.ids)[2]
    ids = tf.pad(result.ids, [[0, 0], [0, 0], [0, growth]])
    update = tf.tensor_scatter_nd_update
    return Result(
        update(ids, indices, h.best_ids),
        update(result.lengths, indices, h.best_lengths),
        update(result.scores, indices, h.best_scores),
        update(result.log_probs, indices, h.best_log_probs),
    )


def _add_capacity(state: DecoderState, decoder: StepDecoder) -> DecoderState:
    """Adds capacity for CHUNK tokens to hypotheses and caches."""
    h = state.hypotheses
    ids, best_ids = (tf.pad(ids, [[0, 0], [0, 0], [0, CHUNK]]) for ids in (h.ids, h.best_ids))
    return _extend_caches(state._replace(hypotheses=h._replace(ids=ids, best_ids=best_ids)), decoder, CHUNK)


def _extend_caches(state: DecoderState, decoder: StepDecoder, positions: int) -> DecoderState:
    """Adds empty positions to the caches, hidden from all hypotheses."""
    slots, bias = positions * decoder.tokens_per_row, state.self_attention_bias
    hidden = mask_bias(tf.constant(False), bias.dtype)
    bias = tf.pad(bias, [[0, 0], [0, 0], [0, slots]], constant_values=hidden)
    caches = tuple(tf.pad(cache, [[0, 0], [0, slots * decoder.head_size]]) for cache in state.caches)
    return state._replace(self_attention_bias=bias, caches=caches)


def _select_rows(state: DecoderState, rows: tf.Tensor) -> DecoderState:
    """Selects rows by their indices, int64 [rows]."""

    def select(structure: Any, axis: int = 0) -> Any:
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows, axis=axis), structure)

    def select_cache(cache: tf.Tensor) -> tf.Tensor:
        width = tf.shape(cache)[1]
        by_row = tf.reshape(cache, [2, tf.size(state.rows), -1, width])  # [2, B, H, (P + C) * K * d]
        return tf.reshape(tf.gather(by_row, rows, axis=1), [-1, width])

    return DecoderState(
        rows=select(state.rows),
        limits=select(state.limits),
        padding=select(state.padding),
        hypotheses=select(state.hypotheses),
        self_attention_bias=select(state.self_attention_bias),
        caches=tuple(select_cache(cache) for cache in state.caches),
        memories=select(state.memories, axis=1),
        memory_bias=select(state.memory_bias),
    )
