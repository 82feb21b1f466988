"""The runner: what is the same is reused, what differs runs and says why, what fails leaves nothing behind."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from components.artifact import Examples, Model, RawFiles
from components.component import Context, Input, Node, Output, component, raw_files
from components.errors import ComponentError, NotBlessedError, UserError
from pipeline.metadata import MetadataStore
from pipeline.root import PipelineRoot
from pipeline.runner import Pipeline, Runner, RunResult


@dataclasses.dataclass(frozen=True)
class ToyTraining:
    """Settings of the toy trainer."""

    steps: int = 100
    kind: str = "toy"


CALLS: list[str] = []
TRAIN = {"do": lambda scratch: None}


@component
def Count(files: Input[RawFiles], examples: Output[Examples]) -> None:
    """Counts the bytes of the files."""
    CALLS.append("Count")
    examples.properties["bytes"] = sum(file["bytes"] for file in files.properties["files"])
    Path(examples.path("count.txt")).write_text(str(examples.properties["bytes"]))


@component
def Train(examples: Input[Examples], model: Output[Model], training: ToyTraining, context: Context) -> None:
    """Writes a model that says how it was made, after whatever the test wants done."""
    CALLS.append("Train")
    TRAIN["do"](Path(context.scratch))
    Path(model.path("model.txt")).write_text(f"{Path(examples.path('count.txt')).read_text()} x {training.steps}")


@component
def Judge(model: Input[Model], examples: Input[Examples], verdict: Output[Examples]) -> None:
    """Reads the model."""
    CALLS.append("Judge")
    Path(verdict.path("verdict.txt")).write_text(Path(model.path("model.txt")).read_text())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    CALLS.clear()
    TRAIN["do"] = lambda scratch: None
    path = tmp_path / "data.tsv"
    path.write_text("source\ttarget\na\tb\n")
    return path


def toy_pipeline(root: Path, data: str | Path, training: ToyTraining = ToyTraining(), name: str = "toy") -> Pipeline:
    files = raw_files(str(data))
    count = Count(files=files)
    train = Train(examples=count.outputs["examples"], training=training)
    judge = Judge(model=train.outputs["model"], examples=count.outputs["examples"])
    return Pipeline(name, str(root), (files.node, count, train, judge))


def run(root: Path, data: str | Path, **changes) -> RunResult:
    CALLS.clear()
    return Runner(toy_pipeline(root, data, **changes)).run()


def folders(root: Path, name: str) -> list[str]:
    return sorted(os.listdir(root / name))


def reasons(result: RunResult) -> dict[str, str]:
    return {name: node.reason for name, node in result.nodes.items()}


# Reuse, and the reasons to run.


def test_first_run_executes_everything_in_tfx_layout(tmp_path, data):
    root = tmp_path / "root"
    result = run(root, data)
    assert CALLS == ["Count", "Train", "Judge"]
    assert set(reasons(result).values()) == {"first run"}
    assert (root / "Train" / "model" / "2" / "model.txt").read_text() == "18 x 100"
    assert result.output("Train", "model").uri == str(root / "Train" / "model" / "2")
    assert type(result.output("Train", "model")) is Model
    assert result.output("Count", "examples").properties == {"bytes": 18}
    assert folders(root, ".staging") == []
    assert folders(root, ".scratch") == []


def test_second_run_reuses_everything_and_returns_the_same(tmp_path, data):
    first = run(tmp_path / "root", data)
    second = run(tmp_path / "root", data)
    assert CALLS == []
    assert all(node.reused for node in second.nodes.values())
    assert reasons(second)["Train"] == f"nothing changed since run {first.run_id}"
    for name, node in first.nodes.items():
        assert second.nodes[name].outputs == node.outputs


def test_changed_parameter_runs_what_depends_on_it_and_says_so(tmp_path, data):
    run(tmp_path / "root", data)
    result = run(tmp_path / "root", data, training=ToyTraining(steps=200))
    assert CALLS == ["Train", "Judge"]
    assert reasons(result)["Train"] == "parameter training.steps: 100 -> 200"
    assert reasons(result)["Judge"] == "input model changed"


def test_changing_back_reuses_the_earlier_execution(tmp_path, data):
    first = run(tmp_path / "root", data)
    run(tmp_path / "root", data, training=ToyTraining(steps=200))
    third = run(tmp_path / "root", data)
    assert CALLS == []
    assert third.output("Judge", "verdict") == first.output("Judge", "verdict")


def test_changed_file_runs_everything(tmp_path, data):
    run(tmp_path / "root", data)
    data.write_text("source\ttarget\na\tc\n")
    result = run(tmp_path / "root", data)
    assert CALLS == ["Count", "Train", "Judge"]
    assert reasons(result) == {
        "Count": "input files changed",
        "Train": "input examples changed",
        "Judge": "input examples changed; input model changed",
    }


def test_renamed_file_changes_nothing(tmp_path, data):
    run(tmp_path / "root", data)
    run(tmp_path / "root", data.rename(tmp_path / "renamed.tsv"))
    assert CALLS == []


def test_another_pipeline_on_the_same_root_reuses_what_is_the_same(tmp_path, data):
    run(tmp_path / "root", data)
    result = run(tmp_path / "root", data, name="other", training=ToyTraining(steps=1))
    assert CALLS == ["Train", "Judge"]
    assert reasons(result)["Train"] == "first run", "executions are compared within a pipeline of one name"


def test_deleted_output_is_made_again(tmp_path, data):
    root = tmp_path / "root"
    first = run(root, data)
    gone = first.output("Train", "model").uri
    os.rename(gone, tmp_path / "aside")
    result = run(root, data)
    assert CALLS == ["Train"], "what follows depends on what the model is made from, which is the same"
    assert reasons(result)["Train"] == f"its output {gone} is gone"
    assert Path(result.output("Train", "model").path("model.txt")).is_file()


def test_beam_options_and_verbosity_change_nothing(tmp_path, data):
    run(tmp_path / "root", data)
    CALLS.clear()
    Runner(toy_pipeline(tmp_path / "root", data), ("--runner=FlinkRunner",), verbose=True).run()
    assert CALLS == []


def test_one_line_a_component(tmp_path, data, capsys):
    run(tmp_path / "root", data)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["Count", "ran"], ["Train", "ran"], ["Judge", "ran"]]
    assert all(" s  first run" in line for line in lines)
    run(tmp_path / "root", data, training=ToyTraining(steps=5))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["reused", "ran", "ran"]


# Failures.


def failing(error: BaseException):
    def fail(scratch: Path) -> None:
        (scratch / "checkpoint").write_text("step 7")
        raise error

    return fail


def executions(root: Path, component_name: str) -> list[tuple[str, str]]:
    store = MetadataStore(PipelineRoot(str(root)).metadata_url)
    rows = [execution for run in store.runs() for execution in store.executions_of_run(run.id)]
    return [(row.state, row.message) for row in rows if row.component == component_name]


def test_component_error_names_the_component_and_the_log(tmp_path, data):
    root = tmp_path / "root"
    TRAIN["do"] = failing(ValueError("no such thing"))
    with pytest.raises(ComponentError, match=r"^Train failed: ValueError: no such thing\n") as caught:
        run(root, data)
    log = Path(str(caught.value).partition("Stack trace: ")[2])
    assert log.is_relative_to(root)
    assert "in Train" in log.read_text()
    assert "ValueError: no such thing" in log.read_text()
    assert executions(root, "Train") == [("FAILED", str(caught.value))]
    assert folders(root, ".staging") == []
    assert not (root / "Train").exists()


def test_failed_component_keeps_its_scratch_and_tries_again(tmp_path, data):
    root = tmp_path / "root"
    TRAIN["do"] = failing(ValueError("no such thing"))
    with pytest.raises(ComponentError):
        run(root, data)
    found = []
    TRAIN["do"] = lambda scratch: found.extend(path.read_text() for path in scratch.iterdir())
    result = run(root, data)
    assert found == ["step 7"]
    assert CALLS == ["Train", "Judge"]
    assert reasons(result)["Train"] == "an earlier execution failed; trying again"
    assert folders(root, ".scratch") == []


@pytest.mark.parametrize(("error", "exit_code"), [(UserError("bad row"), 2), (NotBlessedError("bad row"), 3)])
def test_explained_errors_keep_their_exit_code_and_gain_the_name(tmp_path, data, error, exit_code):
    TRAIN["do"] = failing(error)
    with pytest.raises(type(error), match=r"^Train: bad row$") as caught:
        run(tmp_path / "root", data)
    assert caught.value.exit_code == exit_code
    assert not (tmp_path / "root" / "logs").exists()


def test_interrupt_is_recorded_and_goes_on(tmp_path, data):
    root = tmp_path / "root"
    TRAIN["do"] = failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(root, data)
    assert executions(root, "Train")[0][0] == "CANCELED"
    assert folders(root, ".staging") == []
    TRAIN["do"] = lambda scratch: CALLS.append((scratch / "checkpoint").read_text())
    result = run(root, data)
    assert CALLS == ["Train", "step 7", "Judge"]
    assert reasons(result)["Train"] == "an earlier execution was interrupted; going on"


def test_exit_inside_a_component_is_a_failure(tmp_path, data):
    TRAIN["do"] = failing(SystemExit(0))
    with pytest.raises(ComponentError, match="Train failed: SystemExit"):
        run(tmp_path / "root", data)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_is_named(tmp_path, data):
    def fill(scratch: Path) -> None:
        try:
            Path("/dev/full").write_text("x" * 100_000)
        except OSError as error:
            raise RuntimeError("writer broke") from error

    TRAIN["do"] = fill
    with pytest.raises(ComponentError, match="Train failed: no space left on the disk"):
        run(tmp_path / "root", data)
    assert folders(tmp_path / "root", ".staging") == []


def test_property_that_is_no_json_is_the_components_fault(tmp_path, data):
    @component
    def Odd(odd: Output[Model]) -> None:
        odd.properties["loss"] = object()

    with pytest.raises(ComponentError, match="Odd failed: TypeError: the properties of odd must be"):
        Runner(Pipeline("odd", str(tmp_path / "root"), (Odd(),))).run()
    assert not (tmp_path / "root" / "Odd").exists()


# Bad input.


def test_root_that_cannot_be_written(tmp_path, data):
    with pytest.raises(UserError, match=r"cannot write to the pipeline root .*: Not a directory"):
        run(data / "root", data)


def test_store_that_is_no_database(tmp_path, data):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "metadata.sqlite").write_text("this is not a database, it is a letter\n" * 100)
    with pytest.raises(UserError, match="file is not a database"):
        run(tmp_path / "root", data)


def test_artifacts_of_a_lost_store_are_not_overwritten(tmp_path, data):
    root = tmp_path / "root"
    run(root, data)
    for path in root.glob("metadata.sqlite*"):
        path.unlink()
    with pytest.raises(UserError, match=r"Judge/verdict/3 is not in .*metadata.sqlite"):
        run(root, data)
    assert (root / "Count" / "examples" / "1" / "count.txt").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.tsv", None, "no file '.*missing.tsv'"),
        ("empty.tsv", "", "empty.tsv is empty"),
        ("", None, "is a folder"),
    ],
)
def test_bad_raw_files(tmp_path, data, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "root", tmp_path / name)
    assert CALLS == []


def test_glob_finds_files_in_order(tmp_path, data):
    (tmp_path / "data2.tsv").write_text("source\ttarget\n")
    result = run(tmp_path / "root", tmp_path / "data*.tsv")
    assert result.output("Count", "examples").properties["bytes"] == 18 + 14


# Building a pipeline.


def nodes() -> tuple[Node, ...]:
    return toy_pipeline(Path("unused"), "unused").nodes


def test_node_before_its_producer_is_refused():
    files, count, train, judge = nodes()
    with pytest.raises(TypeError, match=r"Count.outputs\['examples'\] \(Examples\) feeds Train.inputs\['examples'\]"):
        Pipeline("toy", "unused", (files, train, count, judge))


def test_node_of_another_pipeline_is_refused():
    files, _, train, _ = nodes()
    _, count, *_ = nodes()
    with pytest.raises(TypeError, match="RawFiles does not stand before Count"):
        Pipeline("toy", "unused", (files, count, train))


def test_two_nodes_of_one_name_are_refused():
    files, count, *_ = nodes()
    with pytest.raises(TypeError, match="two nodes are called Count"):
        Pipeline("toy", "unused", (files, count, Count(files=files.outputs["files"])))


def test_ctrl_c_counts_even_if_the_component_turns_it_into_something_else(tmp_path, data, heeds_ctrl_c):
    def lose_it(scratch: Path) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            raise ValueError("something else") from error

    TRAIN["do"] = lose_it
    with pytest.raises(KeyboardInterrupt):
        Runner(toy_pipeline(tmp_path / "root", data)).run()
    TRAIN["do"] = lambda scratch: None
    assert reasons(run(tmp_path / "root", data))["Train"] == "an earlier execution was interrupted; going on"
