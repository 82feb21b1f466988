"""Metrics of language modelling are computed from sums over all documents."""

import pytest

from seq2serve.components.tasks.language_model.task import LANGUAGE_MODEL


def test_a_long_document_weighs_more_than_a_short_one():
    answers = {"log_probability": [-900.0, -1.0], "characters": [990, 10], "tokens": [297, 4]}
    metrics = LANGUAGE_MODEL.implementation().measure(answers, [{"text": ""}] * 2).metrics
    assert metrics["bits_per_character"] == pytest.approx(901 / 1000 / 0.6931472)
    assert metrics["perplexity"] == pytest.approx(2.7182818 ** (901 / 301))


def test_baselines_predict_lower_case_if_the_model_does():
    rows = [{"text": "The Light is On"}] * 3
    lower = [{"text": row["text"].lower()} for row in rows]
    judge = LANGUAGE_MODEL.judge(lowercase=True)
    assert judge.baselines(lambda: rows, rows) == LANGUAGE_MODEL.implementation().baselines(lambda: lower, lower)
    answers = {"log_probability": [-9.0], "characters": [15], "tokens": [4]}
    assert "lower-case" in judge.measure(answers, rows[:1]).signature["bits_per_character"]
