"""`seq2serve evaluate` measures as the Evaluator does, on any file, counts every row, and changes nothing."""

import csv
import json
import pathlib
import shutil

import pytest

import seq2serve
from seq2serve.components.base.errors import UserError
from seq2serve.components.evaluator.report import read_rows
from seq2serve.components.pusher.versions import versions
from seq2serve.components.tasks.registry import get_task

TASKS = ["translation", "classification", "language_model"]
LABELLED = [
    *[("Open the door in the hall now.", "in, out", "north"), ("Check the lamp in the garden please.", "outside", "")],
    *[("Open the door in the cellar now.", "inside", "south"), ("Open the lamp in the bedroom now.", "upstairs", "")],
]


def test_rows(run) -> list[dict[str, str]]:
    """Returns the rows of a run's test split, in order."""
    columns = get_task(run.task).columns
    with open(run.output("Evaluator", "evaluation").path("predictions.jsonl"), encoding="utf-8") as file:
        return [{column: json.loads(line)[column] for column in columns} for line in file]


test_rows.__test__ = False


def files_below(*folders: pathlib.Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def sentences(tmp_path) -> str:
    """A CSV file of four labelled sentences, and a row that is rejected; one label is new."""
    path = tmp_path / "new.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("sentence", "label", "side"), *LABELLED, ("", "outside", "north")])
    return str(path)


@pytest.mark.parametrize("task", TASKS)
def test_a_pushed_model_has_the_metrics_of_its_run_on_the_rows_of_its_test_split(finished_run_of, task):
    """All of them, also intervals, slices, and the baselines that need the training rows and the tokenizer."""
    run = finished_run_of(task)
    root = run.folder / run.root
    evaluation = seq2serve.evaluate(run.folder / run.serving, test_rows(run), pipeline_root=root)
    assert evaluation.report == run.output("Evaluator", "evaluation").properties
    assert evaluation.model == str(run.folder / run.serving / str(versions(run.folder / run.serving)[-1]))
    assert (evaluation.task, evaluation.rejects, evaluation.warnings) == (task, [], [])
    trained = seq2serve.evaluate(run.output("Trainer", "model").uri, test_rows(run)[:40])
    assert trained.baselines.keys() == evaluation.baselines.keys()
    assert trained.counts["num_rows"] == trained.report["num_examples"] == 40


def test_the_command_prints_the_tables_and_counts_every_row_and_pushes_nothing(finished_run_of, sentences, invoke):
    run = finished_run_of("classification")
    root, serving = run.folder / run.root, run.folder / run.serving
    before = files_below(root, serving)
    command = ["evaluate", serving, sentences, "--text", "sentence", "--pipeline-root", root]
    done = invoke(*command, "--set=data.slices=side", "--set=data.max_reject_share=0.5")
    assert done.exit_code == 0, done.stderr
    assert "5 rows, 4 evaluated, 1 rejected\n" in done.stdout
    assert f"{sentences}, line 6: empty text" in done.stdout
    assert "1 of 4 rows have labels that the model does not know, and count as errors: 'upstairs' (1)" in done.stdout
    assert "Test set, 4 examples" in done.stdout
    assert "majority label" in done.stdout
    assert "Confusion matrix" in done.stdout
    slices = done.stdout.partition("accuracy by side")[2]
    assert [word for word in ("(empty)", "north", "south") if word in slices] == ["(empty)", "north", "south"]
    assert files_below(root, serving) == before


def test_several_files_are_slices(finished_run_of, sentences, tmp_path):
    run, other = finished_run_of("classification"), shutil.copy(sentences, tmp_path / "other.csv")
    options = {"text": "sentence", "data": {"max_reject_share": 0.5}, "pipeline_root": run.folder / run.root}
    evaluation = seq2serve.evaluate(run.folder / run.serving, f"{sentences},{other}", **options)
    sizes = {part["name"]: part["num_examples"] for part in evaluation.slices if part["by"] == "corpus"}
    assert sizes == {"new": 4, "other": 4}


def test_rows_that_the_model_was_trained_on_are_counted_and_named(finished_run_of, tmp_path):
    run = finished_run_of("classification")
    trained = read_rows(run.output("ExampleGen", "examples"), "train", ("text", "label"))[:3]
    rows = [*test_rows(run)[:5], *({**row, "text": f" {row['text']} "} for row in trained)]
    evaluation = seq2serve.evaluate(run.folder / run.serving, rows, pipeline_root=run.folder / run.root)
    (warning,) = [warning for warning in evaluation.warnings if "trained on" in warning]
    assert warning.startswith("3 of 8 rows (37.5%) are also in the data that the model was trained on")


def test_a_version_that_was_copied_is_measured_without_the_baselines_that_need_its_training(
    finished_run_of, sentences, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = finished_run_of("classification")
    copy = shutil.copytree(run.folder / run.serving, tmp_path / "elsewhere")
    options = {"text": "sentence", "data": {"max_reject_share": 0.5}}
    alone = seq2serve.evaluate(copy, sentences, **options)
    whole = seq2serve.evaluate(copy, sentences, pipeline_root=run.folder / run.root, **options)
    assert alone.metrics == whole.metrics
    assert (alone.baselines, "majority label" in whole.baselines) == ({}, True)
    assert "baseline" in whole.slices[0]
    assert "baseline" not in alone.slices[0]
    (warning,) = [warning for warning in alone.warnings if warning not in whole.warnings]
    assert warning.startswith("no baselines: ")
    assert "--pipeline-root" in warning


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["SERVING", "train=FILE,test=FILE"], "split-unexpected"),
        (["SERVING", "FILE:3,FILE:1"], "weight-unexpected"),
        (["SERVING", "FILE", "--set=training.steps=5"], "setting-unused"),
        (["SERVING", "FILE", "--text=nothing"], "column-missing"),
        (["SERVING", "FILE"], "too-many-rejects"),
        (["SERVING", "missing.csv"], "file-missing"),
        (["MODEL", "FILE"], "model-unknown"),
        (["nowhere", "FILE"], "saved-model-missing"),
    ],
)
def test_a_wrong_argument_is_one_message(finished_run_of, sentences, invoke, tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    run = finished_run_of("classification")
    if "MODEL" in arguments:  # without its record and its pipeline root, its task is unknown
        shutil.copytree(run.output("Trainer", "model").path("Format-Serving"), tmp_path / "copy")
    names = {"SERVING": run.folder / run.serving, "MODEL": tmp_path / "copy"}
    words = [names.get(word, word.replace("FILE", sentences)) for word in arguments]
    done = invoke("evaluate", *words, *([] if any("--text" in word for word in arguments) else ["--text=sentence"]))
    assert done.exit_code == UserError.exit_code
    assert done.error.code == code, done.stderr
    assert "Traceback" not in done.stderr
