"""The quality section of a report: metrics with intervals, slices, examples and verdicts; two models compared."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.evaluator.comparison import answers_of, read_predictions
from seq2serve.components.storage.files import stat_files
from seq2serve.components.tasks.bootstrap import MIN_ROWS, SufficientStatistics, compare
from seq2serve.components.tasks.task import Task
from seq2serve.pipeline.report import plots
from seq2serve.pipeline.report.facts import RunFacts

Row = dict[str, Any]
MAX_CHANGES = 5  # answers that are better, and answers that are worse, when two runs are compared


def describe_quality(facts: RunFacts) -> Row | None:
    """Collects the values of the quality section.

    Args:
        facts: facts of a run.
    Returns:
        headline, headline_reason, decimals, higher_is_better, metrics (rows), baselines (names), strongest (name),
        last_blessed (a comparison, or None), slices (groups), quality (name of the measure that ranks the examples),
        examples, tables, signature and num_examples; None if no model was evaluated.
    """
    evaluation, task = facts.output("Evaluator", "evaluation"), facts.task
    if evaluation is None or task is None:
        return None
    results = evaluation.properties
    last_blessed, headline = _last_blessed(facts), results["headline"]
    metric = task.metric(headline["metric"])
    return {
        "headline": metric.name,
        "headline_reason": headline["reason"],
        "decimals": metric.decimals,
        "higher_is_better": metric.higher_is_better,
        "metrics": _metrics(task, results),
        "baselines": list(results["baselines"]),
        "strongest": results["strongest"],
        "last_blessed": last_blessed,
        "slices": _slices(results, last_blessed, metric.name),
        "quality": results["examples"]["quality"],
        "examples": {
            group: [_in_column_order(task, row) for row in results["examples"][group]] for group in ("worst", "best")
        },
        "tables": results["tables"],
        "signature": results["signature"],
        "num_examples": results["num_examples"],
    }


def describe_verdicts(facts: RunFacts) -> list[Row]:
    """Returns the verdicts of the Evaluator, the InfraValidator and the Pusher, where the run reached them.

    Each has the keys title, passed and reason.
    """
    verdicts = []
    for component in ("Evaluator", "InfraValidator"):
        blessing = facts.output(component, "blessing")
        if blessing is not None:
            title, properties = f"Blessed by the {component}", blessing.properties
            verdicts.append({"title": title, "passed": properties["blessed"], "reason": properties["reason"]})
    pushed = facts.output("Pusher", "pushed_model")
    if pushed is not None:
        version = f"version {pushed.properties['pushed_version']} in {pushed.properties['pushed_destination']}"
        verdicts.append({"title": "Pushed", "passed": True, "reason": version})
    elif (step := facts.steps.get("Pusher")) is not None:
        verdicts.append({"title": "Pushed", "passed": False, "reason": step.execution.message})
    return verdicts


def infra_checks(facts: RunFacts) -> Row | None:
    """Returns the checks and measurements of the InfraValidator; None if the run did not reach it."""
    blessing = facts.output("InfraValidator", "blessing")
    if blessing is None:
        return None
    name = "INFRA_BLESSED" if blessing.properties["blessed"] else "INFRA_NOT_BLESSED"
    with open(blessing.path(name), encoding="utf-8") as file:
        return json.load(file)


def compare_runs(first: RunFacts, second: RunFacts) -> Row | None:
    """Compares the models of two runs on the test rows that both evaluations contain.

    Args:
        first, second: facts of two runs.
    Returns:
        comparison (a bootstrap.Comparison, in which `ours` is the second model), metric, better and worse (at most
        MAX_CHANGES pairs of lines whose answers changed the most) and num_changed. None if the runs have different
        tasks, a run has no evaluation, or fewer than MIN_ROWS rows are in both.
    """
    evaluations = [facts.output("Evaluator", "evaluation") for facts in (first, second)]
    task = first.task
    if task is None or task is not second.task or None in evaluations:
        return None
    predictions = [read_predictions(task, evaluation.uri) for evaluation in evaluations]
    common = [key for key in predictions[0] if key in predictions[1]]
    if len(common) < MIN_ROWS:
        return None
    lines = [[lines_by_key[key] for key in common] for lines_by_key in predictions]
    lowercase = any(run.properties.get("lowercase") for run in evaluations)
    statistics = [task.statistics(answers_of(task, rows), rows, lowercase) for rows in lines]
    metric = task.metric(evaluations[1].properties["headline"]["metric"])
    comparison = compare(statistics[1], statistics[0], metric)
    return {"comparison": comparison, "metric": metric.name, **_changed_answers(task, lines, statistics)}


def _changed_answers(task: Task, lines: Sequence[Sequence[Row]], statistics: Sequence[SufficientStatistics]) -> Row:
    """Returns the pairs of lines with different answers: the largest gains and the largest losses."""

    def row_score(model: int, i: int) -> float:
        """Adds up all metrics of a row: BLEU alone is 0 for most sentences, which share no 4-gram with the target."""
        return sum(statistics[model].take(np.array([i])).total().values())

    sign = task.metrics[0].sign
    pairs = list(zip(*lines, strict=True))
    gains = {i: sign * (row_score(1, i) - row_score(0, i)) for i, (a, b) in enumerate(pairs) if a != b}
    order = sorted(gains, key=lambda i: (-gains[i], i))
    better = [pairs[i] for i in order if gains[i] > 0]
    worse = [pairs[i] for i in reversed(order) if gains[i] < 0]
    return {"better": better[:MAX_CHANGES], "worse": worse[:MAX_CHANGES], "num_changed": len(gains)}


def _in_column_order(task: Task, row: Row) -> Row:
    """Returns a row with its columns in the task's order, followed by the answer."""
    return {name: row[name] for name in task.columns} | row


