"""Metrics of language modelling are computed from sums over all documents."""

import pytest

from seq2serve.components.tasks.language_model.task import LANGUAGE_MODEL
from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer


def test_a_long_document_weighs_more_than_a_short_one():
    answers = {"log_probability": [-900.0, -1.0], "characters": [990, 10], "tokens": [297, 4]}
    metrics = LANGUAGE_MODEL.implementation().measure(answers, [{"text": ""}] * 2).metrics
    assert metrics["bits_per_character"] == pytest.approx(901 / 1000 / 0.6931472)
    assert metrics["perplexity"] == pytest.approx(2.7182818 ** (901 / 301))


def test_the_signature_says_that_the_model_reads_lower_case():
    answers = {"log_probability": [-9.0], "characters": [15], "tokens": [4]}
    measurement = LANGUAGE_MODEL.judge(lowercase=True).measure(answers, [{"text": "The Light is On"}])
    assert "lower-case" in measurement.signature["bits_per_character"]


@pytest.mark.parametrize(
    ("settings", "normal"),
    [
        ({}, "a B c"),
        ({"whitespace": "keep"}, " a\n\n  B\tc"),
        ({"whitespace": "keep", "lowercase": True}, " a\n\n  b\tc"),
    ],
    ids=["fold", "keep", "keep, lowercase"],
)
def test_baselines_are_computed_on_the_text_that_the_model_reads(tmp_path, settings, normal):
    learn_tokenizer([("a", 1)], TokenizerConfig(vocab_size=300, **settings), str(tmp_path))
    tokenizers = {"text": load_tokenizer(str(tmp_path))}
    baselines = LANGUAGE_MODEL.implementation().baselines
    raw, read = ([{"text": text}] * 2 for text in (" a\r\n\n  B\tc\x01", normal))
    of_raw = baselines(lambda: raw, raw, lambda: tokenizers)
    of_read = baselines(lambda: read, read, lambda: tokenizers)
    assert of_raw == of_read
    assert [baseline.is_trivial for baseline in of_raw.values()] == [True, False]
    for baseline in of_raw.values():
        assert baseline.answers["characters"] == [len(normal)] * 2
        assert baseline.answers["tokens"] == [len(normal) + 1] * 2
