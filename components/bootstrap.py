"""The bootstrap: how far a metric might have come out otherwise, had other rows of the same kind been the test set.

Comes in: a Tally, which counts answers row by row. Goes out: intervals, and whether a model is worse than another.
Read next: evaluator.py, which asks; task_translation.py, which makes Tallies.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

NUM_RESAMPLES = 1000
SEED = 12345  # sacrebleu's
CONFIDENCE = 0.95  # of an interval
SIGNIFICANCE = 0.05  # a model is worse if chance makes an equal one look so with at most this probability
_ROUNDING = 1e-9
MIN_ROWS = 10  # fewer say nothing about rows that were not asked

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Tally:
    """Answers, counted so far that the metrics of any choice of their rows cost little.

    Args:
        columns: [rows, K], what is counted of each row.
        metrics: (columns, weights float64 [rows]) -> metrics of the rows, each taken `weights` times.
    """

    columns: np.ndarray
    metrics: Callable[[np.ndarray, np.ndarray], Metrics]

    def __len__(self) -> int:
        return len(self.columns)

    def total(self) -> Metrics:
        """Returns the metrics of all rows."""
        return self.metrics(self.columns, np.ones(len(self)))

    def take(self, rows: np.ndarray) -> "Tally":
        """Returns the Tally of some rows, given by their numbers."""
        return dataclasses.replace(self, columns=self.columns[rows])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One model beside another on the same rows, in one metric.

    Args:
        metric: its name.
        num_examples: how many rows.
        ours, theirs: the metric of each.
        interval: of ours - theirs.
        p_value: how probable it is that a model as good as theirs is by chance as much worse on these rows, or more.
        worse: whether ours is worse with a p_value of SIGNIFICANCE or less.
        better: whether ours is better in all of the interval.
    """

    metric: str
    num_examples: int
    ours: float
    theirs: float
    interval: tuple[float, float]
    p_value: float
    worse: bool
    better: bool


def intervals(tally: Tally) -> dict[str, tuple[float, float]]:
    """Computes the percentile intervals of a Tally's metrics (Efron 1979; for BLEU Koehn 2004).

    Args:
        tally: of some rows.
    Returns:
        metric -> (lower, upper) bound of the CONFIDENCE interval; empty for fewer than MIN_ROWS rows.
    """
    if len(tally) < MIN_ROWS:
        return {}
    found = [tally.metrics(tally.columns, weights) for weights in _resamples(len(tally))]
    return {name: _bounds(np.array([metrics[name] for metrics in found])) for name in found[0]}


def compare(ours: Tally, theirs: Tally, metric: str, higher_is_better: bool) -> Comparison:
    """Compares two models by the paired bootstrap: both are measured on the same resampled rows (Koehn 2004).

    The differences, moved so that their mean is 0, are what chance makes of two equal models (as in sacrebleu's test).

    Args:
        ours, theirs: of the same rows, in the same order, at least MIN_ROWS.
        metric: one of theirs and ours.
        higher_is_better: of the metric.
    Returns:
        A Comparison.
    """
    sign = 1 if higher_is_better else -1
    both = [tally.metrics(tally.columns, w)[metric] for w in _resamples(len(ours)) for tally in (ours, theirs)]
    differences = np.array(both[0::2]) - np.array(both[1::2])
    values = [tally.total()[metric] for tally in (ours, theirs)]
    loss, losses = sign * (values[1] - values[0]), -sign * differences
    as_bad = np.count_nonzero(losses - losses.mean() >= loss - _ROUNDING)
    p_value = float((as_bad + 1) / (NUM_RESAMPLES + 1))
    bounds = _bounds(differences)
    worse = bool(loss > _ROUNDING and p_value <= SIGNIFICANCE)
    better = min(sign * bound for bound in bounds) > _ROUNDING
    return Comparison(metric, len(ours), *values, bounds, p_value, worse, better)


def _resamples(num_rows: int) -> Iterator[np.ndarray]:
    """Yields how often each row was drawn, float64 [num_rows]; the same for every Tally of as many rows."""
    rng = np.random.default_rng(SEED)
    for _ in range(NUM_RESAMPLES):
        yield np.bincount(rng.integers(num_rows, size=num_rows), minlength=num_rows).astype(float)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    lower, upper = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(lower), float(upper)
