"""The demo, shrunken, on a text of our own, by the real command line: run, run again, change, kill, run out of disk."""

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

from components.artifact import InfraBlessing, Model, PushedModel
from components.errors import NotBlessedError
from components.infra_validator import InfraValidator
from components.pusher import Pusher
from components.tasks import TASKS

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
# Outputs that hold times, process numbers or versions, and so differ between two runs that are the same.
OF_THE_MOMENT = ("Trainer/model_run", "InfraValidator/blessing", "Pusher/pushed_model")
# So do these: functions are numbered by how many were made before, and a resumed training makes fewer.
NUMBERED = {"Format-Serving/saved_model.pb", "Format-Serving/fingerprint.pb"}

# Runs the command line again and again, each time in a process that is gone in the next component: in the Trainer after
# a step, in the others with all written and nothing published. They are forked from one that has imported what takes
# long. A line of JSON tells of each run.
KILLS = """
import contextlib, json, os, pathlib, signal, sys
import components.bulk_inferrer_beam, components.transform_beam, models.export_translation
from components import trainer_callbacks
from pipeline.__main__ import main
from pipeline.root import PipelineRoot
from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories

arguments = json.loads(sys.argv[1])
sys.argv = arguments["command"]
publish, move_bar = PipelineRoot.publish, trainer_callbacks.ProgressBar.on_train_batch_end

def run(victim):
    def publish_or_die(self, component, execution_id, keys):
        if component == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(self, component, execution_id, keys)

    def move_bar_or_die(self, batch, logs=None):
        move_bar(self, batch, logs)
        if victim == "Trainer" and int(self.model.optimizer.iterations) == arguments["killed_after"]:
            os.kill(os.getpid(), signal.SIGKILL)

    PipelineRoot.publish, trainer_callbacks.ProgressBar.on_train_batch_end = publish_or_die, move_bar_or_die
    with open("stdout.txt", "w") as out, contextlib.redirect_stdout(out):
        main()

for victim in arguments["victims"]:
    if not (process := os.fork()):
        run(victim)
    _, status = os.waitpid(process, 0)
    report = {
        "victim": victim,
        "ended": os.waitstatus_to_exitcode(status),
        "stdout": pathlib.Path("stdout.txt").read_text(),
        "staged": [str(path) for path in pathlib.Path("runs/.staging").rglob("*")],
        "served": [path.name for path in pathlib.Path("serving").glob("[0-9]*")],
        "curves": [pathlib.Path(folder).name for folder in GetLogdirSubdirectories("runs")],
    }
    print(json.dumps(report), flush=True)
"""


def told(stdout):
    """Returns component -> ("ran" or "reused", the reason), of those that a run told of, in order."""
    lines = (re.match(r"(\w+) +(ran|reused) +\d+\.\d s  (.*)", line) for line in stdout.splitlines())
    return {line[1]: (line[2], line[3]) for line in lines if line}


def versions(house):
    """Returns what the model server sees: folders with numeric names."""
    serving = house.folder / house.serving
    return sorted(path.name for path in serving.glob("*") if path.name.isdecimal())


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in pathlib.Path(folder).rglob("*") if path.is_file()
    }


def assert_nothing_half_written(house):
    """Nothing is staged or kept to go on from, and every version that the server sees is whole."""
    root = house.folder / house.root
    assert not list((root / ".staging").glob("*"))
    assert not [path for path in (root / ".scratch").rglob("*") if path.is_file()]
    assert not list((house.folder / house.serving).glob(".pushing-*"))
    assert all((house.folder / house.serving / version / "saved_model.pb").is_file() for version in versions(house))


# Running, and running again.


def test_one_command_makes_a_served_model_of_a_text(house):
    stdout = (house.folder / "stdout.txt").read_text()
    assert told(stdout) == dict.fromkeys(COMPONENTS, ("ran", "first run"))
    assert len(versions(house)) == 1
    assert_nothing_half_written(house)
    assert "Held-out texts, answered by the pushed SavedModel" in stdout
    metrics = house.output("Evaluator", "evaluation").properties
    assert metrics["model"]["bleu"] > metrics["baseline"]["bleu"] + 10
    assert metrics["model"]["chrf"] > metrics["baseline"]["chrf"] + 20


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_another_task_goes_the_same_way(house_of, task):
    house = house_of(task)
    stdout = (house.folder / "stdout.txt").read_text()
    assert told(stdout) == dict.fromkeys(COMPONENTS, ("ran", "first run"))
    assert len(versions(house)) == 1
    assert_nothing_half_written(house)
    metrics = house.output("Evaluator", "evaluation").properties
    better = {
        "classification": lambda model, baseline: model["accuracy"] > 95 > baseline["accuracy"] + 10,
        "language_model": lambda model, baseline: model["bits_per_character"] < 1 < baseline["bits_per_character"] - 2,
    }
    assert better[task](metrics["model"], metrics["baseline"]), metrics


