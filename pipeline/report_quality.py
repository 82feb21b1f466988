"""The model's part of a report: metrics with their intervals, slices, examples, blessings; two models side by side.

Comes in: RunFacts. Goes out: values for report.html, as much as the run left.
Read next: report.html, "Quality"; components/evaluator.py, which measured.
"""

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

from components.artifact import Artifact
from pipeline import report_plots
from pipeline.report_run import RunFacts

Row = dict[str, Any]
MAX_CHANGES = 5  # answers that became better, and that became worse, of two runs


def describe_quality(facts: RunFacts) -> Row | None:
    """Collects what a report says of the model on the test set.

    Args:
        facts: of a run.
    Returns:
        metrics (rows), slices (groups), examples, tables, signature, num_examples; None where nothing was evaluated.
    """
    evaluation, task = facts.output("Evaluator", "evaluation"), facts.task
    if evaluation is None or task is None:
        return None
    found = evaluation.properties
    last = _last_blessed(facts)
    return {
        "headline": task.headline,
        "decimals": task.decimals,
        "higher_is_better": task.higher_is_better,
        "metrics": _metrics(found),
        "baselines": list(found["baselines"]),
        "last_blessed": last,
        "slices": _slices(found, last, task.headline),
        "quality": found["examples"]["quality"],
        "examples": {which: [_in_order(task, row) for row in found["examples"][which]] for which in ("worst", "best")},
        "tables": found["tables"],
        "signature": found["signature"],
        "num_examples": found["num_examples"],
    }


def describe_blessings(facts: RunFacts) -> list[Row]:
    """Returns the word of the Evaluator, of the InfraValidator and of the Pusher: who, passed, and why."""
    words = []
    for component, what in (("Evaluator", "Is it good?"), ("InfraValidator", "Does it serve?")):
        blessing = facts.output(component, "blessing")
        if blessing is not None:
            words.append({"who": component, "what": what, "passed": blessing.properties["blessed"]})
            words[-1]["reason"] = blessing.properties["reason"]
    pushed = facts.output("Pusher", "pushed_model")
    if pushed is not None:
        where = f"version {pushed.properties['pushed_version']} in {pushed.properties['pushed_destination']}"
        words.append({"who": "Pusher", "what": "Is it pushed?", "passed": True, "reason": where})
    elif (step := facts.steps.get("Pusher")) is not None:
        words.append({"who": "Pusher", "what": "Is it pushed?", "passed": False, "reason": step.execution.message})
    return words


def infra_checks(facts: RunFacts) -> Row | None:
    """Returns what the InfraValidator measured and checked; None where it has not."""
    blessing = facts.output("InfraValidator", "blessing")
    if blessing is None:
        return None
    name = "INFRA_BLESSED" if blessing.properties["blessed"] else "INFRA_NOT_BLESSED"
    with open(blessing.path(name), encoding="utf-8") as file:
        return json.load(file)


def compare_runs(one: RunFacts, other: RunFacts) -> Row | None:
    """Compares the models of two runs on the test rows that both were asked.

    Args:
        one, other: runs of one task.
    Returns:
        comparison (a bootstrap.Comparison of other - one), and better and worse (rows whose answers changed the most);
        None where there are not enough of such rows.
    """
    evaluations = [facts.output("Evaluator", "evaluation") for facts in (one, other)]
    task = one.task
    if task is None or task is not other.task or None in evaluations:
        return None
    from components.bootstrap import MIN_ROWS, compare
    from components.evaluator_comparison import read_predictions

    mine, theirs = (read_predictions(task, evaluation.uri) for evaluation in evaluations)
    common = [key for key in mine if key in theirs]
    if len(common) < MIN_ROWS:
        return None
    lines = [[answers[key] for key in common] for answers in (mine, theirs)]
    tallies = [task.tally(_answers(task, rows), rows) for rows in lines]
    comparison = compare(tallies[1], tallies[0], task.headline, task.higher_is_better)
    return {"comparison": comparison, "metric": task.headline, **_changes(task, lines, tallies)}


def _answers(task: Any, lines: Sequence[Row]) -> dict[str, list]:
    from components.evaluator_comparison import answers_of

    return answers_of(task, lines)


def _changes(task: Any, lines: Sequence[Sequence[Row]], tallies: Sequence[Any]) -> Row:
    """Returns the rows whose answers differ, those that gained and those that lost the most, as pairs of lines."""
    import numpy as np

    def alone(tally: Any, i: int) -> float:
        """Adds up all metrics: of a sentence BLEU alone says little, as few have four words in common with theirs."""
        return sum(tally.take(np.array([i])).total().values())

    sign = 1 if task.higher_is_better else -1
    pairs = list(zip(*lines, strict=True))
    gains = {i: sign * (alone(tallies[1], i) - alone(tallies[0], i)) for i, (a, b) in enumerate(pairs) if a != b}
    order = sorted(gains, key=lambda i: (-gains[i], i))
    better = [pairs[i] for i in order if gains[i] > 0]
    worse = [pairs[i] for i in reversed(order) if gains[i] < 0]
    return {"better": better[:MAX_CHANGES], "worse": worse[:MAX_CHANGES], "num_changed": len(gains)}


def _in_order(task: Any, row: Row) -> Row:
    """Returns a row with its columns in the task's order, and what was answered after them."""
    return {name: row[name] for name in task.columns} | row


def _last_blessed(facts: RunFacts) -> Row | None:
    blessing = facts.output("Evaluator", "blessing")
    return blessing.properties.get("last_blessed") if blessing else None


def _metrics(found: Row) -> list[Row]:
    return [
        {
            "name": name,
            "value": value,
            "interval": found["intervals"]["model"].get(name),
            "baselines": [metrics[name] for metrics in found["baselines"].values()],
            "baseline_intervals": [bounds.get(name) for bounds in found["intervals"]["baselines"].values()],
        }
        for name, value in found["model"].items()
    ]


def _slices(found: Row, last: Row | None, headline: str) -> list[Row]:
    """Returns the slices in groups, by what tells them apart, each group with its plot."""
    theirs = last["slices"] if last else [None] * len(found["slices"])
    rows = [part | {"last_blessed": value} for part, value in zip(found["slices"], theirs, strict=True)]
    groups = []
    for by, group in itertools.groupby(rows, key=lambda part: part["by"]):
        members = list(group)
        points = _points(members, headline, next(iter(found["baselines"])))
        plot = report_plots.by_slice(headline, points, found["model"][headline])
        groups.append({"by": by, "rows": members, "plot": plot})
    return groups


def _points(members: Sequence[Row], headline: str, baseline: str) -> list[Row]:
    """Returns what is drawn of some slices: the model with its interval, the last blessed one, the baseline by name."""
    points = []
    for part in members:
        lower, upper = part["intervals"].get(headline, (None, None))
        values = {"this model": part["model"], "last blessed": part["last_blessed"], baseline: part["baseline"]}
        for who, value in values.items():
            number = value[headline] if isinstance(value, dict) else value
            bounds = {"lower": lower, "upper": upper} if who == "this model" and lower is not None else {}
            if number is not None:
                points.append({"slice": part["name"], "who": who, "value": number, **bounds})
    return points


def folder_megabytes(artifact: Artifact, name: str) -> float:
    """Returns the size of a folder of an artifact in MB (10^6 bytes)."""
    sizes = [
        os.path.getsize(os.path.join(top, file)) for top, _, files in os.walk(artifact.path(name)) for file in files
    ]
    return sum(sizes) / 1e6
