"""The weights with which two classifiers answer together."""

import numpy as np
import pytest
from scipy.special import log_softmax

from seq2serve.models.training.experts import EVEN, fit_mixture


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def log_loss(weights, answers, labels):
    mixed = log_softmax(np.einsum("p,npc->nc", weights, answers), axis=1)
    return -mixed[np.arange(len(labels)), labels].mean()


def experts(rng, labels, *strengths):
    """Log-probabilities that favour the right label the more, the stronger the expert is; noise otherwise."""
    right = np.eye(3)[labels]
    logits = [rng.normal(size=right.shape) * 2 + strength * right for strength in strengths]
    return log_softmax(np.stack(logits, 1), axis=2)


def test_an_expert_that_guesses_has_no_say(rng):
    labels = rng.integers(3, size=2000)
    guessing, knowing = fit_mixture(experts(rng, labels, 0, 3), labels)
    assert guessing < 0.1 < knowing


def test_no_other_weights_answer_better(rng):
    labels = rng.integers(3, size=1000)
    answers = experts(rng, labels, 1, 2)
    best = log_loss(fit_mixture(answers, labels), answers, labels)
    others = [log_loss(np.array([a, b]), answers, labels) for a in np.linspace(0, 2, 9) for b in np.linspace(0, 2, 9)]
    assert best < min(others) + 1e-3


def test_experts_that_are_too_sure_are_toned_down(rng):
    labels = rng.integers(3, size=2000)
    answers = experts(rng, labels, 2, 2)
    sure = log_softmax(4 * answers, axis=2)
    np.testing.assert_allclose(4 * fit_mixture(sure, labels), fit_mixture(answers, labels), rtol=0.05)


def test_few_rows_change_little(rng):
    labels = rng.integers(3, size=2)
    assert np.abs(fit_mixture(experts(rng, labels, 0, 3), labels) - EVEN).max() < 0.3
    np.testing.assert_allclose(fit_mixture(np.zeros([0, 2, 3]), np.zeros([0], int)), [EVEN, EVEN])
