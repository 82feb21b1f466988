"""The bootstrap's intervals are those of sacrebleu and of textbooks; a model is worse only beyond chance."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from components.bootstrap import MIN_ROWS, Tally, compare, intervals
from components.classification_metrics import tally as tally_labels
from components.translation_metrics import measure, tally

WORDS = ("the", "light", "lamp", "door", "heating", "camera", "sensor", "in", "kitchen", "garden", "is", "on", "not")


def sentences(number, share_right, seed=1):
    """Returns references, and translations of which each word is right with a chance."""
    rng = np.random.default_rng(seed)
    references = [list(rng.choice(WORDS, rng.integers(4, 14))) for _ in range(number)]
    answers = [[w if rng.random() < share_right else str(rng.choice(WORDS)) for w in row] for row in references]
    return [[" ".join(row) for row in rows] for rows in (answers, references)]


def yes(share, number=400, seed=0):
    """Returns a Tally of answers of which a share is right."""
    right = np.random.default_rng(seed).random(number) < share
    return tally_labels(["a" if r else "b" for r in right], ["a"] * number)


@pytest.mark.parametrize("metric", [BLEU, CHRF])
def test_intervals_are_as_wide_as_sacrebleus(metric):
    translations, references = sentences(150, 0.8)
    theirs = metric().corpus_score(translations, [references], n_bootstrap=1000)
    low, high = intervals(tally(translations, references))[metric.__name__.lower()]
    assert (high + low) / 2 == pytest.approx(theirs._mean, abs=0.3)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.15)
    assert low < theirs.score < high


def test_an_interval_of_accuracy_is_the_binomials():
    low, high = intervals(yes(0.8))["accuracy"]
    accuracy = yes(0.8).total()["accuracy"] / 100
    assert (high - low) / 2 == pytest.approx(196 * (accuracy * (1 - accuracy) / 400) ** 0.5, rel=0.1)


def test_some_rows_are_measured_as_if_there_were_no_others():
    translations, references = sentences(40, 0.7)
    chosen = np.array([3, 4, 30])
    part = tally(translations, references).take(chosen).total()
    alone = measure([translations[i] for i in chosen], [references[i] for i in chosen])
    assert part == pytest.approx(alone.metrics)
    assert len(measure(translations, references).quality) == 40


def test_few_rows_have_no_interval():
    assert intervals(yes(0.5, MIN_ROWS - 1)) == {}
    assert intervals(yes(0.5, MIN_ROWS)).keys() == {"accuracy", "macro_f1"}


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_model_is_worse_only_beyond_chance(higher_is_better):
    much, little, same = (compare(yes(share), yes(0.8), "accuracy", higher_is_better) for share in (0.6, 0.79, 0.8))
    assert (much.worse, much.better) == (higher_is_better, not higher_is_better)
    assert (much.p_value < 0.01) is higher_is_better
    assert much.interval[0] < much.ours - much.theirs < much.interval[1] < 0
    assert (little.worse, little.better) == (False, False), "it is wrong in three rows more, of 400"
    assert (same.p_value, same.worse, same.interval) == (1.0, False, (0.0, 0.0))


@pytest.mark.parametrize("share", [0.74, 0.76, 0.78])
def test_chance_is_what_sacrebleu_says_it_is(share):
    (ours, references), (theirs, _) = sentences(150, share), sentences(150, 0.8)
    names = [("theirs", theirs), ("ours", ours)]
    _, found = PairedTest(names, {"BLEU": BLEU()}, [references], test_type="bs", n_samples=1000)()
    compared = compare(tally(ours, references), tally(theirs, references), "bleu", True)
    assert compared.p_value == pytest.approx(found["BLEU"][1].p_value, abs=0.03)
    assert [compared.theirs, compared.ours] == pytest.approx([result.score for result in found["BLEU"]])


def test_pairs_tell_apart_what_intervals_do_not():
    """Two models whose intervals overlap, of which one is wrong wherever the other is, and then some."""
    answers = np.random.default_rng(0).random(400)
    one, other = (tally_labels(["a" if x < share else "b" for x in answers], ["a"] * 400) for share in (0.76, 0.80))
    (_, high), (low, _) = (intervals(model)["accuracy"] for model in (one, other))
    assert low < high
    assert compare(one, other, "accuracy", True).worse


def test_the_same_rows_give_the_same_interval():
    assert intervals(yes(0.7)) == intervals(yes(0.7))


def test_weights_stand_for_rows_taken_so_often():
    translations, references = sentences(20, 0.6)
    counted: Tally = tally(translations, references)
    twice = counted.take(np.repeat(np.arange(20), 2))
    assert counted.metrics(counted.columns, np.full(20, 2.0)) == pytest.approx(twice.total())
