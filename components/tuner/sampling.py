"""Which settings the next trial tries, and when a trial is pruned: Optuna's TPE sampler and median pruner.

Optuna's study is rebuilt from the finished trials before each trial, and its sampler has a seed of its own for each. So
the next settings follow from the finished trials alone, and a search that was killed ends like one that was not. A
storage of Optuna would also hold the trial that was killed, and the sampler would draw other numbers after it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna

from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tuner.space import Space, size
from seq2serve.components.tuner.trials import Trial
from seq2serve.models.config import MAX_SEED

RANDOM_TRIALS = 6  # before the sampler learns from the others; Optuna's 10 would be half of a short search
# Trials of a search differ in their number of steps and are few. Hyperband needs a common budget and several brackets;
# the median rule (Golovin et al. 2017) only compares trials at the same share of their training.
UNPRUNED_TRIALS = 3  # complete trials before the first may be pruned
UNPRUNED_TENTHS = 3  # of a training, in which the learning rate rises
_STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
}


def next_point(space: Space, start: dict[str, Any], trials: Sequence[Trial], metric: Metric, seed: int) -> Any:
    """Returns the settings of the next trial, and the Optuna trial that decides about its pruning.

    Args:
        space: see space.py.
        start: the settings of the first trial.
        trials: those that have ended, fewer than the points of the space.
        metric: the objective.
        seed: of the search.
    Returns:
        ({setting: value}, optuna.Trial); no settings are tried twice.
    """
    study = _study(space, trials, metric, (seed + len(trials)) % (MAX_SEED + 1))
    if not trials:
        study.enqueue_trial(_indices(space, start))
    proposed = study.ask(_distributions(space))
    point = _point(space, proposed.params)
    tried = [trial.settings for trial in trials]
    if point in tried:
        study.enqueue_trial(_indices(space, _untried(space, tried, seed + len(trials))))
        proposed = study.ask(_distributions(space))
        point = _point(space, proposed.params)
    return point, proposed


def _study(space: Space, trials: Sequence[Trial], metric: Metric, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize" if metric.higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed),
        pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, n_warmup_steps=UNPRUNED_TENTHS),
    )
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[trial.state],
                value=trial.value,
                params=_indices(space, trial.settings),
                distributions=_distributions(space),
                intermediate_values=trial.evaluations,
            )
        )
    return study


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """Returns a distribution of the index of each setting's value, because the values are ordered but not even."""
    return {name: optuna.distributions.IntDistribution(0, len(values) - 1) for name, values in space.items()}


def _indices(space: Space, point: dict[str, Any]) -> dict[str, int]:
    return {name: values.index(point[name]) for name, values in space.items()}


def _point(space: Space, indices: dict[str, int]) -> dict[str, Any]:
    return {name: values[indices[name]] for name, values in space.items()}


def _untried(space: Space, tried: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Returns a random point that was not tried."""
    taken = {_rank(space, point) for point in tried}
    rank = int(np.random.default_rng(seed).integers(size(space) - len(taken)))
    for other in sorted(taken):
        rank += other <= rank
    shape = tuple(len(values) for values in space.values())
    indices = np.unravel_index(rank, shape)
    return {name: values[int(index)] for (name, values), index in zip(space.items(), indices, strict=True)}


def _rank(space: Space, point: dict[str, Any]) -> int:
    """Returns the number of a point in the order of all points."""
    shape = tuple(len(values) for values in space.values())
    return int(np.ravel_multi_index(tuple(_indices(space, point).values()), shape))
