"""No n-gram is generated twice, in any search; the results are those of a search without caches."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding.beam_search import BeamOptions, BeamSearch, LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.decoding.repetition import (
    RepetitionLimit,
    ban_ngrams,
    limit_repetition,
    penalize_tokens,
    probe_repeats,
)
from seq2serve.models.decoding.sampling import Sampler, SamplingOptions, draw_random_numbers
from seq2serve.models.decoding.state import CHUNK, Result
from seq2serve.models.decoding.tuning import NEG_INF

BOS, EOS = 2, 3
MAXIMUM = 2 * CHUNK + 8


def banned_tokens(ids: list[int], n: int) -> set[int]:
    """Returns the tokens that followed an earlier occurrence of the last n - 1 tokens."""
    last = ids[len(ids) - n + 1 :]
    return {ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == last}


def penalized(logits: np.ndarray, ids: list[int], penalty: float) -> np.ndarray:
    lower = np.where(logits > 0, logits / penalty, logits * penalty)
    return np.where(np.isin(np.arange(len(logits)), ids), lower, logits)


def has_repeat(ids: list[int], n: int) -> bool:
    ngrams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(ngrams)) < len(ngrams)


IDS = st.integers(2, 3).flatmap(lambda symbols: st.lists(st.integers(4, 3 + symbols), min_size=12, max_size=40))


@settings(deadline=None, max_examples=100)
@given(st.tuples(IDS, IDS), st.integers(1, 12))
def test_exactly_the_tokens_that_repeat_an_ngram_are_banned(pair, n):
    length = min(map(len, pair))
    past = np.int32([ids[:length] for ids in pair])
    logits = ban_ngrams(tf.zeros([2, 8]), tf.constant(past[np.newaxis]), n).numpy()
    for row, ids in zip(logits, past.tolist(), strict=True):
        assert set(np.flatnonzero(row == NEG_INF)) == banned_tokens(ids, n)
        assert set(row) <= {0, np.float32(NEG_INF)}


@settings(deadline=None, max_examples=100)
@given(IDS, st.integers(1, 11))
def test_a_probe_finds_every_repeat(ids, size):
    """It may also find others, because it compares only a few tokens."""
    found = probe_repeats(tf.constant([[ids]]), size).numpy()[0, 0]
    repeats = [ids[i : i + size] == ids[-size:] for i in range(len(ids) - size)]
    assert (found >= np.array(repeats)).all()
    assert size > 4 or (found == np.array(repeats)).all()


def test_logits_of_generated_tokens_are_divided_or_multiplied():
    logits, past = np.float32([[2, -2, 0, 3], [1, 1, -1, -1]]), [[[0, 1, 0], [2, 2, 1]]]
    expected = [penalized(row, ids, 2.0) for row, ids in zip(logits, past[0], strict=True)]
    assert expected[0].tolist() == [1, -4, 0, 3]
    np.testing.assert_array_equal(penalize_tokens(tf.constant(logits), tf.constant(past), 2.0), expected)


@pytest.fixture(scope="module")
def model(make_transformer):
    """A model with random weights, which loops."""
    return make_transformer(num_encoder_layers=1, num_decoder_layers=1, seed=4)


@pytest.fixture(scope="module")
def source(random_ids):
    return random_ids([5, 3, 8, 1, 6, 2, 7, 4, 8], seed=5, end=(EOS,))


@pytest.fixture(scope="module")
def logits_of(model):
    """Returns a function without caches: sources [N, S] and prefixes [N, T] -> logits of the next tokens [N, V]."""
    spec = tf.TensorSpec([None, None], tf.int32)
    run = tf.function(lambda s, t: model({"source": s, "target": t})[:, -1], input_signature=[spec, spec])
    return lambda *inputs: run(*map(np.int32, inputs)).numpy().astype(np.float64)


def plain_search(logits_of, source, beams, limit, maximum):
    """Textbook beam search without length penalty: the best hypotheses, lists of (log probability, ids)."""
    hypotheses, finished = [(0.0, [])], []
    for step in range(maximum):
        logits = logits_of([source] * len(hypotheses), [[BOS, *ids] for _, ids in hypotheses])
        candidates = []
        for (total, ids), row in zip(hypotheses, logits, strict=True):
            log_probs = total + penalized(row, ids, limit.penalty) - np.log(np.exp(row).sum())
            allowed = set(range(len(row))) - (banned_tokens(ids, limit.ngram) if limit.ngram else set())
            candidates += [(log_probs[token], [*ids, token]) for token in allowed]
        candidates = sorted(candidates, reverse=True)[: 2 * beams]
        finished += [x for x in candidates[:beams] if x[1][-1] == EOS or step + 1 == maximum]
        hypotheses = [x for x in candidates if x[1][-1] != EOS][:beams]
        if not hypotheses:  # every token is banned
            break
    best = sorted(finished, reverse=True)[:beams]
    return [(total, [token for token in ids if token != EOS]) for total, ids in best]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("ngram", "penalty"), [(1, 1.0), (2, 1.0), (5, 1.0), (8, 1.0), (0, 1.3), (3, 1.5)])
def test_it_finds_the_same_as_a_plain_search(model, decode, logits_of, source, beams, ngram, penalty):
    limit = RepetitionLimit(BeamSearch(beams, beams, 0.0), ngram, penalty)
    result = decode(model, source, limit, maximum=MAXIMUM)
    for row in range(3):
        expected = plain_search(logits_of, source[row][source[row] != 0], beams, limit, MAXIMUM)
        for rank, (total, ids) in enumerate(expected):
            assert result.ids[row, rank, : result.lengths[row, rank]].tolist() == ids
            assert result.log_probs[row, rank] == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("search", [BeamSearch(1, 1, 0.0), BeamSearch(4, 4, 2.0)], ids=["greedy", "beams"])
def test_no_ngram_is_generated_twice(model, decode, source, search):
    def texts(search):
        result = decode(model, source, search, maximum=MAXIMUM, minimum=CHUNK + 4)
        rows = zip(result.ids.reshape(-1, result.ids.shape[2]), result.lengths.flat, strict=True)
        return [ids[:length].tolist() for ids, length in rows]

    for n in (2, 3, 8):
        assert any(has_repeat(ids, n) for ids in texts(search))
        limited = texts(RepetitionLimit(search, n))
        assert max(map(len, limited)) > CHUNK
        assert not any(has_repeat(ids, n) for ids in limited)


def sample(model, source, search, temperature, maximum=MAXIMUM) -> Result:
    rows, decoder = len(source), FoldedDecoder(model)

    @functools.partial(tf.function, autograph=False)
    def run():
        lengths = LengthLimits(tf.zeros([rows], tf.int32), tf.fill([rows], maximum))
        numbers = draw_random_numbers(tf.range(rows), maximum)
        top_k, top_p, begins_word = tf.zeros([rows], tf.int32), tf.ones([rows]), tf.zeros([rows], tf.bool)
        options = SamplingOptions(lengths, tf.fill([rows], temperature), top_k, top_p, numbers, begins_word)
        return generate(decoder, tf.constant(source), search, options)

    return Result(*(tensor.numpy() for tensor in run()))


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_no_ngram_is_sampled_twice(model, source, temperature):
    free, limited = (
        sample(model, source, search, temperature) for search in (Sampler(), RepetitionLimit(Sampler(), 3))
    )
    assert any(has_repeat(ids[0, :size].tolist(), 3) for ids, (size,) in zip(free.ids, free.lengths, strict=True))
    assert not any(has_repeat(ids[0, :n].tolist(), 3) for ids, (n,) in zip(limited.ids, limited.lengths, strict=True))


def test_a_penalty_makes_texts_more_varied(model, decode, source):
    def distinct(penalty):
        result = decode(model, source, RepetitionLimit(BeamSearch(1), 0, penalty), maximum=20, minimum=20)
        return np.mean([len(set(ids)) for ids in result.ids[:, 0, :20].tolist()])

    assert distinct(1.0) < distinct(1.5) < distinct(4.0)


def test_tokens_of_a_prompt_do_not_count(make_language_model):
    """The prompt has all tokens. With n = 1, it would leave none if it counted."""
    model, prompt = make_language_model(positions="rotary", seed=2), np.arange(4, 20)[np.newaxis]
    text, generated = [BOS, *prompt[0]], []
    for _ in range(6):
        x = model.decoder(model.target_embedding(tf.constant([[*text, *generated]], tf.int32)))
        logits = model.output_embedding.logits(x)[0, -1].numpy()
        logits[[EOS, *generated]] = NEG_INF
        generated.append(int(logits.argmax()))
    lengths = LengthLimits(tf.constant([6]), tf.constant([6]))
    result = generate(FoldedDecoder(model), tf.constant(prompt, tf.int32), RepetitionLimit(BeamSearch(1), 1), lengths)
    assert result.ids[0, 0, :6].numpy().tolist() == generated
    assert set(generated) & set(prompt[0])


def test_a_result_does_not_depend_on_batch_or_padding(model, decode, source):
    limit = RepetitionLimit(BeamSearch(3, 3, 0.6), 3, 1.2)
    together = decode(model, source, limit, maximum=MAXIMUM)
    padded = decode(model, np.pad(source, [(0, 0), (0, 9)]), limit, maximum=MAXIMUM)
    np.testing.assert_array_equal(padded.ids, together.ids)
    for row in range(len(source)):
        alone = decode(model, source[row : row + 1], limit, maximum=MAXIMUM)
        width = alone.ids.shape[2]
        np.testing.assert_array_equal(alone.ids[0], together.ids[row, :, :width])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4)


def test_rows_with_fewer_beams_find_the_same(model, decode, source):
    rows = len(source)
    lengths = LengthLimits(np.zeros(rows, np.int32), np.full(rows, MAXIMUM, np.int32))
    beams = np.resize(np.int32([1, 3]), rows)
    options = BeamOptions(lengths, beams, np.ones(rows, np.int32), np.zeros(rows, np.float32))
    search, decoder = RepetitionLimit(BeamSearch(3, 1, 0.0), 4), FoldedDecoder(model)
    run = tf.function(lambda: generate(decoder, tf.constant(source), search, options))
    together = run()
    for first, width in enumerate((1, 3)):
        expected = decode(model, source, RepetitionLimit(BeamSearch(width, 1, 0.0), 4), maximum=MAXIMUM)
        np.testing.assert_allclose(together.scores[first::2], expected.scores[first::2], rtol=1e-4)
        np.testing.assert_array_equal(together.lengths[first::2], expected.lengths[first::2])


def test_a_hypothesis_can_always_end(model, decode, source):
    """Without repeating a token there are at most as many tokens as in the vocabulary."""
    result = decode(model, source, RepetitionLimit(BeamSearch(4, 4), 1), maximum=MAXIMUM)
    assert (result.lengths < model.vocab_size).all()
    assert np.isfinite(result.log_probs).all()


class Pieces:
    """Stands for a tokenizer."""

    def __init__(self, is_character_level):
        self.is_character_level = is_character_level


def test_settings_that_are_off_leave_the_search_as_it_is():
    search = BeamSearch()
    assert limit_repetition(search, DecodingConfig(no_repeat_ngram=0), Pieces(False)) is search
    assert limit_repetition(search, DecodingConfig(), Pieces(False)) == RepetitionLimit(search, 8, 1.0)
    penalty = DecodingConfig(no_repeat_ngram=0, repetition_penalty=1.5)
    assert limit_repetition(search, penalty, Pieces(True)) == RepetitionLimit(search, 0, 1.5)


def test_ngrams_of_single_characters_are_eight_times_as_long():
    assert limit_repetition(BeamSearch(), DecodingConfig(), Pieces(True)).ngram == 64
