"""N-gram models: the probabilities of all continuations sum to one, and more context helps on structured text."""

import collections

import numpy as np
import pytest

from seq2serve.components.tasks.language_model.ngrams import NgramModel

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 3


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("prefix", ["", "t", "the ", "the c", "zzzz", "the ca\U0001f600"])
def test_the_probabilities_of_all_continuations_sum_to_one(order, prefix):
    model = NgramModel(TEXTS, order)
    known = sorted(set("".join(TEXTS)))
    # P(prefix + c), summed over all characters c, plus P(prefix, end) equals P(prefix).
    continued = [_log_prefix_probability(model, prefix + character) for character in known]
    rare = _log_prefix_probability(model, prefix + "\u20ac") + np.log(0x110000 - len(known))
    total = np.logaddexp.reduce([*continued, rare, model.log_probability(prefix)])
    assert total == pytest.approx(_log_prefix_probability(model, prefix), abs=1e-9)


def _log_prefix_probability(model, text):
    """Returns the log probability that a text begins with this one, that is, without the end."""
    keys = model._keys(text, model._order)
    return float(model._log_probabilities(keys)[:-1].sum())


def test_more_context_helps():
    unseen = "the cat sat on the log"
    scores = [NgramModel(TEXTS, order).log_probability(unseen) for order in (1, 2, 3, 5)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] / 3


def test_a_unigram_model_has_relative_frequencies():
    model = NgramModel(["aab"] * 1000, 1)
    assert model.log_probability("a") == pytest.approx(np.log(2 / 4) + np.log(1 / 4), abs=1e-2)


class SlowKneserNey:
    """Interpolated Kneser-Ney by the book, on tuples: Chen and Goodman 1999, equations 4.35 to 4.37.

    In the highest order, n-grams are counted; in lower orders, the distinct characters before them (Kneser and Ney
    1995). The discount of an order is n1 / (n1 + 2 n2). Unigrams are interpolated with equally likely characters.
    """

    def __init__(self, texts, order):
        self.order = order
        self.vocabulary = {*"".join(texts), "END", "RARE"}
        grams = [gram for text in texts for gram in self.grams(text)]
        self.counts = {order: collections.Counter(grams)}
        for shorter in range(order - 1, 0, -1):
            before = {gram[-shorter - 1 :] for gram in self.counts[shorter + 1]}
            self.counts[shorter] = collections.Counter(gram[1:] for gram in before)

    def grams(self, text):
        characters = ["START"] * (self.order - 1) + [c if c in self.vocabulary else "RARE" for c in text] + ["END"]
        return [tuple(characters[i : i + self.order]) for i in range(len(characters) - self.order + 1)]

    def probability(self, gram):
        if not gram:
            return 1 / len(self.vocabulary)
        counts = self.counts[len(gram)]
        ones, twos = (sum(count == number for count in counts.values()) for number in (1, 2))
        discount = ones / (ones + 2 * twos) if ones else 0.5
        followers = {other: count for other, count in counts.items() if other[:-1] == gram[:-1]}
        shorter = self.probability(gram[1:])
        if not followers:
            return shorter
        rest = discount * len(followers) / sum(followers.values())
        return max(counts[gram] - discount, 0) / sum(followers.values()) + rest * shorter

    def log_probability(self, text):
        return sum(np.log(self.probability(gram)) for gram in self.grams(text))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("text", ["the cat sat on the mat", "a log and a hog", "zzz", ""])
def test_probabilities_are_those_of_kneser_ney_by_the_book(order, text):
    expected = SlowKneserNey(TEXTS, order).log_probability(text)
    rare = sum(character not in "".join(TEXTS) for character in text)
    # Characters that training has not seen share the probability of RARE.
    unseen = 0x110000 - len(set("".join(TEXTS)))
    assert NgramModel(TEXTS, order).log_probability(text) == pytest.approx(expected - rare * np.log(unseen), rel=1e-9)
