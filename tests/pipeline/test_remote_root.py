"""A pipeline root at a URL: what is written where, what is whole, whose numbers count. The store lives in memory."""

import re
import shutil
from pathlib import Path

import pytest

from components.artifact import Examples, ExampleStatistics, Model, RawFiles
from components.component import BeamContext, Input, Output, component, raw_files
from components.errors import ComponentError, UserError
from components.remote_files import read_file, write_file
from pipeline.metadata import MetadataStore
from pipeline.root import open_root, state_folder
from pipeline.runner import Pipeline, Runner, RunResult

ROOT = "memory://bucket/runs"
FAULTS: set[str] = set()
SEEN: list[str] = []


def fail_in(place: str) -> None:
    if place in FAULTS:
        raise ValueError(place)


@component
def Generate(files: Input[RawFiles], examples: Output[Examples], context: BeamContext, number: int = 1) -> None:
    write_file(examples.path("first"), b"of " + str(number).encode())
    fail_in("Generate")
    write_file(examples.path("deep", "second.gz"), b"as it is")


@component
def Count(examples: Input[Examples], statistics: Output[ExampleStatistics], context: BeamContext) -> None:
    write_file(statistics.path("counts"), read_file(examples.path("first")))


@component
def Train(statistics: Input[ExampleStatistics], examples: Input[Examples], model: Output[Model]) -> None:
    beside = sorted(path.name for path in Path(statistics.uri).parent.iterdir())
    SEEN.append(f"statistics {' '.join(beside)}, examples at {examples.uri}")
    Path(model.path("weights")).mkdir()
    Path(model.path("weights", "w.h5")).write_bytes(Path(statistics.path("counts")).read_bytes())
    fail_in("Train")
    Path(model.path("model.txt")).write_text("done")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("a\tb\n")
    return path


@pytest.fixture
def machine(tmp_path, text, monkeypatch, blobs):
    """Returns a function that runs the pipeline where the machine of that name stands."""

    def run(name: str = "one", root: str = ROOT, metadata: str = "", number: int = 1) -> RunResult:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        files = raw_files(str(text))
        generate = Generate(files=files, number=number)
        count = Count(examples=generate.outputs["examples"])
        inputs = {"statistics": count.outputs["statistics"], "examples": generate.outputs["examples"]}
        pipeline = Pipeline("toy", root, (files.node, generate, count, Train(**inputs)))
        return Runner(pipeline, metadata_url=metadata).run()

    FAULTS.clear()
    SEEN.clear()
    return run


def reasons(result: RunResult) -> dict[str, str]:
    return {name: node.reason for name, node in result.nodes.items()}


def test_artifacts_are_there_and_state_is_here(machine, blobs, tmp_path):
    result = machine()
    assert {name for name in blobs if not name.endswith("/.store")} == {
        f"{ROOT}/Generate/examples/1/first",
        f"{ROOT}/Generate/examples/1/deep/second.gz",
        f"{ROOT}/Count/statistics/2/counts",
        f"{ROOT}/Train/model/3/weights/w.h5",
        f"{ROOT}/Train/model/3/model.txt",
    }
    assert result.output("Train", "model").uri == f"{ROOT}/Train/model/3"
    assert result.output("Train", "model").exists()
    state = tmp_path / "one" / "runs-memory-bucket-runs"
    assert state == state_folder(ROOT) == state_folder(f"{ROOT}/")
    assert (state / "Train" / "model" / "3" / "weights" / "w.h5").read_text() == "of 1"
    assert not list((state / ".staging").iterdir()) + list((state / ".scratch").iterdir())
    assert [f"statistics 2, examples at {ROOT}/Generate/examples/1"] == SEEN, "read in place, not copied"


def test_what_is_there_is_reused_and_what_is_gone_is_made_again(machine, blobs):
    machine()
    before = dict(blobs)
    assert set(reasons(machine()).values()) == {"nothing changed since run 1"}
    assert blobs == before
    for name in [name for name in blobs if "/Count/" in name]:
        del blobs[name]
    assert reasons(machine())["Count"] == f"its output {ROOT}/Count/statistics/2 is gone"
    assert f"{ROOT}/Count/statistics/8/counts" in blobs


@pytest.mark.parametrize("place", ["Generate", "Train"])
def test_of_what_fails_nothing_stays(machine, blobs, place):
    FAULTS.add(place)
    with pytest.raises(ComponentError, match=f"{place} failed"):
        machine()
    assert not [name for name in blobs if f"/{place}/" in name]
    FAULTS.clear()
    assert reasons(machine())[place] == "an earlier execution failed; trying again"