def test_run_again_everything_is_reused_and_nothing_heavy_imported(any_house, tmp_path):
    # In a copy, for other tests look at the last run of the house; what was pushed stays where it was.
    serving = str(any_house.folder / any_house.serving)
    house = dataclasses.replace(any_house.copy(tmp_path / "house"), serving=serving)
    first, before = (house.folder / "stdout.txt").read_text(), versions(house)
    done = house.run(python=("-X", "importtime", "-m", "pipeline"))
    assert done.returncode == 0
    assert told(done.stdout) == dict.fromkeys(COMPONENTS, ("reused", "nothing changed since run 1"))
    assert versions(house) == before
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "pipeline.runner" in imported
    assert not {"tensorflow", "apache_beam", "keras", "numpy"} & imported
    # What it shows is the same, but for how long it took.
    again = done.stdout.replace(str(house.folder / house.root), str(any_house.folder / any_house.root))
    one, other = (re.sub(r"\(\d+ s\)", "", text).partition("Held-out")[2] for text in (first, again))
    assert one == other


def test_the_next_steps_work_as_they_are_printed(house):
    steps = dict(re.findall(r"^  ([^:]+): (.*)$", (house.folder / "stdout.txt").read_text(), re.MULTILINE))
    lineage = house.execute([sys.executable, "-m", "pipeline", *shlex.split(steps["Where it came from"])[1:]])
    assert lineage.returncode == 0, lineage.stderr
    assert "RawFiles" in lineage.stdout
    assert "pairs.tsv" in lineage.stdout
    logs = pathlib.Path(shlex.split(steps["Watch training"])[-1])
    assert list(logs.rglob("*tfevents*"))
    (row, *_) = _predictions(house)
    *predict, asked = shlex.split(steps["Translate"])[1:]
    assert any(row["source"].startswith(asked) for row in _predictions(house)), "a held-out text of the run's own"
    predict += [row["source"], ""]
    predicted = house.execute([sys.executable, "-m", "pipeline", *predict])
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert predicted.stdout == f"{row['prediction']}\n\n"


