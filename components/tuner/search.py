"""The search of Tuner: trains with settings of the search space, one trial after the other, on train and eval.

The trials that have ended are in a file of the scratch folder, and the one that is running has its checkpoints there.
So a search that is killed resumes. See sampling.py for the choice of settings.
"""

import contextlib
import functools
import gc
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import optuna
import tensorflow as tf

from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import BaseModel, Tokenizer, TransformedExamples
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import Reporter, display, note, progress
from seq2serve.components.tasks.task import Task
from seq2serve.components.trainer.history import CheckpointRanking
from seq2serve.components.trainer.preparation import prepare
from seq2serve.components.trainer.session import fit
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.components.tuner.sampling import next_point
from seq2serve.components.tuner.space import Space, all_changes, make_space, size, starting_point
from seq2serve.components.tuner.trials import (
    Trial,
    best_trial,
    describe_trial,
    metric_of,
    read_trials,
    write_events,
    write_trials,
)
from seq2serve.models.config import Recipe
from seq2serve.models.runtime.literal_path import literal_path

TENTHS = 10  # of a training, at which trials are compared


class Problem(NamedTuple):
    """What a search optimises.

    Args:
        examples: splits `train` and `eval`.
        tokenizer: of the ids.
        base_model: an earlier model whose weights each trial starts from.
        task: its headline, or the loss if the recipe asks for it, is the objective.
        recipe: the settings of the first trial.
        names: the settings that may change; see space.searchable.
        corpus_weights: as for Trainer.
        fine_tunes: whether the base model is a pretrained one.
    """

    examples: TransformedExamples
    tokenizer: Tokenizer
    base_model: BaseModel | None
    task: Task
    recipe: Recipe
    names: tuple[str, ...]
    corpus_weights: dict[str, float] | None = None
    fine_tunes: bool = False


class _OutOfTime(Exception):
    """`tuner.minutes` have passed."""


def search(problem: Problem, config: TunerConfig, context: Context, earlier: list[Trial]) -> list[Trial]:
    """Runs trials until their number or the time is reached, or every point of the space was tried.

    Args:
        problem: what to optimise.
        config: number of trials, and time.
        context: `scratch` holds the trials; with `verbose`, each is a line.
        earlier: the trials of an earlier, shorter search of the same problem.
    Returns:
        All trials, in order; the first has the settings of the recipe.
    Raises:
        UserError: a setting that is not searched is wrong for the data or the machine.
    """
    space = make_space(problem.names, problem.recipe)
    limit = min(config.trials or math.inf, size(space))
    with literal_path(context.scratch) as scratch:
        trials = read_trials(scratch) or earlier[: int(min(limit, len(earlier)))]
        if trials:
            note(f"Tuner resumes after {len(trials)} trial{'s' * (len(trials) > 1)}")
        clock = _Clock(config.minutes, sum(trial.seconds for trial in trials))
        with _reporting(config, clock, trials, problem.task) as show:
            # The trial that ran out of time is the last, also if its process was killed soon after.
            while not trials or (len(trials) < limit and not clock.is_over() and trials[-1].state != "out of time"):
                trial = _run_trial(problem, space, trials, scratch, clock, show)
                trials.append(trial)
                write_trials(scratch, trials)
                write_events(f"{scratch}/logs/trial-{trial.number}", trial, metric_of(trials, problem.task))
                shutil.rmtree(f"{scratch}/trial-{trial.number}")
                if context.verbose:
                    note(describe_trial(trial, trials[0], metric_of(trials, problem.task)))
    return trials


class _Clock:
    """Measures the time of a search.

    Args:
        minutes: its limit; 0 for none.
        spent: seconds that earlier processes spent on trials that ended.
    """

    def __init__(self, minutes: float, spent: float):
        self._start, self._limit = time.monotonic() - spent, 60 * minutes or math.inf

    def seconds(self) -> float:
        """Returns the time so far."""
        return time.monotonic() - self._start

    def is_over(self) -> bool:
        """Returns whether the limit is reached."""
        return self.seconds() >= self._limit


