"""Bootstrap intervals agree with sacrebleu and with textbooks; a model is worse only if chance does not explain it."""

import dataclasses

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from seq2serve.components.tasks.bootstrap import MIN_ROWS, SufficientStatistics, compare, intervals, standard_error
from seq2serve.components.tasks.classification.measurement import statistics as label_statistics
from seq2serve.components.tasks.classification.metrics import ACCURACY
from seq2serve.components.tasks.translation.measurement import measure, statistics
from seq2serve.components.tasks.translation.metrics import BLEU as TRANSLATION_BLEU

WORDS = ("the", "light", "lamp", "door", "heating", "camera", "sensor", "in", "kitchen", "garden", "is", "on", "not")


def sentences(number, share_right, seed=1):
    """Returns translations and their references; each word of a translation is right with probability `share_right`."""
    rng = np.random.default_rng(seed)
    references = [list(rng.choice(WORDS, rng.integers(4, 14))) for _ in range(number)]
    answers = [[w if rng.random() < share_right else str(rng.choice(WORDS)) for w in row] for row in references]
    return [[" ".join(row) for row in rows] for rows in (answers, references)]


def answers_with_accuracy(share, number=400, seed=0):
    """Returns the SufficientStatistics of answers that are right with probability `share`."""
    right = np.random.default_rng(seed).random(number) < share
    return label_statistics(["a" if r else "b" for r in right], ["a"] * number)


@pytest.mark.parametrize("metric", [BLEU, CHRF])
def test_intervals_agree_with_sacrebleu(metric):
    translations, references = sentences(150, 0.8)
    theirs = metric().corpus_score(translations, [references], n_bootstrap=1000)
    low, high = intervals(statistics(translations, references))[metric.__name__.lower()]
    assert (high + low) / 2 == pytest.approx(theirs._mean, abs=0.3)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.15)
    assert low < theirs.score < high


def test_an_interval_of_accuracy_agrees_with_the_binomial_distribution():
    low, high = intervals(answers_with_accuracy(0.8))["accuracy"]
    accuracy = answers_with_accuracy(0.8).total()["accuracy"] / 100
    assert (high - low) / 2 == pytest.approx(196 * (accuracy * (1 - accuracy) / 400) ** 0.5, rel=0.1)


def test_a_standard_error_of_accuracy_agrees_with_the_binomial_distribution():
    accuracy = answers_with_accuracy(0.8).score(ACCURACY) / 100
    expected = 100 * (accuracy * (1 - accuracy) / 400) ** 0.5
    assert standard_error(answers_with_accuracy(0.8), ACCURACY) == pytest.approx(expected, rel=0.2)


def test_a_subset_has_the_metrics_of_its_rows_alone():
    translations, references = sentences(40, 0.7)
    chosen = np.array([3, 4, 30])
    part = statistics(translations, references).take(chosen).total()
    alone = measure([translations[i] for i in chosen], [references[i] for i in chosen])
    assert part == pytest.approx(alone.metrics)
    assert len(measure(translations, references).quality) == 40


def test_a_few_rows_have_no_interval():
    assert intervals(answers_with_accuracy(0.5, MIN_ROWS - 1)) == {}
    assert intervals(answers_with_accuracy(0.5, MIN_ROWS)).keys() == {"accuracy", "macro_f1"}


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_model_is_worse_only_if_chance_does_not_explain_it(higher_is_better):
    metric = dataclasses.replace(ACCURACY, higher_is_better=higher_is_better)
    much, little, same = (
        compare(answers_with_accuracy(share), answers_with_accuracy(0.8), metric) for share in (0.6, 0.79, 0.8)
    )
    assert (much.worse, much.better) == (higher_is_better, not higher_is_better)
    assert (much.p_value < 0.01) is higher_is_better
    assert much.interval[0] < much.ours - much.theirs < much.interval[1] < 0
    assert (little.worse, little.better) == (False, False), "it has three more wrong answers in 400 rows"
    assert (same.p_value, same.worse, same.interval) == (1.0, False, (0.0, 0.0))


@pytest.mark.parametrize("share", [0.74, 0.76, 0.78])
def test_p_values_agree_with_sacrebleu(share):
    (ours, references), (theirs, _) = sentences(150, share), sentences(150, 0.8)
    names = [("theirs", theirs), ("ours", ours)]
    _, results = PairedTest(names, {"BLEU": BLEU()}, [references], test_type="bs", n_samples=1000)()
    compared = compare(statistics(ours, references), statistics(theirs, references), TRANSLATION_BLEU)
    assert compared.p_value == pytest.approx(results["BLEU"][1].p_value, abs=0.03)
    assert [compared.theirs, compared.ours] == pytest.approx([result.score for result in results["BLEU"]])


def test_a_paired_test_detects_a_difference_although_the_intervals_overlap():
    """One model is wrong wherever the other one is, and on some more rows."""
    answers = np.random.default_rng(0).random(400)
    one, other = (label_statistics(["a" if x < share else "b" for x in answers], ["a"] * 400) for share in (0.76, 0.80))
    (_, high), (low, _) = (intervals(model)["accuracy"] for model in (one, other))
    assert low < high
    assert compare(one, other, ACCURACY).worse


def test_intervals_are_deterministic():
    assert intervals(answers_with_accuracy(0.7)) == intervals(answers_with_accuracy(0.7))


def test_a_weight_is_the_number_of_repetitions_of_a_row():
    translations, references = sentences(20, 0.6)
    counts: SufficientStatistics = statistics(translations, references)
    twice = counts.take(np.repeat(np.arange(20), 2))
    for metric in counts.metrics:
        assert counts.score(metric, np.full(20, 2.0)) == pytest.approx(twice.score(metric))
