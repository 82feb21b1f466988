"""Schedules follow their formulas, the fused Adam equals Keras's, and small models learn."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import TrainingConfig
from seq2serve.models.decoding.beam_search import BeamSearch
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.training.optimizer import (
    Adam,
    AdaptiveCosine,
    InverseSquareRoot,
    Muon,
    averaged,
    continue_moments,
    make_optimizer,
    make_schedule,
    moments,
    precision,
)
from seq2serve.models.transformer.layers import TokenEmbedding


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_layers_built_inside_precision_compute_in_that_dtype(name):
    with precision(name):
        inside = keras.layers.Dense(2)
    assert (inside.compute_dtype, inside.variable_dtype) == (name, "float32")
    assert keras.layers.Dense(2).compute_dtype == "float32"


def eight_steps(optimizer: keras.optimizers.Optimizer, seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Trains an embedding and a matrix; returns the weights and, if the optimizer keeps any, their averages."""
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
def test_fused_adam_equals_kerass_adam(changes):
    options = {"learning_rate": 0.05, **changes}
    fused, fused_averages = eight_steps(Adam(**options))
    reference, reference_averages = eight_steps(keras.optimizers.Adam(**options))
    for left, right in zip([*fused, *fused_averages], [*reference, *reference_averages], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    has_averages = any((left != right).any() for left, right in zip(fused, fused_averages, strict=True))
    assert has_averages == ("use_ema" in changes)


def test_fused_adam_equals_kerass_adam_inside_fit():
    def weights(optimizer):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
        model.compile(optimizer, "mse", jit_compile=False)
        rng = np.random.default_rng(0)
        model.fit(rng.normal(size=(32, 3)), rng.normal(size=(32, 1)), batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    for left, right in zip(weights(Adam(0.05)), weights(keras.optimizers.Adam(0.05)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [functools.partial(Adam, beta_2=0.98), functools.partial(Muon, weight_decay=0.0)])
def test_an_optimizer_with_the_moments_of_an_earlier_one_has_its_next_updates(make):
    """With a constant learning rate: four steps and then four of a new optimizer are eight steps of one."""
    initial = [np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32) for seed in (0, 1)]
    gradients = np.random.default_rng(2).normal(size=(8, 2, 4, 3)).astype(np.float32)
    weights = [keras.Variable(value, name="embedding" * (i == 0) or "matrix") for i, value in enumerate(initial)]

    def update(optimizer, steps):
        for step in steps:
            optimizer.apply(list(map(tf.constant, gradients[step])), weights)
        return [weight.numpy() for weight in weights]

    def make_built():
        optimizer = make(learning_rate=0.05)
        optimizer.build(weights)
        return optimizer

    expected = update(make_built(), range(8))
    for weight, value in zip(weights, initial, strict=True):
        weight.assign(value)
    earlier, later = make_built(), make_built()
    update(earlier, range(4))
    continue_moments(later, [variable.numpy() for variable in moments(earlier)], 4)
    assert int(later.iterations.numpy()) == 0, "the schedule starts from its beginning"
    for value, right in zip(update(later, range(4, 8)), expected, strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-6)


def test_moments_of_other_weights_are_an_error():
    one, other = keras.Variable(np.zeros((2, 3))), keras.Variable(np.zeros((3, 2)))
    optimizers = [Adam(0.1), Adam(0.1)]
    for optimizer, weight in zip(optimizers, (one, other), strict=True):
        optimizer.build([weight])
    with pytest.raises(ValueError, match="other variables"):
        continue_moments(optimizers[0], [variable.numpy() for variable in moments(optimizers[1])], 1)


def test_inverse_sqrt_is_the_papers_schedule():
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


def test_an_adaptive_cosine_with_a_constant_estimate_equals_kerass_cosine():
    reference = keras.optimizers.schedules.CosineDecay(0.0, 80, warmup_target=0.1, warmup_steps=20)
    adaptive = AdaptiveCosine(0.1, 20, tf.Variable(100.0))
    for step in range(0, 101, 7):
        assert float(adaptive(tf.constant(step))) == pytest.approx(float(reference(step)), abs=1e-8)


def test_an_adaptive_cosine_follows_its_estimate():
    total = tf.Variable(100.0)
    schedule = make_schedule(TrainingConfig(schedule="cosine", warmup_steps=20, learning_rate=0.1), total)
    assert float(schedule(tf.constant(60))) == pytest.approx(0.05)
    total.assign(60.0)
    assert float(schedule(tf.constant(60))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine"])
@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 100), (10, 0), (10, 100)])
def test_schedules_stay_within_bounds_however_short_training_is(schedule, steps, warmup_steps):
    config = TrainingConfig(schedule=schedule, steps=steps, warmup_steps=warmup_steps, learning_rate=0.1)
    rates = [float(make_schedule(config)(tf.constant(step))) for step in range(steps)]
    assert all(math.isfinite(rate) and 0 <= rate <= 0.1 + 1e-6 for rate in rates)
    assert max(rates) > 0


