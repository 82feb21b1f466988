"""An evaluation's metrics are what they are called, of the model as it is; attention comes with its tokens."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sacrebleu.metrics import BLEU

from models.config import DecodingConfig, ModelConfig, TokenizerConfig
from models.evaluation import ClassificationEvaluation, Evaluation, LanguageModelEvaluation, TranslationEvaluation
from models.export_classification import ClassificationServer
from models.export_language_model import LanguageModelServer
from models.export_translation import TranslationServer
from models.inference import prepare
from models.scoring import language_model_log_probabilities
from models.tokenizer import learn_tokenizer, load_tokenizer
from models.training import MaskedCrossEntropy
from models.transformer import DecoderLanguageModel, EncoderClassifier, Transformer

SIZES = ModelConfig(1, 1, d_model=16, num_heads=2, dff=32, dropout=0.0, positions="rotary", max_positions=32)
ROWS = [
    {"source": "the light is on now", "target": "the light is on now"},
    {"source": "lamp", "target": "the lamp"},
    {"source": "the garden", "target": "garden light"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    keras.utils.set_random_seed(1)  # first: it takes the resources of tokenizers with it
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    words = ["the", "light", "is", "on", "now", "lamp", "garden"]
    learn_tokenizer([(word, 10) for word in words], TokenizerConfig(vocab_size=300), folder)
    return load_tokenizer(folder)


def compiled(model, smoothing=0.1, pad_id=0):
    model.build()
    model.compile("sgd", MaskedCrossEntropy(smoothing, pad_id), jit_compile=False)
    return model


def padded(tokenizer, texts, *, begin=False, end=False):
    rows = [[*[2] * begin, *ids, *[3] * end] for ids in tokenizer.tokenize(texts).to_list()]
    return np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], np.int32)


def test_translations_are_scored_as_sacrebleu_does_and_shown_with_what_was_looked_at(tokenizer):
    model = compiled(Transformer(SIZES, tokenizer.vocab_size))
    sources, targets = ([row[column] for row in ROWS] for column in ("source", "target"))
    inputs = {
        "source": padded(tokenizer, sources, end=True),
        "target": padded(tokenizer, targets, begin=True),
    }
    labels = padded(tokenizer, targets, end=True)
    server = TranslationServer(model, tokenizer, DecodingConfig(beam_size=1, max_length_extra=2))
    for weight in model.trainable_variables:
        weight.assign(weight * 2)
    found = TranslationEvaluation(model, [(inputs, labels)], server, ROWS).run()

    for variable, weight in zip(*map(tf.nest.flatten, (server.decoding_weights, prepare(model))), strict=True):
        np.testing.assert_array_equal(variable, weight)  # of the model as it is now
    answers = server.serving_default(tf.constant([row["source"] for row in found.texts]))["translation"].numpy()
    assert [row["translation"] for row in found.texts] == [answer.decode() for answer in answers]
    assert sorted(row["source"] for row in found.texts) == sorted(sources)
    references = [row["target"] for row in found.texts]
    assert found.metrics["bleu"] == BLEU().corpus_score([answer.decode() for answer in answers], [references]).score
    logits, real = model(inputs), labels != 0
    assert found.metrics["loss"] == pytest.approx(float(model.loss(labels, logits)), rel=1e-5)
    assert found.metrics["accuracy"] == pytest.approx((np.argmax(logits, -1) == labels)[real].mean())

    read = [*tokenizer.id_to_piece(tokenizer.tokenize(["the light is on now"]))[0].numpy(), b"</s>"]
    read = [piece.decode() for piece in read]
    maps = {heat_map.title: heat_map for heat_map in found.maps}
    assert list(maps) == ["encoder layer 1", "decoder layer 1", "cross layer 1"]
    assert maps["encoder layer 1"].columns == maps["cross layer 1"].columns == maps["decoder layer 1"].rows == read
    assert maps["decoder layer 1"].columns == ["<s>", *read[:-1]]
    for heat_map in found.maps:
        assert heat_map.weights.shape == (2, len(heat_map.rows), len(heat_map.columns))
        np.testing.assert_allclose(heat_map.weights.sum(2), 1, atol=1e-5)


def test_each_side_is_shown_in_the_pieces_of_its_own_tokenizer(tokenizer, tmp_path):
    """The source's ids go beyond the target's vocabulary."""
    words = ["qualm", "quartz", "quorum", "fjord", "jump", "vex"]
    learn_tokenizer([(word, 10) for word in words], TokenizerConfig(vocab_size=315), str(tmp_path))
    own = load_tokenizer(str(tmp_path))
    config = dataclasses.replace(SIZES, tie_embeddings=False)
    model = compiled(Transformer(config, tokenizer.vocab_size, source_vocab_size=own.vocab_size))
    server = TranslationServer(model, tokenizer, DecodingConfig(beam_size=1, max_length_extra=2), own)
    row = {"source": "qualm quartz quorum fjord jump vex", "target": "the light"}
    inputs = {
        "source": padded(own, [row["source"]], end=True),
        "target": padded(tokenizer, [row["target"]], begin=True),
    }
    assert inputs["source"].max() >= tokenizer.vocab_size
    labels = padded(tokenizer, [row["target"]], end=True)
    encoder, decoder, _ = TranslationEvaluation(model, [(inputs, labels)], server, [row]).run().maps
    assert "".join(encoder.rows) == "▁" + row["source"].replace(" ", "▁") + "</s>"
    assert "".join(decoder.rows) == "▁the▁light</s>"


def test_a_classifier_is_measured_as_the_evaluator_measures(tokenizer):
    from components.classification_metrics import measure

    names, rows = ["off", "on"], [{"text": letter, "label": "on"} for letter in "abcdef"]
    model = compiled(EncoderClassifier(SIZES, tokenizer.vocab_size, 2), pad_id=-1)
    ids, labels = padded(tokenizer, [row["text"] for row in rows], end=True), np.array([0, 1, 0, 0, 1, 1], np.int32)
    server = ClassificationServer(model, tokenizer, names, DecodingConfig())
    found = ClassificationEvaluation(model, [(ids[:4], labels[:4]), (ids[4:], labels[4:])], server, rows).run()
    probabilities = tf.nn.softmax(model(ids)).numpy().tolist()
    expected = measure(names, probabilities, [names[label] for label in labels]).metrics
    assert 100 * found.metrics["accuracy"] == pytest.approx(expected["accuracy"])
    assert 100 * found.metrics["macro_f1"] == pytest.approx(expected["macro_f1"])
    one_label = ClassificationEvaluation(model, [(ids[:1], labels[:1])], server, rows)
    perfect = {"confusion": np.array([[5, 0], [0, 0]]), "loss": 1, "weight": 1, "right": 5, "labels": 5}
    assert one_label.metrics(perfect)["macro_f1"] == 1, "a label that is not there was not missed"
    assert [row["answer"] for row in found.texts] == [names[int(np.argmax(row))] for row in probabilities]
    (heat_map,) = found.maps
    assert heat_map.weights.shape == (2, len(heat_map.rows), len(heat_map.rows))


def test_a_language_model_needs_so_many_bits_a_character(tokenizer):
    model, texts = compiled(DecoderLanguageModel(SIZES, tokenizer.vocab_size)), ["the lamp", "light on"]
    labels, inputs = padded(tokenizer, texts, end=True), padded(tokenizer, texts, begin=True)
    server = LanguageModelServer(model, tokenizer, DecodingConfig(max_new_tokens=3))
    found = LanguageModelEvaluation(model, [(inputs, labels)], server, [], sum(map(len, texts))).run()
    bits = -float(tf.reduce_sum(language_model_log_probabilities(model, labels))) / math.log(2)
    assert found.metrics["bits_per_character"] == pytest.approx(bits / sum(map(len, texts)), rel=1e-5)
    assert found.texts == found.maps == []


def test_weighted_labels_count_as_the_loss_counts_them(tokenizer):
    model = EncoderClassifier(SIZES, tokenizer.vocab_size, 2)
    model.build()
    model.compile("sgd", MaskedCrossEntropy(0.0, -1, [3.0, 1.0]), jit_compile=False)
    ids, labels = padded(tokenizer, ["lamp", "garden", "light"], end=True), np.array([0, 1, 1], np.int32)
    loss = Evaluation(model, [(ids[:1], labels[:1]), (ids[1:], labels[1:])]).run().metrics["loss"]
    assert loss == pytest.approx(float(model.loss(labels, model(ids))), rel=1e-5)