def _last_blessed(facts: RunFacts) -> Row | None:
    blessing = facts.output("Evaluator", "blessing")
    return blessing.properties.get("last_blessed") if blessing else None


def _metrics(task: Task, results: Row) -> list[Row]:
    return [
        {
            "name": name,
            "unit": task.metric(name).unit,
            "decimals": task.metric(name).decimals,
            "value": value,
            "interval": results["intervals"]["model"].get(name),
            "baselines": [metrics[name] for metrics in results["baselines"].values()],
            "baseline_intervals": [bounds.get(name) for bounds in results["intervals"]["baselines"].values()],
        }
        for name, value in results["model"].items()
    ]


def _slices(results: Row, last_blessed: Row | None, headline: str) -> list[Row]:
    """Returns the slices grouped by the column that defines them, each group with its plot."""
    blessed_values = last_blessed["slices"] if last_blessed else [None] * len(results["slices"])
    slices = [row | {"last_blessed": value} for row, value in zip(results["slices"], blessed_values, strict=True)]
    groups = []
    for by, group in itertools.groupby(slices, key=lambda row: row["by"]):
        rows = list(group)
        points = _points(rows, headline, results["strongest"])
        plot = plots.by_slice(headline, points, results["model"][headline])
        has_base = any("base_model" in row for row in rows)
        groups.append({"by": by, "rows": rows, "plot": plot, "has_base": has_base})
    return groups


def _points(rows: Sequence[Row], headline: str, baseline: str) -> list[Row]:
    """Returns the points to draw for some slices: this model with its interval, and the others that are known.

    Args:
        rows: slices.
        headline: name of the metric.
        baseline: name of the baseline.
    """
    points = []
    for row in rows:
        lower, upper = row["intervals"].get(headline, (None, None))
        values = {"this model": row["model"], "last blessed": row["last_blessed"], baseline: row["baseline"]}
        values["base model"] = row.get("base_model")
        for series, value in values.items():
            number = value[headline] if isinstance(value, dict) else value
            bounds = {"lower": lower, "upper": upper} if series == "this model" and lower is not None else {}
            if number is not None:
                points.append({"slice": row["name"], "series": series, "value": number, **bounds})
    return points


def folder_megabytes(artifact: Artifact, name: str) -> float:
    """Returns the size of a folder of an artifact in MB (10^6 bytes)."""
    return sum(size for size, _ in stat_files(artifact.path(name)).values()) / 1e6
