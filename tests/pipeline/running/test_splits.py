"""Splits are tracked apart: a component that reads some of them runs again only if their content changed."""

import json
from pathlib import Path
from typing import Annotated

import pytest

from seq2serve.components.base.artifact import Examples, Model, ModelEvaluation, RawFiles, Schema
from seq2serve.components.base.component import Input, Output, Splits, component, raw_files
from seq2serve.components.base.errors import ComponentError
from seq2serve.components.storage.shards import shard_paths
from seq2serve.pipeline.commands.lineage_text import lineage_text
from seq2serve.pipeline.report.facts import read_run
from seq2serve.pipeline.running.pipeline import Pipeline, RunResult
from seq2serve.pipeline.running.runner import Runner


@component
def Read(files: Input[RawFiles], examples: Output[Examples], schema: Output[Schema]) -> None:
    """Reads an object of splits; the content is its own fingerprint. The schema is the train split's number of rows."""
    splits = json.loads(Path(files.properties["files"][0]["path"]).read_text())
    for split, rows in splits.items():
        Path(examples.path(f"Split-{split}")).mkdir()
        Path(examples.path(f"Split-{split}", "rows-00000-of-00001")).write_text(rows)
    examples.properties.update(splits=list(splits), split_fingerprints=splits)
    Path(schema.path("schema.pbtxt")).write_text(str(len(splits["train"])))


@component
def Train(
    examples: Annotated[Input[Examples], Splits(("train", "eval"))], schema: Input[Schema], model: Output[Model]
) -> None:
    """Copies all splits that it was given."""
    text = "|".join(Path(shard_paths(examples, split)[0]).read_text() for split in examples.properties["splits"])
    Path(model.path("model.txt")).write_text(text)


@component
def Judge(
    examples: Annotated[Input[Examples], Splits(("test",))], model: Input[Model], evaluation: Output[ModelEvaluation]
) -> None:
    """Copies the test split."""
    Path(evaluation.path("metrics.json")).write_text(Path(shard_paths(examples, "test")[0]).read_text())


@component
def Leak(examples: Annotated[Input[Examples], Splits(("train",))], model: Output[Model]) -> None:
    """Reads a split that it does not declare."""
    shard_paths(examples, "test")


def run(folder: Path, **splits: str) -> RunResult:
    """Runs Read, Train and Judge on splits."""
    (folder / "data.json").write_text(json.dumps({"train": "a", "eval": "b", "test": "c"} | splits))
    files = raw_files(str(folder / "data.json"))
    read = Read(files=files)
    train = Train(**read.outputs)
    judge = Judge(examples=read.outputs["examples"], model=train.outputs["model"])
    return Runner(Pipeline("toy", str(folder / "root"), (files.node, read, train, judge))).run()


def executed(result: RunResult) -> dict[str, str]:
    return {name: node.reason for name, node in result.nodes.items() if not node.reused}


def test_a_changed_test_split_runs_only_what_reads_it(tmp_path):
    first = run(tmp_path)
    second = run(tmp_path, test="d")
    assert executed(second) == {"Read": "input files changed", "Judge": "input examples changed (test)"}
    assert second.output("Train", "model") == first.output("Train", "model")
    assert Path(second.output("Train", "model").path("model.txt")).read_text() == "a|b"
    assert Path(second.output("Judge", "evaluation").path("metrics.json")).read_text() == "d"
    assert executed(run(tmp_path)) == {}


def test_a_changed_train_or_eval_split_runs_training(tmp_path):
    run(tmp_path)
    assert executed(run(tmp_path, eval="d"))["Train"] == "input examples changed (eval)"
    changed = executed(run(tmp_path, train="longer", eval="e"))
    assert changed["Train"] == "input examples changed (eval, train); input schema changed"
    assert changed["Judge"] == "input model changed"


def test_an_artifact_with_the_same_content_is_the_same_input(tmp_path):
    """Read runs again, but its schema is the same."""
    first, second = run(tmp_path), run(tmp_path, train="d")
    schemas = [result.output("Read", "schema") for result in (first, second)]
    assert schemas[0].id != schemas[1].id
    assert schemas[0].fingerprint == schemas[1].fingerprint
    assert executed(second)["Train"] == "input examples changed (train)"


def test_lineage_and_report_show_which_splits_were_read_and_of_which_files(tmp_path):
    run(tmp_path)
    result = run(tmp_path, test="d")
    store = Runner(result.pipeline).store
    new, old = (artifact.id for _, artifact in store.published(Examples))
    model, evaluation = result.output("Train", "model"), result.output("Judge", "evaluation")
    lineage = lineage_text(store, str(evaluation.id))
    (line,) = [line for line in lineage.splitlines() if f"{evaluation.uri}" in line]
    assert f"{model.id}, {new} (test)" in line
    (line,) = [line for line in lineage.splitlines() if line.endswith(model.uri)]
    assert f"{old} (train, eval)" in line
    facts = read_run(store, result.run_id, str(tmp_path / "root"))
    assert {name: set(step.inputs) for name, step in facts.steps.items()} == {
        "Read": {"RawFiles"},
        "Train": {"Read"},
        "Judge": {"Read", "Train"},
    }
    files = result.output("Read", "examples")
    assert facts.raw_files == store.lineage(files.id, "backward")[0].artifact.properties["files"]


def test_a_component_cannot_read_a_split_that_it_does_not_declare(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps({"train": "a", "test": "c"}))
    files = raw_files(str(tmp_path / "data.json"))
    read = Read(files=files)
    pipeline = Pipeline("toy", str(tmp_path / "root"), (files.node, read, Leak(examples=read.outputs["examples"])))
    with pytest.raises(ComponentError, match=r"Leak failed: .* reads only the splits \['train'\], not 'test'"):
        Runner(pipeline).run()
