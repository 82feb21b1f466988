"""demo, run and validate: options reach the pipeline, and wrong input is an error before anything runs."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.models.config import TokenizerConfig
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.run_config import read_run_config

# Options.

MODEL_CONFIG = '{"class": "Transformer", "config": {}}'


def test_run_passes_all_options_to_the_pipeline(command, toy, tmp_path):
    arguments = ["run", "data.tsv", "--preset", "tiny", "--source", "en", "--target", "de", "--pipeline-root", "here"]
    settings = ["--set", "training.steps=7", "--set", "model.dff=32", "--serving-dir", "there"]
    outcome = command(*arguments, *settings, "--", "--runner=FlinkRunner", "--set", "--", "x")
    assert outcome.exit_code == 0, outcome.stderr
    config = toy.arguments["config"]
    assert config.file_columns == {"source": "en", "target": "de"}
    assert (config.training.steps, config.model.dff, config.model.d_model) == (7, 32, 64)
    assert (toy.arguments["files"], toy.arguments["serving_dir"]) == ("data.tsv", "there")
    assert toy.beam_options == ("--runner=FlinkRunner", "--set", "--", "x")
    assert (tmp_path / "here" / "metadata.sqlite").is_file()
    assert "Toy  ran" in outcome.stdout
    assert "summary of run 1" in outcome.stdout


def test_data_may_be_named_by_an_option(command, toy):
    assert command("run", "--data", "data.tsv", "--", "--runner=FlinkRunner").exit_code == 0
    assert (toy.arguments["files"], toy.beam_options) == ("data.tsv", ("--runner=FlinkRunner",))


@pytest.mark.parametrize("name", ["run", "validate"])
def test_data_named_by_an_option_and_the_argument_is_an_error(command, name):
    outcome = command(name, "data.tsv", "--data", "other.tsv")
    assert (outcome.exit_code, outcome.error.code) == (2, "data-repeated")
    assert "name all files in one of them, such as --data data.tsv,other.tsv" in outcome.stderr


def test_a_wrong_weight_is_an_error_before_anything_runs(command, tmp_path):
    outcome = command("run", "--data", "data.tsv:0,data.tsv:2")
    assert (outcome.exit_code, outcome.error.code) == (2, "weight-invalid")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options", [["--text=review", "--label=stars"], ["--column=text=review", "--column", "label = stars"]]
)
def test_column_names_of_a_labelled_file_are_options(command, toy, options):
    outcome = command("run", "data.tsv", "--task", "classification", *options)
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.arguments["config"].file_columns == {"text": "review", "label": "stars"}
    assert toy.arguments["serving_dir"] == "serving/classification"


def test_a_url_of_a_serving_folder_is_passed_unchanged(command, toy, blobs):
    outcome = command("run", "data.tsv", "--serving-dir", "memory://bucket/models/en_de")
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.arguments["serving_dir"] == "memory://bucket/models/en_de"


@pytest.mark.parametrize(
    ("option", "pattern"),
    [
        ("user.model", "user.model"),
        ("folder", "folder/*"),
        ("[a]", "[[]a]/*"),
        ("separate", "source=separate/source/*,target=separate/target/*"),
        ("source=a.model,target=folder", "source=a.model,target=folder/*"),
    ],
)
def test_a_schema_and_a_tokenizer_are_passed_to_the_pipeline(command, toy, tmp_path, option, pattern):
    for folder in ("folder", "[a]"):
        (tmp_path / folder).mkdir()
    for column in ("target", "source"):
        (tmp_path / "separate" / column).mkdir(parents=True)
        (tmp_path / "separate" / column / "tokenizer.json").write_text("{}")
    assert command("run", "data.tsv", "--schema", "edited.pbtxt", "--tokenizer", option).exit_code == 0
    assert (toy.arguments["schema_file"], toy.arguments["tokenizer"]) == ("edited.pbtxt", pattern)


@pytest.mark.parametrize("folder", ["model", "model/Format-Keras"])
@pytest.mark.parametrize("arguments", [["run", "data.tsv"], ["demo"]])
def test_a_warm_start_accepts_a_model_or_its_keras_folder(command, toy, tmp_path, arguments, folder):
    (tmp_path / "model" / "Format-Keras" / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "model.weights.h5", "tokenizer/tokenizer.json"):
        (tmp_path / "model" / "Format-Keras" / name).write_text(MODEL_CONFIG)
    assert command(*arguments, "--warm-start", folder, "--tokenizer", "model/Format-Keras/tokenizer").exit_code == 0
    assert toy.arguments["warm_start"] == "model/Format-Keras/**"
    assert toy.arguments["tokenizer"] == "model/Format-Keras/tokenizer/*"


@pytest.fixture
def earlier_model(tmp_path):
    """A Model in a pipeline root, relative to the current folder, with empty files."""
    folder = tmp_path / "runs" / "Trainer" / "model" / "7" / "Format-Keras"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "model.weights.h5", "tokenizer/tokenizer.json"):
        (folder / name).write_text(MODEL_CONFIG)
    return "runs/Trainer/model/7"


@pytest.mark.parametrize(
    ("option", "pattern"),
    [([], "runs/Trainer/model/7/Format-Keras/tokenizer/*"), (["--tokenizer", "spm.model"], "spm.model")],
)
def test_a_warm_start_uses_the_tokenizer_of_the_model_unless_another_one_is_named(
    command, toy, earlier_model, option, pattern
):
    assert command("run", "data.tsv", "--warm-start", earlier_model, *option).exit_code == 0
    assert toy.arguments["tokenizer"] == pattern


def test_a_warm_start_from_the_last_model_needs_one(command, tmp_path):
    outcome = command("run", "data.tsv", "--warm-start", "last")
    assert (outcome.exit_code, outcome.error.code) == (2, "model-missing")
    assert (
        "--warm-start last: no model of translation was pushed or blessed in the pipeline root runs;" in outcome.stderr
    )


@pytest.mark.parametrize("in_config", [True, False])
def test_a_warm_start_from_the_last_model_is_kept_as_its_folder(
    command, toy, earlier_model, tmp_path, monkeypatch, in_config
):
    from seq2serve.pipeline import dag

    (tmp_path / "last.toml").write_text('[files]\nwarm_start = "last"')
    monkeypatch.setattr(dag, "last_model", lambda root, task, metadata: f"{tmp_path}/{root}/Trainer/model/7")
    option = ["--config", "last.toml"] if in_config else ["--warm-start", "last"]
    assert command("run", "data.tsv", *option).exit_code == 0
    folder = f"{tmp_path}/runs/Trainer/model/7"
    assert toy.arguments["warm_start"] == f"{folder}/Format-Keras/**"
    assert toy.arguments["tokenizer"] == f"{folder}/Format-Keras/tokenizer/*"
    config = read_run_config(tmp_path / "runs" / "configs" / "1.toml")
    assert config.warm_start == folder


def tokenizer_description(**changes):
    return json.dumps({**dataclasses.asdict(TokenizerConfig(vocab_size=900, placeholders=16)), **changes})


@pytest.mark.parametrize("setting", ["vocab_size=899", "lowercase=true", "kind=wordpiece", "shared=false"])
@pytest.mark.parametrize("option", ["--tokenizer", "--warm-start"])
def test_a_setting_that_differs_from_the_brought_tokenizer_is_an_error(
    command, earlier_model, tmp_path, option, setting
):
    keras_folder = tmp_path / earlier_model / "Format-Keras"
    (keras_folder / "tokenizer" / "tokenizer.json").write_text(tokenizer_description())
    brought = earlier_model if option == "--warm-start" else str(keras_folder / "tokenizer")
    settings = ["--set", f"tokenizer.{setting}", "--set", "model.tie_embeddings=false"]
    outcome = command("run", "data.tsv", option, brought, *settings)
    assert (outcome.exit_code, outcome.error.code) == (2, "tokenizer-fixed")
    assert outcome.error.fields["settings"] == [f"tokenizer.{setting.partition('=')[0]}"]
    assert f"tokenizer.{setting}" in outcome.stderr


@pytest.mark.parametrize(
    ("name", "description", "setting"),
    [
        ("mine/tokenizer.json", tokenizer_description(), "vocab_size=900"),
        ("mine/tokenizer.json", tokenizer_description(), "vocab_size=901"),  # an upper limit
        ("mine/tokenizer.json", tokenizer_description(), "lowercase=false"),
        ("mine/user.model", "x", "placeholders=4"),  # applied to it
        ("mine/user.model", "x", "kind=sentencepiece"),
    ],
)
def test_a_setting_that_the_brought_tokenizer_has_is_accepted(command, tmp_path, name, description, setting):
    (tmp_path / "mine").mkdir()
    (tmp_path / name).write_text(description)
    outcome = command("run", "data.tsv", "--tokenizer", "mine", "--set", f"tokenizer.{setting}")
    assert outcome.exit_code == 0, outcome.stderr


def test_a_setting_is_compared_with_each_brought_tokenizer(command, tmp_path):
    for column, changes in (("source", {}), ("target", {"lowercase": True})):
        (tmp_path / column).mkdir()
        (tmp_path / column / "tokenizer.json").write_text(tokenizer_description(**changes))
    arguments = ["run", "data.tsv", "--tokenizer", "source=source,target=target"]
    untied = ["--set", "model.tie_embeddings=false", "--set", "tokenizer.shared=false"]
    assert command(*arguments, *untied).exit_code == 0
    outcome = command(*arguments, *untied, "--set", "tokenizer.lowercase=false")
    assert (outcome.exit_code, outcome.error.code) == (2, "tokenizer-fixed")
    assert outcome.error.fields["path"] == "target"


def test_a_sentencepiece_model_cannot_be_lowercased_by_a_setting(command, tmp_path):
    (tmp_path / "user.model").write_text("x")
    outcome = command("run", "data.tsv", "--tokenizer", "user.model", "--set", "tokenizer.lowercase=true")
    assert (outcome.exit_code, outcome.error.code) == (2, "tokenizer-fixed")


def test_the_state_of_the_optimizer_is_that_of_the_same_execution(command, toy, earlier_model, tmp_path):
    arguments = ["run", "data.tsv", "--warm-start", earlier_model, "--set", "training.warm_start_optimizer=true"]
    outcome = command(*arguments)
    checkpoints = tmp_path / "runs" / "Trainer" / "model_run" / "7" / "checkpoints"
    assert (outcome.exit_code, outcome.error.code) == (2, "optimizer-missing")
    assert outcome.error.fields == {"path": str(checkpoints)}
    checkpoints.mkdir(parents=True)
    (checkpoints / "ckpt-200.index").write_text("x")
    assert command(*arguments).exit_code == 0
    expected = f"model=runs/Trainer/model/7/Format-Keras/**,optimizer={checkpoints}/ckpt-*"
    assert toy.arguments["warm_start"] == expected


def test_demo_is_a_run_on_the_corpus(command, toy, tmp_path):
    outcome = command("demo", "--language", "fr", "--set", "training.steps=9", "--", "--x")
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.arguments["files"] == str(tmp_path / "data.tsv")
    assert toy.arguments["serving_dir"] == "serving/en-fr"
    assert toy.arguments["config"].training.steps == 9
    assert toy.beam_options == ("--x",)
    assert "summary of run 1" in outcome.stdout


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_the_demo_of_another_task_has_its_own_preset_and_serving_folder(command, toy, task):
    outcome = command("demo", "--task", task)
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.arguments["config"] == preset("demo", task)
    assert toy.arguments["serving_dir"] == f"serving/{task}"


# Config files.

CONFIG = """
task = "classification"
preset = "tiny"
[files]
data = "../data.tsv"
[columns]
text = "review"
label = "stars"
[training]
steps = 7
patience = 3
"""


@pytest.fixture
def config_file(tmp_path):
    """A config file in a folder below the current one."""
    path = tmp_path / "conf" / "reviews.toml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def test_a_config_file_names_data_columns_task_preset_and_settings(command, toy, config_file, tmp_path):
    outcome = command("run", "--config", config_file)
    assert outcome.exit_code == 0, outcome.stderr
    config = toy.arguments["config"]
    assert toy.arguments["files"] == str(tmp_path / "data.tsv")
    assert config.file_columns == {"text": "review", "label": "stars"}
    assert (config.task, config.training.steps, config.training.patience) == ("classification", 7, 3)
    assert config.model == preset("tiny", "classification").model
    assert toy.arguments["serving_dir"] == "serving/classification"


def test_the_command_line_wins_over_the_config_file(command, toy, config_file):
    options = ["--preset", "demo", "--label", "grade", "--set", "training.steps=9"]
    outcome = command("run", "data.tsv", "--config", config_file, *options, "--", "--runner=FlinkRunner")
    assert outcome.exit_code == 0, outcome.stderr
    config = toy.arguments["config"]
    assert toy.arguments["files"] == "data.tsv"
    assert config.file_columns == {"text": "review", "label": "grade"}
    assert (config.training.steps, config.training.patience) == (9, 3)
    assert config.model == preset("demo", "classification").model
    assert toy.beam_options == ("--runner=FlinkRunner",)


def test_beam_options_may_follow_a_config_file_that_names_the_data(command, toy, config_file, tmp_path):
    outcome = command("run", "--config", config_file, "--", "--runner=FlinkRunner", "--x")
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.arguments["files"] == str(tmp_path / "data.tsv")
    assert toy.beam_options == ("--runner=FlinkRunner", "--x")


def test_a_demo_takes_task_and_settings_from_a_config_file_but_no_data(command, toy, config_file):
    outcome = command("demo", "--config", config_file)
    assert (outcome.exit_code, outcome.error.code) == (2, "data-unexpected")
    assert f"seq2serve run --config {config_file}" in outcome.stderr
    config_file.write_text("task = 'classification'\n[training]\npatience = 3")
    assert command("demo", "--config", config_file).exit_code == 0
    demo = preset("demo", "classification")
    expected = dataclasses.replace(demo, training=dataclasses.replace(demo.training, patience=3))
    assert toy.arguments["config"] == expected


@pytest.mark.parametrize("name", ["demo", "run", "validate"])
def test_a_wrong_config_file_is_an_error_before_anything_runs(command, config_file, tmp_path, name):
    config_file.write_text("[training]\nsteppes = 7")
    outcome = command(name, "--config", config_file)
    assert (outcome.exit_code, outcome.error.code) == (2, "name-unknown")
    assert outcome.stderr.startswith(f"seq2serve: {config_file}: unknown setting 'training.steppes' (did you mean tra")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "data.tsv"]


def test_an_error_of_a_component_names_the_config_file_whose_value_it_refuses(command, toy, config_file):
    toy.error = UserError("no column 'review'; raise training.patience", code="x", column="review")
    outcome = command("run", "--config", config_file, "--set", "training.patience=4")
    assert (outcome.exit_code, outcome.error.code) == (2, "x")
    assert outcome.stderr.endswith(f"raise training.patience (set in {config_file}: columns.text)\n")


@pytest.mark.parametrize("name", ["run", "validate"])
def test_a_missing_file_names_the_config_file_that_names_it(command, config_file, tmp_path, name):
    (tmp_path / "data.tsv").unlink()
    outcome = command(name, "--config", config_file)
    assert (outcome.exit_code, outcome.error.code) == (2, "file-missing")
    assert outcome.stderr.endswith(f"(set in {config_file}: files.data)\n")


@pytest.mark.parametrize("options", [[], ["--tokenizer", "mine", "--set", "tokenizer.placeholders=4"]])
def test_a_run_writes_a_config_that_repeats_it_in_any_folder(command, toy, tmp_path, monkeypatch, options):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "spm.model").write_text("x")
    more = ["--preset", "tiny", "--source", "en", "--set", "training.steps=7", "--schema", "edited.pbtxt", *options]
    outcome = command("run", "data.tsv", *more)
    assert outcome.exit_code == 0, outcome.stderr
    first = toy.arguments
    path = tmp_path / "runs" / "configs" / "1.toml"
    assert f"{path}" in command("runs", "1").stdout
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = command("run", "--config", path, "--pipeline-root", "../runs")
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.arguments["config"] == dataclasses.replace(
        first["config"], columns=first["config"].file_columns, tokenizer=toy.arguments["config"].tokenizer
    )
    assert toy.arguments["config"].tokenizer.placeholders == first["config"].tokenizer.placeholders
    absolute = {
        name: str(tmp_path / first[name]) if first[name] else "" for name in ("files", "schema_file", "tokenizer")
    }
    assert {name: toy.arguments[name] for name in absolute} == absolute
    again = (tmp_path / "runs" / "configs" / "2.toml").read_text()
    assert again == path.read_text()


# Wrong input.


@pytest.mark.parametrize(
    ("arguments", "code", "fields"),
    [
        (["nowhere.tsv"], "file-missing", {"path": "nowhere.tsv"}),
        (["data.tsv", "--task", "translate"], "name-unknown", {"kind": "task", "name": "translate"}),
        (["data.tsv", "--preset", "tiney"], "name-unknown", {"kind": "preset", "name": "tiney"}),
        (["data.tsv", "--set", "model.dfff=1"], "name-unknown", {"kind": "setting", "name": "model.dfff"}),
        (["data.tsv", "--set", "training.steps=x"], "setting-invalid", {"setting": "training.steps", "value": "x"}),
        (["data.tsv", "--source", "a", "--target", "a"], "settings-conflict", {}),
        (["data.tsv", "--source", "a", "--column", "source=b"], "column-repeated", {"column": "source"}),
        (["data.tsv", "--column", "source"], "column-malformed", {"column": "source"}),
        (["data.tsv", "--column", "source = "], "column-malformed", {"column": "source = "}),
        (["data.tsv", "--source", " "], "column-unnamed", {"column": "source"}),
        (["data.tsv", "--label", "a"], "name-unknown", {"kind": "column of translation", "name": "label"}),
        ([], "data-missing", {}),
        (["--", "--runner=DirectRunner"], "data-missing", {}),
        (["data.tsv", "--warm-start", "nowhere"], "model-missing", {"path": "nowhere"}),
        (
            ["data.tsv", "--set", "training.warm_start_optimizer=true"],
            "warm-start-missing",
            {"setting": "training.warm_start_optimizer"},
        ),
    ],
)
def test_wrong_input_is_an_error_before_anything_runs(command, arguments, code, fields):
    outcome = command("run", *arguments)
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, code, fields)
    assert outcome.stderr == f"seq2serve: {outcome.error}\n"
    assert outcome.stdout == ""


def test_a_pipeline_root_that_cannot_be_written_is_an_error(command, tmp_path):
    outcome = command("run", "data.tsv", "--pipeline-root", "data.tsv")
    assert (outcome.exit_code, outcome.error.code) == (2, "pipeline-root-unwritable")
    assert outcome.error.fields == {"path": str(tmp_path / "data.tsv")}


def test_invalid_settings_create_no_files(command, tmp_path):
    command("run", "data.tsv", "--set", "model.dfff=1")
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


def test_a_url_that_cannot_be_reached_creates_no_files(command, tmp_path):
    outcome = command("run", "data.tsv", "--pipeline-root", "nowhere://bucket/runs")
    assert (outcome.exit_code, outcome.error.code) == (2, "url-unsupported")
    assert "pip install 'seq2serve[gcp]'" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


@pytest.mark.parametrize("name", ["demo", "run"])
def test_an_unknown_task_is_an_error(command, name):
    outcome = command(name, *(["data.tsv"] if name == "run" else []), "--task", "summarisation")
    assert (outcome.exit_code, outcome.error.code) == (2, "name-unknown")
    assert outcome.error.fields == {"kind": "task", "name": "summarisation"}


# Validation.


def test_validate_reports_row_counts_and_errors_without_training(new_finished_run):
    validate = [sys.executable, "-m", "seq2serve", "validate"]
    done = new_finished_run.execute([*validate, new_finished_run.file])
    assert done.returncode == 0, done.stderr
    assert "640 rows: " in done.stdout
    assert not (new_finished_run.folder / "runs" / "Transform").exists()
    schema = new_finished_run.output("SchemaGen", "schema").path("schema.pbtxt")
    edited = new_finished_run.folder / "edited.pbtxt"
    edited.write_text(Path(schema).read_text().replace('name: "target"', 'name: "answer"'))
    done = new_finished_run.execute([*validate, new_finished_run.file, "--schema", str(edited)])
    assert done.returncode == 2
    assert "train target: the column is in the data but not in the schema" in done.stderr
    assert "train answer: the column is in the schema but not in the data" in done.stderr
    assert "ExampleGen        reused" in done.stdout


# Beam options.

DATAFLOW = ["--project=p", "--runner=DataflowRunner"]


def test_a_local_path_is_an_error_before_anything_runs(command, tmp_path):
    outcome = command("run", "data.tsv", "--", *DATAFLOW)
    assert (outcome.exit_code, outcome.error.code) == (2, "path-unreachable")
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


def test_urls_are_allowed_on_dataflow(command, toy, tmp_path, blobs):
    blobs["memory://bucket/a.tsv"] = b"source\ttarget\n"
    locations = ["--pipeline-root", "memory://bucket/runs/", "--serving-dir", "memory://bucket/models"]
    outcome = command("run", "memory://bucket/a.tsv", *locations, "--", "--runner=DataflowRunner")
    assert outcome.exit_code == 0, outcome.stderr
    assert toy.beam_options == ("--runner=DataflowRunner",)
    assert (tmp_path / "runs-memory-bucket-runs" / "metadata.sqlite").is_file()
