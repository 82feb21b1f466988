"""The command line: help is cheap, mistakes are explained, and every kind of ending has its exit code."""

import inspect
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.artifact import Model
from components.component import Context, Output, component, raw_files
from components.errors import NotBlessedError, UserError
from pipeline.__main__ import app
from pipeline.config import PipelineConfig, preset
from pipeline.dag import make_pipeline
from pipeline.runner import Pipeline, RunResult

REPOSITORY = Path(__file__).parents[2]
SEEN: dict[str, object] = {}


@component
def Toy(model: Output[Model], context: Context) -> None:
    """Does what the test wants done."""
    SEEN["beam_options"] = context.beam_options
    SEEN["do"]()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in an empty folder, with one toy component in the place of the real pipeline."""

    def toy_pipeline(*values: object, **named: object) -> Pipeline:
        SEEN.update(inspect.signature(make_pipeline).bind(*values, **named).arguments)
        return Pipeline("toy", SEEN["pipeline_root"], (raw_files(SEEN["files"]).node, Toy()))

    def print_summary(result: RunResult, config: PipelineConfig) -> None:
        print(f"summary of run {result.run_id}, {config.task}")

    SEEN.clear()
    SEEN["do"] = lambda: None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.tsv").write_text("source\ttarget\n")
    modules = {
        "pipeline.dag": {"make_pipeline": toy_pipeline},
        "pipeline.summary": {"print_summary": print_summary},
        "pipeline.corpora": {"fetch_corpus": lambda task, language: str(tmp_path / "data.tsv")},
    }
    for name, contents in modules.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    # What these set is this process's, not the command's.
    for module in ("pipeline.__main__", "pipeline.serving_commands"):
        monkeypatch.setattr(f"{module}.set_up_logs", lambda verbose: None)
    return lambda *arguments: CliRunner().invoke(app, arguments, terminal_width=100)


# Help.


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["demo", "--help"], ["lineage", "--help"]])
def test_help_imports_nothing_slow(arguments):
    code = f"""
import sys
sys.argv = ["seq2serve", *{arguments}]
from pipeline.__main__ import main
try:
    main()
finally:
    slow = {{"tensorflow", "apache_beam", "sqlalchemy", "keras", "numpy", "portalocker"}} & set(sys.modules)
    assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: seq2serve" in done.stdout


def test_help_names_every_command_and_option(command):
    overview = command("--help").output
    assert all(name in overview for name in ("demo", "run", "runs", "report", "lineage", "predict"))
    text = command("run", "--help").output
    for option in ("FILE", "--task", "--preset", "--source", "--target", "--pipeline-root", "--serving-dir", "--set"):
        assert option in text
    assert "-- BEAM_OPTION" in text


def test_no_command_shows_help(command):
    assert "Usage" in command().output


# What reaches the pipeline.


def test_run_hands_everything_on(command, tmp_path):
    arguments = ["run", "data.tsv", "--preset", "tiny", "--source", "en", "--target", "de", "--pipeline-root", "here"]
    settings = ["--set", "training.steps=7", "--set", "model.dff=32", "--serving-dir", "there"]
    result = command(*arguments, *settings, "--", "--runner=FlinkRunner", "--set", "--", "x")
    assert result.exit_code == 0, result.output
    config = SEEN["config"]
    assert (config.data.source, config.data.target) == ("en", "de")
    assert (config.training.steps, config.model.dff, config.model.d_model) == (7, 32, 64)
    assert (SEEN["files"], SEEN["serving_dir"]) == ("data.tsv", "there")
    assert SEEN["beam_options"] == ("--runner=FlinkRunner", "--set", "--", "x")
    assert (tmp_path / "here" / "metadata.sqlite").is_file()
    assert "Toy  ran" in result.output
    assert "summary of run 1" in result.output


