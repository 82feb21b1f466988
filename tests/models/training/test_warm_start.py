"""A warm start takes all matching weights, also across tasks, and rejects models with other options."""

import dataclasses
import itertools
from collections.abc import Callable

import keras
import numpy as np
import pytest

from seq2serve.models.config import ModelConfig
from seq2serve.models.training.saving import save_model
from seq2serve.models.training.warm_start import start_from
from seq2serve.models.transformer.models import DecoderLanguageModel, EncoderClassifier, Transformer

TINY = ModelConfig(num_encoder_layers=2, num_decoder_layers=2, d_model=8, num_heads=2, dff=16, positions="rotary")
VOCAB_SIZE = 12
SEEDS = itertools.count()


def make(kind: type, *args, **changes) -> keras.Model:
    """Makes a model with random weights; the keywords change the ModelConfig."""
    model = kind(dataclasses.replace(TINY, **changes), VOCAB_SIZE, *args)
    model.build()
    for weight in model.trainable_weights:  # norms and biases would otherwise be the same in every new model
        weight.assign(np.random.default_rng(next(SEEDS)).normal(size=weight.shape))
    return model


@pytest.fixture
def saved(tmp_path) -> Callable[[keras.Model], str]:
    """Returns a function that saves a model and returns the folder."""

    def saved(model: keras.Model) -> str:
        save_model(model, str(tmp_path))
        return str(tmp_path)

    return saved


def values(layer: keras.Layer) -> list[np.ndarray]:
    return [weight.numpy() for weight in layer.trainable_weights]


def assert_same(one: keras.Layer, other: keras.Layer) -> None:
    for left, right in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [Transformer, DecoderLanguageModel, EncoderClassifier])
def test_all_weights_are_taken_from_a_model_of_the_same_task(saved, kind, tied):
    args = [3] if kind is EncoderClassifier else []
    earlier, model = (make(kind, *args, tie_embeddings=tied, activation="swiglu") for _ in range(2))
    result = start_from(model, saved(earlier))
    assert_same(model, earlier)
    assert result.fresh == result.unused == ()
    assert {"encoder", "decoder"} & set(result.taken)


def test_a_language_model_initialises_a_classifier(saved):
    earlier, model = make(DecoderLanguageModel, positions="learned"), make(EncoderClassifier, 3, positions="learned")
    head = values(model.head)
    result = start_from(model, saved(earlier))
    assert_same(model.embedding, earlier.target_embedding)
    for part in ("positions", "norm"):
        assert_same(getattr(model.encoder, part), getattr(earlier.decoder, part))
    for layer, earlier_layer in zip(model.encoder.layers, earlier.decoder.layers, strict=True):
        for part in ("self_attention", "self_residual", "feed_forward", "feed_residual"):
            assert_same(getattr(layer, part), getattr(earlier_layer, part))
    for before, after in zip(head, values(model.head), strict=True):
        np.testing.assert_array_equal(before, after)
    assert dataclasses.astuple(result) == (("embedding", "encoder"), ("head",), ())


def test_a_language_model_initialises_both_sides_of_a_translation_model(saved):
    earlier, model = make(DecoderLanguageModel), make(Transformer)
    result = start_from(model, saved(earlier))
    for stack in (model.encoder, model.decoder):
        for layer, earlier_layer in zip(stack.layers, earlier.decoder.layers, strict=True):
            assert_same(layer.self_attention, earlier_layer.self_attention)
            assert_same(layer.feed_forward, earlier_layer.feed_forward)
    parts = ("cross_attention", "cross_residual")
    assert result.fresh == tuple(f"decoder.layers.{i}.{part}" for i in range(2) for part in parts)
    assert "encoder" in result.taken
    assert result.unused == ()


def test_a_recurrent_translator_takes_all_but_its_recurrence_from_one_with_self_attention(saved):
    earlier, model = make(Transformer), make(Transformer, decoder="ssru")
    result = start_from(model, saved(earlier))
    assert_same(model.encoder, earlier.encoder)
    for layer, earlier_layer in zip(model.decoder.layers, earlier.decoder.layers, strict=True):
        assert_same(layer.cross_attention, earlier_layer.cross_attention)
    assert result.fresh == tuple(f"decoder.layers.{i}.ssru" for i in range(2))
    assert result.unused == tuple(f"decoder.layers.{i}.self_attention" for i in range(2))


def test_an_encoder_prefers_the_earlier_models_encoder_to_its_decoder(saved):
    earlier, model = make(Transformer), make(EncoderClassifier, 3)
    result = start_from(model, saved(earlier))
    assert_same(model.encoder, earlier.encoder)
    assert result.unused == ("decoder",)


def test_weights_that_are_missing_or_have_another_shape_stay_fresh(saved):
    earlier, model = make(DecoderLanguageModel, dff=24, num_decoder_layers=1), make(EncoderClassifier, 3)
    result = start_from(model, saved(earlier))
    assert result.fresh == (
        "encoder.layers.0.feed_forward.kernel_1",
        "encoder.layers.0.feed_forward.bias_1",
        "encoder.layers.0.feed_forward.kernel_2",
        "encoder.layers.1",
        "head",
    )
    assert "decoder.layers.0.feed_forward.kernel_1" in result.unused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("d_model", 16),
        ("num_heads", 4),
        ("norm_first", False),
        ("positions", "learned"),
        ("activation", "gelu"),
        ("embedding_norm", True),
        ("scale_embeddings", False),
        ("layer_norm_epsilon", 0.001),
    ],
)
def test_a_model_with_other_options_is_an_error_and_changes_nothing(saved, key, value):
    model = make(EncoderClassifier, 3)
    before = values(model)
    message = f"the earlier model has model.{key}={value} and the new one .*; set model.{key}={value}"
    with pytest.raises(ValueError, match=message):
        start_from(model, saved(make(DecoderLanguageModel, **{key: value})))
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_number_of_learned_positions_is_an_error(saved):
    earlier = make(DecoderLanguageModel, positions="learned", max_positions=8)
    with pytest.raises(ValueError, match=r"has model.max_positions=8 and the new one 16; set model.max_positions=8$"):
        start_from(make(EncoderClassifier, 3, positions="learned", max_positions=16), saved(earlier))
