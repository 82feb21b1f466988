"""Evaluation during training computes the loss that training minimises."""

import numpy as np
import pytest

from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.models.transformer.models import EncoderClassifier


def test_label_weights_count_as_in_the_loss(tokenizer, tiny_config, build_and_compile, padded_ids):
    model = build_and_compile(EncoderClassifier(tiny_config, tokenizer.vocab_size, 2), 0.0, -1, [3.0, 1.0])
    ids = padded_ids(tokenizer, ["lamp", "garden", "light"], end=True)
    labels = np.array([0, 1, 1], np.int32)
    loss = Evaluation(model, [(ids[:1], labels[:1]), (ids[1:], labels[1:])]).run().metrics["loss"]
    assert loss == pytest.approx(float(model.loss(labels, model(ids))), rel=1e-5)