@contextlib.contextmanager
def _reporting(config: TunerConfig, clock: _Clock, trials: list[Trial], task: Task) -> Iterator[Callable[[], None]]:
    """Yields a function that shows the progress: by trials, or without their number by seconds."""

    def show(reporter: Reporter) -> None:
        metric = metric_of(trials, task)
        best = best_trial(trials, metric)
        value = f", best {metric.name} {metric.text(best.value)}" if best else ""
        done = len(trials) if config.trials else int(clock.seconds())
        reporter.update(done, f"trial {len(trials)}{value}")

    total = config.trials or int(60 * config.minutes)
    unit = "trials" if config.trials else "seconds"
    try:
        with progress(f"Tuner, {unit}", total, "", len(trials) if config.trials else 0) as reporter:
            yield functools.partial(show, reporter)
    except KeyboardInterrupt:
        note(f"Tuner stops after {len(trials)} finished trials; the same command resumes")
        raise


def _run_trial(
    problem: Problem, space: Space, trials: list[Trial], scratch: str, clock: _Clock, show: Callable[[], None]
) -> Trial:
    """Trains with the next settings; a training that was killed resumes from its last checkpoint."""
    start, seed = starting_point(space, problem.recipe), problem.recipe.training.seed
    point, proposed = next_point(space, start, trials, metric_of(trials, problem.task), seed)
    recipe = problem.recipe.with_values(all_changes(point, problem.names, problem.recipe))
    folder, watch = f"{scratch}/trial-{len(trials)}", _TrialWatch(proposed, clock, show)
    os.makedirs(folder, exist_ok=True)
    began, value, reason = time.monotonic(), None, ""
    try:
        value = _train(problem, recipe, folder, watch)
        # A metric that is no number would be the best or the worst by chance.
        state, reason = ("complete", "") if math.isfinite(value) else ("failed", f"the metric is {value}")
    except optuna.TrialPruned:
        state = "pruned"
    except _OutOfTime:
        state = "out of time"
    except UserError as error:
        if error.code != "loss-diverged":
            raise
        state, reason = "failed", str(error)
    except (tf.errors.ResourceExhaustedError, MemoryError):
        state, reason = "failed", "out of memory"
    gc.collect()  # the model has reference cycles
    seconds = time.monotonic() - began
    value = value if state == "complete" else None
    return Trial(len(trials), point, state, watch.metric, value, watch.values, seconds, reason)


def _train(problem: Problem, recipe: Recipe, folder: str, watch: "_TrialWatch") -> float:
    """Returns the metric of the weights that Trainer would export."""
    with display("hidden"):  # the lines and the bar of Trainer
        training = prepare(
            problem.examples, problem.tokenizer, problem.task, recipe, problem.base_model, problem.corpus_weights
        )
        watch.total_steps = training.total_steps
        results = fit(training, folder, observer=watch.of)
    watch.record()
    return results[f"eval_{watch.metric}"]


class _TrialWatch(keras.callbacks.Callback):
    """Reports the evaluations of a trial to Optuna, and ends it if it is pruned or the time is over.

    Args:
        proposed: Optuna's trial.
        clock: of the search.
        show: shows the progress of the search.
    """

    def __init__(self, proposed: optuna.Trial, clock: _Clock, show: Callable[[], None]):
        super().__init__()
        self._proposed, self._clock, self._show = proposed, clock, show
        self._ranking: CheckpointRanking | None = None
        self.total_steps: int | tf.Variable = 0
        self.values: dict[int, float] = {}  # tenth of the training -> metric

    def of(self, ranking: CheckpointRanking) -> "_TrialWatch":
        """Sets the ranking of the checkpoints; returns itself, as the observer of a training."""
        self._ranking = ranking
        return self

    @property
    def metric(self) -> str:
        """Returns the name of the metric; empty before training."""
        return self._ranking.metric.name if self._ranking else ""

    def record(self) -> None:
        """Records the metric at the first checkpoint of each tenth of the training."""
        for evaluation in self._ranking.history.evaluations:
            tenth = min(TENTHS, math.ceil(TENTHS * evaluation["step"] / int(self.total_steps)))
            value = evaluation[self.metric]
            if tenth not in self.values and math.isfinite(value):
                self.values[tenth] = value
                self._proposed.report(value, tenth)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Ends the trial if its time or its chance is over."""
        if interrupt.pressed():
            return  # Trainer saves a checkpoint first
        known = len(self.values)
        self.record()
        # A training that is complete has its value, however bad.
        if len(self.values) > known and not self.model.stop_training and self._proposed.should_prune():
            raise optuna.TrialPruned
        if self._clock.is_over() and not self.model.stop_training:
            raise _OutOfTime
        self._show()
