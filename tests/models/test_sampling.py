"""Each row draws as it asks for: from the distribution that its temperature, top-k and top-p leave, by its own seed."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decoding import CHUNK, Result, translate
from models.inference import NEVER
from models.sampling import Sampling, SamplingOptions, draw, draws
from models.search import BeamSearch, Limits

EOS = 3
NUMBERS = (np.arange(1000, dtype=np.float32) + 0.5) / 1000  # evenly spread: each token comes as often as it should


def options(rows, temperature=1.0, top_k=0, top_p=1.0, numbers=0.0, minimum=0, maximum=20) -> SamplingOptions:
    """Makes options for `rows` rows; each is one number, or one a row."""
    integers, floats = ([np.broadcast_to(kind(0), rows)] for kind in (np.int32, np.float32))
    lengths = Limits(*(np.asarray(limit, np.int32) + integers[0] for limit in (minimum, maximum)))
    temperature, top_p = (np.asarray(option, np.float32) + floats[0] for option in (temperature, top_p))
    return SamplingOptions(lengths, temperature, np.asarray(top_k, np.int32) + integers[0], top_p, numbers)


def shares(logits, **asked) -> np.ndarray:
    """Returns how often each token is drawn."""
    rows = np.repeat(np.float32([logits]), len(NUMBERS), axis=0)
    drawn = draw(tf.constant(rows), options(len(NUMBERS), **asked), tf.constant(NUMBERS)).numpy()
    return np.bincount(drawn, minlength=len(logits)) / len(NUMBERS)


def expected_shares(logits, temperature, top_k, top_p) -> np.ndarray:
    """Computes the distribution as a textbook would: sort, cut, normalise."""
    scaled = np.float64(logits) / temperature
    probabilities = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
    order = np.argsort(-probabilities, kind="stable")
    nucleus = 1 + int(np.sum(np.cumsum(probabilities[order])[:-1] < top_p))
    kept = order[: min(top_k or len(logits), nucleus)]
    allowed = np.zeros(len(logits))
    allowed[kept] = probabilities[kept] / probabilities[kept].sum()
    return allowed


LOGITS = st.lists(st.integers(-40, 40), min_size=2, max_size=12, unique=True).map(lambda tens: np.float32(tens) / 10)


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 12), st.sampled_from([0.05, 0.45, 0.85, 1.0]))
def test_tokens_come_as_often_as_their_probability_says(logits, temperature, top_k, top_p):
    found = shares(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = expected_shares(logits, temperature, top_k, top_p)
    np.testing.assert_allclose(found, expected, atol=2 / len(NUMBERS))


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-40, 1e-5])
def test_without_temperature_it_is_the_most_likely(temperature):
    assert shares([1.0, 3.0, 2.999, -1e9], temperature=temperature).tolist() == [0, 1, 0, 0]


def test_any_options_give_a_token():
    wild = {"temperature": np.float32([np.nan, np.inf, 1e30, 1, 1, 1]), "top_k": [0, -5, 2**31 - 1, 1, 0, 0]}
    asked = options(6, **wild, top_p=np.float32([1, 1, 1, -1, np.nan, 7]))
    drawn = draw(tf.random.stateless_normal([6, 50], [1, 2]), asked, tf.fill([6], 0.999999)).numpy()
    assert ((drawn >= 0) & (drawn < 50)).all()


@pytest.mark.parametrize("temperature", [1.0, 1e8, 1e9, 1e30, np.inf, np.nan])
def test_a_token_that_does_not_exist_is_never_drawn(temperature):
    found = shares([NEVER, 0.5, 0.0, *[NEVER] * 29], temperature=temperature)
    assert found[1] + found[2] == pytest.approx(1)
    if temperature >= 1e8:
        assert found[1] == pytest.approx(0.5, abs=0.01)


def test_a_rows_random_numbers_are_its_seeds_alone():
    few, many = draws(tf.constant([7, 8, 7]), 5).numpy(), draws(tf.constant([8, 1]), 300).numpy()
    np.testing.assert_array_equal(few[0], few[2])
    assert (few[0] != few[1]).all()
    np.testing.assert_array_equal(few[1], many[0, :5])
    assert abs(many.mean() - 0.5) < 0.05


def test_an_empty_batch_draws_nothing():
    graph = tf.function(draws, input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)])
    for draw_rows in (draws, graph):
        assert draw_rows(tf.zeros([0], tf.int32), tf.constant(5)).shape == (0, 5)


@functools.cache
def graph(model):
    asked = tf.nest.map_structure(
        lambda array: tf.TensorSpec([None, *[None] * (array.ndim - 1)], array.dtype),
        options(1, numbers=np.zeros([1, 40], np.float32)),
    )
    signature = [tf.TensorSpec([None, None], tf.int32), asked]
    return tf.function(
        lambda *given: translate(model, given[0], Sampling(EOS), given[1]), input_signature=signature, autograph=False
    )


def write(model, source, seeds, **asked) -> Result:
    result = graph(model)(source, options(len(source), numbers=draws(tf.constant(seeds), 40), **asked))
    return Result(*(tensor.numpy() for tensor in result))


@pytest.fixture(scope="module")
def source(random_ids):
    return random_ids([8, 5, 8, 6], seed=4, end=(EOS,))


def test_cold_it_is_greedy_search(noisy_reverser, decode, source):
    cold, greedy = (
        write(noisy_reverser, source, [1, 2, 3, 4], temperature=0),
        decode(noisy_reverser, source, BeamSearch(1)),
    )
    np.testing.assert_array_equal(cold.ids, greedy.ids)
    np.testing.assert_allclose(cold.log_probs, greedy.log_probs, rtol=1e-5)


def test_rows_differ_in_what_they_ask_for_and_not_by_their_batch(noisy_reverser, source):
    asked = {
        "temperature": [0, 1.5, 1.5, 0.7],
        "top_k": [0, 0, 5, 0],
        "top_p": [1, 1, 1, 0.5],
        "maximum": [20, 9, 40, 3],
    }
    seeds = [1, 2, 3, 4]
    together = write(noisy_reverser, source, seeds, **asked)
    assert (together.lengths[:, 0] <= asked["maximum"]).all()
    for row in range(4):
        own = {key: values[row : row + 1] for key, values in asked.items()}
        alone = write(noisy_reverser, source[row : row + 1], seeds[row : row + 1], **own)
        length = alone.lengths[0, 0]
        assert length == together.lengths[row, 0]
        np.testing.assert_array_equal(alone.ids[0, 0, :length], together.ids[row, 0, :length])
        np.testing.assert_allclose(alone.log_probs[0], together.log_probs[row], rtol=1e-4)


def test_another_seed_is_another_text(noisy_reverser, source):
    same = np.repeat(source[:1], 20, axis=0)
    result = write(noisy_reverser, same, list(range(20)), temperature=1.5)
    assert len({tuple(ids) for ids in result.ids[:, 0]}) > 10
    again = write(noisy_reverser, same, list(range(20)), temperature=1.5)
    np.testing.assert_array_equal(result.ids, again.ids)


def test_it_keeps_to_its_lengths(noisy_reverser, source):
    result = write(
        noisy_reverser, source, [5, 6, 7, 8], temperature=3.0, minimum=[CHUNK + 4, 0, 0, 1], maximum=CHUNK + 6
    )
    assert result.lengths[0, 0] >= CHUNK + 4
    assert (result.lengths <= CHUNK + 6).all()
    assert not (result.ids == EOS).any()
