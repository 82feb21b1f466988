"""Baselines of language modelling are computed on the text that the model reads."""

import pytest

from seq2serve.components.tasks.language_model.task import LanguageModel
from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer


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
    baselines = LanguageModel().baselines
    raw, read = ([{"text": text}] * 2 for text in (" a\r\n\n  B\tc\x01", normal))
    of_raw = baselines(lambda: raw, raw, lambda: tokenizers)
    of_read = baselines(lambda: read, read, lambda: tokenizers)
    assert of_raw == of_read
    assert [baseline.is_trivial for baseline in of_raw.values()] == [True, False]
    for baseline in of_raw.values():
        assert baseline.answers["characters"] == [len(normal)] * 2
        assert baseline.answers["tokens"] == [len(normal) + 1] * 2
