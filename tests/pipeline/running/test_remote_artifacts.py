"""A pipeline root at a URL, here in memory: where each file is written, and which store numbers the artifacts."""

import re
import shutil
from pathlib import Path

import pytest

from seq2serve.components.base.artifact import Examples, ExampleStatistics, Model, RawFiles
from seq2serve.components.base.component import BeamContext, History, Input, Output, component, raw_files
from seq2serve.components.base.errors import ComponentError, UserError
from seq2serve.components.storage.beam_files import read_file, write_file
from seq2serve.pipeline.commands.lineage_text import lineage_text
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.integrity import is_present
from seq2serve.pipeline.running.pipeline import Pipeline, RunResult
from seq2serve.pipeline.running.root import open_root
from seq2serve.pipeline.running.runner import Runner
from seq2serve.pipeline.running.state_folder import state_folder

ROOT = "memory://bucket/runs"
FAULTS: set[str] = set()  # names of components that fail half-way
READS: list[str] = []  # how Train saw its inputs, once per execution


def fail_if_faulty(name: str) -> None:
    if name in FAULTS:
        raise ValueError(name)


@component
def Generate(files: Input[RawFiles], examples: Output[Examples], context: BeamContext, number: int = 1) -> None:
    """Writes two files to the URL of its output."""
    write_file(examples.path("first"), b"of " + str(number).encode())
    fail_if_faulty("Generate")
    write_file(examples.path("deep", "second.gz"), b"not packed")


@component
def Count(examples: Input[Examples], statistics: Output[ExampleStatistics], context: BeamContext) -> None:
    """Copies a file from URL to URL."""
    write_file(statistics.path("counts"), read_file(examples.path("first")))


@component
def Train(
    statistics: Input[ExampleStatistics],
    examples: Input[Examples],
    model: Output[Model],
    earlier_statistics: History[ExampleStatistics] = (),
) -> None:
    """Reads and writes local files; examples are read in place. Of earlier statistics it reads the oldest."""
    counts = [Path(earlier_statistics[-1].read().path("counts")).read_text()]
    counts += [f"{len(earlier_statistics)} published", f"newest {earlier_statistics[0].execution}"]
    READS.append(f"statistics {', '.join(counts)}, examples at {examples.uri}")
    Path(model.path("weights")).mkdir()
    Path(model.path("weights", "w.h5")).write_bytes(Path(statistics.path("counts")).read_bytes())
    fail_if_faulty("Train")
    Path(model.path("model.txt")).write_text("done")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("a\tb\n")
    return path


@pytest.fixture
def run_on(tmp_path, text, monkeypatch, blobs):
    """Returns a function that runs the pipeline on a machine, which is a current folder of that name."""

    def run(machine: str = "one", root: str = ROOT, metadata: str = "", number: int = 1) -> RunResult:
        folder = tmp_path / machine
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        files = raw_files(str(text))
        generate = Generate(files=files, number=number)
        count = Count(examples=generate.outputs["examples"])
        inputs = {"statistics": count.outputs["statistics"], "examples": generate.outputs["examples"]}
        pipeline = Pipeline("toy", root, (files.node, generate, count, Train(**inputs)))
        return Runner(pipeline, metadata_url=metadata).run()

    FAULTS.clear()
    READS.clear()
    return run


def reasons(result: RunResult) -> dict[str, str]:
    return {name: node.reason for name, node in result.nodes.items()}


def test_artifacts_are_at_the_url_and_state_is_in_a_local_folder(run_on, blobs, tmp_path):
    result = run_on()
    assert {name for name in blobs if not name.endswith("/.store")} == {
        f"{ROOT}/Generate/examples/1/first",
        f"{ROOT}/Generate/examples/1/deep/second.gz",
        f"{ROOT}/Count/statistics/2/counts",
        f"{ROOT}/Train/model/3/weights/w.h5",
        f"{ROOT}/Train/model/3/model.txt",
    }
    assert result.output("Train", "model").uri == f"{ROOT}/Train/model/3"
    assert is_present(result.output("Train", "model"))
    state = tmp_path / "one" / "runs-memory-bucket-runs"
    assert state == state_folder(ROOT) == state_folder(f"{ROOT}/")
    assert (state / "Train" / "model" / "3" / "weights" / "w.h5").read_text() == "of 1"
    assert not list((state / ".staging").iterdir()) + list((state / ".scratch").iterdir())
    expected = f"statistics of 1, 1 published, newest 2, examples at {ROOT}/Generate/examples/1"
    assert [expected] == READS, "examples are read in place"


