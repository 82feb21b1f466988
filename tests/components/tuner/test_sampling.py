"""The next settings follow from the finished trials, none is tried twice, they get better; bad trials are pruned."""

import itertools

import pytest

from seq2serve.components.tasks.classification.metrics import ACCURACY
from seq2serve.components.tasks.metric import LOSS
from seq2serve.components.tuner.sampling import UNPRUNED_TENTHS, UNPRUNED_TRIALS, next_point
from seq2serve.components.tuner.space import size
from seq2serve.components.tuner.trials import Trial, best_trial

SPACE = {"rate": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), "layers": (1, 2, 3), "dropout": (0.0, 0.1, 0.2, 0.3, 0.4)}
START = {"rate": 0.2, "layers": 2, "dropout": 0.4}


def loss(point):
    return (point["rate"] - 0.6) ** 2 + 0.05 * point["layers"] + (point["dropout"] - 0.1) ** 2


def run(number, seed=1, space=SPACE, start=START):
    trials = []
    while len(trials) < number:
        point, _ = next_point(space, start, trials, LOSS, seed)
        trials.append(Trial(len(trials), point, "complete", LOSS.name, loss(point)))
    return trials


def test_the_first_trial_has_the_settings_to_start_from():
    assert run(1)[0].settings == START


def test_the_same_trials_are_followed_by_the_same_settings():
    trials = run(12)
    assert trials == run(12)
    for number in (1, 5, 11):  # the search is killed, and only the finished trials are left
        assert next_point(SPACE, START, trials[:number], LOSS, 1)[0] == trials[number].settings
    assert trials != run(12, seed=2)


@pytest.mark.parametrize("seed", [1, 2, 3, 2**32 - 1])
def test_every_point_is_tried_once(seed):
    space = {"rate": (1, 2, 3), "layers": (1, 2), "dropout": (0.0,)}
    start = {"rate": 2, "layers": 2, "dropout": 0.0}
    trials = run(size(space), seed, space, start)
    tried = {tuple(trial.settings.values()) for trial in trials}
    assert tried == set(itertools.product(*space.values()))


def test_a_search_finds_better_settings_than_random_ones_on_average():
    values = [loss(dict(zip(SPACE, point, strict=True))) for point in itertools.product(*SPACE.values())]
    later = [trial.value for seed in range(5) for trial in run(25, seed)[10:]]
    assert sum(later) / len(later) < 0.8 * sum(values) / len(values)


def test_a_metric_is_maximised_if_higher_is_better():
    trials = [Trial(number, START, "complete", "", value) for number, value in enumerate([3.0, 5.0, 1.0, 5.0])]
    assert best_trial(trials, ACCURACY).number == 1
    assert best_trial(trials, LOSS).number == 2
    assert best_trial([Trial(0, START, "pruned"), Trial(1, START, "failed")], LOSS) is None


@pytest.mark.parametrize(("metric", "bad"), [(LOSS, 9.0), (ACCURACY, -9.0)])
def test_a_trial_is_pruned_if_it_is_worse_than_most_others_after_the_warm_up(metric, bad):
    points = list(itertools.islice(itertools.product(*SPACE.values()), UNPRUNED_TRIALS))
    settings = [START, *(dict(zip(SPACE, point, strict=True)) for point in points)]
    evaluations = {tenth: metric.sign * float(tenth) for tenth in range(1, 11)}
    trials = [
        Trial(number, point, "complete", metric.name, evaluations[10], evaluations)
        for number, point in enumerate(settings[:UNPRUNED_TRIALS])
    ]
    proposed = next_point(SPACE, START, trials, metric, 1)[1]
    proposed.report(bad, UNPRUNED_TENTHS - 1)
    assert not proposed.should_prune()
    proposed.report(bad, UNPRUNED_TENTHS)
    assert proposed.should_prune()
    few = next_point(SPACE, START, trials[:-1], metric, 1)[1]
    few.report(bad, UNPRUNED_TENTHS)
    assert not few.should_prune()


def test_failed_and_pruned_trials_are_no_obstacle():
    trials = [
        Trial(0, START, "failed", reason="out of memory"),
        Trial(1, {**START, "layers": 1}, "pruned", "loss", evaluations={1: 5.0}),
        Trial(2, {**START, "layers": 3}, "pruned", "loss"),
    ]
    point, _ = next_point(SPACE, START, trials, LOSS, 1)
    assert point not in [trial.settings for trial in trials]
