"""The executor of Tuner: a choice by rule, and the best trial of a search."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seq2serve.components.base.artifact import HyperParameters, TunerResults
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import note
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.sizing import TrainData, choose, describe
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.components.tuner.search import Problem, search
from seq2serve.components.tuner.space import all_changes
from seq2serve.components.tuner.trials import (
    Trial,
    best_trial,
    describe_search,
    metric_of,
    read_trials,
    write_events,
    write_trials,
)


def tune(
    problem: Problem,
    automatic: Sequence[str],
    config: TunerConfig,
    best_hyperparameters: HyperParameters,
    tuner_results: TunerResults,
    context: Context,
) -> None:
    """Executes Tuner; see component.py for the arguments. `problem` has the user's recipe."""
    reasons, values, trials = [], {}, []
    if automatic:
        data = _train_data(problem)
        values = choose(problem.task.parts, data, problem.recipe, automatic)
        reasons.append(describe(values, data))
        note(f"Tuner chose {reasons[0]}")
    if config.searches:
        start = problem._replace(recipe=problem.recipe.with_values(values))
        trials = search(start, config, context, _earlier_trials(context, problem, automatic))
        metric = metric_of(trials, problem.task)
        values |= all_changes(_best_point(trials, metric, start), start.names, start.recipe)
        reasons.append(describe_search(trials, metric))
        note(f"Tuner: {reasons[-1]}")
        for trial in trials:
            write_events(tuner_results.path("logs", f"trial-{trial.number}"), trial, metric)
        best = best_trial(trials, metric)
        tuner_results.properties.update(metric=metric.name, best=best.number if best else None)
    write_trials(tuner_results.uri, trials)
    tuner_results.properties["trials"] = [dataclasses.asdict(trial) for trial in trials]
    Path(best_hyperparameters.path("best_hyperparameters.json")).write_text(json.dumps(values, indent=1) + "\n")
    best_hyperparameters.properties.update(settings=values, reason="; ".join(reasons))


def _best_point(trials: Sequence[Trial], metric: Metric, start: Problem) -> dict[str, Any]:
    """Returns the settings of the best trial; those to start from if the time was over before any was complete.

    Raises:
        UserError: none was complete, and the first failed, so that Trainer would fail, too.
    """
    if best := best_trial(trials, metric):
        return best.settings
    if trials[0].state == "failed":
        failed = [trial for trial in trials if trial.state == "failed"]
        raise UserError(
            f"none of {len(trials)} trials was complete, and {len(failed)} failed; the first: {failed[0].reason}",
            code="search-failed",
            trials=len(trials),
        )
    return trials[0].settings


def _earlier_trials(context: Context, problem: Problem, automatic: Sequence[str]) -> list[Trial]:
    """Returns the trials of the longest earlier search of the same problem, which this search continues."""
    wanted = {
        "recipe": dataclasses.asdict(problem.recipe),
        "automatic": list(automatic),
        "searched": list(problem.names),
        "corpus_weights": problem.corpus_weights,
    }
    searches: list[list[Trial]] = [[]]
    for execution in context.earlier:
        if {name: execution.parameters.get(name) for name in wanted} == wanted:
            results = execution.read(execution.outputs["tuner_results"])
            searches.append(read_trials(results.uri) if results else [])
    return [trial for trial in max(searches, key=len) if trial.state != "out of time"]


def _train_data(problem: Problem) -> TrainData:
    """Returns the size of the train split."""
    properties, column = problem.examples.properties, problem.task.text_columns[-1]
    vocab_size = problem.tokenizer.properties["vocab_size"]
    return TrainData(
        rows=properties["num_examples"]["train"],
        tokens=properties["num_tokens"]["train"][column],
        vocab_size=vocab_size[column] if isinstance(vocab_size, dict) else vocab_size,
        is_pretrained=problem.fine_tunes,
        num_labels=sum(len(properties["label_counts"][name]) for name in problem.task.label_columns),
    )
