"""A pipeline that is killed and run again, or run twice at once, has the result of one undisturbed run."""

import json
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from seq2serve.pipeline.commands.history_text import run_text, runs_text
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.report import facts as report_run
from seq2serve.pipeline.running.state_folder import StateFolder, run_lock


@pytest.fixture
def toy(make_toy, tmp_path: Path):
    return make_toy(tmp_path)


UNDISTURBED = {
    "Count/examples/half": "half",
    "Count/examples/count.txt": "18",
    "Train/model/model.txt": "18 x 3",
    "Train/model_run/log.txt": "log",
    "Judge/evaluation/metrics.json": "18 x 3",
}


def test_an_undisturbed_run(toy):
    assert toy.run().code == 0
    assert toy.artifacts() == UNDISTURBED


def test_a_cached_run_imports_neither_tensorflow_nor_beam(toy):
    first = toy.run()
    assert first.summary["heavy"] == ["apache_beam", "tensorflow"], "components import them when they run"
    start = time.monotonic()
    second = toy.run()
    assert time.monotonic() - start < 10  # documented as 2 s; a busy machine is not a failure
    assert second.summary["heavy"] == []
    assert {state for state, _ in second.components.values()} == {"reused"}
    assert toy.calls() == ["Count", "Train from 0", "Judge"]
    assert second.summary["outputs"] == first.summary["outputs"]


@pytest.mark.parametrize(
    ("crash", "calls", "reason"),
    [
        ("in Count", ["Count", "Train from 0", "Judge"], "first run"),
        ("in Train", ["Train from 2", "Judge"], "resuming an interrupted execution"),
        ("before Train begins", ["Train from 0", "Judge"], "resuming an interrupted execution"),
        ("before Train is renamed", ["Train from 3", "Judge"], "resuming an interrupted execution"),
        ("between Train's renames", ["Train from 3", "Judge"], "resuming an interrupted execution"),
        ("before Train is committed", ["Train from 3", "Judge"], "resuming an interrupted execution"),
        ("after Train is committed", ["Judge"], "nothing changed since run 1"),
    ],
)
def test_a_killed_run_completes_when_it_is_run_again(toy, crash, calls, reason):
    killed = toy.run(crash=crash)
    assert killed.code == -signal.SIGKILL, killed.err
    complete = {component for component, state in toy.states() if state == "COMPLETE"}
    assert ("Train" in complete) == (crash == "after Train is committed")
    before = len(toy.calls())

    again = toy.run()
    assert again.code == 0, again.err
    assert toy.calls()[before:] == calls
    assert again.components["Train"][1] == reason
    assert toy.artifacts() == UNDISTURBED
    assert toy.leftovers() == []
    assert "RUNNING" not in {state for _, state in toy.states()}
    assert {state for state, _ in toy.run().components.values()} == {"reused"}


def test_a_run_that_is_killed_twice_resumes_from_the_last_checkpoint(toy):
    toy.run(crash="in Train")
    toy.run(crash="before Train is renamed")
    assert toy.run().components["Train"] == ("ran", "resuming an interrupted execution")
    assert toy.calls() == ["Count", "Train from 0", "Train from 2", "Train from 3", "Judge"]
    assert toy.artifacts() == UNDISTURBED


def test_history_shows_a_killed_run_as_killed_and_a_live_run_as_running_without_changing_the_store(toy):
    toy.run(crash="in Train")
    store = MetadataStore(f"sqlite:///{toy.root / 'metadata.sqlite'}")
    before = sorted((toy.root / ".locks").iterdir())
    headings, killed = runs_text(store).splitlines()
    assert killed.split()[4:] == ["CANCELED", "1", "0", "killed"], headings
    assert [line.split()[1] for line in run_text(store, 1).splitlines()[1:]] == ["COMPLETE", "CANCELED"]
    facts = report_run.read_run(store, 1, str(toy.root))
    assert (facts.run.state, facts.steps["Train"].execution.message) == ("CANCELED", "killed")
    assert toy.states()[-1] == ("Train", "RUNNING"), "reading the history changed the store"
    assert sorted((toy.root / ".locks").iterdir()) == before
    with StateFolder(toy.root).lock(run_lock(1)):
        assert runs_text(store).splitlines()[1].split()[4:] == ["RUNNING", "1", "0"]
        assert run_text(store, 1).splitlines()[2].split()[1] == "RUNNING"


def test_other_settings_do_not_use_the_checkpoint(toy):
    toy.run(crash="in Train")
    assert toy.run(steps=5).code == 0
    assert toy.calls()[-2:] == ["Train from 0", "Judge"]


