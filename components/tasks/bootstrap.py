"""Confidence intervals and paired tests by resampling the test set (the bootstrap)."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

NUM_RESAMPLES = 1000
NUM_RESAMPLES_OF_AN_ERROR = 100  # enough for a standard deviation
SEED = 12345  # sacrebleu's
CONFIDENCE = 0.95  # of an interval
SIGNIFICANCE = 0.05  # largest p-value at which a model counts as worse
MIN_ROWS = 10  # with fewer rows, resampling says nothing about unseen rows
_ROUNDING = 1e-9

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class SufficientStatistics:
    """Statistics of each answer from which the metrics of any subset or resample of the rows follow cheaply.

    Args:
        columns: K statistics of each row, [rows, K].
        metrics: (columns, weights float64 [rows]) -> metrics of the rows, where row i is repeated `weights[i]` times.
    """

    columns: np.ndarray
    metrics: Callable[[np.ndarray, np.ndarray], Metrics]

    def __len__(self) -> int:
        return len(self.columns)

    def total(self) -> Metrics:
        """Returns the metrics of all rows."""
        return self.metrics(self.columns, np.ones(len(self)))

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
    samples = [statistics.metrics(statistics.columns, weights) for weights in _resamples(len(statistics))]
    return {name: _bounds(np.array([metrics[name] for metrics in samples])) for name in samples[0]}


def standard_error(statistics: SufficientStatistics, metric: str) -> float:
    """Computes the bootstrap standard error of a metric: the standard deviation over resamples (Efron 1979)."""
    resamples = itertools.islice(_resamples(len(statistics)), NUM_RESAMPLES_OF_AN_ERROR)
    return float(np.std([statistics.metrics(statistics.columns, weights)[metric] for weights in resamples], ddof=1))


def compare(
    ours: SufficientStatistics, theirs: SufficientStatistics, metric: str, higher_is_better: bool
) -> Comparison:
    """Compares two models by the paired bootstrap: both are measured on the same resampled rows (Koehn 2004).

    The differences, shifted to mean 0, are the null distribution: how two equally good models differ by chance, as in
    sacrebleu's paired test.

    Args:
        ours, theirs: statistics of the same rows in the same order, at least MIN_ROWS of them.
        metric: name of a metric that both have.
        higher_is_better: whether a higher value of the metric is better.
    Returns:
        A Comparison.
    """
    sign = 1 if higher_is_better else -1
    samples = [
        statistics.metrics(statistics.columns, weights)[metric]
        for weights in _resamples(len(ours))
        for statistics in (ours, theirs)
    ]
    differences = np.array(samples[0::2]) - np.array(samples[1::2])
    our_value, their_value = ours.total()[metric], theirs.total()[metric]
    loss, losses = sign * (their_value - our_value), -sign * differences
    num_as_bad = np.count_nonzero(losses - losses.mean() >= loss - _ROUNDING)
    p_value = float((num_as_bad + 1) / (NUM_RESAMPLES + 1))
    bounds = _bounds(differences)
    worse = bool(loss > _ROUNDING and p_value <= SIGNIFICANCE)
    better = min(sign * bound for bound in bounds) > _ROUNDING
    return Comparison(metric, len(ours), our_value, their_value, bounds, p_value, worse, better)


def _resamples(num_rows: int) -> Iterator[np.ndarray]:
    """Yields the number of times that each row is drawn, float64 [num_rows]; the same for equal numbers of rows."""
    rng = np.random.default_rng(SEED)
    for _ in range(NUM_RESAMPLES):
        yield np.bincount(rng.integers(num_rows, size=num_rows), minlength=num_rows).astype(float)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    lower, upper = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(lower), float(upper)
