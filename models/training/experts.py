"""The weights with which two classifiers answer together, fitted on rows that neither has seen."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

EVEN = 0.5
STRENGTH = 4.0  # of the pull towards EVEN, in nats; a few dozen rows say little about the weights


def fit_mixture(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fits the exponents of a product of experts (stacking, Wolpert 1992, with the log loss).

    The answer is the softmax of the weighted sum of the experts' log-probabilities. Weights that do not add up to 1
    also correct how sure the answer is (temperature scaling, Guo et al. 2017).

    Args:
        log_probabilities: of each expert, float [N, P, C].
        labels: int [N].
    Returns:
        float32 [P], none negative; EVEN for every expert if there are no rows.
    """
    rows = np.arange(len(labels))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        answers = log_softmax(np.einsum("p,npc->nc", weights, log_probabilities), axis=1)
        errors = np.exp(answers)
        errors[rows, labels] -= 1
        value = STRENGTH * np.square(weights - EVEN).sum() - answers[rows, labels].sum()
        slope = 2 * STRENGTH * (weights - EVEN) + np.einsum("nc,npc->p", errors, log_probabilities)
        return value, slope

    number = log_probabilities.shape[1]
    found = minimize(loss, np.full(number, EVEN), jac=True, method="L-BFGS-B", bounds=[(0, None)] * number)
    return found.x.astype(np.float32)
