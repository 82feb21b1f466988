"""The command line on a reduced demo, end to end: run, run again, change, kill, start from an earlier model, fail."""

import dataclasses
import json
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from seq2serve.components.base.artifact import InfraBlessing, Model, PushedModel
from seq2serve.components.base.errors import NotBlessedError
from seq2serve.components.infra_validator.component import InfraValidator
from seq2serve.components.pusher.component import Pusher
from seq2serve.components.tasks.registry import TASKS

COMPONENTS = [
    "ExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "InfraValidator",
    "Pusher",
    "BulkInferrer",
]
FIRST_RUN = dict.fromkeys(COMPONENTS, ("ran", "first run"))
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
from seq2serve.pipeline.running.root import PipelineRoot
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories

arguments = json.loads(sys.argv[1])
sys.argv = arguments["command"]
publish, move_bar = PipelineRoot.publish, trainer_callbacks.ProgressBar.on_train_batch_end

def run(killed):
    def publish_or_die(self, component, execution_id, keys):
        if component == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(self, component, execution_id, keys)

    def move_bar_or_die(self, batch, logs=None):
        move_bar(self, batch, logs)
        if killed == "Trainer" and int(self.model.optimizer.iterations) == arguments["kill_step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    PipelineRoot.publish, trainer_callbacks.ProgressBar.on_train_batch_end = publish_or_die, move_bar_or_die
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


def components(stdout):
    """Returns component -> ("ran" or "reused", reason) for the components that a run reported, in order."""
    lines = (re.match(r"(\w+) +(ran|reused) +\d+\.\d s  (.*)", line) for line in stdout.splitlines())
    return {line[1]: (line[2], line[3]) for line in lines if line}


def summary(stdout):
    """Returns the text that a run prints after the line of its last component, without the time it took."""
    return re.sub(r"\(\d+ s\)", "", stdout.partition(f"\n{COMPONENTS[-1]} ")[2].partition("\n")[2])


def versions(run):
    """Returns the names of the versions that a model server loads: numeric folders."""
    return sorted(path.name for path in (run.folder / run.serving).glob("*") if path.name.isdecimal())


def contents(folder):
    """Returns relative path -> content of every file in a folder."""
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_nothing_half_written(run):
    """Asserts that no staged or scratch files are left, and that every version that the server loads is complete."""
    root, serving = run.folder / run.root, run.folder / run.serving
    assert not list((root / ".staging").glob("*"))
    assert not [path for path in (root / ".scratch").rglob("*") if path.is_file()]
    assert not list(serving.glob(".pushing-*"))
    assert all((serving / version / "saved_model.pb").is_file() for version in versions(run))


# Running, and running again.


def test_one_command_turns_a_text_into_a_served_model(finished_run):
    stdout = (finished_run.folder / "stdout.txt").read_text()
    assert components(stdout) == FIRST_RUN
    assert len(versions(finished_run)) == 1
    assert_nothing_half_written(finished_run)
    assert "Held-out texts" in summary(stdout)
    metrics = finished_run.output("Evaluator", "evaluation").properties
    assert metrics["model"]["bleu"] > metrics["baseline"]["bleu"] + 10
    assert metrics["model"]["chrf"] > metrics["baseline"]["chrf"] + 20


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_the_same_command_works_for_the_other_tasks(finished_run_of, task):
    finished_run = finished_run_of(task)
    stdout = (finished_run.folder / "stdout.txt").read_text()
    assert components(stdout) == FIRST_RUN
    assert len(versions(finished_run)) == 1
    assert_nothing_half_written(finished_run)
    metrics = finished_run.output("Evaluator", "evaluation").properties
    is_better = {
        "classification": lambda model, baseline: model["accuracy"] > 95 > baseline["accuracy"] + 10,
        "language_model": lambda model, baseline: model["bits_per_character"] < 1 < baseline["bits_per_character"] - 2,
    }
    assert is_better[task](metrics["model"], metrics["baseline"]), metrics


def test_a_second_run_reuses_everything_and_imports_nothing_heavy(any_finished_run, tmp_path):
    # In a copy, because other tests read the last run of the original; pushed versions stay there.
    serving = str(any_finished_run.folder / any_finished_run.serving)
    copy = dataclasses.replace(any_finished_run.copy(tmp_path / "copy"), serving=serving)
    first, before = (copy.folder / "stdout.txt").read_text(), versions(copy)
    done = copy.run(python=("-X", "importtime", "-m", "seq2serve"))
    assert done.returncode == 0
    assert components(done.stdout) == dict.fromkeys(COMPONENTS, ("reused", "nothing changed since run 1"))
    assert versions(copy) == before
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "seq2serve.pipeline.running.runner" in imported
    assert not {"tensorflow", "apache_beam", "keras", "numpy"} & imported
    original_root = str(any_finished_run.folder / any_finished_run.root)
    assert summary(done.stdout.replace(str(copy.folder / copy.root), original_root)) == summary(first)


def test_the_printed_next_steps_work(finished_run):
    stdout = (finished_run.folder / "stdout.txt").read_text()
    commands = [shlex.split(command) for command in re.findall(r"^  [^:]+: (seq2serve .*)$", stdout, re.MULTILINE)]
    steps = {name: [name, *arguments] for _, name, *arguments in commands}
    lineage = finished_run.execute([sys.executable, "-m", "seq2serve", *steps["lineage"]])
    assert lineage.returncode == 0, lineage.stderr
    assert "RawFiles" in lineage.stdout
    assert "pairs.tsv" in lineage.stdout
    assert list(pathlib.Path(steps["tensorboard"][-1]).rglob("*tfevents*"))
    rows = predictions(finished_run)
    *predict, example = steps["predict"]
    assert any(row["source"].startswith(example) for row in rows), "the example is a held-out text of this run"
    predicted = finished_run.execute([sys.executable, "-m", "seq2serve", *predict, rows[0]["source"], ""])
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert predicted.stdout == f"{rows[0]['prediction']}\n\n"


def predictions(run):
    with open(run.output("Evaluator", "evaluation").path("predictions.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# Changing something.


def test_a_changed_training_setting_runs_the_trainer_and_later_components_and_a_worse_model_is_not_pushed(
    finished_run, tmp_path
):
    changed = finished_run.copy(tmp_path / "copy")
    done = changed.run("training.steps=2")
    assert done.returncode == NotBlessedError.exit_code
    reused = ("reused", "nothing changed since run 1")
    assert components(done.stdout) == {
        **dict.fromkeys(COMPONENTS[:5], reused),
        "Trainer": ("ran", "parameter recipe.training.steps: 120 -> 2"),
        "Evaluator": ("ran", "input model changed"),
        "InfraValidator": ("ran", "input model changed"),
    }
    # One line, from the Pusher, with the component that did not bless the model, the metric and the setting. Lines
    # before it are the progress of components that take long on a slow machine.
    *progress, message = done.stderr.splitlines()
    assert re.fullmatch(r"seq2serve: Pusher: .*Evaluator.*bleu.*evaluation\.min_over_baseline.*", message)
    assert all(line.split()[0] in COMPONENTS for line in progress)
    assert versions(changed) == versions(finished_run)
    assert_nothing_half_written(changed)


def test_a_changed_line_of_the_text_runs_everything(finished_run, tmp_path, heeds_ctrl_c):
    """The run is interrupted in the Trainer; the test above covers the components that follow."""
    changed = finished_run.copy(tmp_path / "copy")
    text = (changed.folder / "pairs.tsv").read_text()
    (changed.folder / "pairs.tsv").write_text(text.replace("Prüfe", "Kontrolliere", 1))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(changed.command(), cwd=changed.folder, env=changed.environment, **pipes) as process:
        while not list((changed.folder / "runs").glob(".staging/*/model_run")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert re.fullmatch(r"seq2serve: interrupted.*\n", stderr)
    assert components(stdout) == {
        "ExampleGen": ("ran", "input files changed"),
        "StatisticsGen": ("ran", "input examples changed"),
        "SchemaGen": ("ran", "input statistics changed"),
        "ExampleValidator": ("ran", "input schema changed; input statistics changed"),
        "Transform": ("ran", "input examples changed; input schema changed"),
    }
    command = [sys.executable, "-m", "seq2serve", "runs"]
    (number, *_) = changed.execute(command).stdout.splitlines()[-1].split()
    *_, trainer = changed.execute([*command, number]).stdout.splitlines()
    assert re.fullmatch(r"Trainer +CANCELED .* input tokenizer changed; input transformed_examples changed", trainer)


# Killing it.


@pytest.mark.parametrize("seed", [1], ids="seed-{}".format)
def test_a_run_killed_in_every_component_has_the_result_of_an_undisturbed_run(finished_run, new_finished_run, seed):
    kill_step = random.Random(seed).randint(51, 99)  # between the checkpoints at 50 and 100
    killed, last = run_with_kills(new_finished_run, kill_in=COMPONENTS, kill_step=kill_step)
    for index, report in enumerate(killed):
        assert components(report["stdout"]) == components_after_kills(index)
        assert len(report["served"]) == (report["killed"] in ("Pusher", "BulkInferrer"))
        # TensorBoard finds the curves while the Trainer runs, and after it has published them.
        assert sorted(report["curves"]) == (["train", "validation"] if index >= 5 else [])
    assert components(last["stdout"]) == components_after_kills(len(COMPONENTS))
    assert len(last["served"]) == 1
    assert_nothing_half_written(new_finished_run)
    assert_same_outputs(finished_run, new_finished_run)


def components_after_kills(count):
    """Returns the expected report of the first `count` components if the run before was killed in the last of them."""
    lines = {name: ("reused", f"nothing changed since run {run}") for run, name in enumerate(COMPONENTS[:count], 2)}
    return lines | dict.fromkeys(list(lines)[-1:], RESUMED)


def assert_same_outputs(undisturbed, killed):
    root = undisturbed.folder / "runs"
    keys = [f"{component}/{path.name}" for component in COMPONENTS for path in (root / component).iterdir()]
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
def test_packed_rows_give_the_same_model_if_training_and_pushing_are_killed(finished_run_of, tmp_path, seed):
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


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_a_model_that_the_infra_validator_does_not_bless_is_not_pushed(finished_run_of, tmp_path, task):
    """Only its warm-up requests are unreadable."""
    finished_run = finished_run_of(task)
    model = Model(str(tmp_path / "model"))
    shutil.copytree(finished_run.output("Trainer", "model").uri, model.uri)
    pathlib.Path(model.path("Format-Serving", "assets.extra", "tf_serving_warmup_requests")).write_bytes(b"broken")
    infra_blessing, pushed = InfraBlessing(str(tmp_path / "blessing")), PushedModel(str(tmp_path / "pushed"))
    for artifact in (infra_blessing, pushed):
        pathlib.Path(artifact.uri).mkdir()
    examples = finished_run.output("ExampleGen", "examples")
    InfraValidator.function(model=model, examples=examples, blessing=infra_blessing)
    assert infra_blessing.properties["reason"].startswith("warm_up: ")
    serving = tmp_path / "serving"
    with pytest.raises(NotBlessedError, match="warm_up: "):
        Pusher.function(
            model=model,
            model_blessing=finished_run.output("Evaluator", "blessing"),
            infra_blessing=infra_blessing,
            pushed_model=pushed,
            destination=str(serving),
            task="translation",
        )
    assert not serving.exists()


# Starting from an earlier model.


def test_a_classifier_starts_from_a_language_model_and_its_lineage_contains_it(finished_run_of, tmp_path):
    run = finished_run_of("classification").copy(tmp_path / "copy")
    folder = pathlib.Path(finished_run_of("language_model").output("Trainer", "model").path("Format-Keras"))
    warm_start = ["--warm-start", str(folder.parent), "--tokenizer", str(folder / "tokenizer")]
    done = run.execute([*run.command("training.steps=60", "evaluation.min_over_baseline=-100"), *warm_start])
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if str(folder) in line]
    assert "Trainer" in line
    assert all(layer in line for layer in ("embedding", "encoder", "head"))
    assert "input base_model changed" in components(done.stdout)["Trainer"][1]
    model = run.output("Trainer", "model")
    assert model.properties["warm_start"] == {"taken": ["embedding", "encoder"], "fresh": ["head"], "unused": []}
    lineage = run.execute([sys.executable, "-m", "seq2serve", "lineage", model.uri])
    assert re.search(rf"ModelFiles .*{re.escape(str(folder))}", lineage.stdout), lineage.stdout


# Runs that fail.


@pytest.mark.parametrize(
    ("task", "text", "settings", "location"),
    [
        ("translation", None, (), "'pairs.tsv'"),
        ("translation", "", (), "pairs.tsv is empty"),
        ("translation", "source\ttarget\nA b\tC d\n", ("training.step=2",), "did you mean training.steps?"),
        ("translation", "source\ttarget\nA b\tC d\n" + "no tab in it\n" * 3, (), "pairs.tsv, line 3: "),
        ("classification", "sentence,star\nA b,good\n", (), "sentences.csv, line 1: "),
        ("classification", "sentence,label\nA b,good\n" + "A,b,c,good\n" * 3, (), "sentences.csv, line 3: "),
        ("language_model", "\n\n\n", (), "text.txt"),
    ],
    ids=["missing file", "empty file", "unknown setting", "ragged rows", "missing column", "ragged CSV", "no text"],
)
def test_bad_input_is_one_message_with_its_location_and_leaves_nothing(new_run_of, task, text, settings, location):
    run = new_run_of(task)
    path = run.folder / run.file
    path.unlink() if text is None else path.write_text(text)
    done = run.run(*settings)
    assert done.returncode == 2, done.stderr
    assert components(done.stdout) == {}
    assert done.stderr.startswith("seq2serve: ")
    assert location in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert_nothing_half_written(run)
    published = [path for path in (run.folder / "runs").glob("*") if path.is_dir() and path.name[0] != "."]
    assert published in ([], [run.folder / "runs" / "ExampleGen"])
    assert not [path for folder in published for path in folder.rglob("*") if path.is_file()]


# Arguments: a folder on which a small disk is mounted, its size, and the command that runs there.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$2" tmpfs "$1" || exit 77
cd "$1"
shift 2
"$@"
echo "exit code $?"
echo "left: $(find runs -type f ! -name 'metadata.sqlite*' ! -path '*/.locks/*') $(ls -A runs/.staging)"
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs Linux namespaces to mount a disk")
@pytest.mark.parametrize("task", TASKS)
def test_a_full_disk_is_one_message_and_leaves_nothing(new_run_of, task):
    run = new_run_of(task)
    header, rows = (run.folder / run.file).read_text().split("\n", 1)
    (run.folder / run.file).write_text(f"{header}\n{rows * 40}")
    (run.folder / "disk").mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", "disk", "1m"]
    run = dataclasses.replace(run, file=f"../{run.file}")
    done = run.execute([*namespace, *run.command()])
    if done.returncode == 77:
        pytest.skip(f"may not mount a disk: {done.stderr}")
    assert done.stderr.startswith("seq2serve: ExampleGen failed: no space left on the disk ")
    assert str(run.folder / "disk" / "runs") in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "exit code 1\nleft:  \n"
