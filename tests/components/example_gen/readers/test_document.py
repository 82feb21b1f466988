"""A text file that is one document: its parts are rows in order, however it is cut, and its end is held out."""

import gzip
import json
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.components.base.artifact import SPLITS, Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.example_gen.readers import document
from seq2serve.components.example_gen.readers.base import Row
from seq2serve.components.example_gen.tables import make_table
from seq2serve.pipeline.running.raw_files import resolve_raw_files
from tests.components.example_gen.readers.reading import read_table

TEXT = {"text": "text"}


def wrapped(number: int) -> str:
    """Returns a paragraph of three lines, which names its number."""
    return "\n".join(f"Paragraph {number}, line {line}: {'word ' * 12}".rstrip() for line in range(3))


BOOK = "\n\n".join(map(wrapped, range(600))) + "\n"


def read(path: Path, shard_bytes: int = 1 << 20) -> list[Row]:
    entry = {"path": str(path), "bytes": path.stat().st_size}
    table = make_table((entry,), TEXT, InputConfig(unit="document"), shard_bytes)
    return read_table(table, shard_bytes)


def generate(pattern: str, folder: Path, **settings) -> Examples:
    folder.mkdir()
    examples = Examples(str(folder))
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(pattern)),
        examples=examples,
        columns=TEXT,
        input_config=InputConfig(unit=settings.pop("unit", "auto")),
        split_config=SplitConfig(settings.pop("eval_share", 0.05), settings.pop("test_share", 0.05), **settings),
        max_reject_share=0.01,
        context=Context(),
    )
    return examples