def test_an_artifact_is_reused_while_it_exists_and_produced_again_once_deleted(run_on, blobs):
    run_on()
    before = dict(blobs)
    assert set(reasons(run_on()).values()) == {"nothing changed since run 1"}
    assert blobs == before
    for name in [name for name in blobs if "/Count/" in name]:
        del blobs[name]
    assert reasons(run_on())["Count"] == f"its output {ROOT}/Count/statistics/2 was deleted"
    assert f"{ROOT}/Count/statistics/8/counts" in blobs


def test_an_artifact_with_a_file_that_was_cut_off_is_produced_again(run_on, blobs):
    run_on()
    path = f"{ROOT}/Generate/examples/1/deep/second.gz"
    blobs[path] = b"not"
    assert reasons(run_on())["Generate"] == f"damaged output: {path} has 3 bytes instead of 10"


def test_a_local_copy_that_was_cut_off_is_replaced_before_a_component_reads_it(run_on, tmp_path, blobs, capsys):
    run_on()
    copy = tmp_path / "one" / "runs-memory-bucket-runs" / "Count" / "statistics" / "2" / "counts"
    copy.write_text("o")
    for name in [name for name in blobs if "/Train/" in name]:
        del blobs[name]
    run_on()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: damaged copy")]
    assert f"{ROOT}/Count/statistics/2, copied again: {copy} has " in line
    (weights,) = [blobs[name] for name in blobs if name.endswith("w.h5")]
    assert weights == b"of 1"


@pytest.mark.parametrize("name", ["Generate", "Train"])
def test_a_failed_component_leaves_nothing_at_the_url(run_on, blobs, name):
    FAULTS.add(name)
    with pytest.raises(ComponentError) as failure:
        run_on()
    assert (failure.value.code, failure.value.fields) == ("component-failed", {"component": name})
    assert not [path for path in blobs if f"/{name}/" in path]
    FAULTS.clear()
    assert reasons(run_on())[name] == "retrying after an earlier failure"


def test_what_a_killed_execution_wrote_is_removed_and_not_used(run_on, blobs):
    """After SIGKILL the execution is RUNNING in the store, and no process holds the lock of its run."""
    run_on()
    store = MetadataStore(f"sqlite:///{state_folder(ROOT)}/metadata.sqlite")
    run_id = store.begin_run("toy")
    killed = store.begin_execution(run_id, "Generate", "0" * 64, {}, "")
    blobs[f"{ROOT}/Generate/examples/{killed}/first"] = b"half"
    blobs[f"{ROOT}/Generate/examples/{killed}0/first"] = b"of another execution"
    run_on()
    assert f"{ROOT}/Generate/examples/{killed}/first" not in blobs
    assert f"{ROOT}/Generate/examples/{killed}0/first" in blobs
    assert store.execution(killed).state == "CANCELED"


def test_a_copy_that_a_killed_process_left_is_replaced(run_on):
    run_on()
    state = state_folder(ROOT)
    (state / ".staging" / "copy").mkdir()
    (state / ".staging" / "copy" / "half").write_text("left by SIGKILL")
    shutil.rmtree(state / "Count")
    run_on(number=2)
    assert {path.name for path in (state / "Count" / "statistics" / "2").iterdir()} == {"counts"}
    assert not list((state / ".staging").iterdir())


