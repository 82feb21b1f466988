"""The command line on a reduced demo, end to end: run, run again, change, start from an earlier model."""

import csv
import dataclasses
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from seq2serve.components.base.artifact import SPLITS, InfraBlessing, Model, PushedModel
from seq2serve.components.base.errors import NotBlessedError
from seq2serve.components.example_gen.corpora import corpus_weights
from seq2serve.components.infra_validator.component import InfraValidator
from seq2serve.components.pusher.component import Pusher
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from seq2serve.pipeline.run_config import read_run_config

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


def summary(stdout):
    """Returns the text that a run prints after the line of its last component, without the time it took."""
    return re.sub(r"\(\d+ s\)", "", stdout.partition(f"\n{COMPONENTS[-1]} ")[2].partition("\n")[2])


# Running, and running again.


def test_one_command_turns_a_text_into_a_served_model(finished_run, components, versions, assert_nothing_half_written):
    stdout = (finished_run.folder / "stdout.txt").read_text()
    assert components(stdout) == FIRST_RUN
    assert len(versions(finished_run)) == 1
    assert_nothing_half_written(finished_run)
    assert "Held-out texts" in summary(stdout)
    metrics = finished_run.output("Evaluator", "evaluation").properties
    assert metrics["model"]["bleu"] > metrics["baseline"]["bleu"] + 10
    assert metrics["model"]["chrf"] > metrics["baseline"]["chrf"] + 20


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_the_same_command_works_for_the_other_tasks(
    finished_run_of, task, components, versions, assert_nothing_half_written
):
    finished_run = finished_run_of(task)
    stdout = (finished_run.folder / "stdout.txt").read_text()
    assert components(stdout) == FIRST_RUN
    assert len(versions(finished_run)) == 1
    assert_nothing_half_written(finished_run)
    metrics = finished_run.output("Evaluator", "evaluation").properties
    is_better = {
        "classification": lambda model, trivial: model["accuracy"] > 95 > trivial["accuracy"] + 10,
        "language_model": lambda model, trivial: model["bits_per_character"] < 1.05 < trivial["bits_per_character"] - 2,
    }
    assert is_better[task](metrics["model"], next(iter(metrics["baselines"].values()))), metrics


def test_the_config_of_a_run_repeats_it_on_its_root_and_trains_the_same_weights_on_another(
    finished_run_of, tmp_path, components
):
    """Of a classifier, because it is trained in a fraction of a translator's time."""
    run = finished_run_of("classification")
    copy = run.copy(tmp_path / "copy")
    repeat = [sys.executable, "-m", "seq2serve", "run", "--config", str(copy.folder / copy.root / "configs" / "1.toml")]
    serving = ["--serving-dir", str(run.folder / run.serving)]
    again = copy.execute([*repeat, "--pipeline-root", copy.root, *serving])
    assert again.returncode == 0, again.stderr
    assert components(again.stdout) == dict.fromkeys(COMPONENTS, ("reused", "nothing changed since run 1"))
    (tmp_path / "elsewhere").mkdir()
    fresh = dataclasses.replace(copy, folder=tmp_path / "elsewhere")
    done = fresh.execute([*repeat, "--pipeline-root", fresh.root])
    assert done.returncode == 0, done.stderr
    assert components(done.stdout) == FIRST_RUN
    weights = [each.output("Trainer", "model").path("Format-Keras", "model.weights.h5") for each in (run, fresh)]
    first, second = (pathlib.Path(path).read_bytes() for path in weights)
    assert first == second


def test_a_second_corpus_and_the_last_model_are_one_command(finished_run_of, tmp_path, components):
    """The first run's rows are old, those of the new file are new; the report shows both."""
    copy = finished_run_of("classification").copy(tmp_path / "copy")
    rows = (copy.folder / copy.file).read_text(encoding="utf-8").splitlines()
    words = {"light": "radio", "door": "printer", "camera": "fan"}
    new = [row.replace(old, word) for old, word in words.items() for row in rows if f" {old} " in row]
    (copy.folder / "extra.csv").write_text("\n".join([rows[0], *new]) + "\n", encoding="utf-8")
    command = copy.command("training.steps=40", "evaluation.bar=none")
    command[command.index(copy.file)] = "--data"
    command[command.index("--data") + 1 : command.index("--data") + 1] = [f"{copy.file}:1,extra.csv:3"]
    first = copy.output("Trainer", "model")
    done = copy.execute([*command, "--warm-start", "last"])
    assert done.returncode == 0, done.stderr
    assert f"warm start from the last pushed model, {first.uri} (" in done.stderr
    assert "TransformByTokenizer" in components(done.stdout)
    slices = {(part["by"], part["name"]): part for part in copy.output("Evaluator", "evaluation").properties["slices"]}
    counts = copy.output("ExampleGen", "examples").properties["corpora"]
    assert counts.keys() == {"sentences", "extra"}
    assert all(slices["corpus", name]["num_examples"] == counts[name]["test"] for name in counts)
    assert (slices["rows", "old"]["num_examples"], slices["rows", "new"]["num_examples"]) == (
        counts["sentences"]["test"],
        counts["extra"]["test"],
    )
    assert slices["rows", "old"]["last_blessed"]["accuracy"] > 90
    assert 0 <= slices["rows", "new"]["base_model"]["accuracy"] <= 100
    tables = [done.stdout.partition(title)[2] for title in ("accuracy by rows", "accuracy by corpus", "Corpora")]
    assert all("old" in table and "new" in table for table in tables[:1])
    assert all("sentences" in table and "extra" in table for table in tables[1:])
    # Its config repeats the run: it names the first model, not the last one, which is now its own.
    config = read_run_config(copy.folder / copy.root / "configs" / "2.toml")
    assert config.warm_start == first.uri
    assert corpus_weights(config.data) == {"sentences": 1.0, "extra": 3.0}
    page = copy.folder / "report.html"
    reported = copy.execute([*command[:3], "report", "--pipeline-root", copy.root, "--output", str(page)])
    assert reported.returncode == 0, reported.stderr
    text = page.read_text(encoding="utf-8")
    assert all(
        part in text for part in ("Slices by corpus", "Slices by rows", ">base model</th>", ">characters of text</th>")
    )


