"""The trials of a search: what each one tried and found, the file that keeps them, and their TensorBoard events."""

import collections
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.task import Task

FILE = "trials.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training with settings of the search space that has ended.

    Args:
        number: from 0, which has the settings by rule, or of the preset.
        settings: setting -> value, of the search space.
        state: complete; pruned, because it was worse than most others; failed; or out of time.
        metric: name of the metric that ranks checkpoints; empty if the trial failed before its first evaluation.
        value: of the metric on the eval split, with the weights that would be exported; None unless complete.
        evaluations: tenth of the training (1 to 10) -> the metric at the first checkpoint in it.
        seconds: how long it took.
        reason: why it failed.
    """

    number: int
    settings: dict[str, Any]
    state: Literal["complete", "pruned", "failed", "out of time"]
    metric: str = ""
    value: float | None = None
    evaluations: dict[int, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""


def read_trials(folder: str) -> list[Trial]:
    """Reads the trials in a folder; none if it has no file of them."""
    path = Path(folder, FILE)
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    for value in values:  # keys of JSON are texts
        value["evaluations"] = {int(tenth): metric for tenth, metric in value["evaluations"].items()}
    return [Trial(**value) for value in values]


def write_trials(folder: str, trials: Sequence[Trial]) -> None:
    """Writes trials, under a temporary name that is then renamed: a kill loses none of those that were there."""
    path = Path(folder, FILE)
    temporary = path.with_suffix(".tmp")
    text = ",\n ".join(json.dumps(dataclasses.asdict(trial)) for trial in trials)
    temporary.write_text(f"[{text}]\n", encoding="utf-8")
    os.replace(temporary, path)


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """Returns the complete trial with the best value, of equal ones the first; None if there is none."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: metric.sign * trial.value, default=None)


def metric_of(trials: Sequence[Trial], task: Task) -> Metric:
    """Returns the metric of the trials; before the first evaluation, when the metric does not matter, any."""
    name = next((trial.metric for trial in trials if trial.metric), task.metrics[0].name)
    return task.metric(name)


def describe_trial(trial: Trial, first: Trial, metric: Metric) -> str:
    """Returns a line about a trial: how it ended, and the settings that differ from those of the first one."""
    value = "" if trial.value is None else f", {metric.name} {metric.text(trial.value)}"
    reason = f" ({trial.reason})" if trial.reason else ""
    changes = ", ".join(f"{name} {number}" for name, number in differing(trial, first).items())
    return f"Tuner: trial {trial.number} {trial.state}{value}{reason}; {changes or 'the settings to start from'}"


def describe_search(trials: Sequence[Trial], metric: Metric) -> str:
    """Returns a line about a search: its best trial, compared with the first one, and how many ended early."""
    best, first = best_trial(trials, metric), trials[0]
    states = collections.Counter(trial.state for trial in trials if trial.state != "complete")
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    number = f"{len(trials)} trial{'s' * (len(trials) > 1)}" + (f" ({counts})" if counts else "")
    if best is None:
        return f"tuner.minutes ended before the first of {number} was complete: the settings to start from are used"
    value = f"{metric.name} {metric.text(best.value)} on the eval split"
    if best is first:
        return f"of {number}, the first is best, with the settings to start from: {value}"
    start = first.state if first.value is None else metric.text(first.value)
    changes = ", ".join(f"{name} {first.settings[name]} -> {new}" for name, new in differing(best, first).items())
    return f"of {number}, trial {best.number} is best: {value}, against {start} of the first; {changes}"


def write_events(folder: str, trial: Trial, metric: Metric) -> None:
    """Writes a trial for TensorBoard's HParams tab: its settings, its curve, and its value as eval_<metric>.

    Args:
        folder: of the event file; it is replaced.
    """
    # Slow; the rest of the module needs neither.
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hparams

    shutil.rmtree(folder, ignore_errors=True)
    with tf.summary.create_file_writer(folder).as_default():
        hparams.hparams(trial.settings, trial_id=f"trial-{trial.number}")
        for tenth, value in trial.evaluations.items():
            tf.summary.scalar(metric.name, value, step=tenth, description=f"{metric.unit}, by tenth of the training")
        if trial.value is not None:
            tf.summary.scalar(f"eval_{metric.name}", trial.value, step=10, description=metric.unit)


def differing(trial: Trial, first: Trial) -> dict[str, Any]:
    """Returns the settings of a trial that differ from those of the first one."""
    return {name: value for name, value in trial.settings.items() if value != first.settings[name]}
