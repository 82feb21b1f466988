"""N-grams: probabilities of all that may come sum to one, and more context is better on text that has some."""

import numpy as np
import pytest

from components.ngrams import NgramModel, normalize

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 3


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("before", ["", "t", "the ", "the c", "zzzz", "the ca\U0001f600"])
def test_what_may_come_next_sums_to_one(order, before):
    model = NgramModel(TEXTS, order)
    known = sorted(set("".join(TEXTS)))
    # P(before and then c) summed over all c, and P(before, end), make P(before ...): each text's end is counted in.
    begun = [_log_prefix(model, before + character) for character in known]
    rare = _log_prefix(model, before + "\u20ac") + np.log(0x110000 - len(known))
    total = np.logaddexp.reduce([*begun, rare, model.log_probability(before)])
    assert total == pytest.approx(_log_prefix(model, before), abs=1e-9)


def _log_prefix(model, text):
    """Returns the log probability that a text begins so: without its end."""
    keys = model._keys(text, model._order)
    return float(model._log_probabilities(keys)[:-1].sum())


def test_more_context_helps():
    unseen = "the cat sat on the log"
    scores = [NgramModel(TEXTS, order).log_probability(unseen) for order in (1, 2, 3, 5)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] / 3


def test_a_unigram_is_a_frequency():
    model = NgramModel(["aab"] * 1000, 1)
    assert model.log_probability("a") == pytest.approx(np.log(2 / 4) + np.log(1 / 4), abs=1e-2)


def test_white_space_is_one_space():
    assert normalize(" a\n\n b\tc ") == "a b c"
