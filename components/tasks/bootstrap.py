"""Confidence intervals and paired tests by resampling the test set (the bootstrap)."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from seq2serve.components.tasks.metric import Metric

NUM_RESAMPLES = 1000
NUM_RESAMPLES_OF_AN_ERROR = 100  # enough for a standard deviation
SEED = 12345  # sacrebleu's
CONFIDENCE = 0.95  # of an interval
SIGNIFICANCE = 0.05  # largest p-value at which a model counts as worse
MIN_ROWS = 10  # with fewer rows, resampling says nothing about unseen rows
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class SufficientStatistics:
    """Statistics of each answer from which the metrics of any subset or resample of the rows follow cheaply.

    Args:
        columns: K statistics of each row, [rows, K].
        metrics: what can be computed from them; those without a `score` are left out.
    """

    columns: np.ndarray
    metrics: tuple[Metric, ...]

    def __len__(self) -> int:
        return len(self.columns)

    def total(self) -> dict[str, float]:
        """Returns the metrics of all rows, by name."""
        return {metric.name: self.score(metric) for metric in self.metrics if metric.score}

    def score(self, metric: Metric, weights: np.ndarray | None = None) -> float:
        """Returns a metric of the rows, where row i is repeated `weights[i]` times; once without weights."""
        assert metric.score, f"{metric.name} does not follow from statistics of rows"
        return metric.score(self.columns, np.ones(len(self)) if weights is None else weights)

    def take(self, rows: np.ndarray) -> "SufficientStatistics":
        """Returns the statistics of the rows with these indices."""
        return dataclasses.replace(self, columns=self.columns[rows])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of two models by one metric on the same rows.

    Args:
        metric: name of the metric.
        num_examples: number of rows.
        ours, theirs: the metric of each model.
        interval: confidence interval of ours - theirs.
        p_value: probability that a model as good as theirs looks at least this much worse on these rows by chance.
        worse: whether ours is worse with a p-value of at most SIGNIFICANCE.
        better: whether ours is better over the whole interval.
    """

    metric: str
    num_examples: int
    ours: float
    theirs: float
    interval: tuple[float, float]
    p_value: float
    worse: bool
    better: bool


def intervals(statistics: SufficientStatistics) -> dict[str, tuple[float, float]]:
    """Computes percentile bootstrap intervals of all metrics (Efron 1979; for BLEU Koehn 2004).

    Args:
        statistics: statistics of the rows.
    Returns:
        metric -> (lower, upper) bound of the CONFIDENCE interval; empty for fewer than MIN_ROWS rows.
    """
    if len(statistics) < MIN_ROWS:
        return {}
    scored = [metric for metric in statistics.metrics if metric.score]
    samples = [[statistics.score(metric, weights) for metric in scored] for weights in _resamples(len(statistics))]
    return {metric.name: _bounds(values) for metric, values in zip(scored, np.array(samples).T, strict=True)}


def standard_error(statistics: SufficientStatistics, metric: Metric) -> float:
    """Computes the bootstrap standard error of a metric: the standard deviation over resamples (Efron 1979)."""
    resamples = itertools.islice(_resamples(len(statistics)), NUM_RESAMPLES_OF_AN_ERROR)
    return float(np.std([statistics.score(metric, weights) for weights in resamples], ddof=1))


def compare(ours: SufficientStatistics, theirs: SufficientStatistics, metric: Metric) -> Comparison:
    """Compares two models by the paired bootstrap: both are measured on the same resampled rows (Koehn 2004).

    The differences, shifted to mean 0, are the null distribution: how two equally good models differ by chance, as in
    sacrebleu's paired test.

    Args:
        ours, theirs: statistics of the same rows in the same order, at least MIN_ROWS of them.
        metric: one that both have.
    Returns:
        A Comparison.
    """
    samples = [statistics.score(metric, weights) for weights in _resamples(len(ours)) for statistics in (ours, theirs)]
    differences = np.array(samples[0::2]) - np.array(samples[1::2])
    our_value, their_value, sign = ours.score(metric), theirs.score(metric), metric.sign
    loss, losses = sign * (their_value - our_value), -sign * differences
    num_as_bad = np.count_nonzero(losses - losses.mean() >= loss - _ROUNDING)
    p_value = float((num_as_bad + 1) / (NUM_RESAMPLES + 1))
    bounds = _bounds(differences)
    worse = bool(loss > _ROUNDING and p_value <= SIGNIFICANCE)
    better = min(sign * bound for bound in bounds) > _ROUNDING
    return Comparison(metric.name, len(ours), our_value, their_value, bounds, p_value, worse, better)


def _resamples(num_rows: int) -> Iterator[np.ndarray]:
    """Yields the number of times that each row is drawn, float64 [num_rows]; the same for equal numbers of rows."""
    rng = np.random.default_rng(SEED)
    for _ in range(NUM_RESAMPLES):
        yield np.bincount(rng.integers(num_rows, size=num_rows), minlength=num_rows).astype(float)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    lower, upper = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(lower), float(upper)
