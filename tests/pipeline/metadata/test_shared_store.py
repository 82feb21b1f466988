"""A store that several roots and machines share: live runs are not swept, and folder numbers are unique."""

import signal
import time
from pathlib import Path

import pytest

from seq2serve.components.base.artifact import ModelEvaluation
from seq2serve.components.base.component import Output, component
from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.commands.history_text import runs_text
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.running.pipeline import Pipeline
from seq2serve.pipeline.running.runner import Runner


@component
def Judge(evaluation: Output[ModelEvaluation]) -> None:
    """Has the same name as a component of the toy pipeline."""


@pytest.fixture
def toys(make_toy, postgres_url, tmp_path):
    """Two toy pipelines, each with its own root, that share one store."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    return [make_toy(folder, postgres_url) for folder in folders]


@pytest.fixture
def store(postgres_url):
    return MetadataStore(postgres_url)


def states(store, component="Train"):
    """Returns the states of a component's executions, in the order of the runs."""
    rows = [execution for run in store.runs() for execution in store.executions_of_run(run.id)]
    return [row.state for row in rows if row.component == component]


def numbers(toy):
    return {int(path.name) for path in toy.root.glob("[A-Z]*/*/*")}


def test_concurrent_runs_lose_nothing(toys, store):
    """Four processes create the tables; each does its own work or waits for that of another."""
    toys[1].run(crash="in Count")
    work = [(toys[0], 3), (toys[0], 3), (toys[1], 4), (toys[1], 5)]
    processes = [toy.start(slow=0.5, steps=steps) for toy, steps in work]
    finished = [toy.finish(process) for (toy, _), process in zip(work, processes, strict=True)]
    assert [run.code for run in finished] == [0] * 4, [run.err for run in finished]
    for (toy, steps), run in zip(work, finished, strict=True):
        model = Path(run.summary["outputs"]["Train/model"])
        assert model.is_relative_to(toy.root)
        assert (model / "model.txt").read_text() == f"18 x {steps}"
    assert sorted(run.state for run in store.runs()) == ["CANCELED", *["COMPLETE"] * 4]
    assert sorted(states(store)) == ["CACHED", *["COMPLETE"] * 3]
    assert not numbers(toys[0]) & numbers(toys[1])
    assert toys[0].leftovers() + toys[1].leftovers() == []
    for run in finished:
        made = store.find_artifact(run.summary["outputs"]["Judge/evaluation"])
        assert [row.component for row in store.lineage(made.id, "backward")] == ["", "Count", "Train", "Judge"]


def test_only_a_process_that_can_test_its_lock_sweeps_a_run(toys, store):
    """Another root, or another machine in the same root, does not sweep it, live or killed."""
    toy, other = toys
    live = toy.start(slow=600.0)
    deadline = time.monotonic() + 30
    while "Train from 0" not in toy.calls():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert other.run(steps=4).code == 0
    assert toy.run(steps=5, machine="another").code == 0
    assert states(store) == ["RUNNING", "COMPLETE", "COMPLETE"]
    live.kill()
    live.communicate()
    assert other.run(steps=4).code == 0
    assert toy.run(steps=5, machine="another").code == 0
    assert states(store)[0] == "RUNNING"
    again = toy.run()
    assert again.components["Train"] == ("ran", "resuming an interrupted execution")
    assert states(store)[0] == "CANCELED"
    assert toy.leftovers() == []


def test_artifacts_of_another_root_are_reused_if_its_identity_matches(toys, store):
    toy, other = toys
    (other.folder / "data.tsv").write_bytes((toy.folder / "data.tsv").read_bytes())
    first = toy.run()
    place = store.runs()[0].place
    assert place.endswith(f":{toy.root}")
    reused = other.run()
    assert reused.summary["outputs"] == first.summary["outputs"]
    assert reused.components["Judge"] == ("reused", f"nothing changed since run 1 at {place}")
    assert "LOCATION" in runs_text(store)
    assert place in runs_text(store)

    # Another machine may have a different root at the same path.
    (toy.root / ".identity").write_text("0" * 32)
    alone = other.run()
    assert alone.components["Count"] == ("ran", f"its output at {place} is not reachable from here")
    assert other.artifacts().keys() == toy.artifacts().keys()


def test_a_checkpoint_is_kept_when_the_same_work_elsewhere_becomes_unreachable(toys):
    toy, other = toys
    assert toy.run(crash="in Train").code == -signal.SIGKILL
    assert other.run().code == 0
    other.root.rename(other.folder / "away")
    assert toy.run().code == 0
    assert toy.calls() == ["Count", "Train from 0", "Train from 2", "Judge"]


def test_a_root_cannot_switch_its_store(toys, store, tmp_path):
    """With two stores, folder numbers would not be unique."""
    shared, alone = toys
    shared.run()
    alone.run(metadata="")
    for root, url, code in (
        (shared.root, "", "metadata-store-shared"),
        (shared.root, f"sqlite:///{tmp_path}/other.sqlite", "artifact-not-in-store"),
        (alone.root, str(store), "metadata-store-own"),
    ):
        with pytest.raises(UserError) as error:
            Runner(Pipeline("toy", str(root), (Judge(),)), metadata_url=url)
        assert error.value.code == code
    again = alone.run(metadata=f"sqlite:///{alone.root}/../{alone.root.name}/metadata.sqlite")
    assert {verb for verb, _ in again.components.values()} == {"reused"}
