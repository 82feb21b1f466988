"""What a training knows of its past, which decides how it goes on: part of every checkpoint.

Comes in: the numbers of each step and each evaluation. Goes out: points of a curve, what was best, what is exported.
Read next: trainer_callbacks.py, which fills and asks it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping

from models.config import TrainingConfig

DIVERGED_RATIO = 2.0  # times the lowest loss so far ...
DIVERGED_FLOOR = 0.1  # ... or times this, for losses next to nothing jump about ...
DIVERGED_POINTS = 5  # ... for so many points on end: training has left for good


@dataclasses.dataclass
class History:
    """Plain numbers, so that a checkpoint can hold them.

    Args:
        evaluations: one object a checkpoint: `step`, and metric -> value on the eval split.
        seconds: of training, evaluations included.
        sums: name -> sum over the steps since the last point of the curve; `steps` is their number.
        lowest_loss: of all points of the curve.
        high_points: how many points on end were far above it.
    """

    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    lowest_loss: float = math.inf
    high_points: int = 0

    def to_json(self) -> str:
        """Returns all of it as text; every number comes back as it was."""
        return json.dumps(dataclasses.asdict(self))

    def restore(self, text: str) -> None:
        """Becomes what `to_json` wrote."""
        vars(self).update(json.loads(text))

    def add_step(self, numbers: Mapping[str, float]) -> None:
        """Adds what a step found (see models.learner.Learner) to the sums."""
        for name, value in {**numbers, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def make_point(self) -> dict[str, float]:
        """Returns what the steps since the last point were like, and begins anew.

        Returns:
            Means over the steps of `loss` and `gradient_norm`; `accuracy`, the share of labels that were right;
            `tokens_per_second`, without evaluations; `padding`, the share of what was computed that was none of the
            text.
        """
        sums, self.sums = self.sums, {}
        point = {name: sums[name] / sums["steps"] for name in ("loss", "gradient_norm")}
        point["accuracy"] = sums["right"] / max(sums["labels"], 1.0)
        point["tokens_per_second"] = sums["tokens"] / sums["seconds"]
        point["padding"] = 1 - sums["tokens"] / sums["cells"]
        self.lowest_loss = min(self.lowest_loss, point["loss"])
        high = point["loss"] > DIVERGED_RATIO * max(self.lowest_loss, DIVERGED_FLOOR)
        self.high_points = self.high_points + 1 if high else 0
        return point

    def diverges(self) -> bool:
        """Returns whether the loss has been far above its lowest for long."""
        return self.high_points >= DIVERGED_POINTS


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares evaluations.

    Args:
        history: holds them.
        metric: that they are compared by; NaN is worse than any number.
        higher_is_better: of the metric.
    """

    history: History
    metric: str
    higher_is_better: bool

    def best(self, number: int) -> list[int]:
        """Returns the steps of the best evaluations, the best first; of equals the earlier is the better."""

        def badness(evaluation: dict[str, float]) -> float:
            value = evaluation[self.metric]
            return math.inf if math.isnan(value) else -value if self.higher_is_better else value

        return [int(evaluation["step"]) for evaluation in sorted(self.history.evaluations, key=badness)[:number]]

    def last(self, number: int) -> list[int]:
        """Returns the steps of the last evaluations."""
        return [int(evaluation["step"]) for evaluation in self.history.evaluations[-number:]]

    def at(self, step: int) -> dict[str, float]:
        """Returns the metrics of an evaluation."""
        found = next(evaluation for evaluation in self.history.evaluations if evaluation["step"] == step)
        return {name: value for name, value in found.items() if name != "step"}

    def exported(self, config: TrainingConfig) -> list[int]:
        """Returns the steps of the checkpoints that would be exported if training ended now."""
        choose = self.best if config.export == "best" else self.last
        return choose(config.export_checkpoints)

    def since_best(self) -> int:
        """Returns how many evaluations in a row have found nothing better."""
        steps = self.last(len(self.history.evaluations))
        return len(steps) - 1 - steps.index(self.best(1)[0]) if steps else 0