@pytest.mark.parametrize(("decay", "has_averages"), [(0.9, True), (0.0, False)])
def test_the_optimizer_has_averages_only_if_configured(decay, has_averages):
    optimizer = make_optimizer(TrainingConfig(average_decay=decay, clip_norm=0.5, beta_2=0.9))
    assert (optimizer.use_ema, optimizer.global_clipnorm, optimizer.beta_2) == (has_averages, 0.5, 0.9)


def test_averaged_swaps_in_the_averages_and_restores_the_weights(make_transformer, task_batches):
    batch = next(task_batches(lambda source, rng: source, size=5))
    model = make_transformer(num_encoder_layers=1, num_decoder_layers=1)
    config = TrainingConfig(warmup_steps=1, learning_rate=0.01, average_decay=0.5)
    model.compile(make_optimizer(config), MaskedCrossEntropy(0.1), run_eagerly=True)
    history = []
    for _ in range(3):
        model.train_step(batch)
        history.append(model.get_weights())
    expected = [0.5 * (0.5 * first + 0.5 * second) + 0.5 * third for first, second, third in zip(*history, strict=True)]
    with averaged(model):
        for weight, mean in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(weight, mean, atol=1e-6)
    for weight, before in zip(model.get_weights(), history[-1], strict=True):
        np.testing.assert_array_equal(weight, before)


def spread_gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns a random gradient; the singular values of a matrix are 1 to 10, as a random one may have some near 0."""
    gradient = rng.normal(size=shape)
    if len(shape) == 2:
        left, values, right = np.linalg.svd(gradient, full_matrices=False)
        gradient = left * np.linspace(1, 10, len(values)) @ right
    return tf.constant(gradient, tf.float32)


def test_muon_orthogonalises_the_updates_of_matrices_and_uses_adam_for_embeddings(make_transformer):
    model, rng, rate = make_transformer(), np.random.default_rng(0), 0.01
    optimizer = make_optimizer(TrainingConfig(optimizer="muon", learning_rate=rate, warmup_steps=1, clip_norm=1e9))
    before = model.get_weights()
    gradients = [spread_gradient(rng, variable.shape) for variable in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    checked = set()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        update = variable.numpy() - old
        checked |= {kind for kind in ("kernel", "matrix") if kind in variable.name}
        if "kernel" in variable.name:
            singular_values = np.linalg.svd(update, compute_uv=False)
            assert singular_values.max() / singular_values.min() < 2
        if variable.name == "matrix":  # the first step of Adam has the same size for every weight
            np.testing.assert_allclose(np.abs(update), rate, rtol=0.05)
    assert checked == {"kernel", "matrix"}


def exact_matches(model, decode, task_batches, rule) -> float:
    """Returns the share of 200 new sequences for which a model generates exactly the output of the rule."""
    inputs, labels = next(task_batches(rule, longest=6, size=200, seed=99))
    result = decode(model, inputs["source"], BeamSearch(beams=1, length_penalty=0.0), maximum=8)
    generated = np.zeros((200, 9), np.int32)
    generated[:, : result.ids.shape[2]] = result.ids[:, 0, :9]
    expected = np.pad(np.where(labels == 3, 0, labels), [(0, 0), (0, 9 - labels.shape[1])])
    return float((generated == expected).all(axis=1).mean())


def test_a_model_learns_to_reverse_sequences(reverser, decode, task_batches):
    assert exact_matches(reverser, decode, task_batches, lambda source, rng: source[::-1]) > 0.9


def test_a_model_learns_to_copy_sequences(make_transformer, train, decode, task_batches):
    def rule(source, rng):
        return source

    model = make_transformer(num_encoder_layers=1, num_decoder_layers=1, d_model=32, dff=64)
    train(model, task_batches(rule, longest=6), steps=150, learning_rate=1e-2)
    assert exact_matches(model, decode, task_batches, rule) > 0.9


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