def test_of_what_was_killed_nothing_stays_and_nothing_is_used(machine, blobs):
    """As it is after SIGKILL: the store has it as RUNNING, and nobody holds the lock of its run."""
    machine()
    store = MetadataStore(f"sqlite:///{state_folder(ROOT)}/metadata.sqlite")
    run_id = store.begin_run("toy")
    dead = store.begin_execution(run_id, "Generate", "0" * 64, {}, "")
    blobs[f"{ROOT}/Generate/examples/{dead}/first"] = b"half"
    blobs[f"{ROOT}/Generate/examples/{dead}0/first"] = b"another's"
    machine()
    assert f"{ROOT}/Generate/examples/{dead}/first" not in blobs
    assert f"{ROOT}/Generate/examples/{dead}0/first" in blobs
    assert store.execution(dead).state == "CANCELED"


def test_of_a_copy_whose_process_was_killed_nothing_stays(machine):
    machine()
    state = state_folder(ROOT)
    (state / ".staging" / "copy").mkdir()
    (state / ".staging" / "copy" / "half").write_text("as it is after SIGKILL")
    shutil.rmtree(state / "Count")
    machine(number=2)
    assert {path.name for path in (state / "Count" / "statistics" / "2").iterdir()} == {"counts"}
    assert not list((state / ".staging").iterdir())


def test_two_stores_do_not_number_one_root(machine, blobs, tmp_path):
    machine("one")
    before = dict(blobs)
    owner = f"sqlite:///{tmp_path}/one/runs-memory-bucket-runs/metadata.sqlite of "
    with pytest.raises(UserError, match=f"keeps its metadata in {re.escape(owner)}.*; name that with --metadata"):
        machine("two")
    with pytest.raises(UserError, match=f"numbered by another metadata store, {re.escape(owner)}"):
        machine("two", metadata=f"sqlite:///{tmp_path}/shared.sqlite")
    with pytest.raises(UserError, match="metadata store of its own"):
        machine("one", metadata=f"sqlite:///{tmp_path}/shared.sqlite")
    assert blobs == before


def test_machines_that_share_a_store_share_a_root(machine, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.sqlite"
    machine("one", metadata=shared)
    with pytest.raises(UserError, match="name that with --metadata"):
        machine("two")
    first = machine("two", metadata=shared)
    assert set(reasons(first).values()) == {"nothing changed since run 1"}
    # What a component looks for beside its input, others' as well as one's own, has been brought.
    machine("two", metadata=shared, number=2)
    assert SEEN[-1].startswith("statistics 2 8, ")
    copy = state_folder(ROOT) / "Count" / "statistics"
    assert {path.name: (path / "counts").read_text() for path in copy.iterdir()} == {"2": "of 1", "8": "of 2"}


def test_a_root_on_disks_takes_nothing_from_one_at_a_url(machine, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.sqlite"
    machine("one", metadata=shared)
    result = machine("one", root=str(tmp_path / "runs"), metadata=shared)
    assert all("cannot be reached from here" in reason for reason in reasons(result).values())
    again = machine("one", root=str(tmp_path / "runs"), metadata=shared)
    assert set(reasons(again).values()) == {"nothing changed since run 2"}


def test_what_may_not_be_written_is_said_before_anything_runs(machine):
    with pytest.raises(UserError, match=r"root memory://closed/runs cannot be used: .*you may not write here"):
        machine(root="memory://closed/runs")
    assert not SEEN


def test_an_artifact_is_found_by_its_url_and_by_what_is_in_it(machine):
    machine()
    store = MetadataStore(f"sqlite:///{state_folder(ROOT)}/metadata.sqlite")
    for name in (f"{ROOT}/Train/model/3", f"{ROOT}/Train/model/3/weights/w.h5"):
        assert store.find_artifact(name).uri == f"{ROOT}/Train/model/3"
    with pytest.raises(UserError, match="no artifact"):
        store.find_artifact(f"{ROOT}/Train/model/33")


@pytest.mark.parametrize("sign", "[*?")
def test_a_url_that_beam_takes_for_a_pattern_is_refused(blobs, tmp_path, monkeypatch, sign):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"a{re.escape(sign)}b has '{re.escape(sign)}' in its name"):
        open_root(f"memory://bucket/a{sign}b")
    assert not list(tmp_path.iterdir())
