"""The decode loop: generates one token per step with cached keys and values, inside one graph.

There are two nested loops. The inner loop generates tokens; its tensors have fixed shapes, so the caches are updated in
place. The outer loop adds capacity for the next CHUNK tokens and removes the rows that are done, so finished rows cost
nothing.

Axes as in state.py. See also fold.py for the decoder, beam_search.py and sampling.py for the choice of tokens, and
tuning.py.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from seq2serve.models.decoding.beam_search import Hypotheses, SearchStrategy, initial_hypotheses
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.state import DecoderState, Limits, Result, free_axes
from seq2serve.models.decoding.tuning import in_halves
from seq2serve.models.transformer.attention import causal_mask, mask_bias
from seq2serve.models.transformer.cache import write_slice
from seq2serve.models.transformer.models import Transformer


def generate(decoder: FoldedDecoder, ids: tf.Tensor, search: SearchStrategy, limits: Limits, bos_id: int = 2) -> Result:
    """Generates the target of each source, or the continuation of each prompt.

    Args:
        decoder: the folded decoder of a Transformer or of a DecoderLanguageModel.
        ids: int32 [B, S], 0 where padded. For a Transformer the sources; for a language model the prompts without begin
            marker, which may be empty.
        search: a BeamSearch or a Sampler, which chooses the tokens.
        limits: LengthLimits or BeamOptions for a BeamSearch, SamplingOptions for a Sampler; lengths do not include the
            prompt.
        bos_id: the begin marker.
    Returns:
        A Result for B rows, without the prompts.
    """
    start = _start_from_source if isinstance(decoder.model, Transformer) else _start_from_prompt

    def generate_rows(ids: tf.Tensor, limits: Limits) -> Result:
        return _decode(decoder, search, *start(decoder, search, bos_id, ids, limits))

    with decoder.read():
        return in_halves(generate_rows, ids, limits)


def _start_from_source(
    decoder: FoldedDecoder, search: SearchStrategy, bos_id: int, source: tf.Tensor, limits: Limits
) -> tuple[DecoderState, tf.Tensor]:
    """Returns the state before the first token of each target, and the number of positions in the caches: 0."""
    with tf.name_scope("encoder"):
        memory, memory_mask = decoder.model.encode(source)
        memories = tuple(layer.cross_attention.project_memory(memory) for layer in decoder.decoder.layers)
    batch = tf.shape(source)[0]
    empty = tf.zeros([tf.reduce_prod(tf.shape(memories[0])[:3]), 0], memory.dtype)  # [2 * B * H / G, 0]
    state = DecoderState(
        rows=tf.range(batch),
        limits=limits,
        padding=tf.zeros([batch], tf.int32),
        hypotheses=initial_hypotheses(tf.fill([batch], bos_id), search.beams, search.n_best, 0),
        self_attention_bias=tf.zeros([batch, search.beams, 0], memory.dtype),
        caches=(empty,) * len(memories),
        memories=memories,
        memory_bias=mask_bias(memory_mask, memory.dtype),
    )
    return state, tf.constant(0)


def _start_from_prompt(
    decoder: FoldedDecoder, search: SearchStrategy, bos_id: int, prompt: tf.Tensor, limits: Limits
) -> tuple[DecoderState, tf.Tensor]:
    """Returns the state before the first token after each prompt, and the number of positions in the caches."""
    ids = _align_right(tf.pad(prompt, [[0, 0], [1, 0]], constant_values=bos_id))  # [B, P + 1]
    prefix, batch = ids[:, :-1], tf.shape(ids)[0]  # the last token is the input of the first step
    caches = _prefill(decoder, prefix, search.beams)
    # Each position has K slots in the cache. A prompt's token uses the first one.
    visible = tf.pad(tf.not_equal(prefix, 0)[..., tf.newaxis], [[0, 0], [0, 0], [0, search.beams - 1]])  # [B, P, K]
    visible = tf.repeat(tf.reshape(visible, [batch, 1, -1]), search.beams, axis=1)  # [B, K, P * K]
    state = DecoderState(
        rows=tf.range(batch),
        limits=limits,
        padding=tf.math.count_nonzero(prefix == 0, 1, dtype=tf.int32),
        hypotheses=initial_hypotheses(ids[:, -1], search.beams, search.n_best, 0),
        self_attention_bias=mask_bias(visible, caches[0].dtype),
        caches=caches,
        memories=((),) * len(caches),
        memory_bias=(),
    )
    return state, tf.shape(prefix)[1]


def _align_right(ids: tf.Tensor) -> tf.Tensor:
    """Moves the padding of each row to its start and adds one padding position: int [B, P] -> [B, P + 1]."""
    lengths = tf.math.count_nonzero(ids, 1, dtype=tf.int32)
    return tf.pad(tf.reverse(tf.reverse_sequence(ids, lengths, seq_axis=1), [1]), [[0, 0], [1, 0]])


def _prefill(decoder: FoldedDecoder, ids: tf.Tensor, beams: int) -> tuple[tf.Tensor, ...]:
    """Decodes a whole prompt at once to fill the caches.

    Args:
        decoder: of a language model.
        ids: int32 [B, P], padded at the start.
        beams: K.
    Returns:
        Keys and values for each layer, [2 * B * H / G, P * K * d]; only the first slot of each position is used.
    """
    batch, width, attention = tf.shape(ids)[0], tf.shape(ids)[1], decoder.decoder.layers[0].self_attention
    layers, size, is_token = len(decoder.decoder.layers), attention.head_size, tf.not_equal(ids, 0)
    positions = tf.cumsum(tf.cast(is_token, tf.int32), 1, exclusive=True)  # [B, P], 0 for the first token
    encoding = decoder.encoding(positions)
    bias = mask_bias(causal_mask(width) & is_token[:, tf.newaxis, tf.newaxis], encoding.dtype)  # [B, 1, P, P]
    context = decoder.context(bias, width, tf.range(width))
    empty = tf.zeros([2 * batch * attention.num_kv_heads, width * size], encoding.dtype)
    _, caches = decoder.step(ids, encoding, (empty,) * layers, ((),) * layers, context)
    rows, unused = tf.shape(empty)[0], [[0, 0], [0, 0], [0, (beams - 1) * size]]
    return tuple(
        tf.reshape(tf.pad(tf.reshape(cache, [rows, width, size]), unused), [rows, width * beams * size])
        for cache in caches
    )


def _decode(decoder: FoldedDecoder, search: SearchStrategy, state: DecoderState, prefix: tf.Tensor) -> Result:
    """Generates until every row is done; the first `prefix` positions of the caches are those of a prompt."""
    state = state.grow(decoder.head_size)
    h = state.hypotheses
    result = Result(h.best_ids, h.best_lengths, h.best_scores, h.best_log_probs)

    def body(step: tf.Tensor, state: DecoderState, result: Result) -> tuple[tf.Tensor, DecoderState, Result]:
        step, state = _generate_tokens(decoder, search, step, state, prefix)
        result = state.record(result)
        done = state.hypotheses.done
        state = _if(tf.reduce_any(done), lambda: state.keep(tf.where(~done)[:, 0]), state)
        is_full = step == tf.shape(state.hypotheses.ids)[2]
        return step, _if(is_full, lambda: state.grow(decoder.head_size), state), result

    step = tf.constant(0)
    shapes = (step.shape, state.shapes(), free_axes(result, 0)._replace(ids=free_axes(result.ids, 0, 2)))
    is_left = lambda step, state, result: tf.size(state.rows) > 0  # noqa: E731 - the condition of the loop
    return tf.while_loop(is_left, body, (step, state, result), shape_invariants=shapes)[2]


def _if(condition: tf.Tensor, change: Callable[[], Any], structure: Any) -> Any:
    """Returns `change()` if the condition holds, else the structure."""
    return tf.cond(condition, change, lambda: tf.nest.map_structure(tf.identity, structure))


def _generate_tokens(
    decoder: FoldedDecoder, search: SearchStrategy, step: tf.Tensor, state: DecoderState, prefix: tf.Tensor
) -> tuple[tf.Tensor, DecoderState]:
    """Generates tokens until the capacity is used or half of the rows are done. Returns the next step and the state."""
    batch, capacity, beams = tf.size(state.rows), tf.shape(state.hypotheses.ids)[2], search.beams
    dtype = state.self_attention_bias.dtype
    table = decoder.encoding(tf.range(prefix + capacity))  # [P + C, D]
    context = decoder.context(state.self_attention_bias[:, tf.newaxis], beams, tf.range(1))
    context = context._replace(memory_bias=state.memory_bias)
    # A hypothesis sees the slot of its own beam at the current position: [B, K, K].
    own_slots = tf.repeat(mask_bias(tf.eye(beams, dtype=tf.bool), dtype)[tf.newaxis], batch, axis=0)

    def unfinished(step: tf.Tensor, hypotheses: Hypotheses, bias: tf.Tensor, caches: tuple) -> tf.Tensor:
        return (step < capacity) & (2 * tf.math.count_nonzero(hypotheses.done, dtype=tf.int32) < batch)

    def body(step: tf.Tensor, hypotheses: Hypotheses, bias: tf.Tensor, caches: tuple) -> tuple:
        position = prefix + step
        bias = write_slice(bias, position * beams, own_slots)
        here = context._replace(
            positions=position[tf.newaxis], self_attention_bias=decoder.grouped_bias(bias[:, tf.newaxis])
        )
        encoding = tf.gather(table, position - state.padding)[:, tf.newaxis]  # [B, 1, D]
        logits, caches = decoder.step(hypotheses.tokens, encoding, caches, state.memories, here)
        with tf.name_scope("choose"):
            hypotheses = search.advance(hypotheses, logits, step, state.limits)
        if beams > 1:
            bias = tf.gather(bias, hypotheses.parents, batch_dims=1)
        return step + 1, hypotheses, bias, caches

    variables = (step, state.hypotheses, state.self_attention_bias, state.caches)
    step, hypotheses, bias, caches = tf.while_loop(unfinished, body, variables)
    return step, state._replace(hypotheses=hypotheses, self_attention_bias=bias, caches=caches)
