"""The pipeline has ten components, in the order in which data meets them, and every setting reaches one of them."""

import os
import subprocess
import sys
import typing

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.classification.task import Classification
from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tasks.sizing import LONGEST_LIMIT
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.pipeline.config import PipelineConfig, preset, setting_names, setting_type, with_columns, with_settings
from seq2serve.pipeline.dag import make_pipeline, make_validation_pipeline
from seq2serve.pipeline.running.fingerprint import as_json
from seq2serve.pipeline.running.pipeline import Pipeline

COMPONENTS = [
    "ExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "InfraValidator",
    "Pusher",
    "BulkInferrer",
]
# Setting or section -> the components with it as a parameter; for all others it is the Trainer.
USERS = {
    "data": ["ExampleGen"],
    "data.max_length": ["Transform"],
    "data.overlap": ["ExampleGen", "ExampleValidator"],
    "data.too_long": ["Transform"],
    "tokenizer": ["Transform"],
    "evaluation": ["Evaluator"],
}


def pipeline(config: PipelineConfig) -> Pipeline:
    return make_pipeline(config, "text.tsv", "runs", "serving")


def parameters(config: PipelineConfig) -> dict[str, dict]:
    return {node.id: as_json(node.id, node.parameters) for node in pipeline(config).nodes}


NEED_LABELS = (
    "model.begin_marker",
    "model.pooling",
    "model.ngram_buckets",
    "training.label_weights",
    "training.token_dropout",
)


def other_value(config: PipelineConfig, name: str) -> object:
    """Returns a value that a setting may have and that differs from its current one."""
    value, (hint, _) = config.value(name), setting_type(name)
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    if hint is bool:
        return not value
    if hint is int:
        return value * 2 or 1
    return f"other_{value}" if hint is str else (value * 0.99 or 0.1)


def test_the_components_are_in_the_order_of_the_data():
    assert [node.id for node in pipeline(preset("demo", "translation")).nodes] == ["RawFiles", *COMPONENTS]


def test_the_pushed_model_is_the_evaluated_one_and_needs_both_blessings():
    nodes = {node.id: node for node in pipeline(preset("demo", "translation")).nodes}
    model = nodes["Trainer"].outputs["model"]
    assert all(nodes[name].inputs["model"] == model for name in ("Evaluator", "InfraValidator", "Pusher"))
    assert nodes["Pusher"].inputs["model_blessing"] == nodes["Evaluator"].outputs["blessing"]
    assert nodes["Pusher"].inputs["infra_blessing"] == nodes["InfraValidator"].outputs["blessing"]
    assert nodes["BulkInferrer"].inputs["pushed_model"] == nodes["Pusher"].outputs["pushed_model"]


@pytest.mark.parametrize("name", [name for name in setting_names() if not name.startswith("tuner.")])
def test_every_setting_reaches_the_components_that_use_it(name):
    # One value of tokenizer.shared needs untied embeddings; no repetition penalty is below 1.
    settings = ["model.tie_embeddings=false", "decoding.repetition_penalty=2"]
    settings += ["model.positions=rotary"] if name.startswith("model.rotary") else []
    settings += ["model.positions=sinusoidal"] if name == "model.sinusoids" else []
    # Only a language model may keep white space.
    needs = {"tokenizer.whitespace": "language_model"} | dict.fromkeys(NEED_LABELS, "classification")
    task = needs.get(name, "translation")
    config = with_settings(preset("demo", task), settings)
    other = with_settings(config, [f"{name}={other_value(config, name)}"])
    before, after = parameters(config), parameters(other)
    changed = [component for component in before if before[component] != after[component]]
    assert changed == (USERS.get(name) or USERS.get(name.partition(".")[0], ["Trainer"]))


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (["model.positions=learned", "model.max_positions=100"], 100),
        (["model.positions=learned", "model.max_positions=5000"], LONGEST_LIMIT),
        (["model.max_positions=100"], LONGEST_LIMIT),  # rotary positions have no end
        (["model.positions=learned", "model.max_positions=100", "data.max_length=50"], LONGEST_LIMIT),
    ],
)
def test_an_automatic_limit_fits_the_learned_positions(settings, limit):
    config = with_settings(preset("auto", "translation"), settings)
    preprocessing = parameters(config)["Transform"]["preprocessing"]
    assert preprocessing["longest_limit"] == limit
    if not preprocessing["max_length"]:
        with_settings(config, [f"data.max_length={limit}"])  # what Transform may choose is allowed


# The search of Tuner.


def test_a_search_puts_tuner_before_trainer_with_any_preset_and_trainer_takes_its_choice():
    for name in ("auto", "tiny"):
        config = with_settings(preset(name, "translation"), ["tuner.trials=20", "tuner.minutes=30"])
        nodes = {node.id: node for node in pipeline(config).nodes}
        assert list(nodes).index("Tuner") == list(nodes).index("Trainer") - 1
        assert nodes["Trainer"].inputs["hyperparameters"] == nodes["Tuner"].outputs["best_hyperparameters"]
        assert nodes["Tuner"].parameters["tuner_config"] == TunerConfig(trials=20, minutes=30)
    assert "Tuner" not in {node.id for node in pipeline(preset("tiny", "translation")).nodes}


def test_a_search_reads_what_transform_made_of_train_and_eval_only():
    config = with_settings(preset("tiny", "translation"), ["tuner.trials=1"])
    nodes = {node.id: node for node in pipeline(config).nodes}
    assert set(nodes["Tuner"].inputs.values()) == set(nodes["Transform"].outputs.values())


