"""Metric: what a score is called, how it is shown, and how it follows from the statistics of rows.

A task owns its metrics once. Evaluation during training, Evaluator, report and TensorBoard use the same values.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric. Nothing here imports NumPy, so that a cached run can show metrics without it.

    Args:
        name: in reports, logs and properties, such as "bleu".
        unit: of a value, such as "%".
        score: (statistics [rows, K], weights float64 [rows]) -> value, where row i counts `weights[i]` times; see
            bootstrap.SufficientStatistics. None if the value does not follow from statistics of rows; such a metric has
            no confidence interval and cannot decide.
        higher_is_better: whether a higher value is better.
        decimals: digits to show after the decimal point.
        best: the value of answers that are all right; None if there is no such value.
    """

    name: str
    unit: str
    score: "Callable[[np.ndarray, np.ndarray], float] | None" = None
    higher_is_better: bool = True
    decimals: int = 1
    best: float | None = None

    @property
    def sign(self) -> int:
        """Returns 1 if a higher value is better, else -1."""
        return 1 if self.higher_is_better else -1

    def text(self, value: float) -> str:
        """Returns a value as it is shown, without the unit."""
        return f"{value:.{self.decimals}f}"


# Of every model, on the eval split during training, under teacher forcing: the model sees the correct labels so far.
LOSS = Metric("loss", "nats per label", higher_is_better=False, decimals=3)
LABEL_ACCURACY = Metric("accuracy", "%")
