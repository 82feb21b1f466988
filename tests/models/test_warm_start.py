"""A warm start: what both models have is taken, whatever their task; what only looks alike is refused."""

import dataclasses
import itertools

import numpy as np
import pytest

from models.config import ModelConfig
from models.transformer import DecoderLanguageModel, EncoderClassifier, Transformer
from models.warm_start import load_model, save_model, start_from

TINY = ModelConfig(num_encoder_layers=2, num_decoder_layers=2, d_model=8, num_heads=2, dff=16, positions="rotary")
VOCAB_SIZE = 12
SEEDS = itertools.count()


def make(kind, *more, **changes):
    model = kind(dataclasses.replace(TINY, **changes), VOCAB_SIZE, *more)
    model.build()
    for weight in model.trainable_weights:  # norms and biases are alike when they are made
        weight.assign(np.random.default_rng(next(SEEDS)).normal(size=weight.shape))
    return model


@pytest.fixture
def saved(tmp_path):
    """Returns a function that keeps a model and returns the folder."""

    def saved(model):
        save_model(model, str(tmp_path))
        return str(tmp_path)

    return saved


def values(layer):
    return [weight.numpy() for weight in layer.trainable_weights]


def assert_same(one, other):
    for mine, theirs in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [Transformer, DecoderLanguageModel, EncoderClassifier])
def test_of_the_same_task_all_is_taken(saved, kind, tied):
    more = [3] if kind is EncoderClassifier else []
    earlier, model = (make(kind, *more, tie_embeddings=tied, activation="swiglu") for _ in range(2))
    started = start_from(model, saved(earlier))
    assert_same(model, earlier)
    assert started.fresh == started.unused == ()
    assert {"encoder", "decoder"} & set(started.taken)


def test_a_language_model_starts_a_classifier(saved):
    earlier, model = make(DecoderLanguageModel, positions="learned"), make(EncoderClassifier, 3, positions="learned")
    head = values(model.head)
    started = start_from(model, saved(earlier))
    assert_same(model.embedding, earlier.target_embedding)
    for part in ("positions", "norm"):
        assert_same(getattr(model.encoder, part), getattr(earlier.decoder, part))
    for mine, theirs in zip(model.encoder.layers, earlier.decoder.layers, strict=True):
        for part in ("self_attention", "self_residual", "feed_forward", "feed_residual"):
            assert_same(getattr(mine, part), getattr(theirs, part))
    for before, after in zip(head, values(model.head), strict=True):
        np.testing.assert_array_equal(before, after)
    assert dataclasses.astuple(started) == (("embedding", "encoder"), ("head",), ())


def test_a_language_model_starts_both_sides_of_a_translator(saved):
    earlier, model = make(DecoderLanguageModel), make(Transformer)
    started = start_from(model, saved(earlier))
    for stack in (model.encoder, model.decoder):
        for mine, theirs in zip(stack.layers, earlier.decoder.layers, strict=True):
            assert_same(mine.self_attention, theirs.self_attention)
            assert_same(mine.feed_forward, theirs.feed_forward)
    parts = ("cross_attention", "cross_residual")
    assert started.fresh == tuple(f"decoder.layers.{i}.{part}" for i in range(2) for part in parts)
    assert "encoder" in started.taken
    assert started.unused == ()


def test_a_translators_own_encoder_goes_before_its_decoder(saved):
    earlier, model = make(Transformer), make(EncoderClassifier, 3)
    started = start_from(model, saved(earlier))
    assert_same(model.encoder, earlier.encoder)
    assert started.unused == ("decoder",)


def test_what_has_another_shape_or_is_not_there_is_left(saved):
    earlier, model = make(DecoderLanguageModel, dff=24, num_decoder_layers=1), make(EncoderClassifier, 3)
    started = start_from(model, saved(earlier))
    assert started.fresh == (
        "encoder.layers.0.feed_forward.kernel_1",
        "encoder.layers.0.feed_forward.bias_1",
        "encoder.layers.0.feed_forward.kernel_2",
        "encoder.layers.1",
        "head",
    )
    assert "decoder.layers.0.feed_forward.kernel_1" in started.unused


@pytest.mark.parametrize(
    ("key", "value"),
    [("d_model", 16), ("num_heads", 4), ("norm_first", False), ("positions", "learned"), ("activation", "gelu")],
)
def test_weights_that_would_mean_something_else_are_refused(saved, key, value):
    model = make(EncoderClassifier, 3)
    before = values(model)
    with pytest.raises(ValueError, match=f"it has model.{key}={value}, .*; set model.{key}={value}"):
        start_from(model, saved(make(DecoderLanguageModel, **{key: value})))
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_can_be_made_again(saved):
    model = make(EncoderClassifier, 3)
    again = load_model(saved(model))
    assert type(again) is EncoderClassifier
    assert_same(again, model)


@pytest.mark.parametrize("config", ["{}", '{"class": "Nothing"}', '{"class": "Transformer", "config": {"x": 1}}'])
def test_a_folder_without_a_model_is_refused(tmp_path, config):
    with pytest.raises(ValueError, match="holds no model of ours"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="holds no model of ours"):
        load_model(str(tmp_path))
