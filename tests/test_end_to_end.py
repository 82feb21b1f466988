"""The demo, shrunken, on a text of our own, by the real command line: run, run again, change, kill, run out of disk."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

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
OF_THE_MOMENT = {"model_run", "blessing", "pushed_model"}

# The command line, but for a process that is gone when the component named first is about to be published.
KILLED_WHILE_PUBLISHING = """
import os, signal, sys
from pipeline.__main__ import main
from pipeline.root import PipelineRoot

victim, publish = sys.argv.pop(1), PipelineRoot.publish

def publish_or_die(self, component, execution_id, keys):
    if component == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(self, component, execution_id, keys)

PipelineRoot.publish = publish_or_die
main()
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


def test_run_again_everything_is_reused_and_nothing_heavy_imported(house):
    first, before = (house.folder / "stdout.txt").read_text(), versions(house)
    done = house.run(python=("-X", "importtime", "-m", "pipeline"))
    assert done.returncode == 0
    assert told(done.stdout) == dict.fromkeys(COMPONENTS, ("reused", "nothing changed since run 1"))
    assert versions(house) == before
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "pipeline.runner" in imported
    assert not {"tensorflow", "apache_beam", "keras", "numpy"} & imported
    # What it shows is the same, from the title on, but for how long it took.
    assert (
        re.sub(r"\(\d+ s\)", "", done.stdout).partition("Held-out")[2]
        == (re.sub(r"\(\d+ s\)", "", first).partition("Held-out")[2])
    )


def test_the_next_steps_work_as_they_are_printed(house):
    steps = dict(re.findall(r"^  ([^:]+): (.*)$", (house.folder / "stdout.txt").read_text(), re.MULTILINE))
    lineage = house.execute([sys.executable, "-m", "pipeline", *shlex.split(steps["Where it came from"])[1:]])
    assert lineage.returncode == 0, lineage.stderr
    assert "RawFiles" in lineage.stdout
    assert "pairs.tsv" in lineage.stdout
    logs = pathlib.Path(shlex.split(steps["Watch training"])[-1])
    assert list(logs.rglob("*tfevents*"))
    (row, *_) = _predictions(house)
    predict = [*shlex.split(steps["Translate"])[1:-1], row["source"], ""]
    predicted = house.execute([sys.executable, "-m", "pipeline", *predict])
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert predicted.stdout == f"{row['prediction']}\n\n"


