"""The decode loop: generates one token per step with cached keys and values, inside one graph.

There are two nested loops. The inner loop generates tokens; its tensors have fixed shapes, so the caches are updated in
place. The outer loop adds capacity for the next CHUNK tokens and removes the rows that are done, so finished rows cost
nothing.

Axes as in caches.py. See also fold.py for the decoder, beam_search.py and sampling.py for the choice of tokens, and
tuning.py.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from seq2serve.models.decoding.beam_search import Hypotheses, SearchStrategy, initial_hypotheses
from seq2serve.models.decoding.caches import Caches, KeyValueCaches, free_axes
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.state import DecoderState, Limits, Result
from seq2serve.models.decoding.tuning import in_halves
from seq2serve.models.transformer.attention import causal_mask, mask_bias
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
    """Returns the state before the first token of each target, and the number of positions before it: 0."""
    with tf.name_scope("encoder"):
        memory, memory_mask = decoder.model.encode(source)
        memories = tuple(layer.cross_attention.project_memory(memory) for layer in decoder.decoder.layers)
    batch = tf.shape(source)[0]
    state = DecoderState(
        rows=tf.range(batch),
        limits=limits,
        padding=tf.zeros([batch], tf.int32),
        hypotheses=initial_hypotheses(tf.fill([batch], bos_id), search.beams, search.n_best, 0),
        caches=decoder.empty_caches(batch, search.beams),
        memories=memories,
        memory_bias=mask_bias(memory_mask, memory.dtype),
    )
    return state, tf.constant(0)


def _start_from_prompt(
    decoder: FoldedDecoder, search: SearchStrategy, bos_id: int, prompt: tf.Tensor, limits: Limits
) -> tuple[DecoderState, tf.Tensor]:
    """Returns the state before the first token after each prompt, and the number of positions before it."""
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
        caches=KeyValueCaches(mask_bias(visible, caches[0].dtype), caches),
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
    batch, width, size, is_token = tf.shape(ids)[0], tf.shape(ids)[1], decoder.head_size, tf.not_equal(ids, 0)
    positions = tf.cumsum(tf.cast(is_token, tf.int32), 1, exclusive=True)  # [B, P], 0 for the first token
    encoding = decoder.encoding(positions)
    bias = mask_bias(causal_mask(width) & is_token[:, tf.newaxis, tf.newaxis], encoding.dtype)  # [B, 1, P, P]
    context = decoder.context(batch, width, tf.range(width))
    context = context._replace(self_attention_bias=decoder.grouped_bias(bias))
    empty = decoder.empty_caches(batch, 1).grow(width, size).layers
    _, caches = decoder.step(ids, encoding, empty, ((),) * len(empty), context)
    rows, unused = tf.shape(empty[0])[0], [[0, 0], [0, 0], [0, (beams - 1) * size]]
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
    table = decoder.encoding(tf.range(prefix + capacity))  # [P + C, D]
    context = decoder.context(batch, beams, tf.range(1))._replace(memory_bias=state.memory_bias)
    own_slots = state.caches.own_slots()

    def unfinished(step: tf.Tensor, hypotheses: Hypotheses, caches: Caches) -> tf.Tensor:
        return (step < capacity) & (2 * tf.math.count_nonzero(hypotheses.done, dtype=tf.int32) < batch)

    def body(step: tf.Tensor, hypotheses: Hypotheses, caches: Caches) -> tuple:
        position = prefix + step
        caches = caches.at(position, own_slots)
        here = context._replace(positions=position[tf.newaxis], self_attention_bias=decoder.attention_bias(caches))
        encoding = tf.gather(table, position - state.padding)[:, tf.newaxis]  # [B, 1, D]
        logits, layers = decoder.step(hypotheses.tokens, encoding, caches.layers, state.memories, here)
        caches = caches._replace(layers=layers)
        with tf.name_scope("choose"):
            hypotheses = search.advance(hypotheses, logits, step, state.limits)
        return step + 1, hypotheses, caches.follow(hypotheses.parents) if beams > 1 else caches

    step, hypotheses, caches = tf.while_loop(unfinished, body, (step, state.hypotheses, state.caches))
    return step, state._replace(hypotheses=hypotheses, caches=caches)
