"""Runs that fail: each reports one message and leaves nothing half-written."""

import dataclasses
import json
import shutil
import sys

import pytest

from seq2serve.components.tasks.registry import TASKS

# Name -> task, text of the file, settings, part of the message.
BAD_INPUTS = {
    "missing file": ("translation", None, (), "'pairs.tsv'"),
    "empty file": ("translation", "", (), "pairs.tsv is empty"),
    "unknown setting": (
        "translation",
        "source\ttarget\nA b\tC d\n",
        ("training.step=2",),
        "did you mean training.steps?",
    ),
    "ragged rows": ("translation", "source\ttarget\nA b\tC d\n" + "no tab in it\n" * 3, (), "pairs.tsv, line 3: "),
    "missing column": ("classification", "sentence,star\nA b,good\n", (), "sentences.csv, line 1: "),
    "ragged CSV": ("classification", "sentence,label\nA b,good\n" + "A,b,c,good\n" * 3, (), "sentences.csv, line 3: "),
    "no text": ("language_model", "\n\n\n", (), "text.txt"),
}

# Runs command lines, each in its folder and in a process that is forked from one that has imported the slow libraries.
# Each is reported as a line of JSON.
FORKS = """
import json, os, pathlib, sys
import seq2serve.components.example_gen.executor
from seq2serve.pipeline.commands.app import main

for folder, command in json.loads(sys.argv[1]):
    os.chdir(folder)
    if not (process := os.fork()):
        for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = command
        main()
    _, status = os.waitpid(process, 0)
    texts = [pathlib.Path(name).read_text() for name in ("stdout.txt", "stderr.txt")]
    print(json.dumps([os.waitstatus_to_exitcode(status), *texts]), flush=True)
"""


@pytest.fixture(scope="module")
def bad_runs(build_run, tmp_path_factory):
    """Name of a bad input -> its run, and how that ended: exit code, standard output and standard error."""
    runs, commands = {}, []
    for name, (task, text, settings, _) in BAD_INPUTS.items():
        folder = tmp_path_factory.mktemp("my [old] 100%41 *what?")
        runs[name] = run = build_run(folder, task)
        path = run.folder / run.file
        path.unlink() if text is None else path.write_text(text)
        commands.append([str(folder), ["seq2serve", *run.command(*settings)[3:]]])
    done = run.execute([sys.executable, "-c", FORKS, json.dumps(commands)])
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(runs, zip(runs.values(), results, strict=True), strict=True))


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_one_message_with_its_location_and_leaves_nothing(
    bad_runs, name, components, assert_nothing_half_written
):
    *_, location = BAD_INPUTS[name]
    run, (exit_code, stdout, stderr) = bad_runs[name]
    assert exit_code == 2, stderr
    assert components(stdout) == {}
    assert stderr.startswith("seq2serve: ")
    assert location in stderr
    assert len(stderr.splitlines()) == 1
    assert_nothing_half_written(run)
    folders = [path for path in (run.folder / "runs").glob("*") if path.is_dir() and path.name[0] != "."]
    published = [path for path in folders if path.name != "configs"]
    assert published in ([], [run.folder / "runs" / "ExampleGen"])
    assert not [path for folder in published for path in folder.rglob("*") if path.is_file()]


# Arguments: a folder on which a small disk is mounted, its size, and the command that runs there.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$2" tmpfs "$1" || exit 77
cd "$1"
shift 2
"$@"
echo "exit code $?"
files=$(find runs -type f ! -name 'metadata.sqlite*' ! -path '*/.locks/*' ! -path runs/configs/1.toml)
echo "left: $files $(ls -A runs/.staging)"
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
