"""The decoding loop writes what the whole model would, whatever else is in the batch, and stops when all is written."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.decoding import CHUNK, Result, complete, translate
from models.search import BeamSearch, Limits

BOS, EOS = 2, 3


def whole_model_log_probs(model, source, ids, lengths, maximum) -> np.ndarray:
    """Returns log P(hypothesis | source) by one pass of the whole model; one cut at its maximum has no end marker."""
    target = np.pad(ids, [(0, 0), (0, 1)])
    target[np.arange(len(ids)), lengths] = EOS
    logits = model({"source": source, "target": np.pad(target, [(0, 0), (1, 0)], constant_values=2)[:, :-1]})
    log_probs = tf.gather(tf.nn.log_softmax(logits), target, batch_dims=2).numpy()
    written = np.minimum(lengths + 1, maximum)
    return np.where(np.arange(target.shape[1]) < written[:, np.newaxis], log_probs, 0).sum(axis=1)


def check_log_probs(model, decode, source, beams):
    """Lengths on both sides of CHUNK make the loop grow its caches and leave out rows that are done."""
    maximum = np.array([2 * CHUNK + 3, 2, CHUNK, CHUNK + 1, 7])
    result = decode(model, source, BeamSearch(beams, n_best=beams, alpha=2.0), maximum)
    assert result.lengths.max() > CHUNK
    rows = np.repeat(np.arange(5), beams)
    ids, lengths = result.ids.reshape(5 * beams, -1), result.lengths.reshape(-1)
    expected = whole_model_log_probs(model, source[rows], ids, lengths, maximum[rows])
    np.testing.assert_allclose(result.log_probs.reshape(-1), expected, rtol=1e-4, atol=1e-4)


def test_cached_log_probabilities_equal_those_of_the_whole_model(make_transformer, decode, random_ids, kind):
    """Random weights make beams change places at nearly every step; a high penalty keeps them long.

    The vocabulary is large enough for its best tokens to be looked for group by group.
    """
    model = make_transformer(num_encoder_layers=1, vocab_size=300, **kind)
    check_log_probs(model, decode, random_ids([5, 3, 7, 1, 6], end=(EOS,)), beams=4)


@pytest.fixture(scope="module")
def go_on():
    """Returns a function that lets a language model go on from prompts, in a graph as on the server."""

    @functools.cache
    def graph(model, search: BeamSearch):
        limits = Limits(*[tf.TensorSpec([None], tf.int32)] * 2)
        signature = [tf.TensorSpec([None, None], tf.int32), limits]
        return tf.function(
            lambda prompt, limits: complete(model, prompt, search, limits), input_signature=signature, autograph=False
        )

    def write(model, prompt, search: BeamSearch, limits: Limits) -> Result:
        return Result(*(tensor.numpy() for tensor in graph(model, search)(prompt, limits)))

    return write


def limits_of(*maximum) -> Limits:
    return Limits(np.zeros(len(maximum), np.int32), np.array(maximum, np.int32))


def logits_of(model, text) -> tf.Tensor:
    """Returns the logits after the begin marker and each token, [T + 1, V], by one pass of the whole model.

    As one document: a model of random weights may write a begin marker, which to the model hides what is before it.
    """
    x = model.decoder(model.target_embedding(tf.constant([[BOS, *text]], tf.int32)))
    return model.output_embedding.logits(x)[0]


def log_probs_after(model, prompt, ids, maximum) -> float:
    """Returns log P(ids | prompt) of one row; one cut at its maximum has no end marker."""
    text = np.array([*prompt, *[*ids, EOS][:maximum]])
    log_probs = tf.nn.log_softmax(logits_of(model, text[:-1])).numpy()[np.arange(len(text)), text]
    return float(log_probs[len(prompt) :].sum())


def test_what_follows_a_prompt_has_the_log_probability_of_the_whole_text(go_on, make_language_model, random_ids, kind):
    beams, model, lengths, maximum = (
        3,
        make_language_model(num_decoder_layers=1, **kind),
        [5, 1, 9, 2, 0],
        [2 * CHUNK + 3, 2, CHUNK, CHUNK + 1, 7],
    )
    prompt = random_ids(lengths)
    result = go_on(model, prompt, BeamSearch(beams, n_best=beams, alpha=2.0), limits_of(*maximum))
    assert result.lengths.max() > CHUNK
    for row, length in enumerate(lengths):
        for ids, size, found in zip(result.ids[row], result.lengths[row], result.log_probs[row], strict=True):
            expected = log_probs_after(model, prompt[row, :length], ids[:size], maximum[row])
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_greedy_goes_on_as_without_caches(go_on, make_language_model, random_ids):
    model, prompt = make_language_model(positions="rotary", seed=2), random_ids([6])
    text = prompt[0].tolist()
    for _ in range(CHUNK + 2):
        logits = logits_of(model, text)[-1].numpy()
        logits[EOS] = -np.inf
        text.append(int(logits.argmax()))
    limits = Limits(np.array([CHUNK + 2], np.int32), np.array([CHUNK + 2], np.int32))
    assert go_on(model, prompt, BeamSearch(1), limits).ids[0, 0, : CHUNK + 2].tolist() == text[6:]


def test_a_prompt_is_gone_on_from_the_same_alone_in_a_batch_and_padded(go_on, make_language_model, random_ids):
    model, lengths = make_language_model(positions="learned"), [3, 8, 1, 5]
    prompt, search, maximum = random_ids(lengths, seed=3), BeamSearch(2, n_best=2), 20
    together = go_on(model, prompt, search, limits_of(*[maximum] * 4))
    assert_same(go_on(model, np.pad(prompt, [(0, 0), (0, 7)]), search, limits_of(*[maximum] * 4)), together)
    for row, length in enumerate(lengths):
        alone = go_on(model, prompt[row : row + 1, :length], search, limits_of(maximum))
        assert_same(alone, together, [row])


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_cached_log_probabilities_are_right_for_greedy(make_transformer, decode, random_ids, positions):
    model = make_transformer(positions=positions)
    check_log_probs(model, decode, random_ids([5, 3, 7, 1, 6], end=(EOS,)), beams=1)


def assert_same(result, expected, rows=slice(None)):
    """Compares rows of a result; how much room there is for ids depends on the batch."""
    room = max(result.ids.shape[2], expected.ids.shape[2])
    ids, expected_ids = (np.pad(r.ids, [(0, 0), (0, 0), (0, room - r.ids.shape[2])]) for r in (result, expected))
    np.testing.assert_array_equal(ids, expected_ids[rows])
    np.testing.assert_allclose(result.scores, expected.scores[rows], rtol=1e-4)


@pytest.fixture(scope="module")
def search():
    return BeamSearch(beams=4, n_best=2, alpha=0.6)


def test_a_sentence_is_written_the_same_alone_in_a_batch_and_padded(noisy_reverser, decode, random_ids, search):
    lengths = [2, 8, 5, 1, 7, 3]
    source = random_ids(lengths, seed=3, end=(EOS,))
    together = decode(noisy_reverser, source, search)
    assert_same(decode(noisy_reverser, np.pad(source, [(0, 0), (0, 11)]), search), together)
    assert_same(decode(noisy_reverser, source[::-1], search), together, slice(None, None, -1))
    for row, length in enumerate(lengths):
        assert_same(decode(noisy_reverser, source[row : row + 1, : length + 1], search), together, [row])


def test_limits_of_one_row_do_not_touch_another(noisy_reverser, decode, random_ids, search):
    source = random_ids([8, 8, 8, 8], seed=4, end=(EOS,))
    free, bound = (decode(noisy_reverser, source, search, maximum) for maximum in (20, np.array([20, 1, 20, 2])))
    np.testing.assert_array_equal(free.ids[::2], bound.ids[::2])
    assert bound.lengths[1::2].max(axis=1).tolist() == [1, 2]


def test_results_hold_nothing_but_tokens(noisy_reverser, decode, random_ids, search):
    result = decode(noisy_reverser, random_ids([1, 4, 8], end=(EOS,)), search)
    places = np.arange(result.ids.shape[2])
    np.testing.assert_array_equal(result.ids != 0, places < result.lengths[..., np.newaxis])
    assert not np.isin(result.ids, [2, EOS]).any()


def test_an_empty_batch_has_an_empty_result(noisy_reverser, decode, search):
    result = decode(noisy_reverser, np.zeros((0, 4), np.int32), search)
    assert result.ids.shape[:2] == result.scores.shape == (0, 2)


def test_a_row_of_padding_gives_numbers_and_leaves_the_others_alone(noisy_reverser, decode, random_ids, search):
    source = random_ids([5, 4], end=(EOS,))
    result = decode(noisy_reverser, np.concatenate([source, 0 * source[:1]]), search)
    assert np.isfinite(result.scores).all()
    assert_same(decode(noisy_reverser, source, search), result, [0, 1])


@pytest.mark.parametrize("run", [tf.function, lambda function: function], ids=["fixed_batch", "eager"])
def test_a_graph_for_one_batch_or_none_at_all_writes_the_same(make_transformer, decode, random_ids, search, run):
    model = make_transformer(num_encoder_layers=1, num_decoder_layers=1)
    source = random_ids([1, 8, 3, 6, 2], end=(EOS,))
    limit = np.array([20, 9, 2, 30, 1], np.int32)
    result = run(lambda: translate(model, tf.constant(source), search, Limits(0 * limit, limit)))()
    assert result.lengths.numpy().max() > CHUNK
    assert_same(Result(*(tensor.numpy() for tensor in result)), decode(model, source, search, limit))


def test_the_loop_stops_when_every_row_is_done(reverser, decode, random_ids):
    """There is only ever room for one CHUNK more than has been written."""
    result = decode(reverser, random_ids([3, 6], end=(EOS,)), BeamSearch(4, alpha=0.0), maximum=10_000)
    assert result.lengths.max() <= CHUNK
    assert result.ids.shape[2] == CHUNK


def test_the_graph_runs_where_there_is_no_python_and_no_xla(noisy_reverser, search):
    spec = tf.TensorSpec([None, None], tf.int32)
    limit = tf.TensorSpec([None], tf.int32)
    run = tf.function(lambda source, low, high: translate(noisy_reverser, source, search, Limits(low, high)))
    graph = run.get_concrete_function(spec, limit, limit).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert not {node.op for node in nodes} & {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaLaunch"}
    assert not any(function.attr["_XlaMustCompile"].b for function in graph.library.function)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_writes_numbers(make_transformer, decode, random_ids, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = make_transformer(num_encoder_layers=1, num_decoder_layers=1)
    finally:
        keras.config.set_dtype_policy("float32")
    result = decode(model, random_ids([5, 0, 3]), BeamSearch(4), maximum=5)
    assert np.isfinite(result.scores).all()
    assert result.scores.dtype == np.float32
