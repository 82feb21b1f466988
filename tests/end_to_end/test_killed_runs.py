"""Runs of the reduced demo that are killed, again and again, have the results of undisturbed runs."""

import dataclasses
import json
import pathlib
import random
import signal
import sys

import pytest

from seq2serve.models.training.saving import load_model
from tests.models.importing.small_marian import write_marian

RESUMED = ("ran", "resuming an interrupted execution")
# Outputs with times, process ids or version numbers, which differ between two otherwise identical runs.
UNREPRODUCIBLE = ("Trainer/model_run", "InfraValidator/blessing", "Pusher/pushed_model")
# Files with the numbers of TensorFlow functions. A resumed training traces fewer functions before the export.
NUMBERED = {"Format-Serving/saved_model.pb", "Format-Serving/fingerprint.pb"}

# Runs the command line repeatedly, each time in a new process that is killed in the next component: in the Trainer
# after a step, in the others when everything is written and nothing is published. The processes are forked from one
# that has imported the slow libraries. Each run is reported as a line of JSON.
KILLS = """
import contextlib, json, os, pathlib, signal, sys
import seq2serve.components.bulk_inferrer.workers, seq2serve.components.transform.workers
import seq2serve.models.export.translation
from seq2serve.components.trainer import callbacks as trainer_callbacks
from seq2serve.pipeline.commands.app import main
from seq2serve.pipeline.running.artifact_store import LocalArtifacts
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories

arguments = json.loads(sys.argv[1])
sys.argv = arguments["command"]
publish, move_bar = LocalArtifacts.publish, trainer_callbacks.ProgressBar.on_train_batch_end

def run(killed):
    def publish_or_die(self, component, execution_id, keys):
        if component == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(self, component, execution_id, keys)

    def move_bar_or_die(self, batch, logs=None):
        move_bar(self, batch, logs)
        if killed == "Trainer" and int(self.model.optimizer.iterations) == arguments["kill_step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    LocalArtifacts.publish, trainer_callbacks.ProgressBar.on_train_batch_end = publish_or_die, move_bar_or_die
    with open("stdout.txt", "w") as out, contextlib.redirect_stdout(out):
        main()

for killed in arguments["kill_in"]:
    if not (process := os.fork()):
        run(killed)
    _, status = os.waitpid(process, 0)
    report = {
        "killed": killed,
        "exit_code": os.waitstatus_to_exitcode(status),
        "stdout": pathlib.Path("stdout.txt").read_text(),
        "staged": [str(path) for path in pathlib.Path("runs/.staging").rglob("*")],
        "served": [path.name for path in pathlib.Path("serving").glob("[0-9]*")],
        "curves": [pathlib.Path(folder).name for folder in GetLogdirSubdirectories("runs")],
    }
    print(json.dumps(report), flush=True)
"""


def run_with_kills(run, *settings, kill_in, kill_step):
    """Runs KILLS and returns its reports: one per component in `kill_in`, and that of the last run, which completes."""
    command = ["seq2serve", *run.command(*settings)[3:]]
    arguments = {"command": command, "kill_in": [*kill_in, None], "kill_step": kill_step}
    done = run.execute([sys.executable, "-c", KILLS, json.dumps(arguments)])
    assert done.returncode == 0, done.stderr
    *killed, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["exit_code"] for report in killed] == [-signal.SIGKILL] * len(kill_in), done.stderr
    assert all(report["staged"] for report in killed), "it was not killed half-way"
    assert last["exit_code"] == 0, done.stderr
    return killed, last


def contents(folder):
    """Returns relative path -> content of every file in a folder."""
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("seed", [1], ids="seed-{}".format)
def test_a_run_killed_in_every_component_has_the_result_of_an_undisturbed_run(
    finished_run_of, new_run_of, seed, components, assert_nothing_half_written
):
    """Of the classifier, because every component runs twice; the next test kills the training of a generator."""
    finished_run, killed_run = finished_run_of("classification"), new_run_of("classification")
    names = list(components((finished_run.folder / "stdout.txt").read_text()))
    assert len(names) == 10
    kill_step = random.Random(seed).randint(51, 99)  # between the checkpoints at 50 and 100
    killed, last = run_with_kills(killed_run, kill_in=names, kill_step=kill_step)
    for index, report in enumerate(killed):
        assert components(report["stdout"]) == after_kills(names[:index])
        assert len(report["served"]) == (report["killed"] in ("Pusher", "BulkInferrer"))
        # TensorBoard finds the curves while the Trainer runs, and after it has published them.
        assert sorted(report["curves"]) == (["train", "validation"] if index >= 5 else [])
    assert components(last["stdout"]) == after_kills(names)
    assert len(last["served"]) == 1
    assert_nothing_half_written(killed_run)
    assert_same_outputs(finished_run, killed_run, names)


