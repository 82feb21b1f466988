"""The lineage behind a base model: artifacts of the same store, and the record beside its files."""

import shutil
from pathlib import Path

import pytest

from seq2serve.components.base.artifact import Examples, Model, ModelFiles, RawFiles
from seq2serve.components.base.component import Input, Output, component, raw_files
from seq2serve.components.storage.data_records import describe_data, source_files, write_record
from seq2serve.pipeline.commands.lineage_text import lineage_text
from seq2serve.pipeline.running.pipeline import Pipeline
from seq2serve.pipeline.running.runner import Runner


@component
def Generate(files: Input[RawFiles], examples: Output[Examples]) -> None:
    """Counts the lines of the files."""
    rows = sum(len(Path(file["path"]).read_text().splitlines()) for file in files.properties["files"])
    examples.properties.update(files_read=source_files(files.properties["files"]))
    examples.properties.update(num_rows=rows, num_examples={"train": rows - 2, "eval": 1, "test": 1})


@component
def Train(examples: Input[Examples], model: Output[Model], base_model: Input[ModelFiles] | None = None) -> None:
    """Writes weights, and the record of the data."""
    folder = Path(model.path("Format-Keras"))
    folder.mkdir()
    (folder / "model.weights.h5").write_text(examples.fingerprint)
    write_record(str(folder), describe_data(examples))


@pytest.fixture
def train(tmp_path):
    """Returns a function that trains on a file, perhaps from an earlier model, and returns store and model."""

    def train(name, lines, root="root", warm_start=None):
        path = tmp_path / name
        path.write_text("line\n" * lines)
        files = raw_files(str(path))
        generate = Generate(files=files)
        base = raw_files(f"{warm_start}/**", ModelFiles) if warm_start else None
        trained = Train(examples=generate.outputs["examples"], base_model=base)
        nodes = (files.node, generate, *((base.node,) if base else ()), trained)
        runner = Runner(Pipeline("toy", str(tmp_path / root), nodes))
        return runner.store, runner.run().output("Train", "model")

    return train


def section(text: str, title: str) -> list[str]:
    """Returns the lines of a section of a lineage, without its title."""
    (lines,) = [part.splitlines() for part in text.split("\n\n") if part.startswith(title)]
    return lines[1:]


def test_a_base_model_of_the_same_store_is_followed_to_its_files_with_hashes_and_rows(train, tmp_path):
    _, base = train("old.txt", 7)
    store, model = train("new.txt", 9, warm_start=base.path("Format-Keras"))
    text = lineage_text(store, str(model.id))
    rows = {line.split()[0]: line for line in section(text, "Made from")[1:]}
    assert any(line.endswith("old.txt") for line in rows.values())
    (files,) = [line for line in rows.values() if " ModelFiles " in line]
    assert files.split()[3] == str(base.id), "the base model is the input of the files that were taken from it"
    heading, file, counts = section(text, f"Data behind the base model {base.path('Format-Keras')} (ID ")
    assert heading.split() == ["FILE", "BYTES", "SHA-256"]
    digest = next(row.artifact for row in store.lineage(base.id, "backward")).properties["files"][0]["sha256"]
    assert file.split() == ["old.txt", "35", digest]
    assert counts == "7 rows: 5 train, 1 eval, 1 test"


def test_a_chain_of_base_models_is_followed_to_the_first(train):
    _, first = train("one.txt", 7)
    _, second = train("two.txt", 8, warm_start=first.path("Format-Keras"))
    store, third = train("three.txt", 9, warm_start=second.path("Format-Keras"))
    made_from = "\n".join(section(lineage_text(store, str(third.id)), "Made from"))
    assert all(f"{name}.txt" in made_from for name in ("one", "two", "three"))


@pytest.mark.parametrize("has_record", [True, False])
def test_a_base_model_from_elsewhere_shows_the_record_beside_it_or_says_that_there_is_none(train, tmp_path, has_record):
    _, base = train("old.txt", 7, root="elsewhere")
    folder = tmp_path / "copy"
    shutil.copytree(base.path("Format-Keras"), folder)
    if not has_record:
        (folder / "data.json").unlink()
    store, model = train("new.txt", 9, warm_start=folder)
    text = lineage_text(store, str(model.id))
    assert "old.txt" not in "\n".join(section(text, "Made from"))
    lines = section(text, f"Data behind the base model {folder} (ID ")
    if has_record:
        assert lines[1].split()[0] == "old.txt"
        assert lines[-1] == "7 rows: 5 train, 1 eval, 1 test"
    else:
        assert lines == [f"not recorded: {folder}/data.json not found; only runs of this version write it"]
