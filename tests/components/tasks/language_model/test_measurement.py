"""Metrics of language modelling are computed from sums over all documents."""

import pytest

from seq2serve.components.tasks.language_model.task import LanguageModel


def test_a_long_document_weighs_more_than_a_short_one():
    answers = {"log_probability": [-900.0, -1.0], "characters": [990, 10], "tokens": [297, 4]}
    metrics = LanguageModel().measure(answers, [{"text": ""}] * 2).metrics
    assert metrics["bits_per_character"] == pytest.approx(901 / 1000 / 0.6931472)
    assert metrics["perplexity"] == pytest.approx(2.7182818 ** (901 / 301))


def test_the_signature_says_that_the_model_reads_lower_case():
    answers = {"log_probability": [-9.0], "characters": [15], "tokens": [4]}
    measurement = LanguageModel().measure(answers, [{"text": "The Light is On"}], lowercase=True)
    assert "lower-case" in measurement.signature["bits_per_character"]
