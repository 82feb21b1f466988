"""Evaluation: the result of `seq2serve evaluate`, without the libraries that compute it."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model on files.

    Args:
        model: path or URL of the SavedModel.
        task: name of its task.
        report: the content of metrics.json, see ModelEvaluation; without "baseline" if no baseline could be computed.
        counts: num_rows (rows read), num_examples (rows that are not rejected), num_rejected and
            num_rejected_by_reason.
        rejects: the first rejected rows: {"file", "line", "reason", "detail", "text"}.
        notes: how files were read.
        warnings: cut texts, labels that the model does not know, baselines that could not be computed.
    """

    model: str
    task: str
    report: dict[str, Any] = dataclasses.field(repr=False)
    counts: dict[str, Any]
    rejects: list[dict[str, Any]] = dataclasses.field(repr=False)
    notes: list[str]
    warnings: list[str]

    @property
    def metrics(self) -> dict[str, float]:
        """Returns the model's metrics, such as {"bleu": 31.6, "chrf": 58.0}."""
        return self.report["model"]

    @property
    def intervals(self) -> dict[str, list[float]]:
        """Returns metric -> its 95 % confidence interval by bootstrap; empty if there are too few rows."""
        return self.report["intervals"]["model"]

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Returns the metrics of the baselines, by name."""
        return self.report["baselines"]

    @property
    def slices(self) -> list[dict[str, Any]]:
        """Returns the slices: {"by", "name", "num_examples", "model", "baseline", "intervals"}."""
        return self.report["slices"]
