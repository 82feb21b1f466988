"""Bad input as a user meets it: what is wrong, in which file and row, and how to mend it; nothing else is lost."""

import collections
import csv
import gzip
import io
import json
import pathlib

import pytest

from components import text_files
from components.artifact import Examples, RawFiles
from components.component import Context
from components.errors import UserError
from components.example_gen import ExampleGen, Splitting
from components.file_formats import Reading
from pipeline.fingerprint import resolve_raw_files

ROWS = [(f"House {'abcdefghij'[i % 10]} {chr(97 + i // 10)}", f"Haus {i}") for i in range(250)]
PAIR = {"source": "en", "target": "de"}


def generate(files: str, folder: pathlib.Path, *flags: str, max_reject_share: float = 0.0) -> Examples:
    folder.mkdir(parents=True)
    examples = Examples(str(folder))
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(files)),
        examples=examples,
        columns=PAIR,
        reading=Reading(),
        splitting=Splitting(0.2, 0.2),
        max_reject_share=max_reject_share,
        context=Context(beam_options=flags),
    )
    return examples


def damaged_csv() -> tuple[bytes, dict[int, str]]:
    """Returns a CSV with every kind of damage, and line -> reason."""
    lines = []
    for row in (("en", "de"), *ROWS):
        content = io.StringIO(newline="")
        csv.writer(content, lineterminator="").writerow(row)
        lines.append(content.getvalue().encode())
    damage = {
        5: (b"one,two,three", "wrong number of columns"),
        6: (b"alone", "wrong number of columns"),
        40: (b'"never closed,x', "not valid CSV"),
        90: (b'"text" behind,x', "not valid CSV"),
        91: (b",leer", "empty source"),
        150: (b"caf\xe9,x", "not valid UTF-8"),
        200: (b"x" * (text_files.MAX_LINE_BYTES + 5) + b",y", f"longer than {text_files.MAX_LINE_BYTES} bytes"),
        230: (b'a \r b,"x"', "not valid CSV"),
    }
    for number, (line, _) in damage.items():
        lines[number - 1] = line
    return b"\r\n".join(lines) + b"\r\n", {number: reason for number, (_, reason) in damage.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_planted_damage_is_found_at_its_rows_and_nothing_else_is_lost(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(text_files, "SHARD_BYTES", 900)
    content, damage = damaged_csv()
    (tmp_path / "a.csv").write_bytes(content)
    flags = (f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading") if workers > 1 else ()
    examples = generate(f"{tmp_path}/a.csv", tmp_path / "out", *flags, max_reject_share=0.05)
    rejects = [
        json.loads(line)
        for path in sorted((tmp_path / "out" / "rejects").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert {reject["line"]: reject["reason"] for reject in rejects} == damage
    found = examples.properties
    assert found["num_rows"] == len(ROWS) == sum(found["num_examples"].values()) + found["num_rejected"]
    assert found["num_rejected_by_reason"] == dict(collections.Counter(damage.values()))


def test_a_very_long_line_is_one_reject_and_takes_no_memory(tmp_path):
    lines = ["\t".join(row) for row in (("en", "de"), *ROWS)]
    plain = "\n".join([*lines[:100], "x" * (40 << 20), *lines[100:]]).encode()
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(plain, compresslevel=1))
    examples = generate(f"{tmp_path}/a.tsv.gz", tmp_path / "out", max_reject_share=0.01)
    assert examples.properties["num_rejected"] == 1
    assert examples.properties["num_rows"] == len(ROWS) + 1


@pytest.mark.parametrize(
    ("files", "roles", "message"),
    [
        ({"a.en": "x\n" * 7, "a.de": "x\n" * 6}, "source=a.en,target=a.de", r"a\.en has 7 lines, .*a\.de has 6 lines"),
        (
            {"a.tsv": "en\tde\n" + "alone\n" * 9},
            "a.tsv",
            r"a\.tsv, line 2: wrong number of columns \(1 instead of 2\): .* 9 rejected rows out of 9 .*, more than "
            r"data\.max_reject_share=0 allows",
        ),
        ({"a.tsv": "en\tde\nHi\tHo\n"}, "a.tsv", r"no row of 1 falls into the (train|eval|test) split; add rows"),
        (
            {"a.tsv": "en\tde\n" + "".join(f"Line  {i}\tZeile {i}\n" for i in range(50))},
            "a.tsv",
            r"no row of 50 falls into the (train|eval|test) split; of the first 50 examples only 1 differ .*"
            r"add rows that differ, or give the split a larger share with --set data\.(train|eval|test)_share=",
        ),
        (
            {"a.tsv": 'en\tde\n"Two\tfountains"\tZwei\n'},
            "a.tsv",
            r"\(3 instead of 2; TSV is read as having no quotation marks: .* --set data\.format=csv "
            r"--set 'data\.delimiter=\\t'\)",
        ),
        (
            {"a.csv": b"en,de\nYes,Ja\nCoffee,Kaffee f\xfcr dich\n" * 9},
            "a.csv",
            r"line 3: not valid UTF-8 \(save the "
            r"file as UTF-8; it looks like Latin-1\)",
        ),
        (
            {"a.csv": b"en,de\n\xcf\xf0\xe8\xe2\xe5\xf2,Hallo\n"},
            "a.csv",
            r"line 2: not valid UTF-8 \(save the file as UTF-8\)",
        ),
        (
            {"a.csv": "en,größe\n".encode("latin-1")},
            "a.csv",
            r"line 1: .*save the file as UTF-8; it looks like Latin-1",
        ),
        ({"a.csv": b"PK\x03\x04\x14\0\x06\0"}, "a.csv", r"a\.csv: an Excel file or another zip, .*export .* as CSV"),
        ({"a.tsv": b"\xd0\xcf\x11\xe0\xa1\xb1"}, "a.tsv", r"a\.tsv: an old Excel file, .*export .* as CSV"),
        ({"a.de": b"PK\x03\x04\x14", "a.en": "x\n"}, "source=a.en,target=a.de", r"a\.de: an Excel file"),
        ({"a.jsonl": '{"en": 5}\n' * 3}, "a.jsonl", r"a\.jsonl, line 1: no 'de'.* 3 rejected rows out of 3"),
        ({"a.csv": "en;fr\nx;y\n"}, "a.csv", r"a\.csv, line 1: no column 'de'"),
        ({"a.parquet": "no parquet"}, "a.parquet", r"a\.parquet: not a Parquet file, or cut off"),
        ({"a.tfrecord": "no record at all"}, "a.tfrecord", r"a\.tfrecord: cut off or damaged"),
        ({"a.tsv.zst": "no zst"}, "a.tsv.zst", r"a\.tsv\.zst: cannot be read: cut off or damaged"),
        ({"a.tsv": "x"}, "train=a.tsv,test=b.tsv", r"no file 'b\.tsv'"),
    ],
)
def test_what_cannot_be_used_is_explained(tmp_path, monkeypatch, files, roles, message):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        pathlib.Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        generate(roles, tmp_path / "out")
