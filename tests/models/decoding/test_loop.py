"""The decode loop agrees with a pass of the whole model, does not depend on the batch, and stops when rows are done."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.state import CHUNK, Result

BOS, EOS = 2, 3


def whole_model_log_probs(model, source, ids, lengths, maximum) -> np.ndarray:
    """Returns log P(hypothesis | source) from one pass of the whole model; a truncated hypothesis has no end marker."""
    target = np.pad(ids, [(0, 0), (0, 1)])
    target[np.arange(len(ids)), lengths] = EOS
    logits = model({"source": source, "target": np.pad(target, [(0, 0), (1, 0)], constant_values=2)[:, :-1]})
    log_probs = tf.gather(tf.nn.log_softmax(logits), target, batch_dims=2).numpy()
    scored = np.minimum(lengths + 1, maximum)
    return np.where(np.arange(target.shape[1]) < scored[:, np.newaxis], log_probs, 0).sum(axis=1)


def check_log_probs(model, decode, source, beams):
    """Compares with the whole model. Lengths around CHUNK make the loop extend its caches and remove finished rows."""
    maximum = np.array([2 * CHUNK + 3, 2, CHUNK, CHUNK + 1, 7])
    result = decode(model, source, BeamSearch(beams, n_best=beams, length_penalty=2.0), maximum)
    assert result.lengths.max() > CHUNK
    rows = np.repeat(np.arange(5), beams)
    ids, lengths = result.ids.reshape(5 * beams, -1), result.lengths.reshape(-1)
    expected = whole_model_log_probs(model, source[rows], ids, lengths, maximum[rows])
    np.testing.assert_allclose(result.log_probs.reshape(-1), expected, rtol=1e-4, atol=1e-4)


def test_cached_log_probabilities_equal_those_of_the_whole_model(
    make_transformer, decode, random_ids, first_half_of_translator_kinds
):
    """Random weights reorder the beams at nearly every step; a high length penalty makes hypotheses long.

    The vocabulary is large enough for top-k by groups.
    """
    model = make_transformer(num_encoder_layers=1, vocab_size=300, **first_half_of_translator_kinds)
    check_log_probs(model, decode, random_ids([5, 3, 7, 1, 6], end=(EOS,)), beams=4)


@pytest.fixture(scope="module")
def continue_prompts():
    """Returns a function that continues prompts with a language model, in a graph as in a SavedModel."""

    @functools.cache
    def graph(model, search: BeamSearch):
        limits = LengthLimits(*[tf.TensorSpec([None], tf.int32)] * 2)
        signature = [tf.TensorSpec([None, None], tf.int32), limits]
        decoder = FoldedDecoder(model)
        return tf.function(
            lambda prompt, limits: generate(decoder, prompt, search, limits), input_signature=signature, autograph=False
        )

    def run(model, prompt, search: BeamSearch, limits: LengthLimits) -> Result:
        return Result(*(tensor.numpy() for tensor in graph(model, search)(prompt, limits)))

    return run


def limits_of(*maximum) -> LengthLimits:
    return LengthLimits(np.zeros(len(maximum), np.int32), np.array(maximum, np.int32))


def logits_of(model, text) -> tf.Tensor:
    """Returns the logits after the begin marker and each token, [T + 1, V], from one pass of the whole model.

    The text is one document here: a model with random weights may generate a begin marker, and `model.call` would hide
    the tokens before it.
    """
    x = model.decoder(model.target_embedding(tf.constant([[BOS, *text]], tf.int32)))
    return model.output_embedding.logits(x)[0]


def log_probs_after(model, prompt, ids, maximum) -> float:
    """Returns log P(ids | prompt) of one row; a truncated one has no end marker."""
    text = np.array([*prompt, *[*ids, EOS][:maximum]])
    log_probs = tf.nn.log_softmax(logits_of(model, text[:-1])).numpy()[np.arange(len(text)), text]
    return float(log_probs[len(prompt) :].sum())


def test_log_probabilities_after_a_prompt_equal_those_of_the_whole_model(
    continue_prompts, make_language_model, random_ids, second_half_of_kinds
):
    beams, lengths, maximum = 3, [5, 1, 9, 2, 0], [2 * CHUNK + 3, 2, CHUNK, CHUNK + 1, 7]
    model, prompt = make_language_model(num_decoder_layers=1, **second_half_of_kinds), random_ids(lengths)
    result = continue_prompts(model, prompt, BeamSearch(beams, n_best=beams, length_penalty=2.0), limits_of(*maximum))
    assert result.lengths.max() > CHUNK
    for row, length in enumerate(lengths):
        for ids, size, log_prob in zip(result.ids[row], result.lengths[row], result.log_probs[row], strict=True):
            expected = log_probs_after(model, prompt[row, :length], ids[:size], maximum[row])
            assert log_prob == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_greedy_search_with_a_prompt_equals_search_without_caches(continue_prompts, make_language_model, random_ids):
    model, prompt = make_language_model(positions="rotary", seed=2), random_ids([6])
    text = prompt[0].tolist()
    for _ in range(CHUNK + 2):
        logits = logits_of(model, text)[-1].numpy()
        logits[EOS] = -np.inf
        text.append(int(logits.argmax()))
    limits = LengthLimits(np.array([CHUNK + 2], np.int32), np.array([CHUNK + 2], np.int32))
    assert continue_prompts(model, prompt, BeamSearch(1), limits).ids[0, 0, : CHUNK + 2].tolist() == text[6:]


def test_a_continuation_does_not_depend_on_batch_or_padding(continue_prompts, make_language_model, random_ids):
    model, lengths = make_language_model(positions="learned"), [3, 8, 1, 5]
    prompt, search, maximum = random_ids(lengths, seed=3), BeamSearch(2, n_best=2), 20
    together = continue_prompts(model, prompt, search, limits_of(*[maximum] * 4))
    assert_same(continue_prompts(model, np.pad(prompt, [(0, 0), (0, 7)]), search, limits_of(*[maximum] * 4)), together)
    for row, length in enumerate(lengths):
        alone = continue_prompts(model, prompt[row : row + 1, :length], search, limits_of(maximum))
        assert_same(alone, together, [row])


@pytest.mark.parametrize("options", [{"positions": "sinusoidal"}, {"positions": "rotary"}, {"decoder": "ssru"}])
def test_cached_log_probabilities_equal_those_of_the_whole_model_for_greedy_search(
    make_transformer, decode, random_ids, options
):
    model = make_transformer(**options)
    check_log_probs(model, decode, random_ids([5, 3, 7, 1, 6], end=(EOS,)), beams=1)


def assert_same(result, expected, rows=slice(None)):
    """Compares rows of a result; the width of the ids depends on the batch."""
    width = max(result.ids.shape[2], expected.ids.shape[2])
    ids, expected_ids = (np.pad(r.ids, [(0, 0), (0, 0), (0, width - r.ids.shape[2])]) for r in (result, expected))
    np.testing.assert_array_equal(ids, expected_ids[rows])
    np.testing.assert_allclose(result.scores, expected.scores[rows], rtol=1e-4)


@pytest.fixture(scope="module")
def search():
    return BeamSearch(beams=4, n_best=2, length_penalty=0.6)


def test_a_result_does_not_depend_on_batch_order_or_padding(noisy_reverser, decode, random_ids, search):
    lengths = [2, 8, 5, 1, 7, 3]
    source = random_ids(lengths, seed=3, end=(EOS,))
    together = decode(noisy_reverser, source, search)
    assert_same(decode(noisy_reverser, np.pad(source, [(0, 0), (0, 11)]), search), together)
    assert_same(decode(noisy_reverser, source[::-1], search), together, slice(None, None, -1))
    for row, length in enumerate(lengths):
        assert_same(decode(noisy_reverser, source[row : row + 1, : length + 1], search), together, [row])


def test_limits_of_one_row_do_not_affect_another(noisy_reverser, decode, random_ids, search):
    source = random_ids([8, 8, 8, 8], seed=4, end=(EOS,))
    free, limited = (decode(noisy_reverser, source, search, maximum) for maximum in (20, np.array([20, 1, 20, 2])))
    np.testing.assert_array_equal(free.ids[::2], limited.ids[::2])
    assert limited.lengths[1::2].max(axis=1).tolist() == [1, 2]


def test_results_contain_only_tokens(noisy_reverser, decode, random_ids, search):
    result = decode(noisy_reverser, random_ids([1, 4, 8], end=(EOS,)), search)
    positions = np.arange(result.ids.shape[2])
    np.testing.assert_array_equal(result.ids != 0, positions < result.lengths[..., np.newaxis])
    assert not np.isin(result.ids, [2, EOS]).any()


def test_an_empty_batch_has_an_empty_result(noisy_reverser, decode, search):
    result = decode(noisy_reverser, np.zeros((0, 4), np.int32), search)
    assert result.ids.shape[:2] == result.scores.shape == (0, 2)


def test_a_row_of_padding_has_finite_scores_and_does_not_affect_others(noisy_reverser, decode, random_ids, search):
    source = random_ids([5, 4], end=(EOS,))
    result = decode(noisy_reverser, np.concatenate([source, 0 * source[:1]]), search)
    assert np.isfinite(result.scores).all()
    assert_same(decode(noisy_reverser, source, search), result, [0, 1])


@pytest.mark.parametrize("run", [tf.function, lambda function: function], ids=["fixed_batch", "eager"])
def test_a_graph_with_a_fixed_batch_and_eager_mode_have_the_same_result(
    make_transformer, decode, random_ids, search, run
):
    model = make_transformer(num_encoder_layers=1, num_decoder_layers=1, seed=2)
    source = random_ids([1, 8, 3, 6, 2], end=(EOS,))
    limit = np.array([20, 9, 2, 30, 1], np.int32)
    decoder = FoldedDecoder(model)
    result = run(lambda: generate(decoder, tf.constant(source), search, LengthLimits(0 * limit, limit)))()
    assert result.lengths.numpy().max() > CHUNK
    assert_same(Result(*(tensor.numpy() for tensor in result)), decode(model, source, search, limit))


def test_the_loop_stops_when_every_row_is_done(reverser, decode, random_ids):
    """The capacity exceeds the number of generated tokens by at most one CHUNK."""
    result = decode(reverser, random_ids([3, 6], end=(EOS,)), BeamSearch(4, length_penalty=0.0), maximum=10_000)
    assert result.lengths.max() <= CHUNK
    assert result.ids.shape[2] == CHUNK


def test_the_graph_needs_neither_python_nor_xla(noisy_reverser, search):
    spec = tf.TensorSpec([None, None], tf.int32)
    limit = tf.TensorSpec([None], tf.int32)
    decoder = FoldedDecoder(noisy_reverser)
    run = tf.function(lambda source, low, high: generate(decoder, source, search, LengthLimits(low, high)))
    graph = run.get_concrete_function(spec, limit, limit).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert not {node.op for node in nodes} & {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaLaunch"}
    assert not any(function.attr["_XlaMustCompile"].b for function in graph.library.function)


def test_the_states_of_a_recurrent_decoder_do_not_grow(make_transformer):
    decoder = FoldedDecoder(make_transformer(decoder="ssru"))
    caches = decoder.empty_caches(tf.constant(3), beams=4)
    assert [state.shape for state in caches.grow(CHUNK, decoder.head_size).layers] == [(12, 16)] * 2


@pytest.mark.parametrize("decoder", ["attention", "ssru"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_has_finite_scores(make_transformer, decode, random_ids, policy, decoder):
    keras.config.set_dtype_policy(policy)
    try:
        model = make_transformer(num_encoder_layers=1, num_decoder_layers=1, decoder=decoder)
    finally:
        keras.config.set_dtype_policy("float32")
    result = decode(model, random_ids([5, 0, 3]), BeamSearch(4), maximum=5)
    assert np.isfinite(result.scores).all()
    assert result.scores.dtype == np.float32