def test_runs_at_the_same_time_execute_each_component_once(toy):
    processes = [toy.start(slow=1.5) for _ in range(3)]
    finished = [toy.finish(process) for process in processes]
    assert [run.code for run in finished] == [0, 0, 0], [run.err for run in finished]
    assert sorted(toy.calls()) == ["Count", "Judge", "Train from 0"]
    assert sorted(run.components["Train"][0] for run in finished) == ["ran", "reused", "reused"]
    assert len({json.dumps(run.summary["outputs"]) for run in finished}) == 1
    assert toy.artifacts() == UNDISTURBED
    assert toy.leftovers() == []


def test_runs_with_different_settings_at_the_same_time_all_complete(toy):
    toy.run(crash="in Count")
    processes = [toy.start(slow=0.5, steps=steps) for steps in (3, 4, 5, 6)]
    finished = [toy.finish(process) for process in processes]
    assert [run.code for run in finished] == [0] * 4, [run.err for run in finished]
    for steps, run in zip((3, 4, 5, 6), finished, strict=True):
        model = Path(run.summary["outputs"]["Train/model"], "model.txt")
        assert model.read_text() == f"18 x {steps}"
    assert toy.calls().count("Count") == 2
    assert toy.leftovers() == []


def wait_for(condition) -> None:
    """Waits until a function returns true; fails after 30 s."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_live_run_is_not_swept_and_a_waiting_run_takes_over_when_it_is_killed(toy):
    first = toy.start(slow=600.0)
    wait_for(lambda: "Train from 0" in toy.calls())
    other = toy.run(steps=4)  # it sweeps, and must not touch the folders of the first run
    assert other.code == 0, other.err
    assert (toy.root / ".staging" / "2" / "model").is_dir()
    assert ("Train", "RUNNING") in toy.states()

    waiting = toy.start()
    time.sleep(1.0)
    assert waiting.poll() is None, "it waits for the first run"
    first.kill()
    first.communicate()
    second = toy.finish(waiting)
    assert second.code == 0, second.err
    assert second.components["Train"] == ("ran", "resuming an interrupted execution")
    assert toy.leftovers() == []
    assert toy.states().count(("Train", "CANCELED")) == 1


def test_a_run_interrupted_by_ctrl_c_resumes(toy, heeds_ctrl_c):
    process = toy.start(slow=600.0)
    wait_for(lambda: "Train from 0" in toy.calls())
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in toy.finish(process).err
    assert ("Train", "CANCELED") in toy.states()
    assert [Path(path).parent.name for path in toy.leftovers()] == [".scratch"]
    assert toy.run().code == 0
    assert toy.calls()[-2:] == ["Train from 1", "Judge"]


def test_a_changed_helper_runs_the_components_that_import_it(toy):
    toy.run()
    helper = toy.folder / "helper.py"
    helper.write_text(helper.read_text().replace("sum(", "2 * sum("))
    again = toy.run()
    assert again.components["Count"] == ("ran", "code changed: helper.py")
    assert toy.artifacts()["Judge/evaluation/metrics.json"] in ("18 x 3", "36 x 3")
    assert Path(again.summary["outputs"]["Judge/evaluation"], "metrics.json").read_text() == "36 x 3"


def test_a_terminal_shows_which_component_is_running(toy):
    terminal, process_end = os.openpty()
    process = toy.start(stdout=process_end)
    _, err = process.communicate(timeout=60)
    os.close(process_end)
    assert process.returncode == 0, err
    lines = os.read(terminal, 100_000).decode().split("\r\n")
    os.close(terminal)
    _, before, after = lines[1].split("\r\x1b[2K")
    assert before == "Train  running  first run"
    assert after.startswith("Train  ran ")


def test_a_deleted_root_runs_everything_again(toy):
    toy.run()
    shutil.rmtree(toy.root)
    again = toy.run()
    assert {reason for _, reason in again.components.values()} == {"first run"}


def test_a_store_of_an_earlier_version_can_still_be_used(toy):
    """The earlier version has no table of places. Here the store also has a run that was killed."""
    toy.run(steps=5)
    toy.run(crash="in Train")
    with sqlite3.connect(toy.root / "metadata.sqlite") as connection:
        connection.execute("DROP TABLE places")
    assert {state for state, _ in toy.run(steps=5).components.values()} == {"reused"}
    assert "RUNNING" not in {state for _, state in toy.states()}
    assert toy.run().components["Train"] == ("ran", "resuming an interrupted execution")
