"""The evaluation of translation uses the current weights, sacrebleu's BLEU and the tokenizer of each side."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sacrebleu.metrics import BLEU

from seq2serve.components.tasks.translation.evaluation import TranslationEvaluation
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.models.config import DecodingConfig, TokenizerConfig
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.transformer.models import Transformer

ROWS = [
    {"source": "the light is on now", "target": "the light is on now"},
    {"source": "lamp", "target": "the lamp"},
    {"source": "the garden", "target": "garden light"},
]
GREEDY = DecodingConfig(beam_size=1, max_length_extra=2)


@pytest.fixture
def model(tokenizer, tiny_config, build_and_compile):
    return build_and_compile(Transformer(tiny_config, tokenizer.vocab_size))


@pytest.fixture
def batch(tokenizer, padded_ids):
    sources, targets = ([row[column] for row in ROWS] for column in ("source", "target"))
    inputs = {
        "source": padded_ids(tokenizer, sources, end=True),
        "target": padded_ids(tokenizer, targets, begin=True),
    }
    return inputs, padded_ids(tokenizer, targets, end=True)


@pytest.fixture
def serving_module(model, tokenizer):
    """A serving module that was made before the weights of the model changed."""
    serving_module = TranslationServingModule(model, tokenizer, GREEDY, 256)
    for weight in model.trainable_variables:
        weight.assign(weight * 2)
    return serving_module


def test_metrics_are_those_of_the_current_weights(model, batch, serving_module):
    findings = TranslationEvaluation(model, [batch], serving_module, ROWS, Translation()).run()
    for variable, weight in zip(serving_module.decoding_weights, FoldedDecoder(model).weights, strict=True):
        np.testing.assert_array_equal(variable, weight)
    sources = [row["source"] for row in findings.texts]
    answers = [
        answer.decode() for answer in serving_module.serving_default(tf.constant(sources))["translation"].numpy()
    ]
    assert [row["translation"] for row in findings.texts] == answers
    assert sorted(sources) == sorted(row["source"] for row in ROWS)
    references = [row["target"] for row in findings.texts]
    assert findings.metrics["bleu"] == BLEU().corpus_score(answers, [references]).score
    inputs, labels = batch
    logits, is_token = model(inputs), labels != 0
    assert findings.metrics["loss"] == pytest.approx(float(model.loss(labels, logits)), rel=1e-5)
    assert findings.metrics["accuracy"] == pytest.approx(100 * (np.argmax(logits, -1) == labels)[is_token].mean())


def test_attention_maps_are_labelled_with_tokens(model, batch, serving_module, tokenizer):
    findings = TranslationEvaluation(model, [batch], serving_module, ROWS, Translation()).run()
    pieces = [*tokenizer.id_to_piece(tokenizer.tokenize(["the light is on now"]))[0].numpy(), b"</s>"]
    pieces = [piece.decode() for piece in pieces]
    maps = {attention_map.title: attention_map for attention_map in findings.maps}
    assert list(maps) == ["encoder layer 1", "decoder layer 1", "cross layer 1"]
    assert maps["encoder layer 1"].columns == maps["cross layer 1"].columns == maps["decoder layer 1"].rows == pieces
    assert maps["decoder layer 1"].columns == ["<s>", *pieces[:-1]]
    for attention_map in findings.maps:
        assert attention_map.weights.shape == (2, len(attention_map.rows), len(attention_map.columns))
        np.testing.assert_allclose(attention_map.weights.sum(2), 1, atol=1e-5)


def test_each_side_is_labelled_by_its_own_tokenizer(tokenizer, tiny_config, build_and_compile, padded_ids, tmp_path):
    """The source has ids beyond the target's vocabulary."""
    words = ["qualm", "quartz", "quorum", "fjord", "jump", "vex"]
    learn_tokenizer([(word, 10) for word in words], TokenizerConfig(vocab_size=315), str(tmp_path))
    source_tokenizer = load_tokenizer(str(tmp_path))
    config = dataclasses.replace(tiny_config, tie_embeddings=False)
    model = build_and_compile(Transformer(config, tokenizer.vocab_size, source_vocab_size=source_tokenizer.vocab_size))
    serving_module = TranslationServingModule(model, tokenizer, GREEDY, 256, source_tokenizer)
    row = {"source": "qualm quartz quorum fjord jump vex", "target": "the light"}
    inputs = {
        "source": padded_ids(source_tokenizer, [row["source"]], end=True),
        "target": padded_ids(tokenizer, [row["target"]], begin=True),
    }
    assert inputs["source"].max() >= tokenizer.vocab_size
    labels = padded_ids(tokenizer, [row["target"]], end=True)
    encoder, decoder, _ = (
        TranslationEvaluation(model, [(inputs, labels)], serving_module, [row], Translation()).run().maps
    )
    assert "".join(encoder.rows) == "▁" + row["source"].replace(" ", "▁") + "</s>"
    assert "".join(decoder.rows) == "▁the▁light</s>"
