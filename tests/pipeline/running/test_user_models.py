"""The architecture follows from an earlier or a pretrained model."""

import dataclasses
import json
from pathlib import Path

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tasks.sizing import FINE_TUNING
from seq2serve.models.config import ModelConfig
from seq2serve.pipeline.config import AUTO, preset, with_settings
from seq2serve.pipeline.dag import make_configured_pipeline
from seq2serve.pipeline.run_config import RunConfig
from seq2serve.pipeline.running.user_models import settings_of_base
from tests.models.importing.small_bert import write_bert

CONFIG = ModelConfig(3, 5, d_model=24, num_heads=2, dff=40, dropout=0.7, positions="learned", ngram_buckets=64)
CLASSIFIER = ("encoder",)


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
    taken = with_settings(start, settings_of_base(base(kind), CLASSIFIER))
    names = ("d_model", "num_heads", "dff", "positions", "norm_first", "ngram_buckets")
    assert {name: getattr(taken.model, name) for name in names} == {name: getattr(CONFIG, name) for name in names}
    assert (taken.model.num_encoder_layers, taken.model.num_decoder_layers) == layers
    assert taken.model.dropout == start.model.dropout
    assert "model.dropout" in taken.automatic
    assert not {"model.d_model", "model.num_encoder_layers", "model.ngram_buckets"} & set(taken.automatic)


def test_the_data_decide_about_ngrams_that_the_earlier_model_does_not_have(base):
    config = dataclasses.replace(CONFIG, ngram_buckets=0)
    settings = settings_of_base(base("DecoderLanguageModel", config), CLASSIFIER)
    taken = with_settings(preset(AUTO, "classification"), settings)
    assert "model.ngram_buckets" in taken.automatic


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_a_task_without_a_source_starts_from_a_translator_with_recurrent_layers(base, task):
    config = dataclasses.replace(CONFIG, decoder="ssru", ngram_buckets=0)
    taken = with_settings(preset(AUTO, task), settings_of_base(base("Transformer", config), TASKS[task].parts))
    assert (taken.model.decoder, taken.model.d_model) == ("attention", CONFIG.d_model)


def test_a_model_without_labels_has_no_ngrams(base):
    with_settings(preset(AUTO, "translation"), settings_of_base(base("EncoderClassifier"), ("encoder", "decoder")))


@pytest.mark.parametrize(("name", "width"), [("", 24), ("tiny", 64)])
def test_only_automatic_sizes_follow_from_the_earlier_model(base, name, width):
    chosen = RunConfig(data="x.csv", task="classification", preset=name, warm_start=base("EncoderClassifier"))
    pipeline = make_configured_pipeline(chosen, "runs", "serving")
    trainer = next(node for node in pipeline.nodes if node.id == "Trainer")
    assert trainer.parameters["recipe"].model.d_model == width
    assert pipeline.config is not None
    assert f"d_model = {width}" in pipeline.config({})


def test_without_training_there_must_be_a_model_to_start_from():
    chosen = RunConfig(data="x.csv", task="classification", settings=("training.steps=0",))
    with pytest.raises(UserError, match=r"^setting training.steps=0 exports the model .*: name one with --from"):
        make_configured_pipeline(chosen, "runs", "serving")


def test_a_pretrained_model_decides_about_the_architecture_and_the_length_of_texts(tmp_path):
    folder = write_bert(tmp_path / "bert")
    chosen = RunConfig(data="x.csv", task="classification", start_from=str(folder))
    nodes = {node.id: node for node in make_configured_pipeline(chosen, "runs", "serving").nodes}
    model = nodes["Trainer"].parameters["recipe"].model
    assert (model.num_encoder_layers, model.d_model, model.positions, model.pooling) == (2, 8, "learned", "mean")
    assert nodes["TransformByTokenizer"].parameters["preprocessing"].longest_limit == 8  # 10 positions, 2 markers
    assert nodes["TransformByTokenizer"].inputs["files"] == nodes["ModelImporter"].outputs["tokenizer"]
    assert nodes["Trainer"].inputs["base_model"] == nodes["ModelImporter"].outputs["model"]
    assert nodes["Tuner"].parameters["fine_tunes"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"task": "translation"}, "pretrained-task"),
        ({"warm_start": "runs/Trainer/model/1"}, "start-repeated"),
        ({"tokenizer": "spm.model"}, "start-repeated"),
    ],
)
def test_a_pretrained_model_that_does_not_fit_is_refused(tmp_path, changes, code):
    folder = write_bert(tmp_path / "bert")
    chosen = RunConfig(**{"data": "x.csv", "task": "classification", "start_from": str(folder), **changes})
    with pytest.raises(UserError) as caught:
        make_configured_pipeline(chosen, "runs", "serving")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"preset": "demo"}, "preset-unfit"),
        ({"settings": ("tokenizer.lowercase=false",)}, "tokenizer-fixed"),
        ({"start_from": "minilm", "task": "translation"}, "pretrained-task"),
        ({"settings": ("training.steps=0", "tuner.trials=3")}, "settings-conflict"),
    ],
)
def test_settings_that_a_pretrained_model_cannot_follow_are_refused_before_anything_is_fetched(tmp_path, changes, code):
    folder = write_bert(tmp_path / "bert")
    chosen = RunConfig(**{"data": "x.csv", "task": "classification", "start_from": str(folder), **changes})
    with pytest.raises(UserError) as caught:
        make_configured_pipeline(chosen, "runs", "serving")
    assert caught.value.code == code


def test_a_model_that_was_fine_tuned_is_fine_tuned_again(base):
    folder = Path(base("EncoderClassifier", dataclasses.replace(CONFIG, ngram_buckets=0)))
    (folder / "Format-Keras" / "data.json").write_text('{"files_read": [], "pretrained": {"source": "a shelf"}}')
    taken = with_settings(preset(AUTO, "classification"), settings_of_base(str(folder), CLASSIFIER))
    assert taken.training.learning_rate == FINE_TUNING[("encoder",)].learning_rate
    assert taken.training.token_dropout == taken.model.ngram_buckets == 0
    assert taken.model.dropout == CONFIG.dropout
    assert not {"training.learning_rate", "training.token_dropout", "model.ngram_buckets"} & set(taken.automatic)
