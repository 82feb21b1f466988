"""Training's part of a report: every curve that the Trainer logged.

Comes in: RunFacts, one or several to lay over each other. Goes out: tag -> SVG.
Read next: report_plots.py, which draws; components/trainer_callbacks.py, which logs.
"""

import glob
import os
from collections.abc import Sequence

from pipeline import report_plots
from pipeline.report_run import RunFacts

_FIRST = ("loss", "accuracy", "learning_rate")  # tags that are shown before the others


def draw_curves(runs: Sequence[RunFacts]) -> dict[str, str]:
    """Draws what TensorBoard would show as scalars.

    Args:
        runs: one, or several whose curves share their plots.
    Returns:
        tag -> SVG; empty where no run came to training.
    """
    tags: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
    for facts in runs:
        for part, curves in read_curves(facts).items():
            for tag, points in curves.items():
                key = (f"run {facts.run.id}", part) if len(runs) > 1 else (part, "")
                tags.setdefault(tag, {})[key] = points
    order = sorted(tags, key=lambda tag: (_FIRST.index(tag) if tag in _FIRST else len(_FIRST), tag))
    return {tag: report_plots.curves(tag, tags[tag]) for tag in order}


def read_curves(facts: RunFacts) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Reads the scalars of a run's event files with TensorBoard's own reader.

    Returns:
        Folder of the logs, such as "train" -> tag -> (step, value) in order.
    """
    model_run = facts.output("Trainer", "model_run")
    if model_run is None:
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = {}
    folders = {os.path.dirname(path) for path in glob.glob(f"{glob.escape(model_run.path('logs'))}/*/*tfevents*")}
    for folder in sorted(folders):
        events = EventAccumulator(folder, {SCALARS: 0, TENSORS: 0}).Reload()
        curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}
        for tag in events.Tags()[TENSORS]:
            if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                curves[tag] = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        found[os.path.basename(folder)] = curves
    return found
