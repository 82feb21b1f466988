"""Measurement: the quality of a set of answers."""

import dataclasses

import numpy as np

from seq2serve.components.tasks.bootstrap import SufficientStatistics


@dataclasses.dataclass(frozen=True)
class ResultTable:
    """A table that an evaluation shows in addition to its metrics.

    Args:
        title: title of the table.
        header: header of each column.
        rows: cells of each row.
        is_matrix: True if all cells except the first of each row are counts, which are shown as a heat map.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_matrix: bool = False


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The quality of a set of answers.

    Args:
        metrics: name -> value.
        statistics: sufficient statistics of each row, from which the metrics of any subset of rows follow.
        quality: quality of each answer, float64 [rows]; higher is better if that holds for the task's first metric.
        quality_name: name of the measure in `quality`.
        is_perfect: whether every answer is right, where that can be said.
        signature: metric -> how it was computed, for metrics that need an explanation.
        tables: tables to show with the metrics.
    """

    metrics: dict[str, float]
    statistics: SufficientStatistics
    quality: np.ndarray
    quality_name: str
    is_perfect: bool = False
    signature: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: tuple[ResultTable, ...] = ()


def measure_by(statistics: SufficientStatistics) -> Measurement:
    """Measures answers by their statistics alone; the quality of an answer is the first metric of its row alone."""
    first = statistics.metrics[0]
    quality = np.array([statistics.take(np.array([i])).score(first) for i in range(len(statistics))])
    is_perfect = first.best is not None and np.allclose(quality, first.best)
    return Measurement(statistics.total(), statistics, quality, first.name, is_perfect)
