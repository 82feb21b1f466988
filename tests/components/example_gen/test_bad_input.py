"""Bad input files: errors state the problem, the file, the line and the fix, and valid rows are kept."""

import collections
import csv
import gzip
import io
import json
import pathlib

import pytest

from seq2serve.components.base.artifact import Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.pipeline.running.raw_files import resolve_raw_files

ROWS = [(f"House {'abcdefghij'[i % 10]} {chr(97 + i // 10)}", f"Haus {i}") for i in range(250)]
PAIR = {"source": "en", "target": "de"}


def generate(
    files: str, folder: pathlib.Path, *flags: str, max_reject_share: float = 0.0, encoding: str = "auto"
) -> Examples:
    folder.mkdir(parents=True)
    examples = Examples(str(folder))
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(files)),
        examples=examples,
        columns=PAIR,
        input_config=InputConfig(encoding=encoding),
        split_config=SplitConfig(0.2, 0.2),
        max_reject_share=max_reject_share,
        context=Context(beam_options=flags),
    )
    return examples


def damaged_csv() -> tuple[bytes, dict[int, str]]:
    """Returns a CSV file with every kind of damage, and line -> reason."""
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
def test_damaged_rows_are_rejected_and_no_other_row_is_lost(tmp_path, monkeypatch, workers):
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
    properties = examples.properties
    assert properties["num_rows"] == len(ROWS) == sum(properties["num_examples"].values()) + properties["num_rejected"]
    assert properties["num_rejected_by_reason"] == dict(collections.Counter(damage.values()))


def test_a_very_long_line_is_rejected_without_being_buffered(tmp_path):
    lines = ["\t".join(row) for row in (("en", "de"), *ROWS)]
    plain = "\n".join([*lines[:100], "x" * (40 << 20), *lines[100:]]).encode()
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(plain, compresslevel=1))
    examples = generate(f"{tmp_path}/a.tsv.gz", tmp_path / "out", max_reject_share=0.01)
    assert examples.properties["num_rejected"] == 1
    assert examples.properties["num_rows"] == len(ROWS) + 1


def failure(folder: pathlib.Path, monkeypatch, files: dict[str, str | bytes], roles: str) -> UserError:
    """Returns the error of ExampleGen on some files, which are in the current folder."""
    monkeypatch.chdir(folder)
    for name, content in files.items():
        pathlib.Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        generate(roles, folder / "out")
    return error.value


DUPLICATES = "en\tde\n" + "Line\tZeile\n" * 50
LATIN_1 = b"en,de\nYes,Ja\nCoffee,Kaffee f\xfcr dich\n" * 9
CYRILLIC = b"en,de\n\xcf\xf0\xe8\xe2\xe5\xf2,Hallo\n"  # Windows-1251
EXCEL, OLD_EXCEL = b"PK\x03\x04\x14\0\x06\0", b"\xd0\xcf\x11\xe0\xa1\xb1"


GOOD = "en\tde\n" + "".join(f"{en}\t{de}\n" for en, de in ROWS)