def test_a_fine_tuning_that_is_killed_has_the_result_of_an_undisturbed_one(build_run, tmp_path, components):
    start = write_marian(tmp_path / "marian", quantised=True)
    settings = ("training.steps=20", "training.checkpoint_steps=10", "evaluation.bar=none")
    runs = []
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        runs.append(dataclasses.replace(build_run(tmp_path / name, "translation"), start=str(start)))
    done = runs[0].run(*settings)
    assert done.returncode == 0, done.stderr
    names = ["ModelImporter", "TransformByTokenizer", "Trainer", "Pusher"]
    killed, last = run_with_kills(runs[1], *settings, kill_in=names, kill_step=15)
    assert components(killed[2]["stdout"])["ModelImporter"] == ("reused", "nothing changed since run 2")
    assert components(last["stdout"])["Pusher"] == RESUMED
    for key in ("ModelImporter/model", "TransformByTokenizer/tokenizer", "Evaluator/evaluation"):
        assert_same_files(*runs, key)
    # Not the same files: Keras numbers the models of a process, and the killed one has made a model less.
    expected, actual = (load_model(run.output("Trainer", "model").path("Format-Keras")) for run in runs)
    for one, other in zip(expected.get_weights(), actual.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


def after_kills(names):
    """Returns the expected report of components if the run before was killed in the last of them."""
    lines = {name: ("reused", f"nothing changed since run {run}") for run, name in enumerate(names, 2)}
    return lines | dict.fromkeys(list(lines)[-1:], RESUMED)


def assert_same_outputs(undisturbed, killed, names):
    root = undisturbed.folder / "runs"
    keys = [f"{component}/{path.name}" for component in names for path in (root / component).iterdir()]
    assert len(keys) == 13
    for key in sorted(set(keys) - set(UNREPRODUCIBLE)):
        assert_same_files(undisturbed, killed, key)
    # The second process resumed from the checkpoint of the first, so it began no curve at step 0.
    logs = [path.name for path in pathlib.Path(killed.output("Trainer", "model_run").uri).rglob("*tfevents*")]
    processes = {name.rpartition(".from-")[2]: name.split(".")[5] for name in logs}
    assert processes["0"] != processes["50"] == processes["100"]


def assert_same_files(one, other, key):
    """Asserts that two runs published the same files, and that only the numbers of functions may differ."""
    expected, actual = (contents(run.output(*key.split("/")).uri) for run in (one, other))
    assert expected.keys() == actual.keys(), key
    assert {name for name in expected if expected[name] != actual[name]} <= NUMBERED, key


@pytest.mark.parametrize("seed", [1], ids="seed-{}".format)
def test_packed_rows_give_the_same_model_if_training_and_pushing_are_killed(
    finished_run_of, tmp_path, seed, components, versions, assert_nothing_half_written
):
    """Checkpoints are at other steps than in the finished run, so the Trainer runs, with the same weights as result."""
    run = finished_run_of("language_model").copy(tmp_path / "copy")
    kill_step = random.Random(seed).randint(81, 99)  # after the checkpoint at 80
    settings = {"kill_in": ["Trainer", "Pusher"], "kill_step": kill_step}
    killed, last = run_with_kills(run, "training.checkpoint_steps=40", **settings)
    assert components(killed[1]["stdout"])["Trainer"] == components(last["stdout"])["Pusher"] == RESUMED
    assert components(killed[1]["stdout"])["Transform"] == ("reused", "nothing changed since run 1")
    assert len(versions(run)) == 2
    assert_nothing_half_written(run)
    for key in ("Trainer/model", "Evaluator/evaluation"):
        assert_same_files(finished_run_of("language_model"), run, key)
