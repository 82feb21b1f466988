"""The runner reuses what is unchanged, runs what changed and reports why, and leaves nothing behind after a failure."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2serve.components.base.artifact import Examples, HyperParameters, Model, RawFiles
from seq2serve.components.base.component import Context, Input, Node, Output, component, raw_files
from seq2serve.components.base.errors import ComponentError, NotBlessedError, UserError
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.listeners import RunListener
from seq2serve.pipeline.running.pipeline import NodeResult, Pipeline, RunResult
from seq2serve.pipeline.running.runner import Runner
from seq2serve.pipeline.running.state_folder import StateFolder


@dataclasses.dataclass(frozen=True)
class ToyTraining:
    """Settings of the toy trainer."""

    steps: int = 100
    kind: str = "toy"


CALLS: list[str] = []
# What Train does before it writes its model: a function of the scratch folder.
TRAIN: dict[str, Callable[[Path], object]] = {"do": lambda scratch: None}


@component
def Count(files: Input[RawFiles], examples: Output[Examples]) -> None:
    """Counts the bytes of the files."""
    CALLS.append("Count")
    examples.properties["bytes"] = sum(file["bytes"] for file in files.properties["files"])
    Path(examples.path("count.txt")).write_text(str(examples.properties["bytes"]))


@component
def Train(examples: Input[Examples], model: Output[Model], training: ToyTraining, context: Context) -> None:
    """Calls the test's function, then writes a model that contains its input and its settings."""
    CALLS.append("Train")
    TRAIN["do"](Path(context.scratch))
    Path(model.path("model.txt")).write_text(f"{Path(examples.path('count.txt')).read_text()} x {training.steps}")