def test_a_second_run_reuses_everything_and_imports_nothing_heavy(any_finished_run, tmp_path, components, versions):
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
    finished_run_of, tmp_path, components, versions, assert_nothing_half_written
):
    """Of the classifier, because it is trained, exported and validated in a fraction of a translator's time."""
    finished_run = finished_run_of("classification")
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
    assert re.fullmatch(r"seq2serve: Pusher: .*Evaluator.*accuracy.*Next: .*", message)
    assert all(line.split()[0].removesuffix(":") in COMPONENTS for line in progress)
    assert versions(changed) == versions(finished_run)
    assert_nothing_half_written(changed)


def test_a_changed_line_of_train_runs_everything(finished_run, tmp_path, heeds_ctrl_c, components):
    """The run is interrupted in the Trainer; the test above covers the components that follow."""
    changed = finished_run.copy(tmp_path / "copy")
    text = (changed.folder / "pairs.tsv").read_text()
    row = rows_of(finished_run, "train", ["source", "target"])[0]
    (changed.folder / "pairs.tsv").write_text(text.replace("\t".join(row), f"{row[0]}\tKontrolliere"))
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
        "Transform": ("ran", "input examples changed (train); input schema changed"),
    }
    command = [sys.executable, "-m", "seq2serve", "runs"]
    (number, *_) = changed.execute(command).stdout.splitlines()[-1].split()
    *_, trainer, _config = changed.execute([*command, number]).stdout.splitlines()
    assert re.fullmatch(r"Trainer +CANCELED .* input tokenizer changed; input transformed_examples changed", trainer)


def test_a_new_test_file_is_evaluated_without_training_and_the_same_model_is_not_pushed_twice(
    finished_run_of, tmp_path, components, versions, assert_nothing_half_written
):
    """The splits of the finished run become files. With their content, not their names, its results are reused."""
    finished_run = finished_run_of("classification")
    run = finished_run.copy(tmp_path / "copy")
    for split in SPLITS:
        write_csv(run.folder / f"{split}.csv", rows_of(finished_run, split, ["text", "label"]))
    run = dataclasses.replace(run, file=",".join(f"{split}={split}.csv" for split in SPLITS))
    write_csv(run.folder / "test.csv", [row for row in csv_rows(run.folder / "test.csv") if row[1] != "in, out"])
    done = run.run()
    assert done.returncode == 0, done.stderr
    reused = ("reused", "nothing changed since run 1")
    lines = components(done.stdout)
    assert lines["ExampleGen"] == ("ran", "input files changed")
    assert (lines["Transform"], lines["Trainer"]) == (reused, reused)
    assert lines["Evaluator"] == ("ran", "input examples changed (test)")
    assert lines["InfraValidator"] == ("ran", "input examples changed (test)")
    assert lines["Pusher"][1].startswith("input infra_blessing changed; input model_blessing changed")
    assert versions(run) == versions(finished_run)
    (version,) = versions(run)
    assert f"Pusher: version {version} already has this model" in done.stderr
    assert f"Version {version} already has this model" in done.stdout
    metrics, before = (r.output("Evaluator", "evaluation").properties for r in (run, finished_run))
    assert 0 < metrics["num_examples"] < before["num_examples"]
    assert_nothing_half_written(run)


def rows_of(run, split, columns):
    """Returns the rows of a split of a run's Examples."""
    texts = []
    for path in shard_paths(run.output("ExampleGen", "examples"), split):
        for batch in read_batches(path, columns):
            texts += [tuple(value.decode() for (value,) in row) for row in zip(*map(batch.get, columns), strict=True)]
    return texts


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("sentence", "label"), *rows])


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


def test_a_classifier_starts_from_a_language_model_and_its_lineage_contains_it(finished_run_of, tmp_path, components):
    run = finished_run_of("classification").copy(tmp_path / "copy")
    folder = pathlib.Path(finished_run_of("language_model").output("Trainer", "model").path("Format-Keras"))
    warm_start = ["--warm-start", str(folder.parent)]
    done = run.execute([*run.command("training.steps=60", "evaluation.bar=none"), *warm_start])
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if str(folder) in line]
    assert "Trainer" in line
    assert all(layer in line for layer in ("embedding", "encoder", "head"))
    assert "input base_model changed" in components(done.stdout)["Trainer"][1]
    model = run.output("Trainer", "model")
    started = {"taken": ["embedding", "encoder"], "fresh": ["head"], "unused": []}
    assert model.properties["warm_start"] == started
    lineage = run.execute([sys.executable, "-m", "seq2serve", "lineage", model.uri])
    assert re.search(rf"ModelFiles .*{re.escape(str(folder))}", lineage.stdout), lineage.stdout