@pytest.mark.parametrize(
    ("file", "root", "serving_dir", "message"),
    [
        ("gs://b/a.tsv", "runs", "gs://b/models", "the pipeline root is a folder, runs"),
        ("train=gs://b/a.tsv,test=data.tsv", "gs://b/runs", "gs://b/models", "the text is a file, data.tsv"),
        ("gs://b/a.tsv", "gs://b/runs", "serving", "--serving-dir is a folder, serving"),
    ],
)
def test_what_dataflow_cannot_reach_is_refused_before_it_costs_anything(
    command, tmp_path, file, root, serving_dir, message
):
    where = ["--pipeline-root", root, "--serving-dir", serving_dir]
    result = command("run", file, *where, "--", "--project=p", "--runner=DataflowRunner")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("command_name", "message"),
    [("run", "pip install 'seq2serve[gcp]'"), ("runs", "runs-nowhere-bucket-runs"), ("tensorboard", "no folder")],
)
def test_a_pipeline_root_that_cannot_be_reached_leaves_nothing_behind(command, tmp_path, command_name, message):
    before = sorted(tmp_path.iterdir())
    file = ["data.tsv"] if command_name == "run" else []
    result = command(command_name, *file, "--pipeline-root", "nowhere://bucket/runs")
    assert result.exit_code == 2
    assert message in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_with_everything_at_urls_dataflow_may_work(command, tmp_path, blobs):
    blobs["memory://bucket/a.tsv"] = b"source\ttarget\n"
    where = ["--pipeline-root", "memory://bucket/runs/", "--serving-dir", "memory://bucket/models"]
    result = command("run", "memory://bucket/a.tsv", *where, "--", "--runner=DataflowRunner")
    assert result.exit_code == 0, result.output
    assert SEEN["beam_options"] == ("--runner=DataflowRunner",)
    assert (tmp_path / "runs-memory-bucket-runs" / "metadata.sqlite").is_file()


def test_a_url_to_push_to_stays_as_it_is(command):
    result = command("run", "data.tsv", "--serving-dir", "gs://bucket/models/en_de")
    assert result.exit_code == 0, result.output
    assert SEEN["serving_dir"] == "gs://bucket/models/en_de"


def test_demo_is_a_run_on_the_corpus(command, tmp_path):
    result = command("demo", "--language", "fr", "--set", "training.steps=9", "--", "--x")
    assert result.exit_code == 0, result.output
    assert SEEN["files"] == str(tmp_path / "data.tsv")
    assert SEEN["serving_dir"] == "serving/en-fr"
    assert SEEN["config"].training.steps == 9
    assert SEEN["beam_options"] == ("--x",)
    assert "summary of run 1" in result.output


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_another_tasks_demo_is_that_tasks(command, task):
    result = command("demo", "--task", task)
    assert result.exit_code == 0, result.output
    assert SEEN["config"] == preset("demo", task)
    assert SEEN["serving_dir"] == f"serving/{task}"


def test_a_labelled_file_may_name_its_columns_as_it_likes(command):
    result = command("run", "data.tsv", "--task", "classification", "--text", "review", "--label", "stars")
    assert result.exit_code == 0, result.output
    assert (SEEN["config"].data.text, SEEN["config"].data.label) == ("review", "stars")
    assert SEEN["serving_dir"] == "serving/classification"


def test_an_unknown_demo_names_the_tasks(command):
    result = command("demo", "--task", "summarisation")
    assert result.exit_code == 2
    assert "translation, classification, language_model" in result.stderr


# Endings.


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (UserError("bad row"), 2, "seq2serve: Toy: bad row\n"),
        (NotBlessedError("too weak"), 3, "seq2serve: Toy: too weak; look at `seq2serve report`\n"),
        (KeyboardInterrupt(), 130, "seq2serve: interrupted; run the same command again to go on\n"),
    ],
)
def test_exit_codes(command, error, exit_code, message):
    SEEN["do"] = raising(error)
    result = command("run", "data.tsv")
    assert (result.exit_code, result.stderr) == (exit_code, message)


def test_a_bug_in_a_component_has_one_message_and_a_log(command):
    SEEN["do"] = raising(ZeroDivisionError("division by zero"))
    result = command("run", "data.tsv")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "seq2serve: Toy failed: ZeroDivisionError: division by zero"
    log = Path(second.removeprefix("Stack trace: "))
    assert "in fail" in log.read_text()