def test_only_one_store_numbers_the_artifacts_of_a_root(run_on, blobs, tmp_path):
    run_on("one")
    before = dict(blobs)
    owner = re.escape(f"sqlite:///{tmp_path}/one/runs-memory-bucket-runs/metadata.sqlite of ")
    shared = f"sqlite:///{tmp_path}/shared.sqlite"
    with pytest.raises(UserError, match=f"keeps its metadata in {owner}.*; pass that with --metadata") as error:
        run_on("two")
    assert (error.value.code, error.value.fields) == ("metadata-store-shared", {"root": ROOT})
    message = f"^the artifacts in {ROOT} are numbered by the metadata store {owner}.*, not by {re.escape(shared)}; pass"
    with pytest.raises(UserError, match=message) as error:
        run_on("two", metadata=shared)
    assert (error.value.code, error.value.fields) == ("metadata-store-other", {"path": ROOT})
    with pytest.raises(UserError, match=r"has its own metadata store and cannot .*; omit --metadata") as error:
        run_on("one", metadata=shared)
    assert (error.value.code, error.value.fields) == ("metadata-store-own", {"root": ROOT})
    assert blobs == before


def test_machines_that_share_a_store_share_a_root(run_on, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.sqlite"
    run_on("one", metadata=shared)
    with pytest.raises(UserError) as error:
        run_on("two")
    assert error.value.code == "metadata-store-shared"
    first = run_on("two", metadata=shared)
    assert set(reasons(first).values()) == {"nothing changed since run 1"}
    # Results of earlier runs are copied when they are read, whichever machine published them.
    result = run_on("two", metadata=shared, number=2)
    assert READS[-1].startswith("statistics of 1, 2 published, newest 8, ")
    copies = state_folder(ROOT) / "Count" / "statistics"
    assert {path.name: (path / "counts").read_text() for path in copies.iterdir()} == {"2": "of 1", "8": "of 2"}
    model = result.output("Train", "model")
    (row,) = MetadataStore(shared).prior(model.id)
    assert row.artifact.uri == f"{ROOT}/Count/statistics/2"
    lineage = lineage_text(MetadataStore(shared), str(model.id))
    assert row.artifact.uri in lineage.partition("Compared with results of earlier runs")[2].partition("Used to")[0]
    assert row.artifact.uri not in lineage.partition("Compared with")[0]


def test_a_root_on_disk_reuses_nothing_from_a_root_at_a_url(run_on, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.sqlite"
    run_on("one", metadata=shared)
    result = run_on("one", root=str(tmp_path / "runs"), metadata=shared)
    assert all(reason.endswith(" is not reachable from here") for reason in reasons(result).values())
    again = run_on("one", root=str(tmp_path / "runs"), metadata=shared)
    assert set(reasons(again).values()) == {"nothing changed since run 2"}


def test_a_url_that_cannot_be_written_is_an_error_before_anything_runs(run_on):
    root = "memory://closed/runs"
    with pytest.raises(UserError, match=rf"^the pipeline root {root} cannot be used: .*permission denied") as error:
        run_on(root=root)
    assert (error.value.code, error.value.fields) == ("url-unreachable", {"path": root})
    assert not READS


def test_an_artifact_can_be_looked_up_by_its_url_or_by_that_of_a_file_in_it(run_on):
    run_on()
    store = MetadataStore(f"sqlite:///{state_folder(ROOT)}/metadata.sqlite")
    for name in (f"{ROOT}/Train/model/3", f"{ROOT}/Train/model/3/weights/w.h5"):
        assert store.find_artifact(name).uri == f"{ROOT}/Train/model/3"
    with pytest.raises(UserError, match=f"{ROOT}/Train/model/33"):
        store.find_artifact(f"{ROOT}/Train/model/33")


@pytest.mark.parametrize("sign", "[*?")
def test_a_url_that_beam_treats_as_a_pattern_is_an_error(blobs, tmp_path, monkeypatch, sign):
    monkeypatch.chdir(tmp_path)
    message = rf"a{re.escape(sign)}b has '{re.escape(sign)}' in its name, which Beam treats as a pattern .*; name "
    with pytest.raises(UserError, match=message) as error:
        open_root(f"memory://bucket/a{sign}b")
    assert (error.value.code, error.value.fields) == ("url-is-pattern", {"path": f"memory://bucket/a{sign}b"})
    assert not list(tmp_path.iterdir())


def test_a_url_without_a_file_system_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"^the pipeline root nowhere://bucket cannot be reached: Beam has no file system for it; gs:// needs "
    with pytest.raises(UserError, match=message) as error:
        open_root("nowhere://bucket")
    assert (error.value.code, error.value.fields) == ("url-unsupported", {"path": "nowhere://bucket"})
    assert not list(tmp_path.iterdir())