def texts_of(examples: Examples) -> dict[str, list[str]]:
    """Returns split -> its texts, in order."""
    texts = {}
    for split in SPLITS:
        paths = sorted(tf.io.gfile.glob(examples.path(f"Split-{split}", "data_tfrecord-*")))
        records = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(paths).as_numpy_iterator()]
        texts[split] = [record.features.feature["text"].bytes_list.value[0].decode() for record in records]
    return texts


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \n\r", max_size=80), st.integers(1, 12))
def test_every_line_is_in_one_part_in_order_however_the_file_is_cut(content, shard_bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.txt")
        path.write_bytes(content.encode())
        lines = [line.removesuffix("\r") for line in content.split("\n") if line.strip()]
        for size in (shard_bytes, 1 << 20):
            rows = read(path, size)
            assert [line for row in rows for line in row.cells["text"].split("\n") if line.strip()] == lines
            positions = [row.position for row in rows]
            assert positions == sorted(positions)
            assert all(0 <= position < 1 for position in positions)


def test_a_part_has_whole_paragraphs_with_their_line_ends_and_empty_lines(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\ufeff" + BOOK.replace("\n\nParagraph 7,", "\n\n\n\n    Paragraph 7,"))
    rows = read(path)
    assert [row.number for row in rows[:2]] == [1, 1 + rows[0].raw.count(b"\n") + 2]
    parts = [row.cells["text"] for row in rows]
    assert all(part.startswith(("Paragraph", "    Paragraph")) and "line 2: " in part.split("\n")[-1] for part in parts)
    assert "\n\n".join(parts).replace("\n\n\n\n    Paragraph 7,", "\n\nParagraph 7,") + "\n" == BOOK
    sizes = [len(part) for part in parts]
    grid = len(BOOK) // document.MIN_PARTS
    assert max(sizes) < 2 * grid
    assert grid < document.PART_BYTES


@pytest.mark.parametrize("paragraph_end", ["\n", " "], ids=["a paragraph per line", "no empty lines"])
def test_a_text_without_empty_lines_is_cut_at_line_ends(tmp_path, paragraph_end):
    path = tmp_path / "book.txt"
    path.write_text(BOOK.replace("\n\n", paragraph_end))
    parts = [row.cells["text"] for row in read(path)]
    assert len(parts) > 20
    assert "\n".join(parts) + "\n" == path.read_text()


# Splits.


@pytest.mark.parametrize("unit", ["auto", "file", "document"])
@pytest.mark.parametrize("shard_bytes", [10_000, 1 << 20])
def test_the_parts_at_the_end_of_a_single_file_are_held_out(tmp_path, monkeypatch, unit, shard_bytes):
    monkeypatch.setattr(text_files, "SHARD_BYTES", shard_bytes)
    (tmp_path / "book.txt").write_text(BOOK)
    examples = generate(str(tmp_path / "book.txt"), tmp_path / "out", unit=unit)
    texts = texts_of(examples)
    assert "\n\n".join(text for split in ("train", "eval", "test") for text in texts[split]) + "\n" == BOOK
    shares = {split: len("\n\n".join(parts)) / len(BOOK) for split, parts in texts.items()}
    assert shares == pytest.approx({"train": 0.9, "eval": 0.05, "test": 0.05}, abs=0.01)
    counts = examples.properties["num_examples"]
    assert counts == {split: len(parts) for split, parts in texts.items()}
    assert examples.properties["num_rows"] == sum(counts.values())
    assert "warnings" not in examples.properties
    (note,) = examples.properties["notes"]
    assert "read as one document" in note
    assert "data.unit=paragraph" in note


@pytest.mark.parametrize("name", ["book.txt.gz", "utf16.txt"])
def test_a_compressed_or_converted_document_has_the_splits_of_the_plain_one(tmp_path, name):
    (tmp_path / "book.txt").write_text(BOOK)
    content = gzip.compress(BOOK.encode()) if name.endswith("gz") else BOOK.encode("utf-16")
    (tmp_path / name).write_bytes(content)
    plain, other = (generate(str(tmp_path / file), tmp_path / f"{file}-out") for file in ("book.txt", name))
    assert texts_of(plain) == texts_of(other)


def test_several_files_are_read_by_paragraph_and_split_by_a_hash(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(BOOK.replace("Paragraph", f"Paragraph of {name}:"))
    texts = texts_of(generate(str(tmp_path / "*.txt"), tmp_path / "out"))
    assert sum(map(len, texts.values())) == 1200
    numbers = [int(text.split()[3].rstrip(",")) for text in texts["test"]]
    assert min(numbers) < 300, "the end of a file would be held out"


def test_a_document_with_a_role_keeps_its_split(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(BOOK.replace("Paragraph", name))
    texts = texts_of(generate(f"train={tmp_path}/train.txt,test={tmp_path}/test.txt", tmp_path / "out"))
    assert "\n\n".join(texts["test"]) == BOOK.replace("Paragraph", "test").rstrip()
    assert "\n\n".join([*texts["train"], *texts["eval"]]) == BOOK.replace("Paragraph", "train").rstrip()
    assert texts["eval"]


def test_a_file_for_each_split_is_a_row_if_the_unit_is_a_file(tmp_path):
    for name in SPLITS:
        (tmp_path / f"{name}.txt").write_text(BOOK.replace("Paragraph", name))
    files = ",".join(f"{name}={tmp_path}/{name}.txt" for name in SPLITS)
    texts = texts_of(generate(files, tmp_path / "out", unit="file"))
    assert texts == {name: [BOOK.replace("Paragraph", name).rstrip("\n")] for name in SPLITS}


def test_a_document_that_is_too_short_for_its_splits_is_an_error_that_names_the_share(tmp_path):
    (tmp_path / "note.txt").write_text("One paragraph.\n\nAnother one.\n")
    with pytest.raises(UserError, match=r"none of the 2 parts of the document .* --set data\.eval_share=") as error:
        generate(str(tmp_path / "note.txt"), tmp_path / "out")
    assert error.value.code == "split-empty"


def test_a_page_of_text_has_rows_in_every_split(tmp_path):
    paragraph = "A line of a short page, one of ten.\n" * 10
    (tmp_path / "page.txt").write_text("\n".join([paragraph] * 8))
    examples = generate(str(tmp_path / "page.txt"), tmp_path / "out")
    assert all(texts_of(examples).values())


def test_a_document_of_one_long_line_is_an_error_that_says_to_break_it(tmp_path):
    (tmp_path / "book.txt").write_text(BOOK.replace("\n", " "))
    with pytest.raises(UserError, match=r"none of the 1 parts .* if the lines are long, break them"):
        generate(str(tmp_path / "book.txt"), tmp_path / "out")


def test_parts_that_are_not_text_are_rejected_and_counted(tmp_path):
    (tmp_path / "book.txt").write_bytes(BOOK.encode().replace(b"Paragraph 40, line 1", b"Paragraph 40, \xff", 1))
    examples = generate(str(tmp_path / "book.txt"), tmp_path / "out")
    properties = examples.properties
    assert properties["num_rejected"] == 1
    assert properties["num_rows"] == sum(properties["num_examples"].values()) + 1
    (reject,) = [
        json.loads(line) for path in Path(examples.path("rejects")).iterdir() for line in path.read_text().splitlines()
    ]
    assert reject["reason"] == "not valid UTF-8"
