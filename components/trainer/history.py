"""The history of a training, which is part of every checkpoint, and the ranking of its checkpoints."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from seq2serve.components.tasks.metric import LABEL_ACCURACY, Metric
from seq2serve.models.config import TrainingConfig

# Training has diverged after DIVERGED_POINTS consecutive high points. A point is high if its loss is more than
# DIVERGED_RATIO times the lowest loss so far, or times DIVERGED_FLOOR if that is larger: losses near zero fluctuate.
# After the warm-up it is high, too, if its loss is more than DIVERGED_RATIO times the loss of guessing.
DIVERGED_RATIO = 2.0
DIVERGED_FLOOR = 0.1
DIVERGED_POINTS = 5
STANDARD_ERROR = "standard_error"  # of an evaluation's metric
MIN_NOISE = 0.01  # of the best value; an eval split can be too small to estimate a standard error


@dataclasses.dataclass
class History:
    """The history of a training, in plain numbers that can be saved in a checkpoint.

    Args:
        evaluations: one per checkpoint: `step`, and metric -> value on the eval split.
        seconds: duration of training, including evaluations.
        sums: name -> sum over the steps since the last point of the curve; `steps` is their number.
        lowest_loss: of all points of the curve.
        high_points: number of consecutive points that are high, up to the last point.
    """

    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    lowest_loss: float = math.inf
    high_points: int = 0

    def to_json(self) -> str:
        """Returns the history as text, without loss of precision."""
        return json.dumps(dataclasses.asdict(self))

    def restore(self, text: str) -> None:
        """Restores a history from the result of `to_json`."""
        vars(self).update(json.loads(text))

    def add_step(self, numbers: Mapping[str, float]) -> None:
        """Adds the results of a step (see models/transformer/train_step.py) to the sums."""
        for name, value in {**numbers, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def make_point(self, chance: float = math.inf) -> dict[str, float]:
        """Makes a point of the training curve from the steps since the last point, and resets the sums.

        Args:
            chance: loss of a model that guesses; infinite during the warm-up, when a loss may be far above it.
        Returns:
            `loss` and `gradient_norm`: means over the steps; `accuracy`: percentage of correct labels;
            `tokens_per_second`: without evaluations; `padding`: share of padding in the batches.
        """
        sums, self.sums = self.sums, {}
        point = {name: sums[name] / sums["steps"] for name in ("loss", "gradient_norm")}
        point[LABEL_ACCURACY.name] = 100 * sums["right"] / max(sums["labels"], 1.0)
        point["tokens_per_second"] = sums["tokens"] / sums["seconds"]
        point["padding"] = 1 - sums["tokens"] / sums["cells"]
        self.lowest_loss = min(self.lowest_loss, point["loss"])
        high = point["loss"] > DIVERGED_RATIO * min(max(self.lowest_loss, DIVERGED_FLOOR), chance)
        self.high_points = self.high_points + 1 if high else 0
        return point

    def for_more_steps(self, checkpoint_steps: int) -> "History":
        """Returns the history without the evaluation after the last step, if a longer training would not have it."""
        regular = [evaluation for evaluation in self.evaluations if evaluation["step"] % checkpoint_steps == 0]
        return dataclasses.replace(self, evaluations=regular)

    def diverges(self) -> bool:
        """Returns whether the loss stays far above its minimum, or above that of guessing."""
        return self.high_points >= DIVERGED_POINTS


def describe_choice(properties: Mapping[str, Any]) -> str:
    """Returns a sentence about the checkpoints of a trained model: which was best, by how much, and which is exported.

    Args:
        properties: of a Model artifact; of an earlier version, the sentence is empty.
    """
    if not (choice := properties.get("checkpoints")):
        return ""
    exported = ", ".join(map(str, properties["exported_steps"]))
    best = f"eval {choice['metric']} was best at step {choice['best_step']} ({choice['best']:.4g})"
    if choice["best_step"] == choice["last_step"]:
        return f"{best}, the last; exported: step {exported}"
    difference = abs(choice["best"] - choice["last"])
    relation = "more than" if difference > choice["noise"] else "within"
    return (
        f"{best}, by {difference:.3g} better than at the last step {choice['last_step']} ({choice['last']:.4g}), which "
        f"is {relation} noise ({choice['noise']:.2g}); exported: step {exported} (training.export={choice['export']})"
    )


@dataclasses.dataclass(frozen=True)
class CheckpointRanking:
    """Ranks checkpoints by their evaluations.

    Args:
        history: contains the evaluations.
        metric: by which checkpoints are ranked; NaN is worse than any number.
    """

    history: History
    metric: Metric

    def best(self, number: int) -> list[int]:
        """Returns the steps of the best evaluations, best first; of two equal ones, the earlier first."""

        def badness(evaluation: dict[str, float]) -> float:
            value = evaluation[self.metric.name]
            return math.inf if math.isnan(value) else -self.metric.sign * value

        return [int(evaluation["step"]) for evaluation in sorted(self.history.evaluations, key=badness)[:number]]

    def last(self, number: int) -> list[int]:
        """Returns the steps of the last evaluations."""
        return [int(evaluation["step"]) for evaluation in self.history.evaluations[-number:]]

    def at(self, step: int) -> dict[str, float]:
        """Returns the metrics of the evaluation at a step."""
        metrics = next(evaluation for evaluation in self.history.evaluations if evaluation["step"] == step)
        return {name: value for name, value in metrics.items() if name not in ("step", STANDARD_ERROR)}

    def exported(self, config: TrainingConfig) -> list[int]:
        """Returns the steps of the checkpoints that would be exported if training ended now."""
        is_best = config.export == "best" or (config.export == "auto" and self.is_last_worse())
        return (self.best if is_best else self.last)(config.export_checkpoints)

    def kept(self, config: TrainingConfig) -> list[int]:
        """Returns the steps of the checkpoints that may be exported when training ends, now or after more steps."""
        later = dataclasses.replace(self, history=self.history.for_more_steps(config.checkpoint_steps))
        steps = []
        for ranking in (self, later):
            best, last = (choose(config.export_checkpoints) for choose in (ranking.best, ranking.last))
            steps += {"best": best, "last": last, "auto": [*best, *last]}[config.export]
        return steps

    def is_last_worse(self) -> bool:
        """Returns whether the last evaluation is worse than the best one by more than noise."""
        comparison = self.last_and_best()
        return math.isnan(comparison["last"]) or abs(comparison["best"] - comparison["last"]) > comparison["noise"]

    def last_and_best(self) -> dict[str, Any]:
        """Compares the last evaluation with the best one.

        Returns:
            metric; last_step, last, best_step, best: steps and values; noise: the standard error of a difference of
            two values on the eval split, at least MIN_NOISE of the best value.
        """
        steps = {"last": self.last(1)[0], "best": self.best(1)[0]}
        evaluations = {evaluation["step"]: evaluation for evaluation in self.history.evaluations}
        values = {name: evaluations[step][self.metric.name] for name, step in steps.items()}
        errors = [evaluations[step].get(STANDARD_ERROR, 0.0) for step in steps.values()]
        noise = max(math.hypot(*errors), MIN_NOISE * abs(values["best"]))
        return {
            "metric": self.metric.name,
            **values,
            **{f"{name}_step": step for name, step in steps.items()},
            "noise": noise,
        }

    def since_best(self) -> int:
        """Returns the number of evaluations since the best one."""
        steps = self.last(len(self.history.evaluations))
        return len(steps) - 1 - steps.index(self.best(1)[0]) if steps else 0