def _predictions(house):
    import json

    with open(house.output("Evaluator", "evaluation").path("predictions.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# Changing something.


@pytest.fixture(scope="module")
def changed(house, tmp_path_factory):
    """A copy of the house to change things in, one after the other."""
    return house.copy(tmp_path_factory.mktemp("changed") / "house")


def test_a_changed_training_setting_runs_the_trainer_and_what_follows(changed):
    done = changed.run("training.steps=2", "evaluation.min_bleu_over_baseline=-100")
    assert done.returncode == 0, done.stderr
    verbs = {component: verb for component, (verb, _) in told(done.stdout).items()}
    assert verbs == {component: "reused" if i < 5 else "ran" for i, component in enumerate(COMPONENTS)}
    reasons = {component: reason for component, (_, reason) in told(done.stdout).items()}
    assert reasons["Trainer"] == "parameter recipe.training.steps: 120 -> 2"
    assert reasons["InfraValidator"] == "input model changed"
    assert reasons["BulkInferrer"] == "input pushed_model changed"
    assert len(versions(changed)) == 2
    assert_nothing_half_written(changed)


def test_a_touched_line_runs_everything_but_no_model_that_is_not_blessed_is_pushed(changed):
    """Two steps of training are no better than copying the source, so the Pusher runs, and refuses."""
    before = versions(changed)
    text = (changed.folder / "pairs.tsv").read_text()
    (changed.folder / "pairs.tsv").write_text(text.replace("Prüfe", "Kontrolliere", 1))
    done = changed.run("training.steps=2")
    assert done.returncode == 3
    assert [(component, verb) for component, (verb, _) in told(done.stdout).items()] == [
        (component, "ran") for component in COMPONENTS[:8]
    ]
    reasons = {component: reason for component, (_, reason) in told(done.stdout).items()}
    assert reasons["ExampleGen"] == "input files changed"
    assert reasons["Trainer"] == "input tokenizer changed; input transformed_examples changed"
    assert done.stderr.startswith("seq2serve: Pusher: the model was not pushed; the Evaluator did not bless it: bleu ")
    assert len(done.stderr.splitlines()) == 1
    assert versions(changed) == before
    assert_nothing_half_written(changed)


# Killing it.


def test_killed_in_every_component_it_completes_as_if_it_had_not_been(house, new_house):
    """`kill -9` in the Trainer after its first checkpoint, in the others with all written and nothing published."""
    for number, component in enumerate(COMPONENTS):
        done = _kill_in_trainer(new_house) if component == "Trainer" else _kill_while_publishing(new_house, component)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert told(done.stdout) == _told_after_kill(number)
        assert os.listdir(new_house.folder / "runs" / ".staging"), "it was not killed half-way"
        assert len(versions(new_house)) == (component in ("Pusher", "BulkInferrer"))

    done = new_house.run()
    assert done.returncode == 0, done.stderr
    assert told(done.stdout) == _told_after_kill(len(COMPONENTS))
    assert len(versions(new_house)) == 1
    assert_nothing_half_written(new_house)
    _assert_same_outputs(house, new_house)


def _told_after_kill(number):
    """Returns what a run tells of the first `number` components, the last of which was killed in the run before."""
    lines = {name: ("reused", f"nothing changed since run {run}") for run, name in enumerate(COMPONENTS[:number], 2)}
    return lines | dict.fromkeys(list(lines)[-1:], ("ran", "an earlier execution was interrupted; going on"))


def _kill_while_publishing(house, component):
    return house.run(python=("-c", KILLED_WHILE_PUBLISHING, component))


def _kill_in_trainer(house):
    from tensorboard.backend.event_processing.io_wrapper import GetLogdirSubdirectories

    root = house.folder / house.root
    options = {"cwd": house.folder, "env": house.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(house.command(), text=True, **options) as process:
        while not list(root.glob(".scratch/*/checkpoints/ckpt-50.index")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        stdout, stderr = process.communicate()
    curves = {pathlib.Path(folder).name for folder in GetLogdirSubdirectories(str(root))}
    assert curves == {"train", "validation"}, "TensorBoard would not see it train"
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _assert_same_outputs(one, other):
    outputs = [
        (component, path.name)
        for component in COMPONENTS
        for path in sorted((one.folder / one.root / component).iterdir())
    ]
    assert len(outputs) == 13
    for component, key in outputs:
        if key not in OF_THE_MOMENT or component == "Evaluator":
            expected, found = (contents(house.output(component, key).uri) for house in (one, other))
            assert expected.keys() == found.keys()
            for name in expected:
                assert expected[name] == found[name], (component, key, name)
    # The second process went on where the first was killed: it began no log at step 0.
    logs = [path.name for path in pathlib.Path(other.output("Trainer", "model_run").uri).rglob("*tfevents*")]
    begun = {name.rpartition(".from-")[2]: name.split(".")[5] for name in logs}
    assert begun["0"] != begun["50"] == begun["100"]


# What cannot work.


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        (None, (), "no file 'pairs.tsv'"),
        ("", (), "pairs.tsv is empty"),
        ("source\ttarget\nA b\tC d\n", ("training.step=2",), "did you mean training.steps?"),
        ("source\tgerman\nA b\tC d\n", (), "pairs.tsv, line 1: no column 'target'"),
        ("source\ttarget\n" + "no tab in it\n" * 3, (), "pairs.tsv, line 2: "),
    ],
    ids=["missing file", "empty file", "unknown setting", "wrong column", "ragged rows"],
)
def test_bad_input_is_one_message_and_leaves_nothing(new_house, file, settings, message):
    path = new_house.folder / "pairs.tsv"
    path.unlink() if file is None else path.write_text(file)
    done = new_house.run(*settings)
    assert done.returncode == 2, done.stderr
    assert told(done.stdout) == {}
    assert done.stderr.startswith("seq2serve: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert_nothing_half_written(new_house)
    published = [path for path in (new_house.folder / "runs").glob("*") if path.is_dir() and path.name[0] != "."]
    assert published in ([], [new_house.folder / "runs" / "ExampleGen"])
    assert not [path for folder in published for path in folder.rglob("*") if path.is_file()]


# A file system of 1 MiB more than what is there already, then of as much as is needed.
ON_A_SMALL_DISK = """
set -u
mount -t tmpfs -o size=64m tmpfs "$1" || exit 77
cp -r "$2" "$1/house"
cd "$1/house"
mount -o "remount,size=$(( $(df --output=used -k "$1" | tail -1) + 1024 ))k" "$1" || exit 77
shift 2
"$@"
echo "exit code $?, staged: $(ls -A runs/.staging)"
mount -o remount,size=64m /proc/self/cwd/..
"$@"
echo "exit code $?"
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs Linux's namespaces to mount a disk of its own")
def test_a_full_disk_is_one_message_and_no_damage(house, tmp_path):
    """The Trainer's checkpoints fill the disk; with more room the same command goes on."""
    (tmp_path / "disk").mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    done = house.execute([*namespace, str(tmp_path / "disk"), str(house.folder), *house.command("training.seed=2")])
    if done.returncode == 77:
        pytest.skip(f"may not mount a disk: {done.stderr}")
    print(done.stdout, done.stderr)
