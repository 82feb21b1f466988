"""The verdict: a model must beat the trivial baseline and not lose to the strongest one, beyond chance."""

import re

import numpy as np
import pytest

from seq2serve.components.evaluator.verdict import collect, is_blessed, reason
from seq2serve.components.tasks.bootstrap import compare
from seq2serve.components.tasks.classification.baselines import baselines
from seq2serve.components.tasks.classification.headline import choose_headline
from seq2serve.components.tasks.classification.measurement import measure
from seq2serve.components.tasks.classification.metrics import ACCURACY, MACRO_F1
from seq2serve.components.tasks.classification.task import Classification

STILL_RISING = {
    "checkpoints": {"metric": "accuracy", "best_step": 300, "last_step": 300},
    "longer_training": "training.steps=600",
}
OVERFITTED = {**STILL_RISING, "checkpoints": {"metric": "accuracy", "best_step": 50, "last_step": 300}}


def answers(right, predicted):
    """Returns the measurement of a classifier that is sure of its labels."""
    labels = sorted({*right, *predicted})
    return measure(labels, np.eye(len(labels))[[labels.index(label) for label in predicted]].tolist(), right)


def flipped(right, share, seed=0):
    """Returns the labels, a share of them wrong."""
    rng = np.random.default_rng(seed)
    return [{"a": "b", "b": "a"}[label] if rng.random() < share else label for label in right]


def evidence(right, model, tf_idf=None, metric=ACCURACY, last=None):
    """Returns the evidence about answers, next to those of the majority label and perhaps of TF-IDF."""
    majority = max(sorted(set(right)), key=right.count)
    cheap = {"majority label": answers(right, [majority] * len(right))}
    if tf_idf:
        cheap["TF-IDF"] = answers(right, tf_idf)
    measured = answers(right, model)
    comparison = last and compare(measured.statistics, answers(right, last).statistics, metric)
    return collect(metric, measured, cheap, ["majority label"], comparison)


def test_guessing_is_not_better_than_the_trivial_baselines_where_macro_f1_decides():
    """A model that guesses labels with their frequencies has a higher macro F1 than the majority label."""
    rng = np.random.default_rng(5)
    right, guessed = (["ab"[int(x < 0.25)] for x in rng.random(2000)] for _ in range(2))
    rows = [{"text": "x", "label": label} for label in right]
    cheap = baselines(rows, rows)
    assert [name for name, baseline in cheap.items() if baseline.is_trivial] == ["majority label", "random label"]
    measured = {
        name: measure(baseline.answers["labels"][0], baseline.answers["probabilities"], right)
        for name, baseline in cheap.items()
    }
    model = answers(right, guessed)
    majority = measured["majority label"].statistics
    assert compare(model.statistics, majority, MACRO_F1).better, "so the majority label is no bar"
    assert measured["random label"].metrics["macro_f1"] == pytest.approx(50, abs=3)
    found = collect(MACRO_F1, model, measured, list(cheap), None)
    assert list(found.baselines) == ["random label"]
    assert not is_blessed(found, "strongest")


BALANCED = ["a", "b"] * 200


def test_a_constant_classifier_on_a_small_test_set_is_not_blessed():
    """The one of issue 18: 20 of 36 rows have the label that it always answers, not the majority of the train split."""
    right = ["a"] * 20 + ["b"] * 16
    measured, minority = answers(right, ["a"] * 36), answers(right, ["b"] * 36)
    found = collect(ACCURACY, measured, {"majority label": minority}, ["majority label"], None)
    assert found.value == pytest.approx(55.6, abs=0.1)
    assert found.values["majority label"] == pytest.approx(44.4, abs=0.1)
    assert not is_blessed(found, "strongest")
    assert not is_blessed(found, "trivial")
    assert not is_blessed(evidence(right, ["a"] * 36, metric=MACRO_F1), "strongest")


@pytest.mark.parametrize("number", [9, 500])
@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1])
def test_a_perfect_model_is_blessed_however_uniform_or_few_the_labels(number, metric):
    right = ["a"] * (number - 3) + ["b"] * 3
    found = evidence(right, right, right, metric)
    assert is_blessed(found, "strongest")
    assert reason(found, "strongest", "", {}).startswith("every answer is right; ")
    assert not is_blessed(evidence(right, ["a"] * number, right, metric), "strongest")


