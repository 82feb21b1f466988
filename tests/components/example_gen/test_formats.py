"""The table of formats: a new format is one reader and one row, and everything that lists formats follows the table."""

import gzip
import re
import typing
from importlib import import_module
from pathlib import Path

import pytest

from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.formats import FORMATS, FileFormat, named_format
from seq2serve.pipeline.config import DataConfig, setting_type
from tests.components.example_gen.test_example_gen import generate, rejects_of, rows_of

REPOSITORY = Path(__file__).parents[3]
FASTTEXT = FileFormat("fastText", (".ft",), lambda: import_module("tests.components.example_gen.readers.fasttext"))
LABELS = {"text": "text", "label": "label"}


@pytest.mark.parametrize("name", ["a.ft", "a.ft.gz", "a.lines"])
def test_a_format_is_added_by_a_reader_and_a_row_of_the_table(tmp_path, monkeypatch, name):
    monkeypatch.setitem(FORMATS, "fasttext", FASTTEXT)
    monkeypatch.setattr(text_files, "SHARD_BYTES", 900)
    rows = [(f"Film {chr(97 + i // 26)}{chr(97 + i % 26)} was", ("good", "bad")[i % 2]) for i in range(200)]
    lines = [f"__label__{label} {text}" for text, label in rows]
    lines[150:150] = ["no label here", "__label__empty "]
    content = "\n".join(lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    config = InputConfig(format="fasttext" if name == "a.lines" else "auto", label_columns=("label",))
    examples = generate(path, tmp_path / "out", columns=LABELS, input_config=config, max_reject_share=0.1)
    assert sorted(row for split in rows_of(examples).values() for row in split) == sorted(rows)
    assert [(r["line"], r["reason"]) for r in rejects_of(examples)] == [(151, "no label"), (152, "empty text")]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_a_reader_and_extensions_of_its_own(name):
    assert callable(FORMATS[name].reader().make_reader)
    for suffix in FORMATS[name].suffixes:
        assert named_format(f"a{suffix}") == named_format(f"A{suffix.upper()}.gz") == name


def test_the_setting_accepts_the_formats_of_the_table():
    kind, _ = setting_type("data.format")
    assert typing.get_args(kind) == ("auto", *FORMATS)
    assert typing.get_type_hints(DataConfig)["format"] == typing.get_type_hints(InputConfig)["format"]


def test_messages_name_formats_of_the_table():
    files = [path for folder in ("components", "pipeline") for path in (REPOSITORY / folder).rglob("*.py")]
    named = {name for path in files for name in re.findall(r"data\.format=(\w+)", path.read_text(encoding="utf-8"))}
    assert named
    assert named <= FORMATS.keys()


def test_the_readmes_list_the_formats_of_the_table():
    rows = re.findall(r"^\| ([^|]+) \| ((?:\.\w+,? ?)+|all others) \|", _readme("pipeline/README.md"), re.MULTILINE)
    assert rows == [(known.title, ", ".join(known.suffixes) or "all others") for known in FORMATS.values()]
    titles = ", ".join(known.title for known in FORMATS.values())
    assert f"**Formats**: {titles} and parallel files" in _readme("README.md")


def _readme(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")