def test_verbose_shows_the_stack_trace(command):
    SEEN["do"] = raising(ZeroDivisionError("division by zero"))
    result = command("run", "data.tsv", "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "in fail" in result.stderr


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("theirs.model", "theirs.model"),
        ("folder", "folder/*"),
        ("[a]", "[[]a]/*"),
        ("apart", "source=apart/source/*,target=apart/target/*"),
        ("source=a.model,target=folder", "source=a.model,target=folder/*"),
    ],
)
def test_a_schema_and_a_tokenizer_of_the_users_are_handed_on(command, tmp_path, given, pattern):
    for folder in ("folder", "[a]"):
        (tmp_path / folder).mkdir()
    for column in ("target", "source"):
        (tmp_path / "apart" / column).mkdir(parents=True)
        (tmp_path / "apart" / column / "tokenizer.json").write_text("{}")
    assert command("run", "data.tsv", "--schema", "kept.pbtxt", "--tokenizer", given).exit_code == 0
    assert (SEEN["schema_file"], SEEN["tokenizer"]) == ("kept.pbtxt", pattern)


@pytest.mark.parametrize("which", ["model", "model/Format-Keras"])
@pytest.mark.parametrize("arguments", [["run", "data.tsv"], ["demo"]])
def test_a_model_to_start_from_is_found_in_its_folder(command, tmp_path, arguments, which):
    (tmp_path / "model" / "Format-Keras" / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "model.weights.h5", "tokenizer/tokenizer.json"):
        (tmp_path / "model" / "Format-Keras" / name).write_text("x")
    assert command(*arguments, "--warm-start", which, "--tokenizer", "model/Format-Keras/tokenizer").exit_code == 0
    assert (SEEN["warm_start"], SEEN["tokenizer"]) == ("model/Format-Keras/**", "model/Format-Keras/tokenizer/*")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.tsv"], "no file 'nowhere.tsv'"),
        (["run", "data.tsv", "--task", "translate"], "unknown task 'translate' (did you mean translation?)"),
        (["run", "data.tsv", "--preset", "tiney"], "unknown preset 'tiney' (did you mean tiny?)"),
        (["run", "data.tsv", "--set", "model.dfff=1"], "unknown setting 'model.dfff' (did you mean model.dff?)"),
        (["run", "data.tsv", "--set", "training.steps=x"], "training.steps must be a whole number, got 'x'"),
        (["run", "data.tsv", "more.tsv"], "unexpected argument 'more.tsv'"),
        (["run", "data.tsv", "--source", "a", "--target", "a"], "both 'a': name two columns"),
        (["run", "data.tsv", "--warm-start", "nowhere"], "no model to start from in nowhere: give the folder of a"),
        (["run", "data.tsv", "--pipeline-root", "data.tsv"], "cannot write to the pipeline root"),
        (["run"], "Missing argument 'FILE'"),
        (["run", "data.tsv", "--present", "tiny"], "No such option: --present"),
        (["demo", "--set", "steps=1"], "did you mean training.steps?"),
        (["runs"], "no runs in runs: there is no"),
        (["lineage", "1", "--pipeline-root", "nowhere"], "no runs in nowhere: there is no"),
        (["predict", "--model", "nowhere", "Hello"], "no SavedModel in nowhere"),
        (["predict", "--model", "nowhere"], "Missing argument 'TEXT'"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_message(command, arguments, message):
    result = command(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_bad_settings_leave_nothing_behind(command, tmp_path):
    command("run", "data.tsv", "--set", "model.dfff=1")
    assert [path.name for path in tmp_path.iterdir()] == ["data.tsv"]


# History.


def test_runs_and_lineage_tell_what_happened(command):
    command("run", "data.tsv")
    SEEN["do"] = raising(UserError("bad row"))
    command("run", "data.tsv")
    command("run", "data.tsv", "--pipeline-root", "other")

    lines = command("runs").output.splitlines()
    assert lines[0].split() == ["RUN", "PIPELINE", "STARTED", "SECONDS", "STATE", "RAN", "REUSED", "MESSAGE"]
    assert [(line.split()[0], line.split()[1], *line.split()[5:]) for line in lines[1:]] == [
        ("1", "toy", "COMPLETE", "1", "0"),
        ("2", "toy", "COMPLETE", "0", "1"),
    ]
    failed = command("runs", "--pipeline-root", "other").output.splitlines()[1]
    assert failed.split()[5:] == ["FAILED", "0", "0", "Toy:", "bad", "row"], "what failed did not run to its end"

    assert "2 model" in command("runs", "1").output
    assert "2 model" in command("runs", "2").output, "a reused component shows the artifacts it stands for"
    lineage = command("lineage", "runs/Toy/model/1").output
    assert lineage == command("lineage", "2").output
    assert "Toy, run 1" in lineage
    assert "Made from\nnothing" in lineage


@pytest.mark.parametrize(
    "arguments", [["runs", "9"], ["runs", "9" * 23], ["lineage", "9"], ["lineage", "9" * 23], ["lineage", "nowhere"]]
)
def test_unknown_history_is_bad_input(command, arguments):
    command("run", "data.tsv")
    result = command(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("seq2serve: no ")


def test_a_shared_store_is_named_by_an_option_or_the_environment(command, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/shared.sqlite"
    assert command("run", "data.tsv", "--metadata", url).exit_code == 0
    assert not (tmp_path / "runs" / "metadata.sqlite").exists()
    assert "keeps its metadata in a store that it shares" in command("run", "data.tsv").output
    assert "--metadata" in command("runs").output
    monkeypatch.setenv("SEQ2SERVE_METADATA", url)
    assert "reused" in command("run", "data.tsv").output
    assert command("runs").output.count("COMPLETE") == 2
    assert "Toy" in command("runs", "2").output
    assert "Artifact" in command("lineage", "1").output


# Predicting.


@pytest.mark.parametrize(
    ("given", "used"),
    [("serving", "serving/10"), ("serving/9", "serving/9"), ("model", "model/Format-Serving")],
)
def test_predict_finds_the_model_and_prints_a_line_a_text(command, tmp_path, monkeypatch, given, used):
    from models.saved_model import Signature

    class EchoRuntime:
        def __init__(self, model_dir: str) -> None:
            self.model_dir = os.path.relpath(model_dir)
            self.signatures = {"serving_default": Signature({"text": None}, {})}

        def run(self, signature: str, inputs: dict[str, list[str]]) -> dict[str, list[bytes]]:
            return {"translation": [f"{self.model_dir} {signature} {text}".encode() for text in inputs["text"]]}

    monkeypatch.setattr("pipeline.predictions.SavedModelRuntime", EchoRuntime)
    for folder in ("serving/9", "serving/10", "model/Format-Serving"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "saved_model.pb").write_text("")
    (tmp_path / "serving" / "11").mkdir()  # a version that is no model
    result = command("predict", "--model", given, "one", "--", "-5 degrees")
    assert result.output.splitlines() == [f"{used} serving_default one", f"{used} serving_default -5 degrees"]


# Validating.


def test_validate_says_what_it_read_and_what_is_wrong_and_trains_nothing(new_house):
    validate = [sys.executable, "-m", "pipeline", "validate"]
    done = new_house.execute([*validate, new_house.file])
    assert done.returncode == 0, done.stderr
    assert "640 rows: " in done.stdout
    assert not (new_house.folder / "runs" / "Transform").exists()
    schema = new_house.output("SchemaGen", "schema").path("schema.pbtxt")
    kept = new_house.folder / "kept.pbtxt"
    kept.write_text(Path(schema).read_text().replace('name: "target"', 'name: "answer"'))
    done = new_house.execute([*validate, new_house.file, "--schema", str(kept)])
    assert done.returncode == 2
    assert "train target: the column is in the data and not in the schema" in done.stderr
    assert "train answer: the column is in the schema and not in the data" in done.stderr
    assert "ExampleGen        reused" in done.stdout
