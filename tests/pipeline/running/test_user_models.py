"""The architecture that a warm start takes over from an earlier model."""

import dataclasses
import json

import pytest

from seq2serve.models.config import ModelConfig
from seq2serve.pipeline.config import AUTO, preset, with_settings
from seq2serve.pipeline.dag import make_configured_pipeline
from seq2serve.pipeline.run_config import RunConfig
from seq2serve.pipeline.running.user_models import settings_of_base

CONFIG = ModelConfig(3, 5, d_model=24, num_heads=2, dff=40, dropout=0.7, positions="learned", ngram_buckets=64)


@pytest.fixture
def base(tmp_path):
    def make(kind, config=CONFIG):
        folder = tmp_path / "model" / "Format-Keras"
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"class": kind, "config": dataclasses.asdict(config)}))
        (folder / "model.weights.h5").write_text("")
        (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps({"kind": "sentencepiece", "vocab_size": 99}))
        return str(folder.parent)

    return make


@pytest.mark.parametrize(
    ("kind", "layers"), [("Transformer", (3, 5)), ("EncoderClassifier", (3, 3)), ("DecoderLanguageModel", (5, 5))]
)
def test_the_architecture_is_that_of_the_earlier_model_without_its_dropout(base, kind, layers):
    start = preset(AUTO, "classification")
    taken = with_settings(start, settings_of_base(base(kind), has_labels=True))
    names = ("d_model", "num_heads", "dff", "positions", "norm_first", "ngram_buckets")
    assert {name: getattr(taken.model, name) for name in names} == {name: getattr(CONFIG, name) for name in names}
    assert (taken.model.num_encoder_layers, taken.model.num_decoder_layers) == layers
    assert taken.model.dropout == start.model.dropout
    assert "model.dropout" in taken.automatic
    assert not {"model.d_model", "model.num_encoder_layers", "model.ngram_buckets"} & set(taken.automatic)


def test_the_data_decide_about_ngrams_that_the_earlier_model_does_not_have(base):
    config = dataclasses.replace(CONFIG, ngram_buckets=0)
    settings = settings_of_base(base("DecoderLanguageModel", config), has_labels=True)
    taken = with_settings(preset(AUTO, "classification"), settings)
    assert "model.ngram_buckets" in taken.automatic


def test_a_model_without_labels_has_no_ngrams(base):
    with_settings(preset(AUTO, "translation"), settings_of_base(base("EncoderClassifier"), has_labels=False))


@pytest.mark.parametrize(("name", "width"), [("", 24), ("tiny", 64)])
def test_only_automatic_sizes_follow_from_the_earlier_model(base, name, width):
    chosen = RunConfig(data="x.csv", task="classification", preset=name, warm_start=base("EncoderClassifier"))
    pipeline = make_configured_pipeline(chosen, "runs", "serving")
    trainer = next(node for node in pipeline.nodes if node.id == "Trainer")
    assert trainer.parameters["recipe"].model.d_model == width
    assert pipeline.config is not None
    assert f"d_model = {width}" in pipeline.config({})
