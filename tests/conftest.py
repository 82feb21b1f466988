"""What several tests share: tiny models, and one that has learned something worth searching in.

Comes in: nothing. Goes out: fixtures; most are functions, so that a test says what it needs where it needs it.
Read next: models/test_decoding.py for how they are used. TensorFlow is imported only by tests that ask for a model.
"""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

VOCAB_SIZE = 20


@pytest.fixture(scope="session")
def make_transformer():
    """Returns a function that builds a tiny Transformer; its keywords change the ModelConfig."""
    import keras

    from models.config import ModelConfig
    from models.transformer import Transformer

    tiny = ModelConfig(num_encoder_layers=2, num_decoder_layers=2, d_model=16, num_heads=2, dff=32, dropout=0.0)

    def make(vocab_size: int = VOCAB_SIZE, seed: int = 1, **changes) -> Transformer:
        keras.utils.set_random_seed(seed)
        model = Transformer(dataclasses.replace(tiny, **changes), vocab_size)
        model.build()
        return model

    return make


@pytest.fixture(scope="session")
def random_ids():
    """Returns a function that draws rows of ids of the given lengths, int32, padded with 0, `end` after each."""

    def draw(lengths, seed: int = 0, end: tuple[int, ...] = ()) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return _pad([[*rng.integers(4, VOCAB_SIZE, length), *end] for length in lengths])

    return draw


@pytest.fixture(scope="session")
def train():
    """Returns a function that fits a model to (inputs, labels) batches with the project's own loss and optimizer."""
    import tensorflow as tf

    from models.config import TrainingConfig
    from models.training import MaskedCrossEntropy, make_optimizer

    def fit(model, batches, steps: int, label_smoothing: float = 0.0, learning_rate: float = 5e-3) -> None:
        batches = iter(batches)
        first = next(batches)
        spec = tf.nest.map_structure(lambda array: tf.TensorSpec([None, None], array.dtype), first)
        data = tf.data.Dataset.from_generator(lambda: itertools.chain([first], batches), output_signature=spec)
        config = TrainingConfig(steps=steps, warmup_steps=steps // 5, learning_rate=learning_rate, average_decay=0.0)
        model.compile(make_optimizer(config), loss=MaskedCrossEntropy(label_smoothing))
        model.fit(data.prefetch(8), steps_per_epoch=steps, verbose=0)

    return fit


def _pad(rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)


def _batch(rows: list[tuple[list[int], list[int]]]):
    """Pads (source, target) rows and adds the markers, as models/dataset.py does."""
    sources, targets = zip(*rows, strict=True)
    inputs = {"source": _pad([[*row, 3] for row in sources]), "target": _pad([[2, *row] for row in targets])}
    return inputs, _pad([[*row, 3] for row in targets])


@pytest.fixture(scope="session")
def task_batches():
    """Returns a function that makes endless training batches of random sequences and what `rule` makes of each."""

    def batches(rule, longest: int = 8, size: int = 64, seed: int = 0):
        rng = np.random.default_rng(seed)
        while True:
            sources = [rng.integers(4, VOCAB_SIZE, rng.integers(1, longest + 1)).tolist() for _ in range(size)]
            yield _batch([(source, rule(source, rng)) for source in sources])

    return batches


@pytest.fixture(scope="session")
def decode():
    """Returns a function that lets a model write, in a graph as on the server; limits are numbers or one a row."""
    import tensorflow as tf

    from models.decoding import Result, translate
    from models.search import BeamSearch, Limits

    @functools.cache
    def graph(model, search: BeamSearch):
        signature = [tf.TensorSpec([None, None], tf.int32), Limits(*[tf.TensorSpec([None], tf.int32)] * 2)]
        return tf.function(lambda source, limits: translate(model, source, search, limits), input_signature=signature)

    def write(model, source, search: BeamSearch, maximum=20, minimum=0) -> Result:
        limits = Limits(*(np.broadcast_to(np.int32(limit), len(source)) for limit in (minimum, maximum)))
        return Result(*(tensor.numpy() for tensor in graph(model, search)(source, limits)))

    return write


def noisy_reversal(source: list[int], rng: np.random.Generator) -> list[int]:
    """Reverses a sequence; a token may turn into its neighbour, come twice or go missing, so much is uncertain."""
    target = []
    for token in reversed(source):
        token ^= int(rng.random() < 0.3)
        target += [token] * int(rng.choice([0, 1, 2], p=[0.1, 0.8, 0.1]))
    return target


@pytest.fixture(scope="session")
def reverser(make_transformer, train, task_batches):
    """A Transformer that has learned to reverse sequences of up to eight tokens."""
    model = make_transformer(d_model=32, dff=64)
    train(model, task_batches(lambda source, rng: source[::-1]), steps=400)
    return model


@pytest.fixture(scope="session")
def noisy_reverser(make_transformer, train, task_batches):
    """A Transformer trained on `noisy_reversal`: peaked enough to be sensible, open enough for beams to differ."""
    model = make_transformer(d_model=32, dff=64, seed=3)
    train(model, task_batches(noisy_reversal), steps=400, label_smoothing=0.1)
    return model