@component
def Evaluate(model: Input[Model], examples: Input[Examples], evaluation: Output[Examples]) -> None:
    """Copies the model."""
    CALLS.append("Evaluate")
    Path(evaluation.path("evaluation.txt")).write_text(Path(model.path("model.txt")).read_text())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of 18 bytes. The toy components are reset, too."""
    CALLS.clear()
    TRAIN["do"] = lambda scratch: None
    path = tmp_path / "data.tsv"
    path.write_text("source\ttarget\na\tb\n")
    return path


def toy_pipeline(root: Path, data: str | Path, training: ToyTraining = ToyTraining(), name: str = "toy") -> Pipeline:
    files = raw_files(str(data))
    count = Count(files=files)
    train = Train(examples=count.outputs["examples"], training=training)
    evaluate = Evaluate(model=train.outputs["model"], examples=count.outputs["examples"])
    return Pipeline(name, str(root), (files.node, count, train, evaluate))


def run(root: Path, data: str | Path, **changes) -> RunResult:
    """Runs the toy pipeline; CALLS then has the components that were executed."""
    CALLS.clear()
    return Runner(toy_pipeline(root, data, **changes)).run()


def folders(root: Path, name: str) -> list[str]:
    return sorted(os.listdir(root / name))


def reasons(result: RunResult) -> dict[str, str]:
    return {name: node.reason for name, node in result.nodes.items()}


# The config of a run.


def test_the_config_of_a_pipeline_is_kept_with_each_run_even_if_it_fails(tmp_path, data):
    pipeline = toy_pipeline(tmp_path / "root", data)
    Runner(pipeline).run()
    Runner(dataclasses.replace(pipeline, config=lambda chosen: "first")).run()
    TRAIN["do"] = lambda scratch: 1 / 0
    failing = toy_pipeline(tmp_path / "root", data, ToyTraining(steps=5))
    with pytest.raises(ComponentError):
        Runner(dataclasses.replace(failing, config=lambda chosen: "second")).run()
    configs = {path.name: path.read_text() for path in (tmp_path / "root" / "configs").iterdir()}
    assert configs == {"2.toml": "first", "3.toml": "second"}
    assert not list((tmp_path / "root" / ".staging").iterdir())


# Reuse, and the reasons to run.


def test_the_first_run_executes_everything_and_has_the_layout_of_tfx(tmp_path, data):
    root = tmp_path / "root"
    result = run(root, data)
    assert CALLS == ["Count", "Train", "Evaluate"]
    assert set(reasons(result).values()) == {"first run"}
    assert (root / "Train" / "model" / "2" / "model.txt").read_text() == "18 x 100"
    assert result.output("Train", "model").uri == str(root / "Train" / "model" / "2")
    assert type(result.output("Train", "model")) is Model
    assert result.output("Count", "examples").properties == {"bytes": 18}
    assert folders(root, ".staging") == []
    assert folders(root, ".scratch") == []


def test_the_second_run_reuses_everything_and_returns_the_same(tmp_path, data):
    first = run(tmp_path / "root", data)
    second = run(tmp_path / "root", data)
    assert CALLS == []
    assert all(node.reused for node in second.nodes.values())
    assert reasons(second)["Train"] == f"nothing changed since run {first.run_id}"
    for name, node in first.nodes.items():
        assert second.nodes[name].outputs == node.outputs


def test_a_changed_parameter_runs_its_component_and_those_that_depend_on_it(tmp_path, data):
    run(tmp_path / "root", data)
    result = run(tmp_path / "root", data, training=ToyTraining(steps=200))
    assert CALLS == ["Train", "Evaluate"]
    assert reasons(result)["Train"] == "parameter training.steps: 100 -> 200"
    assert reasons(result)["Evaluate"] == "input model changed"


def test_changing_a_parameter_back_reuses_the_earlier_execution(tmp_path, data):
    first = run(tmp_path / "root", data)
    run(tmp_path / "root", data, training=ToyTraining(steps=200))
    third = run(tmp_path / "root", data)
    assert CALLS == []
    assert third.output("Evaluate", "evaluation") == first.output("Evaluate", "evaluation")


def test_a_changed_file_runs_everything(tmp_path, data):
    run(tmp_path / "root", data)
    data.write_text("source\ttarget\na\tc\n")
    result = run(tmp_path / "root", data)
    assert CALLS == ["Count", "Train", "Evaluate"]
    assert reasons(result) == {
        "Count": "input files changed",
        "Train": "input examples changed",
        "Evaluate": "input examples changed; input model changed",
    }


def test_a_renamed_file_changes_nothing(tmp_path, data):
    run(tmp_path / "root", data)
    run(tmp_path / "root", data.rename(tmp_path / "renamed.tsv"))
    assert CALLS == []


def test_a_component_gets_the_earlier_executions_that_differ_in_parameters_newest_first(tmp_path, data):
    seen = []

    @component
    def Grow(files: Input[RawFiles], model: Output[Model], steps: int, context: Context) -> None:
        seen[:] = [(earlier.parameters["steps"], earlier.read(earlier.outputs["model"])) for earlier in context.earlier]

    def grow(steps):
        files = raw_files(str(data))
        grown = Grow(files=files, steps=steps)
        return Runner(Pipeline("toy", str(tmp_path / "root"), (files.node, grown))).run().output("Grow", "model")

    models = {steps: grow(steps) for steps in (1, 2, 3)}
    assert seen == [(2, models[2]), (1, models[1])]
    Path(models[1].uri).rmdir()
    grow(4)
    assert seen == [(3, models[3]), (2, models[2]), (1, None)]
    data.write_text("source\ttarget\na\tc\n")
    grow(5)
    assert seen == []


def test_another_pipeline_on_the_same_root_reuses_what_is_the_same(tmp_path, data):
    run(tmp_path / "root", data)
    result = run(tmp_path / "root", data, name="other", training=ToyTraining(steps=1))
    assert CALLS == ["Train", "Evaluate"]
    assert reasons(result)["Train"] == "first run", "reasons compare executions of pipelines with the same name"


def test_a_deleted_output_is_produced_again(tmp_path, data):
    root = tmp_path / "root"
    first = run(root, data)
    deleted = first.output("Train", "model").uri
    os.rename(deleted, tmp_path / "elsewhere")
    result = run(root, data)
    assert CALLS == ["Train"], "the fingerprint of the model is unchanged, so Evaluate is reused"
    assert reasons(result)["Train"] == f"its output {deleted} was deleted"
    assert Path(result.output("Train", "model").path("model.txt")).is_file()


def test_beam_options_and_verbosity_change_nothing(tmp_path, data):
    run(tmp_path / "root", data)
    CALLS.clear()
    Runner(toy_pipeline(tmp_path / "root", data), ("--runner=FlinkRunner",), verbose=True).run()
    assert CALLS == []


def test_each_component_is_one_line_of_output(tmp_path, data, capsys):
    run(tmp_path / "root", data)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["Count", "ran"], ["Train", "ran"], ["Evaluate", "ran"]]
    assert all(" s  first run" in line for line in lines)
    run(tmp_path / "root", data, training=ToyTraining(steps=5))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["reused", "ran", "ran"]


def test_a_reused_choice_of_settings_is_told_again(tmp_path, capsys):
    @component
    def Choose(chosen: Output[HyperParameters]) -> None:
        """Chooses a setting."""
        chosen.properties.update(settings={"training.steps": 7}, reason="steps 7; because train is small")

    told = []
    for _ in range(2):
        Runner(Pipeline("choice", str(tmp_path / "root"), (Choose(),))).run()
        told.append(capsys.readouterr().err)
    assert told == ["", "Choose chose earlier: steps 7; because train is small\n"]


def test_a_listener_receives_the_events_and_nothing_is_printed(tmp_path, data, capsys):
    events = []

    class Recorder(RunListener):
        def begin(self, run_id: int, components: list[str]) -> None:
            events.append((run_id, components))

        def update(self, component: str, state: str, reason: str) -> None:
            events.append((component, state, reason))

        def end(self, component: str, result: NodeResult) -> None:
            events.append((component, result.reused))

    run(tmp_path / "root", data)
    capsys.readouterr()
    pipeline = toy_pipeline(tmp_path / "root", data, training=ToyTraining(steps=5))
    Runner(pipeline, listener=Recorder()).run()
    assert events == [
        (2, ["Count", "Train", "Evaluate"]),
        ("Count", True),
        ("Train", "running", "parameter training.steps: 100 -> 5"),
        ("Train", False),
        ("Evaluate", "running", "input model changed"),
        ("Evaluate", False),
    ]
    assert capsys.readouterr().out == ""


# Failures.


def failing(error: BaseException) -> Callable[[Path], None]:
    """Returns a function for TRAIN that writes a checkpoint and raises an exception."""

    def fail(scratch: Path) -> None:
        (scratch / "checkpoint").write_text("step 7")
        raise error

    return fail


def executions(root: Path, component_name: str) -> list[tuple[str, str]]:
    """Returns (state, message) of every execution of a component."""
    store = MetadataStore(StateFolder(root).metadata_url)
    rows = [execution for run in store.runs() for execution in store.executions_of_run(run.id)]
    return [(row.state, row.message) for row in rows if row.component == component_name]


def test_a_failed_component_is_named_with_its_log_and_leaves_no_output(tmp_path, data):
    root = tmp_path / "root"
    TRAIN["do"] = failing(ValueError("no such thing"))
    with pytest.raises(ComponentError, match=r"^Train failed: ValueError: no such thing\nStack trace: /") as failure:
        run(root, data)
    assert (failure.value.code, failure.value.fields) == ("component-failed", {"component": "Train"})
    log = Path(str(failure.value).partition("Stack trace: ")[2])
    assert log.is_relative_to(root)
    assert "in Train" in log.read_text()
    assert "ValueError: no such thing" in log.read_text()
    assert executions(root, "Train") == [("FAILED", str(failure.value))]
    assert folders(root, ".staging") == []
    assert not (root / "Train").exists()


def test_a_failed_component_keeps_its_scratch_folder_and_is_retried(tmp_path, data):
    root = tmp_path / "root"
    TRAIN["do"] = failing(ValueError("no such thing"))
    with pytest.raises(ComponentError):
        run(root, data)
    checkpoints = []
    TRAIN["do"] = lambda scratch: checkpoints.extend(path.read_text() for path in scratch.iterdir())
    result = run(root, data)
    assert checkpoints == ["step 7"]
    assert CALLS == ["Train", "Evaluate"]
    assert reasons(result)["Train"] == "retrying after an earlier failure"
    assert folders(root, ".scratch") == []


@pytest.mark.parametrize(("kind", "exit_code"), [(UserError, 2), (NotBlessedError, 3)])
def test_an_explained_error_keeps_type_code_and_fields_and_names_the_component(tmp_path, data, kind, exit_code):
    TRAIN["do"] = failing(kind("bad row", code="row-bad", line=3))
    with pytest.raises(kind, match=r"^Train: bad row$") as failure:
        run(tmp_path / "root", data)
    assert (failure.value.code, failure.value.fields) == ("row-bad", {"line": 3})
    assert failure.value.exit_code == exit_code
    assert not (tmp_path / "root" / "logs").exists()


def test_an_interrupted_component_is_canceled_and_resumes(tmp_path, data):
    root = tmp_path / "root"
    TRAIN["do"] = failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(root, data)
    assert executions(root, "Train")[0][0] == "CANCELED"
    assert folders(root, ".staging") == []
    TRAIN["do"] = lambda scratch: CALLS.append((scratch / "checkpoint").read_text())
    result = run(root, data)
    assert CALLS == ["Train", "step 7", "Evaluate"]
    assert reasons(result)["Train"] == "resuming an interrupted execution"


def test_an_interrupt_that_the_component_swallows_still_stops_the_run(tmp_path, data, heeds_ctrl_c):
    def swallow(scratch: Path) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            raise ValueError("something else") from error

    TRAIN["do"] = swallow
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "root", data)
    TRAIN["do"] = lambda scratch: None
    assert reasons(run(tmp_path / "root", data))["Train"] == "resuming an interrupted execution"


def test_an_exit_inside_a_component_is_a_failure(tmp_path, data):
    TRAIN["do"] = failing(SystemExit(0))
    with pytest.raises(ComponentError) as failure:
        run(tmp_path / "root", data)
    assert (failure.value.code, failure.value.fields) == ("component-failed", {"component": "Train"})
    assert isinstance(failure.value.__cause__, SystemExit)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named(tmp_path, data):
    def fill(scratch: Path) -> None:
        try:
            Path("/dev/full").write_text("x" * 100_000)
        except OSError as error:
            raise RuntimeError("the writer failed") from error

    root = tmp_path / "root"
    TRAIN["do"] = fill
    message = r"^Train failed: no space left on the disk of the pipeline root /.*; free some space and run the same"
    with pytest.raises(ComponentError, match=message):
        run(root, data)
    (_, message) = executions(root, "Train")[0]
    assert str(root) in message
    assert folders(root, ".staging") == []


def test_a_full_disk_has_a_code_even_if_only_the_text_of_a_worker_reports_it(tmp_path, data):
    TRAIN["do"] = failing(RuntimeError("a Beam worker: OSError: [Errno 28] No space left on device"))
    with pytest.raises(ComponentError) as failure:
        run(tmp_path / "root", data)
    assert (failure.value.code, failure.value.fields) == ("disk-full", {"component": "Train"})


def test_a_property_that_does_not_serialise_is_an_error_of_the_component(tmp_path, data):
    @component
    def Build(model: Output[Model]) -> None:
        model.properties["loss"] = object()

    with pytest.raises(ComponentError) as failure:
        Runner(Pipeline("build", str(tmp_path / "root"), (Build(),))).run()
    assert (failure.value.code, failure.value.fields) == ("component-failed", {"component": "Build"})
    assert isinstance(failure.value.__cause__, TypeError)
    assert str(failure.value.__cause__).startswith("the properties of model ")
    assert not (tmp_path / "root" / "Build").exists()


# Bad input.


def test_a_root_that_cannot_be_written_is_an_error(tmp_path, data):
    message = r"^cannot write to the pipeline root .*data.tsv/root: Not a directory; name another one with --pipeline"
    with pytest.raises(UserError, match=message) as error:
        run(data / "root", data)
    assert (error.value.code, error.value.fields) == ("pipeline-root-unwritable", {"path": str(data / "root")})


def test_a_metadata_store_that_is_not_a_database_is_an_error(tmp_path, data):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "metadata.sqlite").write_text("this is not a database, it is a letter\n" * 100)
    with pytest.raises(UserError, match="file is not a database"):  # SQLite's own words
        run(tmp_path / "root", data)


def test_artifacts_of_a_deleted_store_are_not_overwritten(tmp_path, data):
    root = tmp_path / "root"
    run(root, data)
    for path in root.glob("metadata.sqlite*"):
        path.unlink()
    message = r"Evaluate/evaluation/3 is not in .*metadata.sqlite, which may have been deleted .*; restore it, move"
    with pytest.raises(UserError, match=message) as error:
        run(root, data)
    newest = root / "Evaluate" / "evaluation" / "3"
    assert (error.value.code, error.value.fields) == ("artifact-not-in-store", {"path": str(newest)})
    assert (root / "Count" / "examples" / "1" / "count.txt").is_file()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("missing.tsv", None, "file-missing"), ("empty.tsv", "", "file-empty"), ("", None, "file-is-folder")],
)
def test_nothing_runs_if_a_raw_file_cannot_be_used(tmp_path, data, name, content, code):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        run(tmp_path / "root", tmp_path / name)
    assert (error.value.code, error.value.fields) == (code, {"path": str(tmp_path / name)})
    assert CALLS == []


def test_a_pattern_reads_all_its_files(tmp_path, data):
    (tmp_path / "data2.tsv").write_text("source\ttarget\n")
    result = run(tmp_path / "root", tmp_path / "data*.tsv")
    assert result.output("Count", "examples").properties["bytes"] == 18 + 14


# Building a pipeline.


def nodes() -> tuple[Node, ...]:
    return toy_pipeline(Path("unused"), "unused").nodes


def test_a_node_before_its_producer_is_an_error_that_names_both():
    files, count, train, evaluate = nodes()
    message = r"Count.outputs\['examples'\] \(Examples\) feeds Train.inputs\['examples'\]"
    with pytest.raises(TypeError, match=message):
        Pipeline("toy", "unused", (files, train, count, evaluate))


def test_a_node_of_another_pipeline_is_an_error():
    files, _, train, _ = nodes()
    _, count, *_ = nodes()
    with pytest.raises(TypeError, match="RawFiles does not come before Count in nodes"):
        Pipeline("toy", "unused", (files, count, train))


def test_two_nodes_of_one_name_are_an_error():
    files, count, *_ = nodes()
    with pytest.raises(TypeError, match="two nodes are named Count"):
        Pipeline("toy", "unused", (files, count, Count(files=files.outputs["files"])))
