"""Each row is sampled with its own options and seed, from the distribution that temperature, top-k and top-p define."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits, initial_hypotheses
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.sampling import Sampler, SamplingOptions, draw_random_numbers, sample_tokens
from seq2serve.models.decoding.state import CHUNK, Result
from seq2serve.models.decoding.tuning import NEG_INF

EOS = 3
NUMBERS = (np.arange(1000, dtype=np.float32) + 0.5) / 1000  # evenly spaced, so the frequency of each token is exact


def options(rows, temperature=1.0, top_k=0, top_p=1.0, numbers=0.0, minimum=0, maximum=20, begins_word=False):
    """Makes SamplingOptions for `rows` rows; each option is one number or one per row."""

    def per_row(values, dtype):
        return np.broadcast_to(np.asarray(values, dtype), rows)

    lengths = LengthLimits(per_row(minimum, np.int32), per_row(maximum, np.int32))
    temperature, top_p = per_row(temperature, np.float32), per_row(top_p, np.float32)
    return SamplingOptions(lengths, temperature, per_row(top_k, np.int32), top_p, numbers, per_row(begins_word, bool))


def frequencies(logits, **changes) -> np.ndarray:
    """Returns the relative frequency of each token; keywords change the options."""
    rows = np.repeat(np.float32([logits]), len(NUMBERS), axis=0)
    tokens = sample_tokens(tf.constant(rows), options(len(NUMBERS), **changes), tf.constant(NUMBERS)).numpy()
    return np.bincount(tokens, minlength=len(logits)) / len(NUMBERS)


def expected_frequencies(logits, temperature, top_k, top_p) -> np.ndarray:
    """Computes the distribution step by step: sort, truncate, normalise."""
    scaled = np.float64(logits) / temperature
    probabilities = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
    order = np.argsort(-probabilities, kind="stable")
    nucleus = 1 + int(np.sum(np.cumsum(probabilities[order])[:-1] < top_p))
    allowed = order[: min(top_k or len(logits), nucleus)]
    distribution = np.zeros(len(logits))
    distribution[allowed] = probabilities[allowed] / probabilities[allowed].sum()
    return distribution


LOGITS = st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True).map(lambda tens: np.float32(tens) / 10)


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 12), st.sampled_from([0.05, 0.45, 0.85, 1.0]))
def test_frequencies_of_tokens_equal_their_probabilities(logits, temperature, top_k, top_p):
    actual = frequencies(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = expected_frequencies(logits, temperature, top_k, top_p)
    np.testing.assert_allclose(actual, expected, atol=2 / len(NUMBERS))


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-40, 1e-5])
def test_a_temperature_near_or_below_zero_takes_the_most_likely_token(temperature):
    assert frequencies([1.0, 3.0, 2.999, -1e9], temperature=temperature).tolist() == [0, 1, 0, 0]


def test_any_options_yield_a_valid_token():
    extreme = {"temperature": np.float32([np.nan, np.inf, 1e30, 1, 1, 1]), "top_k": [0, -5, 2**31 - 1, 1, 0, 0]}
    extreme_options = options(6, **extreme, top_p=np.float32([1, 1, 1, -1, np.nan, 7]))
    logits = tf.random.stateless_normal([6, 50], [1, 2])
    tokens = sample_tokens(logits, extreme_options, tf.fill([6], 0.999999)).numpy()
    assert ((tokens >= 0) & (tokens < 50)).all()


@pytest.mark.parametrize("temperature", [1.0, 1e8, 1e9, 1e30, np.inf, np.nan])
def test_a_token_with_logit_neg_inf_is_never_sampled(temperature):
    actual = frequencies([NEG_INF, 0.5, 0.0, *[NEG_INF] * 29], temperature=temperature)
    assert actual[1] + actual[2] == pytest.approx(1)
    if temperature >= 1e8:
        assert actual[1] == pytest.approx(0.5, abs=0.01)


def test_random_numbers_of_a_row_depend_only_on_its_seed():
    few = draw_random_numbers(tf.constant([7, 8, 7]), 5).numpy()
    many = draw_random_numbers(tf.constant([8, 1]), 300).numpy()
    np.testing.assert_array_equal(few[0], few[2])
    assert (few[0] != few[1]).all()
    np.testing.assert_array_equal(few[1], many[0, :5])
    assert abs(many.mean() - 0.5) < 0.05


def test_an_empty_batch_has_no_random_numbers():
    signature = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)]
    for function in (draw_random_numbers, tf.function(draw_random_numbers, input_signature=signature)):
        assert function(tf.zeros([0], tf.int32), tf.constant(5)).shape == (0, 5)


@functools.cache
def graph(model):
    specs = tf.nest.map_structure(
        lambda array: tf.TensorSpec([None] * array.ndim, array.dtype),
        options(1, numbers=np.zeros([1, 40], np.float32)),
    )
    decoder = FoldedDecoder(model)
    return tf.function(
        lambda source, options: generate(decoder, source, Sampler(EOS), options),
        input_signature=[tf.TensorSpec([None, None], tf.int32), specs],
        autograph=False,
    )


def sample(model, source, seeds, **changes) -> Result:
    """Samples a target for each source in a graph; keywords change the options."""
    numbers = draw_random_numbers(tf.constant(seeds), 40)
    result = graph(model)(source, options(len(source), numbers=numbers, **changes))
    return Result(*(tensor.numpy() for tensor in result))


@pytest.fixture(scope="module")
def source(random_ids):
    return random_ids([8, 5, 8, 6], seed=4, end=(EOS,))


def test_temperature_zero_is_greedy_search(noisy_reverser, decode, source):
    sampled = sample(noisy_reverser, source, [1, 2, 3, 4], temperature=0)
    greedy = decode(noisy_reverser, source, BeamSearch(1))
    np.testing.assert_array_equal(sampled.ids, greedy.ids)
    np.testing.assert_allclose(sampled.log_probs, greedy.log_probs, rtol=1e-5)


def test_a_row_depends_on_its_own_options_and_not_on_its_batch(noisy_reverser, source):
    row_options = {
        "temperature": [0, 1.5, 1.5, 0.7],
        "top_k": [0, 0, 5, 0],
        "top_p": [1, 1, 1, 0.5],
        "maximum": [20, 9, 40, 3],
    }
    seeds = [1, 2, 3, 4]
    together = sample(noisy_reverser, source, seeds, **row_options)
    assert (together.lengths[:, 0] <= row_options["maximum"]).all()
    for row in range(4):
        own = {key: values[row : row + 1] for key, values in row_options.items()}
        alone = sample(noisy_reverser, source[row : row + 1], seeds[row : row + 1], **own)
        length = alone.lengths[0, 0]
        assert length == together.lengths[row, 0]
        np.testing.assert_array_equal(alone.ids[0, 0, :length], together.ids[row, 0, :length])
        np.testing.assert_allclose(alone.log_probs[0], together.log_probs[row], rtol=1e-4)


def test_different_seeds_yield_different_texts(noisy_reverser, source):
    repeated = np.repeat(source[:1], 20, axis=0)
    result = sample(noisy_reverser, repeated, list(range(20)), temperature=1.5)
    assert len({tuple(ids) for ids in result.ids[:, 0]}) > 10
    again = sample(noisy_reverser, repeated, list(range(20)), temperature=1.5)
    np.testing.assert_array_equal(result.ids, again.ids)


def test_length_limits_hold(noisy_reverser, source):
    result = sample(
        noisy_reverser, source, [5, 6, 7, 8], temperature=3.0, minimum=[CHUNK + 4, 0, 0, 1], maximum=CHUNK + 6
    )
    assert result.lengths[0, 0] >= CHUNK + 4
    assert (result.lengths <= CHUNK + 6).all()
    assert not (result.ids == EOS).any()


def test_only_the_first_token_of_a_row_may_have_to_begin_a_word():
    """The rows are: the most likely token begins no word, the same without the option, and the text may end.

    There are more logits than tokens, as for every model whose vocabulary is no multiple of GROUP.
    """
    word_starts = tf.constant([False, False, False, False, True, False])
    sampler = Sampler(EOS, word_starts)
    logits = tf.constant([[0.0, 0, 0, 1, 2, 9], [0, 0, 0, 1, 2, 9], [0, 0, 0, 8, 2, 9]])
    logits = tf.pad(logits, [[0, 0], [0, 2]], constant_values=NEG_INF)
    rows = options(3, temperature=0, numbers=np.zeros([3, 2], np.float32), begins_word=[True, False, True])
    hypotheses = initial_hypotheses(tf.fill([3], 2), 1, 1, CHUNK)
    first = sampler.advance(hypotheses, logits, tf.constant(0), rows)
    assert first.tokens.numpy().ravel().tolist() == [4, 5, EOS]
    second = sampler.advance(first, logits, tf.constant(1), rows)
    assert second.tokens.numpy().ravel()[:2].tolist() == [5, 5]