@pytest.mark.parametrize(
    ("wrong", "tf_idf_wrong", "bar", "blessed"),
    [
        (0.2, 0.13, "strongest", False),
        (0.2, 0.13, "trivial", True),
        (0.14, 0.13, "strongest", True),
        (0.05, 0.13, "strongest", True),
        (0.5, 0.13, "trivial", False),
        (0.5, 0.13, "none", True),
    ],
)
def test_a_model_must_beat_the_trivial_baseline_and_not_lose_to_the_strongest(wrong, tf_idf_wrong, bar, blessed):
    found = evidence(BALANCED, flipped(BALANCED, wrong, 1), flipped(BALANCED, tf_idf_wrong, 2))
    assert list(found.baselines) == ["majority label", "TF-IDF"]
    assert is_blessed(found, bar) is blessed


def test_a_strong_baseline_that_is_weaker_than_the_trivial_one_is_left_out():
    found = evidence(BALANCED, flipped(BALANCED, 0.1), flipped(BALANCED, 0.9, 2))
    assert list(found.baselines) == ["majority label"]
    assert is_blessed(found, "strongest")


@pytest.mark.parametrize(("bar", "blessed"), [("strongest", False), ("trivial", False), ("none", True)])
def test_a_model_must_not_lose_to_the_last_blessed_one(bar, blessed):
    found = evidence(BALANCED, flipped(BALANCED, 0.2, 1), last=flipped(BALANCED, 0.1, 2))
    assert found.last_blessed.worse
    assert is_blessed(found, bar) is blessed
    text = reason(found, bar, "Evaluator/evaluation/7", STILL_RISING)
    assert "of the last blessed model (Evaluator/evaluation/7) on 400 shared test rows" in text
    assert ("use another --pipeline-root" in text) is not blessed


def test_the_reason_has_the_numbers_and_the_next_step():
    model, tf_idf = flipped(BALANCED, 0.2, 1), flipped(BALANCED, 0.1, 2)
    found = evidence(BALANCED, model, tf_idf)
    interval = r"difference -?\d+\.\d to -?\d+\.\d\)"
    text = (
        rf"accuracy {found.value:.1f} on 400 test rows: significantly better than majority label \(50\.0; {interval}, "
        rf"significantly worse than TF-IDF \({found.values['TF-IDF']:.1f}; {interval}\. Next: "
    )
    rising, overfitted = (reason(found, "strongest", "", properties) for properties in (STILL_RISING, OVERFITTED))
    assert re.fullmatch(rf"{text}the same command with --set training\.steps=600, .*evaluation\.bar=trivial .*", rising)
    assert re.fullmatch(
        rf"{text}more training rows; longer training would probably not help.*step 50 of 300; .*", overfitted
    )
    assert "Next" not in reason(found, "trivial", "", STILL_RISING)


@pytest.mark.parametrize("number", [8, 30])
def test_too_few_test_rows_to_tell_a_good_model_from_chance_ask_for_more(number):
    right = ["a", "b"] * (number // 2)
    model = [*right[:-2], "b", "b"] if number == 8 else flipped(right, 0.4, 3)
    found = evidence(right, model)
    assert found.value > found.values["majority label"]
    assert not is_blessed(found, "strongest")
    assert "Next: more test rows" in reason(found, "strongest", "", STILL_RISING)
    assert ("at least 10" in reason(found, "strongest", "", {})) == (number == 8)


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ({"ham": 4827, "spam": 747}, "macro_f1"),
        ({"a": 75, "b": 25}, "macro_f1"),
        ({"a": 74, "b": 26}, "accuracy"),
        ({"a": 50, "b": 10, "c": 10, "d": 10, "e": 10, "f": 10}, "macro_f1"),
        ({"hum": 1223, "enty": 1250, "desc": 1162, "num": 896, "loc": 835, "abbr": 86}, "accuracy"),
        ({"good": 60, "bad": 39, "baad": 1}, "accuracy"),
        ({"only": 10}, "accuracy"),
        ({}, "accuracy"),
    ],
)
def test_the_headline_of_labels_is_macro_f1_if_one_dominates(counts, metric):
    headline = choose_headline(counts)
    assert headline.metric == metric
    assert bool(headline.reason) == (metric == "macro_f1")
    assert Classification().headline(counts) == headline


def test_a_model_that_is_worse_than_before_its_training_is_refused_with_the_way_back():
    right = ["a", "b"] * 200
    cheap = {"majority label": answers(right, ["a"] * 400), "pretrained": answers(right, flipped(right, 0.02))}
    measured = answers(right, flipped(right, 0.2, seed=1))
    found = collect(ACCURACY, measured, cheap, ["majority label"], None)
    assert not is_blessed(found, "strongest")
    assert is_blessed(found, "trivial")
    text = reason(found, "strongest", "", STILL_RISING)
    assert "significantly worse than pretrained" in text
    assert "Next: --set training.steps=0 serves the pretrained model as it is" in text
    assert "training.steps=600" not in text, "longer training is no way back"
