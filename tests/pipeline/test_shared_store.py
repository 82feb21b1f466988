"""One store for several roots and machines: nobody's run is declared dead, no folder's number is given twice."""

import signal
import time
from pathlib import Path

import pytest

from components.artifact import ModelEvaluation
from components.component import Output, component
from components.errors import UserError
from pipeline.history import runs_text
from pipeline.metadata import MetadataStore
from pipeline.runner import Pipeline, Runner


@component
def Judge(evaluation: Output[ModelEvaluation]) -> None:
    """Has the name of one of the toy pipeline's components."""


@pytest.fixture
def toys(make_toy, postgres_url, tmp_path):
    """Two toy pipelines with a root each and one store."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    return [make_toy(folder, postgres_url) for folder in folders]


@pytest.fixture
def store(postgres_url):
    return MetadataStore(postgres_url)


def states(store, component="Train"):
    """Returns the states of a component's executions in order; those that were reused stand for their run."""
    rows = [execution for run in store.runs() for execution in store.executions_of_run(run.id)]
    return [row.state for row in rows if row.component == component]


def numbers(toy):
    return {int(path.name) for path in toy.root.glob("[A-Z]*/*/*")}


def test_runs_at_once_lose_nothing(toys, store):
    """Four processes make the tables, and each does its own work or waits for its neighbour's."""
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


def test_only_who_can_try_its_lock_declares_a_run_dead(toys, store):
    """Neither another root nor another machine in the same root, whether it lives or not."""
    mine, other = toys
    live = mine.start(slow=600.0)
    deadline = time.monotonic() + 30
    while "Train from 0" not in mine.calls():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert other.run(steps=4).code == 0
    assert mine.run(steps=5, machine="another").code == 0
    assert states(store) == ["RUNNING", "COMPLETE", "COMPLETE"]
    live.kill()
    live.communicate()
    assert other.run(steps=4).code == 0
    assert mine.run(steps=5, machine="another").code == 0
    assert states(store)[0] == "RUNNING"
    again = mine.run()
    assert again.components["Train"] == ("ran", "an earlier execution was interrupted; going on")
    assert states(store)[0] == "CANCELED"
    assert mine.leftovers() == []


def test_what_another_root_made_is_reused_where_it_is_that_root(toys, store):
    mine, other = toys
    (other.folder / "data.tsv").write_bytes((mine.folder / "data.tsv").read_bytes())
    first = mine.run()
    place = store.runs()[0].place
    assert place.endswith(f":{mine.root}")
    reused = other.run()
    assert reused.summary["outputs"] == first.summary["outputs"]
    assert reused.components["Judge"] == ("reused", f"nothing changed since run 1 at {place}")
    assert "PLACE" in runs_text(store)
    assert place in runs_text(store)

    # Another machine may have another root at the same path.
    (mine.root / ".identity").write_text("0" * 32)
    alone = other.run()
    assert alone.components["Count"] == ("ran", f"its output at {place} cannot be reached from here")
    assert other.artifacts().keys() == mine.artifacts().keys()


def test_a_checkpoint_outlives_the_same_work_out_of_reach(toys):
    mine, other = toys
    assert mine.run(crash="in Train").code == -signal.SIGKILL
    assert other.run().code == 0
    other.root.rename(other.folder / "away")
    assert mine.run().code == 0
    assert mine.calls() == ["Count", "Train from 0", "Train from 2", "Judge"]


def test_a_root_has_one_store(toys, store, tmp_path):
    """With two, its folders would get the same numbers twice."""
    shared, alone = toys
    shared.run()
    alone.run(metadata="")
    for root, url, message in (
        (shared.root, "", "keeps its metadata in a store that it shares"),
        (shared.root, f"sqlite:///{tmp_path}/other.sqlite", r"other.sqlite, which may have been deleted or replaced"),
        (alone.root, str(store), "has a metadata store of its own"),
    ):
        with pytest.raises(UserError, match=message):
            Runner(Pipeline("toy", str(root), (Judge(),)), metadata_url=url)
    again = alone.run(metadata=f"sqlite:///{alone.root}/../{alone.root.name}/metadata.sqlite")
    assert {verb for verb, _ in again.components.values()} == {"reused"}
