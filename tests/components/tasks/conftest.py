"""Fixtures for tests of evaluations: a tokenizer, tiny models that are compiled, and padded ids."""

import keras
import numpy as np
import pytest

from seq2serve.models.config import ModelConfig, TokenizerConfig
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.training.loss import MaskedCrossEntropy


@pytest.fixture(scope="session")
def tiny_config():
    return ModelConfig(1, 1, d_model=16, num_heads=2, dff=32, dropout=0.0, positions="rotary", max_positions=32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    keras.utils.set_random_seed(1)  # before the tokenizer is made, because it releases the resources of tokenizers
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    words = ["the", "light", "is", "on", "now", "lamp", "garden"]
    learn_tokenizer([(word, 10) for word in words], TokenizerConfig(vocab_size=300), folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def build_and_compile():
    """Returns a function that builds a model and compiles it with a MaskedCrossEntropy."""

    def build_and_compile(model, smoothing=0.1, pad_id=0, weights=()):
        model.build()
        model.compile("sgd", MaskedCrossEntropy(smoothing, pad_id, weights), jit_compile=False)
        return model

    return build_and_compile


@pytest.fixture(scope="session")
def padded_ids():
    """Returns a function that tokenizes texts: int32 [B, T], padded with 0, optionally with begin and end markers."""

    def padded_ids(tokenizer, texts, *, begin=False, end=False):
        rows = [[*[2] * begin, *ids, *[3] * end] for ids in tokenizer.tokenize(texts).to_list()]
        return np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], np.int32)

    return padded_ids