@pytest.mark.parametrize("name", ["auto", "small"])
def test_a_search_changes_neither_the_settings_that_a_person_made_nor_those_outside_its_space(name):
    made = ["training.learning_rate=0.001", "model.dff=99", "training.seed=3"]
    config = with_settings(preset(name, "classification"), ["tuner.trials=20", *made])
    searched = parameters(config)["Tuner"]["searched"]
    assert {"model.d_model", "training.steps", "training.label_smoothing"} <= set(searched)
    assert not {"training.learning_rate", "model.dff", "training.seed", "training.export"} & set(searched)


def test_a_search_without_anything_to_search_is_an_error():
    config = preset("small", "language_model")
    every = [f"{name}={config.value(name)}" for name in with_settings(config, ["tuner.trials=1"]).searched()]
    with pytest.raises(UserError, match=r"there is nothing to search.* Leave out at least one of training.learning_ra"):
        with_settings(config, ["tuner.trials=1", *every])
    shapes = [setting for setting in every if "layers" in setting]
    others = [setting for setting in every if setting not in shapes]
    searched = with_settings(config, ["tuner.trials=1", *others])
    with pytest.raises(UserError, match="there is nothing to search"):
        make_pipeline(searched, "text.txt", "runs", "serving", warm_start="model/Format-Keras/**")


def test_the_trials_of_a_search_start_from_the_earlier_model():
    config = with_settings(preset("tiny", "translation"), ["tuner.trials=1"])
    joined = make_pipeline(config, "text.tsv", "runs", "serving", warm_start="model/Format-Keras/**")
    files = {node.id: node for node in joined.nodes}["ModelFiles"].outputs["files"]
    assert [node.id for node in joined.nodes if files in node.inputs.values()] == ["Tuner", "Trainer", "Evaluator"]


def test_the_columns_of_the_file_get_the_names_of_the_task():
    config = with_columns(preset("demo", "translation"), {"source": "english", "target": "german"})
    assert parameters(config)["ExampleGen"]["columns"] == {"source": "english", "target": "german"}


def test_folders_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    joined = pipeline(preset("demo", "translation"))
    assert joined.pipeline_root == str(tmp_path / "runs")
    (pusher,) = (node for node in joined.nodes if node.id == "Pusher")
    assert pusher.parameters["destination"] == str(tmp_path / "serving")


def test_building_a_pipeline_imports_neither_tensorflow_nor_beam():
    code = """
import sys
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.dag import make_pipeline
make_pipeline(preset("demo", "translation"), "text.tsv", "runs", "serving")
assert not {"tensorflow", "apache_beam", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_users_schema_and_tokenizer_replace_the_inferred_and_learned_ones():
    config = preset("demo", "translation")
    joined = make_pipeline(config, "text.tsv", "runs", "serving", schema_file="my.pbtxt", tokenizer="my.model")
    names = ["RawFiles", "ExampleGen", "StatisticsGen", "SchemaFile", "ImportSchemaGen", "ExampleValidator"]
    assert [node.id for node in joined.nodes][:8] == [*names, "TokenizerFiles", "TransformByTokenizer"]
    validation = make_validation_pipeline(config, "text.tsv", "runs", "my.pbtxt")
    assert [node.id for node in validation.nodes] == names


def test_trainer_and_evaluator_read_an_earlier_model():
    config, pattern = preset("demo", "translation"), "model/Format-Keras/**"
    joined = make_pipeline(config, "text.tsv", "runs", "serving", warm_start=pattern)
    nodes = {node.id: node for node in joined.nodes}
    files = nodes["ModelFiles"].outputs["files"]
    assert [node.id for node in joined.nodes if files in node.inputs.values()] == ["Trainer", "Evaluator"]
    assert nodes["Trainer"].inputs["base_model"] == nodes["Evaluator"].inputs["base_model"] == files
    assert nodes["ModelFiles"].constant.uri == pattern


def test_weights_of_corpora_are_a_parameter_of_the_trainer_only():
    config = preset("demo", "translation")
    weighted, equal, one = (
        {node.id: node for node in make_pipeline(config, text, "runs", "serving").nodes}
        for text in ("own.tsv:3,web.tsv:1", "own.tsv:1,web.tsv:1", "own.tsv")
    )
    assert weighted["Trainer"].parameters["corpus_weights"] == {"own": 3.0, "web": 1.0}
    assert one["Trainer"].parameters["corpus_weights"] is None
    different = [name for name in weighted if weighted[name].parameters != equal[name].parameters]
    assert different == ["Trainer"]


def test_a_pipeline_accepts_a_new_task(monkeypatch):
    class Spam(Classification):
        name = "spam"

    spam = Spam()
    monkeypatch.setitem(TASKS, spam.name, spam)
    config = with_columns(preset("tiny", "spam"), {"text": "mail", "label": "verdict"})
    nodes = parameters(config)
    assert nodes["ExampleGen"]["columns"] == {"text": "mail", "label": "verdict"}
    assert nodes["Transform"]["preprocessing"]["label_columns"] == ["label"]
    assert {nodes[name]["task"] for name in ("Trainer", "Evaluator", "BulkInferrer")} == {"spam"}


@pytest.mark.parametrize(
    ("serving_dir", "destination"),
    [("serving/", os.path.abspath("serving")), ("gs://bucket/models/en_de/", "gs://bucket/models/en_de")],
)
def test_the_serving_folder_becomes_absolute_and_a_url_is_unchanged(serving_dir, destination):
    nodes = {node.id: node for node in make_pipeline(PipelineConfig(), "text.tsv", "runs", serving_dir).nodes}
    assert nodes["Pusher"].parameters["destination"] == destination
