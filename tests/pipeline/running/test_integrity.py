"""A published file that was cut off, changed or deleted is named, and its artifact is produced again."""

import os
import sqlite3
from pathlib import Path

import pytest

from seq2serve.components.base.artifact import Examples, Model, PushedModel, RawFiles
from seq2serve.components.base.component import Input, Output, component, raw_files
from seq2serve.pipeline.running import integrity
from seq2serve.pipeline.running.integrity import find_damage, record_files
from seq2serve.pipeline.running.pipeline import Pipeline, RunResult
from seq2serve.pipeline.running.runner import Runner

CALLS: list[str] = []
SHARD = "Split-train/shard"


@component
def Split(files: Input[RawFiles], examples: Output[Examples]) -> None:
    """Writes two shards."""
    CALLS.append("Split")
    Path(examples.path("Split-train")).mkdir()
    Path(examples.path(SHARD)).write_text("ten bytes.")
    Path(examples.path("Split-train", "other")).write_text("other")


@component
def Train(examples: Input[Examples], model: Output[Model]) -> None:
    """Copies a shard."""
    CALLS.append("Train")
    Path(model.path("model.txt")).write_text(Path(examples.path(SHARD)).read_text())


@pytest.fixture
def run(tmp_path):
    """Returns a function that runs Split and Train; CALLS then has those that were executed."""
    (tmp_path / "data.txt").write_text("a\n")

    def run() -> RunResult:
        CALLS.clear()
        files = raw_files(str(tmp_path / "data.txt"))
        split = Split(files=files)
        train = Train(examples=split.outputs["examples"])
        return Runner(Pipeline("toy", str(tmp_path / "root"), (files.node, split, train))).run()

    return run


def change_later(path: Path, text: str) -> None:
    """Writes a file; its time of change differs, however coarse the clock of the file system is."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: change_later(path, "ten"), "has 3 bytes instead of 10"),
        (lambda path: change_later(path, "TEN BYTES."), "has another SHA-256 than when it was published"),
        (Path.unlink, f"{SHARD} is missing in "),
    ],
    ids=["cut off", "changed", "missing"],
)
def test_a_damaged_file_is_named_and_its_component_runs_again(run, capsys, damage, words):
    examples = run().output("Split", "examples")
    damage(Path(examples.path(SHARD)))
    capsys.readouterr()
    again = run()
    assert CALLS == ["Split"], "the fingerprint of the examples is unchanged, so Train is reused"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Split")]
    assert "damaged output: " in line
    assert words in line
    assert examples.uri in line
    assert SHARD in line
    assert Path(again.output("Split", "examples").path(SHARD)).read_text() == "ten bytes."
    run()
    assert CALLS == []


def test_an_unchanged_file_with_another_time_is_read_once_and_reused(run, monkeypatch):
    path = Path(run().output("Split", "examples").path(SHARD))
    change_later(path, "ten bytes.")
    read, hashed = integrity.sha256_of, []
    monkeypatch.setattr(integrity, "sha256_of", lambda file: hashed.append(file) or read(file))
    run()
    run()
    assert CALLS == []
    assert hashed == [str(path)]


def test_artifacts_of_an_earlier_version_are_reused_without_a_check(run, tmp_path):
    examples = run().output("Split", "examples")
    with sqlite3.connect(tmp_path / "root" / "metadata.sqlite") as connection:
        connection.execute("DROP TABLE files")
    change_later(Path(examples.path(SHARD)), "ten")
    assert all(node.reused for node in run().nodes.values())


def test_the_files_of_a_pushed_version_count_also_when_it_is_withdrawn(tmp_path):
    version = tmp_path / "serving" / "7"
    for folder in (version / "variables", tmp_path / "artifact"):
        folder.mkdir(parents=True)
    for path in (version / "saved_model.pb", version / "variables" / "data", tmp_path / "artifact" / "pushed.json"):
        path.write_text("content")
    pushed = PushedModel(str(tmp_path / "artifact"), {"pushed_destination": str(version)})
    records = record_files(pushed)
    assert find_damage(pushed, records) == ("", records)
    withdrawn = version.rename(version.with_name("withdrawn-7"))
    assert find_damage(pushed, records) == ("", records)
    (withdrawn / "variables" / "data").write_text("cut")
    assert find_damage(pushed, records)[0] == f"{withdrawn}/variables/data has 3 bytes instead of 7"
