"""N-gram models: the probabilities of all continuations sum to one, and more context helps on structured text."""

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
