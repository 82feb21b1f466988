"""The evaluation of language modelling computes bits per character from the model's log probabilities."""

import math

import pytest

from seq2serve.components.tasks.language_model.evaluation import LanguageModelEvaluation
from seq2serve.models.config import DecodingConfig
from seq2serve.models.export.language_model import LanguageModelServingModule
from seq2serve.models.transformer.models import DecoderLanguageModel


def test_bits_per_character_follow_from_the_log_probabilities(
    tokenizer, tiny_config, build_and_compile, padded_ids, log_probability_of
):
    texts = ["the lamp", "light on"]
    model = build_and_compile(DecoderLanguageModel(tiny_config, tokenizer.vocab_size))
    labels, inputs = padded_ids(tokenizer, texts, end=True), padded_ids(tokenizer, texts, begin=True)
    module = LanguageModelServingModule(model, tokenizer, DecodingConfig(max_new_tokens=3))
    findings = LanguageModelEvaluation(model, [(inputs, labels)], module, [], sum(map(len, texts))).run()
    bits = -float(log_probability_of(model, labels)) / math.log(2)
    assert findings.metrics["bits_per_character"] == pytest.approx(bits / sum(map(len, texts)), rel=1e-5)
    assert findings.texts == findings.maps == []