def test_empty_files_of_a_pattern_are_skipped_and_counted(tmp_path):
    contents = {"a.tsv": b"", "b.tsv": GOOD.encode(), "c.tsv.gz": gzip.compress(b""), "d.tsv": b"\xef\xbb\xbf\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    examples = generate(f"{tmp_path}/*", tmp_path / "out")
    assert examples.properties["num_rows"] == len(ROWS)
    (note,) = examples.properties["notes"]
    assert note == f"3 empty files skipped: {tmp_path}/a.tsv, {tmp_path}/c.tsv.gz, {tmp_path}/d.tsv"


def test_an_empty_parallel_file_is_not_skipped_alone(tmp_path, monkeypatch):
    files = {"a.en": "", "b.en": "x\n", "a.de": "y\n", "b.de": ""}
    error = failure(tmp_path, monkeypatch, files, "source=*.en,target=*.de")
    assert (error.code, len(error.fields["errors"])) == ("parallel-lines-mismatched", 2)


def test_a_file_in_another_encoding_is_an_error_even_if_few_rows_show_it(tmp_path, monkeypatch):
    rows = [*((f"row {i}", f"Zeile {i}") for i in range(2000)), *((f"tea {i}", f"größer {i}") for i in range(12))]
    content = "".join(f"{en}\t{de}\n" for en, de in [("en", "de"), *rows])
    monkeypatch.chdir(tmp_path)
    pathlib.Path("a.tsv").write_bytes(content.encode("windows-1252"))
    with pytest.raises(UserError, match="12 of 12 rows with characters beyond ASCII are not valid UTF-8; ") as error:
        generate("a.tsv", tmp_path / "out", max_reject_share=0.01)
    assert (error.value.code, error.value.fields["line"]) == ("encoding-invalid", 2002)
    pathlib.Path("a.tsv").write_bytes((content + "ä\tö\n" * 20).encode() + b"caf\xe9\tx\n" * 12)
    examples = generate("a.tsv", tmp_path / "mixed", max_reject_share=0.01)
    assert examples.properties["num_rejected_by_reason"] == {"not valid UTF-8": 12}


def test_how_files_are_read_is_a_note(tmp_path):
    (tmp_path / "a.tsv").write_bytes(GOOD.encode("utf-16"))
    (tmp_path / "b.tsv").write_text('en\tde\n"say ""hi"""\tsag\n')
    examples = generate(f"{tmp_path}/*.tsv", tmp_path / "out")
    notes = sorted(examples.properties["notes"])
    assert notes[0] == f"{tmp_path}/a.tsv: read as UTF-16"
    assert notes[1].startswith(f"{tmp_path}/b.tsv: cells are quoted, as pandas and Excel do it")
    assert examples.properties["num_rows"] == len(ROWS) + 1


def test_an_unknown_encoding_is_an_error(tmp_path):
    (tmp_path / "a.tsv").write_text(GOOD)
    with pytest.raises(UserError, match=r"^setting data\.encoding must be auto or an encoding that Pyth") as error:
        generate(f"{tmp_path}/a.tsv", tmp_path / "out", encoding="hex")
    assert (error.value.code, error.value.fields) == ("setting-invalid", {"setting": "data.encoding", "value": "hex"})


@pytest.mark.parametrize(
    ("files", "roles", "code", "fields"),
    [
        (
            {"a.en": "x\n" * 7, "a.de": "x\n" * 6},
            "source=a.en,target=a.de",
            "parallel-lines-mismatched",
            {"counts": {"a.en": 7, "a.de": 6}},
        ),
        (
            {"a.tsv": "en\tde\n" + "alone\n" * 9},
            "a.tsv",
            "too-many-rejects",
            {
                "path": "a.tsv",
                "line": 2,
                "reason": "wrong number of columns",
                "detail": "1 instead of 2",
                "num_rejected": 9,
                "num_rows": 9,
            },
        ),
        ({"a.tsv": "en\tde\nHi\tHo\n"}, "a.tsv", "split-empty", {"path": "a.tsv", "num_rows": 1, "num_distinct": 1}),
        ({"a.tsv": DUPLICATES}, "a.tsv", "split-empty", {"path": "a.tsv", "num_rows": 50, "num_distinct": 1}),
        ({"a.csv": LATIN_1}, "a.csv", "too-many-rejects", {"path": "a.csv", "line": 3, "reason": "not valid UTF-8"}),
        ({"a.csv": CYRILLIC}, "a.csv", "too-many-rejects", {"path": "a.csv", "line": 2, "reason": "not valid UTF-8"}),
        ({"a.csv": "en,größe\n".encode("latin-1")}, "a.csv", "encoding-invalid", {"path": "a.csv", "line": 1}),
        ({"a.csv": EXCEL}, "a.csv", "file-not-text", {"path": "a.csv"}),
        ({"a.tsv": OLD_EXCEL}, "a.tsv", "file-not-text", {"path": "a.tsv"}),
        ({"a.de": EXCEL, "a.en": "x\n"}, "source=a.en,target=a.de", "file-not-text", {"path": "a.de"}),
        (
            {"a.jsonl": '{"en": 5}\n' * 3},
            "a.jsonl",
            "too-many-rejects",
            {"path": "a.jsonl", "line": 1, "reason": "no 'de'", "num_rejected": 3, "num_rows": 3},
        ),
        ({"a.csv": "en;fr\nx;y\n"}, "a.csv", "column-missing", {"path": "a.csv", "line": 1, "column": "de"}),
        ({"a.parquet": "no parquet"}, "a.parquet", "file-damaged", {"path": "a.parquet"}),
        ({"a.tfrecord": "no record at all"}, "a.tfrecord", "file-damaged", {"path": "a.tfrecord"}),
        ({"a.tsv.zst": "no zst"}, "a.tsv.zst", "file-unreadable", {"path": "a.tsv.zst"}),
        ({"a.tsv": "x"}, "train=a.tsv,test=b.tsv", "file-missing", {"path": "b.tsv"}),
        ({"a.csv": EXCEL, "b.csv": "en,fr\n"}, "*.csv", "files-unusable", {"path": "a.csv"}),
        ({"a.csv": "x,y\n", "b.csv": "en,fr\n"}, "*.csv", "column-missing", {"path": "a.csv"}),
        ({"a.tsv": "", "b.tsv": ""}, "*.tsv", "file-empty", {"path": "a.tsv"}),
        ({"a.tsv": ""}, "train=no.tsv,test=a.tsv", "files-unusable", {"path": "a.tsv"}),
        ({"a.parquet": "no", "b.parquet": "no", "c.tsv": "en\tde\n"}, "*.*", "file-damaged", {"path": "a.parquet"}),
        ({"a.json": "[{}", "b.json": "[{} {}]"}, "*.json", "file-damaged", {"path": "a.json"}),
    ],
)
def test_unusable_files_are_errors_with_file_and_line(tmp_path, monkeypatch, files, roles, code, fields):
    error = failure(tmp_path, monkeypatch, files, roles)
    assert error.code == code
    assert {name: _file_names(error.fields[name]) for name in fields} == fields


def _file_names(value):
    """Returns a field without the folders of its paths."""
    if isinstance(value, dict):
        return {pathlib.Path(path).name: count for path, count in value.items()}
    return pathlib.Path(value).name if isinstance(value, str) and "/" in value else value


@pytest.mark.parametrize(
    ("files", "roles", "wording"),
    [
        (
            {"a.en": "x\n" * 7, "a.de": "x\n" * 6},
            "source=a.en,target=a.de",
            ["parallel files must have the same number of lines: ", "a.en has 7 lines, ", "a.de has 6 lines"],
        ),
        (
            {"a.tsv": "en\tde\n" + "alone\n" * 9},
            "a.tsv",
            [
                "a.tsv, line 2: wrong number of columns (1 instead of 2): 'alone'. ",
                "first of 9 rejected rows out of 9 (9 wrong number of columns), "
                "more than data.max_reject_share=0 allows; ",
                "fix the rows or allow a larger share",
            ],
        ),
        (
            {"a.tsv": "en\tde\nHi\tHo\n"},
            "a.tsv",
            ["none of 1 rows falls into the ", " split; add rows, or set a larger share with --set data."],
        ),
        (
            {"a.tsv": DUPLICATES},
            "a.tsv",
            [
                "none of 50 rows falls into the ",
                " split; of the first 50 examples only 1 differ by more than case, digits and spaces, and ",
                "add rows that differ, or set ",
            ],
        ),
        (
            {"a.tsv": 'en\tde\n"Go," he said.\tGeh\n"Two\tfountains"\tZwei\n'},
            "a.tsv",
            ["(3 instead of 2; quotation marks are read as text; if they delimit cells, use --set data.quoting=csv)"],
        ),
        (
            {"a.csv": LATIN_1},
            "a.csv",
            [
                "a.csv, line 3: not valid UTF-8 (byte 0xFC; it looks like Windows-1252 or Latin-1: "
                "use --set data.encoding=windows-1252, or save the file as UTF-8)"
            ],
        ),
        (
            {"a.csv": CYRILLIC},
            "a.csv",
            ["(byte 0xCF; name its encoding, such as --set data.encoding=windows-1252, or save the file as UTF-8)"],
        ),
        (
            {"a.csv": "en,größe\n".encode("latin-1")},
            "a.csv",
            ["a.csv, line 1: not valid UTF-8; byte 0xF6; it looks like Windows-1252 or Latin-1: use --set "],
        ),
        (
            {"a.csv": EXCEL},
            "a.csv",
            ["a.csv is an Excel file or another zip archive; export the sheet as CSV (UTF-8), or unpack the archive"],
        ),
        (
            {"a.csv": LATIN_1, "b.csv": CYRILLIC, "c.csv": "en,de\nx,y\n"},
            "*.csv",
            [
                "a.csv, line 3: not valid UTF-8 (",
                "This is the first of 10 rejected rows out of 28 (10 not valid UTF-8)",
                "b.csv, line 2: not valid UTF-8 (",
                "(1 of 1 rows rejected)",
            ],
        ),
        (
            {"a.csv": EXCEL, "b.csv": "en,fr\n", "c.csv": "en,fr\n", "d.csv": "en,de\nx,y\n"},
            "*.csv",
            [
                "3 files cannot be used:\n  /",
                "a.csv is an Excel file or another zip archive; ",
                "b.csv, line 1: no column 'de'. The file has: 'en', 'fr'. Pass the right name with --target\n",
                "    also /",
                "/c.csv",
            ],
        ),
        ({"a.xls": OLD_EXCEL}, "a.xls", ["a.xls is an old Excel file; export the sheet as CSV (UTF-8)"]),
        ({"a.tsv": OLD_EXCEL}, "a.tsv", ["a.tsv is an old Excel or Word file; export the sheet as CSV (UTF-8), or "]),
        ({"a.parquet": "no parquet"}, "a.parquet", ["a.parquet: not a Parquet file, or truncated: "]),
        (
            {"a.tfrecord": "no record at all"},
            "a.tfrecord",
            ["a.tfrecord: truncated or corrupt: ", "; download or create the file again"],
        ),
    ],
)
def test_the_wording_of_errors_in_files(tmp_path, monkeypatch, files, roles, wording):
    message = str(failure(tmp_path, monkeypatch, files, roles))
    assert [part for part in wording if part not in message] == []
