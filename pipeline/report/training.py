"""The training section of a report: every curve that the Trainer logged, and the trials of the Tuner's search."""

import glob
import os
from collections.abc import Sequence
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from seq2serve.pipeline.report import plots
from seq2serve.pipeline.report.facts import RunFacts

MAX_TRIALS = 50  # in the table
_FIRST = ("loss", "accuracy", "learning_rate")  # tags that come before the others


def draw_curves(runs: Sequence[RunFacts]) -> dict[str, str]:
    """Draws the scalars that TensorBoard would show.

    Args:
        runs: facts of one or more runs; runs share the plots.
    Returns:
        Tag -> SVG; empty if no run reached training.
    """
    tags: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
    for facts in runs:
        for split, curves in read_curves(facts).items():
            for tag, points in curves.items():
                key = (f"run {facts.run.id}", split) if len(runs) > 1 else (split, "")
                tags.setdefault(tag, {})[key] = points
    order = sorted(tags, key=lambda tag: (_FIRST.index(tag) if tag in _FIRST else len(_FIRST), tag))
    return {tag: plots.curves(tag, tags[tag]) for tag in order}


def describe_search(facts: RunFacts) -> dict[str, Any] | None:
    """Describes the trials of the Tuner's search; None if there was no search.

    Returns:
        metric; reason, a sentence about the best trial; num_trials; trials, the best MAX_TRIALS of them in the order of
        their numbers, each with number, state, value (a text, empty unless complete), reason, is_best and changes
        (setting -> value, where it differs from the first trial).
    """
    results, chosen = facts.output("Tuner", "tuner_results"), facts.output("Tuner", "best_hyperparameters")
    if not (results and chosen and facts.task and results.properties["trials"]):
        return None
    trials, metric = results.properties["trials"], facts.task.metric(results.properties["metric"])
    ranked = sorted(trials, key=lambda trial: (trial["value"] is None, -metric.sign * (trial["value"] or 0)))
    first = trials[0]["settings"]
    rows = [
        {
            **{key: trial[key] for key in ("number", "state", "reason")},
            "value": "" if trial["value"] is None else metric.text(trial["value"]),
            "is_best": trial["number"] == results.properties["best"],
            "changes": {name: value for name, value in trial["settings"].items() if value != first[name]},
        }
        for trial in sorted(ranked[:MAX_TRIALS], key=lambda trial: trial["number"])
    ]
    reason = chosen.properties["reason"]
    return {"metric": metric.name, "reason": reason, "num_trials": len(trials), "trials": rows}


def read_curves(facts: RunFacts) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Reads the scalars from the event files of a run, with TensorBoard's reader.

    Returns:
        Subfolder of the logs, such as "train" -> tag -> (step, value) in order of the steps.
    """
    model_run = facts.output("Trainer", "model_run")
    if model_run is None:
        return {}
    curves_by_folder = {}
    folders = {os.path.dirname(path) for path in glob.glob(f"{glob.escape(model_run.path('logs'))}/*/*tfevents*")}
    for folder in sorted(folders):
        events = EventAccumulator(folder, {SCALARS: 0, TENSORS: 0}).Reload()
        curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}
        for tag in events.Tags()[TENSORS]:
            if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                curves[tag] = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        curves_by_folder[os.path.basename(folder)] = curves
    return curves_by_folder
