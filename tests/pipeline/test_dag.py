"""The pipeline is ten components and a look at the result, in data order, and every setting reaches one of them."""

import dataclasses
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from components.errors import UserError
from components.task_classification import CLASSIFICATION
from components.tasks import TASKS
from pipeline.config import PipelineConfig, preset, setting_names, with_settings
from pipeline.dag import make_pipeline, make_validation_pipeline
from pipeline.fingerprint import as_json
from pipeline.runner import Pipeline

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
# Where a setting is used first; what is not named here is the Trainer's.
FIRST_USE = {
    "data": "ExampleGen",
    "data.max_length": "Transform",
    "data.too_long": "Transform",
    "tokenizer": "Transform",
    "evaluation": "Evaluator",
}


def pipeline(config: PipelineConfig) -> Pipeline:
    return make_pipeline(config, "text.tsv", "runs", "serving")


def parameters(config: PipelineConfig) -> dict[str, dict]:
    return {node.id: as_json(node.id, node.parameters) for node in pipeline(config).nodes}


def other_value(config: PipelineConfig, name: str) -> object:
    """Returns a value that a setting may have and has not."""
    section, key = name.split(".")
    value = getattr(getattr(config, section), key)
    hint = typing.get_type_hints(type(getattr(config, section)))[key]
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    if hint is bool:
        return not value
    if hint is int:
        return value * 2 or 1
    return f"other_{value}" if hint is str else (value * 0.95 or 0.1)


def test_the_components_stand_in_the_order_of_the_data():
    assert [node.id for node in pipeline(preset("demo", "translation")).nodes] == ["RawFiles", *COMPONENTS]


def test_what_is_judged_is_what_is_pushed_and_only_with_both_blessings():
    nodes = {node.id: node for node in pipeline(preset("demo", "translation")).nodes}
    model = nodes["Trainer"].outputs["model"]
    assert all(nodes[name].inputs["model"] == model for name in ("Evaluator", "InfraValidator", "Pusher"))
    assert nodes["Pusher"].inputs["model_blessing"] == nodes["Evaluator"].outputs["blessing"]
    assert nodes["Pusher"].inputs["infra_blessing"] == nodes["InfraValidator"].outputs["blessing"]
    assert nodes["BulkInferrer"].inputs["pushed_model"] == nodes["Pusher"].outputs["pushed_model"]


# The columns are other tasks'.
@pytest.mark.parametrize("name", sorted({*setting_names()} - {"data.text", "data.label"}))
def test_every_setting_reaches_one_component(name):
    config = with_settings(preset("demo", "translation"), ["model.tie_embeddings=false"])  # tokenizers apart need it
    other = with_settings(config, [f"{name}={other_value(config, name)}"])
    before, after = parameters(config), parameters(other)
    changed = [component for component in before if before[component] != after[component]]
    assert changed == [FIRST_USE.get(name) or FIRST_USE.get(name.partition(".")[0], "Trainer")]


def test_the_users_columns_get_the_tasks_names():
    config = with_settings(preset("demo", "translation"), ["data.source=english", "data.target=german"])
    assert parameters(config)["ExampleGen"]["columns"] == {"source": "english", "target": "german"}


def test_folders_do_not_depend_on_where_one_stands_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = pipeline(preset("demo", "translation"))
    assert made.pipeline_root == str(tmp_path / "runs")
    (pusher,) = (node for node in made.nodes if node.id == "Pusher")
    assert pusher.parameters["destination"] == str(tmp_path / "serving")


def test_an_unknown_task_is_bad_input():
    with pytest.raises(UserError, match="translate"):
        preset("demo", "translate")


def test_a_pipeline_is_built_without_tensorflow_and_beam():
    code = """
import sys
from pipeline.config import preset
from pipeline.dag import make_pipeline
make_pipeline(preset("demo", "translation"), "text.tsv", "runs", "serving")
assert not {"tensorflow", "apache_beam", "keras"} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_a_user_brings_takes_the_place_of_what_would_be_learned():
    made = make_pipeline(preset("demo", "translation"), "text.tsv", "runs", "serving", "kept.pbtxt", "theirs.model")
    names = ["RawFiles", "ExampleGen", "StatisticsGen", "SchemaFile", "ImportSchemaGen", "ExampleValidator"]
    assert [node.id for node in made.nodes][:8] == [*names, "TokenizerFiles", "TransformByTokenizer"]
    looked_at = make_validation_pipeline(preset("demo", "translation"), "text.tsv", "runs", "kept.pbtxt")
    assert [node.id for node in looked_at.nodes] == names


def test_an_earlier_model_feeds_the_trainer_alone():
    kept = {"warm_start": "model/Format-Keras/**"}
    made = make_pipeline(preset("demo", "translation"), "text.tsv", "runs", "serving", **kept)
    nodes = {node.id: node for node in made.nodes}
    files = nodes["ModelFiles"].outputs["files"]
    assert [node.id for node in made.nodes if files in node.inputs.values()] == ["Trainer"]
    assert nodes["Trainer"].inputs["base_model"] == files
    assert nodes["ModelFiles"].constant.uri == "model/Format-Keras/**"


def test_a_task_of_ones_own_is_one_more_value(monkeypatch):
    spam = dataclasses.replace(CLASSIFICATION, name="spam", headline="macro_f1")
    monkeypatch.setitem(TASKS, spam.name, spam)
    config = with_settings(preset("tiny", "spam"), ["data.text=mail", "data.label=verdict"])
    nodes = parameters(config)
    assert nodes["ExampleGen"]["columns"] == {"text": "mail", "label": "verdict"}
    assert nodes["Transform"]["preprocessing"]["label_columns"] == ["label"]
    assert {nodes[name]["task"] for name in ("Trainer", "Evaluator", "BulkInferrer")} == {"spam"}


@pytest.mark.parametrize(
    ("given", "destination"),
    [("serving/", os.path.abspath("serving")), ("gs://bucket/models/en_de/", "gs://bucket/models/en_de")],
)
def test_a_path_to_push_to_is_made_whole_and_a_url_is_left_alone(given, destination):
    nodes = {node.id: node for node in make_pipeline(PipelineConfig(), "text.tsv", "runs", given).nodes}
    assert nodes["Pusher"].parameters["destination"] == destination
