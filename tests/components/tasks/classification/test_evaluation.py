"""The evaluation of classification agrees with the Evaluator's metrics."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.components.tasks.classification.evaluation import ClassificationEvaluation
from seq2serve.components.tasks.classification.measurement import measure
from seq2serve.models.export.classification import ClassificationServingModule
from seq2serve.models.transformer.models import EncoderClassifier

NAMES = ["off", "on"]
ROWS = [{"text": letter, "label": "on"} for letter in "abcdef"]


def test_metrics_agree_with_those_of_the_evaluator(tokenizer, tiny_config, build_and_compile, padded_ids):
    model = build_and_compile(EncoderClassifier(tiny_config, tokenizer.vocab_size, 2), pad_id=-1)
    ids = padded_ids(tokenizer, [row["text"] for row in ROWS], end=True)
    labels = np.array([0, 1, 0, 0, 1, 1], np.int32)
    module = ClassificationServingModule(model, tokenizer, NAMES, 256)
    findings = ClassificationEvaluation(model, [(ids[:4], labels[:4]), (ids[4:], labels[4:])], module, ROWS).run()
    probabilities = tf.nn.softmax(model(ids)).numpy().tolist()
    expected = measure(NAMES, probabilities, [NAMES[label] for label in labels]).metrics
    assert findings.metrics["accuracy"] == pytest.approx(expected["accuracy"])
    assert findings.metrics["macro_f1"] == pytest.approx(expected["macro_f1"])
    assert [row["answer"] for row in findings.texts] == [NAMES[int(np.argmax(row))] for row in probabilities]
    (attention_map,) = findings.maps
    assert attention_map.weights.shape == (2, len(attention_map.rows), len(attention_map.rows))


def test_macro_f1_ignores_labels_that_do_not_occur(tokenizer, tiny_config, build_and_compile, padded_ids):
    model = build_and_compile(EncoderClassifier(tiny_config, tokenizer.vocab_size, 2), pad_id=-1)
    batch = padded_ids(tokenizer, ["a"], end=True), np.array([0], np.int32)
    module = ClassificationServingModule(model, tokenizer, NAMES, 256)
    perfect = {"confusion": np.array([[5, 0], [0, 0]]), "loss": 1, "weight": 1, "right": 5, "labels": 5}
    assert ClassificationEvaluation(model, [batch], module, ROWS).values(perfect)["macro_f1"] == 100


def test_an_evaluation_fits_how_the_two_parts_answer_together(tokenizer, tiny_config, build_and_compile, padded_ids):
    """The encoder knows nothing; the n-grams know each letter."""
    config = dataclasses.replace(tiny_config, ngram_buckets=16)
    model = build_and_compile(EncoderClassifier(config, tokenizer.vocab_size, 2), pad_id=-1)
    ids = padded_ids(tokenizer, [row["text"] for row in ROWS], end=True)
    labels = np.array([0, 1, 0, 0, 1, 1], np.int32)
    matrix = np.zeros(model.ngrams.matrix.shape, np.float32)
    for row, label in zip(np.asarray(ids), labels, strict=True):
        matrix[row[row != 0][:-1], label] += 3.0
    model.ngrams.matrix.assign(matrix)
    module = ClassificationServingModule(model, tokenizer, NAMES, 256)
    before = model.mixture.numpy().tolist()
    findings = ClassificationEvaluation(model, [(ids, labels)], module, ROWS).run()
    assert before == [0.5, 0.5]
    assert model.mixture.numpy()[1] > model.mixture.numpy()[0]
    right = tf.argmax(model(ids), 1).numpy() == labels
    assert findings.metrics["accuracy"] == pytest.approx(100 * right.mean())
