"""Beam search finds the same as a simple search without caches, respects length limits, and improves with width."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.decoding.beam_search import (
    BeamOptions,
    BeamSearch,
    LengthLimits,
    length_normalizer,
    log_sum_exp,
    top_k,
)
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate

BOS, EOS = 2, 3


@pytest.fixture(scope="module")
def source(random_ids):
    return random_ids([1, 2, 3, 4, 5, 6, 7, 8, 8, 5, 3, 6], seed=7, end=(EOS,))


@pytest.fixture(scope="module")
def logits_of(noisy_reverser):
    """Returns a function without caches: sources [N, S] and prefixes [N, T] -> logits of the next tokens [N, V]."""
    spec = tf.TensorSpec([None, None], tf.int32)
    run = tf.function(lambda s, t: noisy_reverser({"source": s, "target": t})[:, -1], input_signature=[spec, spec])
    return lambda source, prefixes: run(source, prefixes).numpy().astype(np.float64)


class PlainSearch:
    """Textbook beam search: lists of hypotheses, and a pass of the whole model for each token.

    Without length penalty it runs to the last step, to show that early stopping does not change the result.
    """

    def __init__(self, logits_of, beams, n_best, length_penalty):
        self.logits_of, self.beams, self.n_best, self.length_penalty = logits_of, beams, n_best, length_penalty

    def __call__(self, source, minimum, maximum):
        """Returns the best hypotheses of each row: lists of (score, log probability, ids)."""
        return [self.search_row(row[row != 0], *limits) for row, *limits in zip(source, minimum, maximum, strict=True)]

    def search_row(self, source, minimum, maximum):
        hypotheses, finished = [(0.0, ())], []
        for step in range(maximum):
            last = step + 1 == maximum
            candidates = self.extend(source, hypotheses, without_end=step < minimum)[: 2 * self.beams]
            for log_prob, ids in candidates[: self.beams]:
                if ids[-1] == EOS or last:
                    score = log_prob / self.normalizer(step + 1)
                    finished.append((score, log_prob, tuple(token for token in ids if token != EOS)))
            hypotheses = [(log_prob, ids) for log_prob, ids in candidates if ids[-1] != EOS][: self.beams]
            finished = sorted(finished, reverse=True)[: self.n_best]
            bound = hypotheses[0][0] / self.normalizer(step + 2)
            if self.length_penalty and len(finished) == self.n_best and finished[-1][0] >= bound:
                break
        return finished

    def normalizer(self, length):
        return ((5 + length) / 6) ** self.length_penalty

    def extend(self, source, hypotheses, without_end):
        """Returns all extensions of all hypotheses by one token, best first."""
        prefixes = np.array([(BOS, *ids) for _, ids in hypotheses], np.int32)
        logits = self.logits_of(np.tile(source, (len(prefixes), 1)), prefixes)
        logits[:, EOS] = -np.inf if without_end else logits[:, EOS]
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        extended = [
            (log_prob + row[token], (*ids, token))
            for (log_prob, ids), row in zip(hypotheses, log_probs, strict=True)
            for token in range(len(row))
        ]
        return sorted(extended, reverse=True)


@pytest.mark.parametrize(
    ("beams", "n_best", "length_penalty"),
    [(1, 1, 0.0), (4, 1, 0.0), (4, 4, 0.0), (4, 1, 0.6), (4, 4, 0.6), (8, 3, 1.0)],
)
def test_it_finds_the_same_as_a_plain_search(noisy_reverser, decode, logits_of, source, beams, n_best, length_penalty):
    minimum = np.array([0, 3, 0, 5, 0, 2, 0, 0, 10, 0, 0, 7])
    maximum = np.array([12, 4, 1, 5, 20, 12, 2, 12, 12, 33, 3, 9])
    result = decode(noisy_reverser, source, BeamSearch(beams, n_best, length_penalty), maximum, minimum)
    expected = PlainSearch(logits_of, beams, n_best, length_penalty)(source, minimum, maximum)
    for row, hypotheses in enumerate(expected):
        for rank, (score, log_prob, ids) in enumerate(hypotheses):
            length = result.lengths[row, rank]
            assert tuple(result.ids[row, rank, :length]) == ids
            assert result.scores[row, rank] == pytest.approx(score, abs=1e-4)
            assert result.log_probs[row, rank] == pytest.approx(log_prob, abs=1e-4)


@pytest.fixture(scope="module")
def search_with_options(noisy_reverser, source):
    """Returns a function that searches with beams, n_best and length penalty of each row, in four beams."""

    decoder = FoldedDecoder(noisy_reverser)

    @tf.function
    def run(beams, n_best, length_penalty):
        maximum = tf.fill([len(source)], 20)
        options = BeamOptions(LengthLimits(0 * maximum, maximum), beams, n_best, length_penalty)
        return generate(decoder, tf.constant(source), BeamSearch(beams=4, n_best=4), options)

    return lambda *options: tf.nest.map_structure(lambda x: x.numpy(), run(*(tf.constant(row) for row in options)))


def test_each_row_is_searched_with_its_own_options(noisy_reverser, decode, source, search_with_options):
    """A row finds the same as a search with its options for all rows, whatever its neighbours have."""
    choices = [(1, 1, 0.0), (2, 2, 1.5), (4, 3, 0.6), (4, 4, 0.0)]
    rows = [choices[row % len(choices)] for row in range(len(source))]
    together = search_with_options(*zip(*rows, strict=True))
    for first, (beams, n_best, length_penalty) in enumerate(choices):
        expected = decode(noisy_reverser, source, BeamSearch(beams, n_best, length_penalty), maximum=20)
        for row in range(first, len(source), len(choices)):
            assert together.lengths[row, :n_best].tolist() == expected.lengths[row].tolist()
            assert together.scores[row, :n_best] == pytest.approx(expected.scores[row], abs=1e-4)


def test_a_row_that_needs_fewer_hypotheses_is_done_earlier(source, search_with_options):
    rows = len(source)
    one, four = (search_with_options([4] * rows, [n_best] * rows, [0.6] * rows) for n_best in (1, 4))
    assert one.scores[:, 0] == pytest.approx(four.scores[:, 0], abs=1e-4)
    assert (one.scores[:, 3] < -1e6).any()  # a row was done without a fourth hypothesis
    assert (four.scores[:, 3] > -1e6).all()


def test_a_beam_of_one_always_takes_the_most_likely_token(noisy_reverser, decode, logits_of, source):
    result = decode(noisy_reverser, source, BeamSearch(beams=1, length_penalty=0.0), maximum=12)
    for row in range(len(source)):
        ids = [BOS]
        while ids[-1] != EOS and len(ids) < 13:
            ids.append(int(np.argmax(logits_of(source[row : row + 1], np.int32([ids])))))
        expected = [token for token in ids[1:] if token != EOS]
        assert result.ids[row, 0, : result.lengths[row, 0]].tolist() == expected


def test_a_wider_beam_scores_no_lower_than_greedy(reverser, noisy_reverser, decode, random_ids):
    """For a confident model this holds for every sentence; otherwise in total, because greedy search may be lucky."""
    source = random_ids([1 + i % 6 for i in range(200)], seed=8, end=(EOS,))
    greedy, four = (decode(reverser, source, BeamSearch(beams, length_penalty=0.0)).log_probs for beams in (1, 4))
    assert (four >= greedy - 1e-4).all()
    greedy, four, eight = (
        decode(noisy_reverser, source, BeamSearch(k, length_penalty=0.0)).log_probs for k in (1, 4, 8)
    )
    assert eight.sum() > four.sum() > greedy.sum()
    assert np.mean(four >= greedy - 1e-4) > 0.97


def test_length_limits_hold_for_every_row_and_hypothesis(noisy_reverser, decode, source):
    minimum, maximum = np.arange(12) % 5, np.arange(12) % 5 + np.arange(12) % 3 + 1
    result = decode(noisy_reverser, source, BeamSearch(beams=4, n_best=4, length_penalty=0.6), maximum, minimum)
    assert (result.lengths >= minimum[:, np.newaxis]).all()
    assert (result.lengths <= maximum[:, np.newaxis]).all()


def test_hypotheses_are_distinct_sorted_and_normalised_by_their_length(noisy_reverser, decode, source):
    result = decode(noisy_reverser, source, BeamSearch(beams=4, n_best=4, length_penalty=0.6), maximum=20)
    assert (np.diff(result.scores, axis=1) <= 0).all()
    assert all(len({tuple(ids) for ids in row}) == 4 for row in result.ids)
    lengths = np.where(result.lengths < 20, result.lengths + 1, 20)  # including the end marker
    np.testing.assert_allclose(result.scores, result.log_probs / ((5 + lengths) / 6) ** 0.6, rtol=1e-5)


def test_the_length_normalizer_is_equation_14():
    np.testing.assert_allclose(length_normalizer(tf.constant([1, 7]), 0.5), [1, 2**0.5], rtol=1e-6)
    np.testing.assert_array_equal(length_normalizer(tf.constant([1, 7]), 0.0), [1, 1])


def test_log_sum_exp_is_exact_for_large_logits():
    logits = tf.constant([[1000.0, 999.0, -1e9], [-3.0, -3.0, -3.0]])
    highest = tf.reduce_max(logits, 1, keepdims=True)
    np.testing.assert_allclose(log_sum_exp(logits, highest)[:, 0], tf.reduce_logsumexp(logits, 1), rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(1, 4), st.sampled_from([1, 2, 8, 16]), st.sampled_from([32, 256, 320, 1024]))
def test_top_k_by_groups_equals_top_k(seed, rows, k, vocab_size):
    """Logits are rounded to tenths, so that there are ties."""
    logits = np.random.default_rng(seed).normal(size=(rows, vocab_size)).round(1).astype(np.float32)
    values, indices = top_k(tf.constant(logits), k)
    np.testing.assert_array_equal(values, tf.math.top_k(logits, k).values)
    np.testing.assert_array_equal(tf.gather(logits, indices, batch_dims=1), values)
    assert all(len(set(row)) == k for row in indices.numpy())


def test_more_hypotheses_than_beams_are_an_error():
    with pytest.raises(ValueError, match=r"n_best \(5\) must be between 1 and the number of beams \(4\)"):
        BeamSearch(beams=4, n_best=5)