def _predictions(house):
    with open(house.output("Evaluator", "evaluation").path("predictions.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# Changing something.


def test_a_changed_training_setting_runs_the_trainer_and_what_follows_and_a_worse_model_is_not_pushed(house, tmp_path):
    changed = house.copy(tmp_path / "house")
    done = changed.run("training.steps=2")
    assert done.returncode == 3
    reused = ("reused", "nothing changed since run 1")
    assert told(done.stdout) == {
        **dict.fromkeys(COMPONENTS[:5], reused),
        "Trainer": ("ran", "parameter recipe.training.steps: 120 -> 2"),
        "Evaluator": ("ran", "input model changed"),
        "InfraValidator": ("ran", "input model changed"),
    }
    refusal = r"seq2serve: Pusher: the model was not pushed; .*Evaluator did not bless it: "
    refusal += r"bleu \S+ is below .* \(BLEU points\); "
    refusal += r"train longer .*, or lower evaluation\.min_over_baseline; (.*; )?look at `seq2serve report`\n"
    assert re.fullmatch(refusal, done.stderr)
    assert versions(changed) == versions(house)
    assert_nothing_half_written(changed)


def test_a_touched_line_runs_everything(house, tmp_path, heeds_ctrl_c):
    """Interrupted in the Trainer, for what follows that was seen to follow above."""
    changed = house.copy(tmp_path / "house")
    text = (changed.folder / "pairs.tsv").read_text()
    (changed.folder / "pairs.tsv").write_text(text.replace("Prüfe", "Kontrolliere", 1))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(changed.command(), cwd=changed.folder, env=changed.environment, **pipes) as process:
        while not list((changed.folder / "runs").glob(".staging/*/model_run")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stderr == "seq2serve: interrupted; run the same command again to go on\n"
    assert told(stdout) == {
        "ExampleGen": ("ran", "input files changed"),
        "StatisticsGen": ("ran", "input examples changed"),
        "SchemaGen": ("ran", "input statistics changed"),
        "ExampleValidator": ("ran", "input schema changed; input statistics changed"),
        "Transform": ("ran", "input examples changed; input schema changed"),
    }
    command = [sys.executable, "-m", "pipeline", "runs"]
    (number, *_) = changed.execute(command).stdout.splitlines()[-1].split()
    *_, trainer = changed.execute([*command, number]).stdout.splitlines()
    assert re.fullmatch(r"Trainer +CANCELED .* input tokenizer changed; input transformed_examples changed", trainer)


# Killing it.


def test_killed_in_every_component_it_completes_as_if_it_had_not_been(house, new_house):
    killed_after = random.randint(51, 99)  # between the checkpoints at 50 and 100
    command = ["seq2serve", *new_house.command()[3:]]
    arguments = {"command": command, "victims": [*COMPONENTS, None], "killed_after": killed_after}
    done = new_house.execute([sys.executable, "-c", KILLS, json.dumps(arguments)])
    assert done.returncode == 0, done.stderr
    *killed, last = [json.loads(line) for line in done.stdout.splitlines()]
    for number, run in enumerate(killed):
        assert run["ended"] == -signal.SIGKILL, done.stderr
        assert told(run["stdout"]) == _told_after_kill(number)
        assert run["staged"], "it was not killed half-way"
        assert len(run["served"]) == (run["victim"] in ("Pusher", "BulkInferrer"))
        # TensorBoard sees it train, and sees what it was once it is published.
        assert sorted(run["curves"]) == (["train", "validation"] if number >= 5 else [])

    assert last["ended"] == 0, done.stderr
    assert told(last["stdout"]) == _told_after_kill(len(COMPONENTS))
    assert len(last["served"]) == 1
    assert_nothing_half_written(new_house)
    _assert_same_outputs(house, new_house)


def _told_after_kill(number):
    """Returns what a run tells of the first `number` components, the last of which was killed in the run before."""
    lines = {name: ("reused", f"nothing changed since run {run}") for run, name in enumerate(COMPONENTS[:number], 2)}
    return lines | dict.fromkeys(list(lines)[-1:], ("ran", "an earlier execution was interrupted; going on"))


def _assert_same_outputs(one, other):
    keys = [
        f"{component}/{path.name}" for component in COMPONENTS for path in (one.folder / "runs" / component).iterdir()
    ]
    assert len(keys) == 13
    for key in sorted(set(keys) - set(OF_THE_MOMENT)):
        expected, found = (contents(house.output(*key.split("/")).uri) for house in (one, other))
        assert expected.keys() == found.keys(), key
        assert {name for name in expected if expected[name] != found[name]} <= NUMBERED, key
    # The second process went on from the first's checkpoint, and so began no curve at step 0.
    logs = [path.name for path in pathlib.Path(other.output("Trainer", "model_run").uri).rglob("*tfevents*")]
    processes = {name.rpartition(".from-")[2]: name.split(".")[5] for name in logs}
    assert processes["0"] != processes["50"] == processes["100"]


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_another_task_killed_in_training_and_pushing_completes_as_if_it_had_not_been(house_of, tmp_path, task):
    """With a checkpoint at other steps than the house's own, which makes the Trainer run and changes no weight."""
    house = house_of(task).copy(tmp_path / "house")
    command = ["seq2serve", *house.command("training.checkpoint_steps=40")[3:]]
    arguments = {"command": command, "victims": ["Trainer", "Pusher", None], "killed_after": 90}
    done = house.execute([sys.executable, "-c", KILLS, json.dumps(arguments)])
    assert done.returncode == 0, done.stderr
    *killed, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["ended"] for run in killed] == [-signal.SIGKILL] * 2, done.stderr
    assert all(run["staged"] for run in killed), "it was not killed half-way"
    assert last["ended"] == 0, done.stderr
    interrupted = ("ran", "an earlier execution was interrupted; going on")
    assert told(killed[1]["stdout"])["Trainer"] == told(last["stdout"])["Pusher"] == interrupted
    assert told(killed[1]["stdout"])["Transform"] == ("reused", "nothing changed since run 1")
    assert len(versions(house)) == 2
    assert_nothing_half_written(house)
    for key in ("Trainer/model", "Evaluator/evaluation"):
        expected, found = (contents(one.output(*key.split("/")).uri) for one in (house_of(task), house))
        assert {name for name in expected if expected[name] != found[name]} <= NUMBERED, key


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_of_another_task_what_the_infra_validator_refuses_is_not_pushed(house_of, tmp_path, task):
    """Its warm-up requests cannot be read; all else is well."""
    house = house_of(task)
    model = Model(str(tmp_path / "model"))
    shutil.copytree(house.output("Trainer", "model").uri, model.uri)
    pathlib.Path(model.path("Format-Serving", "assets.extra", "tf_serving_warmup_requests")).write_bytes(b"broken")
    blessing, pushed = InfraBlessing(str(tmp_path / "blessing")), PushedModel(str(tmp_path / "pushed"))
    for artifact in (blessing, pushed):
        pathlib.Path(artifact.uri).mkdir()
    InfraValidator.function(model=model, examples=house.output("ExampleGen", "examples"), blessing=blessing)
    assert blessing.properties["reason"].startswith("warm_up: ")
    blessed, serving = house.output("Evaluator", "blessing"), tmp_path / "serving"
    with pytest.raises(NotBlessedError, match="warm_up: "):
        Pusher.function(
            model=model,
            model_blessing=blessed,
            infra_blessing=blessing,
            pushed_model=pushed,
            destination=str(serving),
            task="translation",
        )
    assert not serving.exists()


# Going on from an earlier model.


def test_a_classifier_starts_from_a_language_model_and_its_lineage_says_so(house_of, tmp_path):
    house, earlier = house_of("classification").copy(tmp_path / "house"), house_of("language_model")
    folder = pathlib.Path(earlier.output("Trainer", "model").path("Format-Keras"))
    warm = ["--warm-start", str(folder.parent), "--tokenizer", str(folder / "tokenizer")]
    done = house.execute([*house.command("training.steps=60", "evaluation.min_over_baseline=-100"), *warm])
    assert done.returncode == 0, done.stderr
    assert f"Trainer starts from {folder}: taken embedding, encoder; fresh head; unused nothing\n" in done.stderr
    assert "input base_model changed" in told(done.stdout)["Trainer"][1]
    model = house.output("Trainer", "model")
    assert model.properties["warm_start"] == {"taken": ["embedding", "encoder"], "fresh": ["head"], "unused": []}
    lineage = house.execute([sys.executable, "-m", "pipeline", "lineage", model.uri])
    assert re.search(rf"ModelFiles +given +{re.escape(str(folder))}", lineage.stdout), lineage.stdout


# What cannot work.


@pytest.mark.parametrize(
    ("task", "text", "settings", "message"),
    [
        ("translation", None, (), "no file 'pairs.tsv'"),
        ("translation", "", (), "pairs.tsv is empty"),
        ("translation", "source\ttarget\nA b\tC d\n", ("training.step=2",), "did you mean training.steps?"),
        ("translation", "source\ttarget\nA b\tC d\n" + "no tab in it\n" * 3, (), "pairs.tsv, line 3: "),
        ("classification", "sentence,star\nA b,good\n", (), "sentences.csv, line 1: no column 'label'"),
        ("classification", "sentence,label\nA b,good\n" + "A,b,c,good\n" * 3, (), "sentences.csv, line 3: "),
        ("language_model", "\n\n\n", (), "text.txt"),
    ],
    ids=["missing file", "empty file", "unknown setting", "ragged rows", "missing column", "ragged CSV", "no text"],
)
def test_bad_input_is_one_message_and_leaves_nothing(new_house_of, task, text, settings, message):
    house = new_house_of(task)
    path = house.folder / house.file
    path.unlink() if text is None else path.write_text(text)
    done = house.run(*settings)
    assert done.returncode == 2, done.stderr
    assert told(done.stdout) == {}
    assert done.stderr.startswith("seq2serve: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert_nothing_half_written(house)
    published = [path for path in (house.folder / "runs").glob("*") if path.is_dir() and path.name[0] != "."]
    assert published in ([], [house.folder / "runs" / "ExampleGen"])
    assert not [path for folder in published for path in folder.rglob("*") if path.is_file()]


# The first two arguments: a folder to be a disk of its own, and its size; the others: the command.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$2" tmpfs "$1" || exit 77
cd "$1"
shift 2
"$@"
echo "exit code $?"
echo "left: $(find runs -type f ! -name 'metadata.sqlite*' ! -path '*/.locks/*') $(ls -A runs/.staging)"
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs Linux's namespaces to mount a disk of its own")
@pytest.mark.parametrize("task", TASKS)
def test_a_full_disk_is_one_message_and_no_damage(new_house_of, task):
    house = new_house_of(task)
    header, rows = (house.folder / house.file).read_text().split("\n", 1)
    (house.folder / house.file).write_text(f"{header}\n{rows * 40}")
    (house.folder / "disk").mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", "disk", "1m"]
    house = dataclasses.replace(house, file=f"../{house.file}")
    done = house.execute([*namespace, *house.command()])
    if done.returncode == 77:
        pytest.skip(f"may not mount a disk: {done.stderr}")
    root = house.folder / "disk" / "runs"
    message = f"no space left on the disk (the pipeline root is {root}); free some, then run again to go on"
    assert done.stderr == f"seq2serve: ExampleGen failed: {message}\n"
    assert done.stdout == "exit code 1\nleft:  \n"
