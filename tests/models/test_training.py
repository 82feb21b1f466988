"""What drives learning equals its definition, the fused optimizer equals Keras's, and a small model does learn."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import TrainingConfig
from models.layers import TokenEmbedding
from models.search import BeamSearch
from models.training import (
    Adam,
    ForeseenCosine,
    InverseSquareRoot,
    MaskedCrossEntropy,
    balanced_weights,
    make_optimizer,
    make_schedule,
    precision,
    smoothed_cross_entropy,
)


def one_hot_cross_entropy(logits, labels, epsilon):
    """The definition (section 5.4): cross-entropy against (1 - epsilon) one-hot + epsilon uniform."""
    targets = tf.one_hot(labels, logits.shape[1]) * (1 - epsilon) + epsilon / logits.shape[1]
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0, 0.75), st.integers(1, 6), st.integers(2, 9))
def test_smoothed_cross_entropy_and_its_gradient_equal_the_definition(seed, epsilon, rows, vocab_size):
    rng = np.random.default_rng(seed)
    logits = tf.constant(rng.normal(size=(rows, vocab_size)) * 5, tf.float32)
    labels = tf.constant(rng.integers(0, vocab_size, rows), tf.int32)
    upstream = tf.constant(rng.normal(size=rows), tf.float32)
    values, gradients = [], []
    for function in (smoothed_cross_entropy, one_hot_cross_entropy):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values.append(function(logits, labels, tf.constant(epsilon)))
        gradients.append(tape.gradient(values[-1], logits, upstream))
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_over_real_tokens():
    labels = np.array([[4, 5, 0], [6, 0, 0]])
    logits = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    real = labels != 0
    expected = tf.reduce_mean(one_hot_cross_entropy(tf.constant(logits[real]), labels[real], 0.1))
    assert float(MaskedCrossEntropy(0.1)(labels, logits)) == pytest.approx(float(expected), rel=1e-5)


def test_loss_of_nothing_but_padding_is_zero():
    logits = tf.Variable(tf.random.stateless_normal([1, 3, 8], [1, 2]))
    with tf.GradientTape() as tape:
        loss = MaskedCrossEntropy(0.1)(np.zeros((1, 3), np.int32), logits)
    assert loss == 0
    assert not tape.gradient(loss, logits).numpy().any()


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_layers_built_within_a_precision_compute_in_it(name):
    with precision(name):
        inside = keras.layers.Dense(2)
    assert (inside.compute_dtype, inside.variable_dtype) == (name, "float32")
    assert keras.layers.Dense(2).compute_dtype == "float32"


def eight_steps(optimizer, seed=1):
    """Trains an embedding and a matrix; returns the weights and, where they are kept, their averages."""
    keras.utils.set_random_seed(seed)
    embedding, kernel = TokenEmbedding(10, 4), keras.Variable(keras.random.normal((4, 3)))
    embedding.build(None)
    variables = [embedding.matrix, kernel]
    optimizer.build(variables)
    for ids in np.random.default_rng(seed).integers(0, 5, (8, 6)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.tanh(tf.matmul(embedding(ids), kernel)) ** 2)
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
    weights = [variable.numpy() for variable in variables]
    optimizer.finalize_variable_values(variables)
    return weights, [variable.numpy() for variable in variables]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"global_clipnorm": 0.5},
        {"use_ema": True, "ema_momentum": 0.8},
        {"learning_rate": InverseSquareRoot(0.05, 3), "beta_2": 0.98, "epsilon": 1e-9},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_adam_equals_kerass(changes):
    options = {"learning_rate": 0.05, **changes}
    ours, averages = eight_steps(Adam(**options))
    theirs, their_averages = eight_steps(keras.optimizers.Adam(**options))
    for left, right in zip([*ours, *averages], [*theirs, *their_averages], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    assert any((left != right).any() for left, right in zip(ours, averages, strict=True)) == ("use_ema" in changes)


def test_adam_equals_kerass_inside_fit():
    def weights(optimizer):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
        model.compile(optimizer, "mse", jit_compile=False)
        rng = np.random.default_rng(0)
        model.fit(rng.normal(size=(32, 3)), rng.normal(size=(32, 1)), batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    for left, right in zip(weights(Adam(0.05)), weights(keras.optimizers.Adam(0.05)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_the_papers_schedule():
    d_model, warmup = 512, 4000
    schedule = make_schedule(TrainingConfig(learning_rate=(d_model * warmup) ** -0.5, warmup_steps=warmup))
    for step in (1, 100, 4000, 4001, 100_000):
        expected = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert float(schedule(tf.constant(step - 1))) == pytest.approx(expected, rel=1e-5)


def test_cosine_warms_up_and_ends_at_zero():
    config = TrainingConfig(schedule="cosine", steps=100, warmup_steps=20, learning_rate=0.1)
    rates = [float(make_schedule(config)(tf.constant(step))) for step in range(101)]
    assert max(rates) == rates[20] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.05, rel=1e-4)  # half way down
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_a_foreseen_cosine_is_that_of_what_is_foreseen():
    theirs = keras.optimizers.schedules.CosineDecay(0.0, 80, warmup_target=0.1, warmup_steps=20)
    ours = ForeseenCosine(0.1, 20, tf.Variable(100.0))
    for step in range(0, 101, 7):
        assert float(ours(tf.constant(step))) == pytest.approx(float(theirs(step)), abs=1e-8)


def test_a_foreseen_cosine_follows():
    total = tf.Variable(100.0)
    schedule = make_schedule(TrainingConfig(schedule="cosine", warmup_steps=20, learning_rate=0.1), total)
    assert float(schedule(tf.constant(60))) == pytest.approx(0.05)
    total.assign(60.0)
    assert float(schedule(tf.constant(60))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine"])
@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 100), (10, 0), (10, 100)])
def test_schedules_are_positive_numbers_however_short_training_is(schedule, steps, warmup_steps):
    config = TrainingConfig(schedule=schedule, steps=steps, warmup_steps=warmup_steps, learning_rate=0.1)
    rates = [float(make_schedule(config)(tf.constant(step))) for step in range(steps)]
    assert all(math.isfinite(rate) and 0 <= rate <= 0.1 + 1e-6 for rate in rates)
    assert max(rates) > 0


@pytest.mark.parametrize(("decay", "averaged"), [(0.9, True), (0.0, False)])
def test_averages_are_kept_only_where_asked(decay, averaged):
    optimizer = make_optimizer(TrainingConfig(average_decay=decay, clip_norm=0.5, beta_2=0.9))
    assert (optimizer.use_ema, optimizer.global_clipnorm, optimizer.beta_2) == (averaged, 0.5, 0.9)


def test_muon_makes_the_updates_of_matrices_orthogonal(make_transformer):
    """The embedding takes a step of Adam's: the first is as long for every weight."""
    model, rng, rate = make_transformer(), np.random.default_rng(0), 0.01
    optimizer = make_optimizer(TrainingConfig(optimizer="muon", learning_rate=rate, warmup_steps=1, clip_norm=1e9))
    before = model.get_weights()
    gradients = [tf.constant(rng.normal(size=variable.shape), tf.float32) for variable in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    seen = set()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        update = variable.numpy() - old
        seen |= {kind for kind in ("kernel", "matrix") if kind in variable.name}
        if "kernel" in variable.name:
            stretch = np.linalg.svd(update, compute_uv=False)
            assert stretch.max() / stretch.min() < 2
        if variable.name == "matrix":
            np.testing.assert_allclose(np.abs(update), rate, rtol=0.05)
    assert seen == {"kernel", "matrix"}


def exact(model, decode, task_batches, rule) -> float:
    """Returns the share of 200 new sequences that a model turns into exactly what the rule says."""
    inputs, labels = next(task_batches(rule, longest=6, size=200, seed=99))
    result = decode(model, inputs["source"], BeamSearch(beams=1, alpha=0.0), maximum=8)
    written = np.zeros((200, 9), np.int32)
    written[:, : result.ids.shape[2]] = result.ids[:, 0, :9]
    expected = np.pad(np.where(labels == 3, 0, labels), [(0, 0), (0, 9 - labels.shape[1])])
    return float((written == expected).all(axis=1).mean())


def test_a_model_learns_to_reverse(reverser, decode, task_batches):
    assert exact(reverser, decode, task_batches, lambda source, rng: source[::-1]) > 0.9


def test_a_model_learns_to_copy(make_transformer, train, decode, task_batches):
    def rule(source, rng):
        return source

    model = make_transformer(num_encoder_layers=1, num_decoder_layers=1, d_model=32, dff=64)
    train(model, task_batches(rule, longest=6), steps=150, learning_rate=1e-2)
    assert exact(model, decode, task_batches, rule) > 0.9


def test_the_same_seed_trains_the_same_weights(make_transformer, task_batches):
    inputs, labels = next(task_batches(lambda source, rng: source, size=24))
    weights = []
    for _ in range(2):
        model = make_transformer(num_encoder_layers=1, num_decoder_layers=1, dropout=0.2)
        model.compile(make_optimizer(TrainingConfig(warmup_steps=1)), MaskedCrossEntropy(0.1), run_eagerly=True)
        model.fit(inputs, labels, batch_size=8, epochs=2, verbose=0)
        weights.append(model.get_weights())
    for left, right in zip(*weights, strict=True):
        np.testing.assert_array_equal(left, right)


def test_label_weights_count_as_rows_do():
    """A label of weight two has the loss and the gradient of its row standing there twice."""
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 2)), tf.float32)
    labels = tf.constant([0, 1, 1])
    weighted = MaskedCrossEntropy(0.1, pad_id=-1, label_weights=[2.0, 1.0])
    repeated = MaskedCrossEntropy(0.1, pad_id=-1)(tf.gather(labels, [0, 0, 1, 2]), tf.gather(logits, [0, 0, 1, 2]))
    assert float(weighted(labels, logits)) == pytest.approx(float(repeated), rel=1e-5)


def test_balanced_labels_count_alike_together():
    weights = balanced_weights([90, 10])
    assert 90 * weights[0] == pytest.approx(10 * weights[1])
    assert 90 * weights[0] + 10 * weights[1] == pytest.approx(100)
