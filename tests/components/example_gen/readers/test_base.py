"""Row readers: every format returns the rows that were written, for every way to cut its files."""

import csv
import io
import json
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.readers.base import Row
from seq2serve.components.example_gen.tables import make_table
from seq2serve.components.example_gen.text_files import DamagedFileError
from tests.components.example_gen.readers.reading import read_table

PAIR = {"source": "en", "target": "de"}
TEXT = {"text": "text"}
# Short texts of the characters that determine where rows begin and end.
cells = st.text(alphabet='ab",\n; é', min_size=1, max_size=6).filter(str.strip)


def read(paths, columns, input_config=None, shard_bytes=1 << 40, parallel=False) -> list[Row]:
    """Reads one file, or one parallel file per column, cut into shards of `shard_bytes`."""
    files = [{"path": str(path), "bytes": path.stat().st_size} for path in paths]
    group = tuple(file | {"column": column} for file, column in zip(files, columns, strict=True)) if parallel else files
    table = make_table(tuple(group), columns, input_config or InputConfig(), shard_bytes)
    return read_table(table, shard_bytes)


def write(folder, name: str, content: str | bytes) -> pathlib.Path:
    path = pathlib.Path(folder, name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(rows: list[Row]) -> list[tuple[str, ...]]:
    assert not [row for row in rows if row.reason]
    return [tuple(row.cells.values()) for row in rows]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8), st.integers(1, 30), st.sampled_from(",;\t|"))
def test_rows_from_a_csv_writer_are_read_back_however_the_file_is_cut(rows, shard_bytes, delimiter):
    with tempfile.TemporaryDirectory() as folder:
        content = io.StringIO(newline="")
        csv.writer(content, delimiter=delimiter).writerows([("de", "en"), *rows])
        path = write(folder, "a.csv", content.getvalue())
        expected = [(en, de) for de, en in rows]
        assert [tuple(cell.replace("\r\n", "\n") for cell in row) for row in texts(read([path], PAIR))] == expected
        assert read([path], PAIR, shard_bytes=shard_bytes) == read([path], PAIR)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["en,de", 'en,de,size "', '\ufeff"en",de,5" x']),
    st.text(alphabet='ab",\n', max_size=40),
    st.integers(1, 12),
)
def test_unbalanced_quotation_marks_lose_no_line_and_rows_do_not_depend_on_the_cuts(header, body, shard_bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "a.csv", f"{header}\n{body}")
        rows = read([path], PAIR)
        assert read([path], PAIR, shard_bytes=shard_bytes) == rows
        lines = body.removesuffix("\n").split("\n") if body else []
        assert b"\n".join(row.raw for row in rows).decode() == "\n".join(lines)
        assert [row.number for row in rows] == [
            2 + sum(earlier.raw.count(b"\n") + 1 for earlier in rows[:index]) for index in range(len(rows))
        ]


def test_an_unbalanced_quotation_mark_damages_only_its_own_line(tmp_path):
    body = 'a 5" pipe,ein Rohr\nb,c\n"never closed,d\ne,f\n"g, h","i\nj"\n' + "k,l\n" * 5
    rows = read([write(tmp_path, "a.csv", f"en,de\n{body}")], PAIR)
    assert [row.reason for row in rows if row.reason] == ["not valid CSV"]
    assert ('a 5" pipe', "ein Rohr") in [tuple(row.cells.values()) for row in rows]
    assert [row.cells["source"] for row in rows if row.cells][-5:] == ["k"] * 5


@pytest.mark.parametrize(("header", "lines"), [('en,de,"size\nin inches"', 2), ('en,de,"size', 1), ('en,de,size "', 1)])
def test_a_quotation_mark_in_the_header_loses_no_row(tmp_path, header, lines):
    body = "a,b,1\n" * 30 + 'a,b,5"\n' + "a,b,1\n" * 30
    rows = read([write(tmp_path, "a.csv", f"{header}\n{body}")], PAIR)
    assert texts(rows) == [("a", "b")] * 61
    assert [row.number for row in rows] == list(range(1 + lines, 62 + lines))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab \n\r", max_size=60), st.integers(1, 12))
def test_paragraphs_are_separated_by_blank_lines_however_the_file_is_cut(content, shard_bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "a.txt", content)
        rows = read([path], TEXT, InputConfig(unit="paragraph"))
        lines = [line.removesuffix("\r") for line in content.split("\n")]
        paragraphs = "\n".join(line if line.strip() else "" for line in lines).split("\n\n")
        assert [text for (text,) in texts(rows)] == [p.strip("\n") for p in paragraphs if p.strip("\n")]
        assert all(lines[row.number - 1] == row.cells["text"].split("\n")[0] for row in rows)
        assert read([path], TEXT, InputConfig(unit="paragraph"), shard_bytes) == rows


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab\t "), st.sampled_from(["", "c", "d" * 9])), max_size=12), st.integers(1, 9)
)
def test_parallel_files_are_aligned_by_line_however_they_are_cut(rows, shard_bytes):
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write(folder, name, "".join(row[side] + "\n" for row in rows)) for side, name in enumerate(("a.en", "a.de"))
        ]
        read_rows = read(paths, PAIR, shard_bytes=shard_bytes, parallel=True)
        assert [(row.number, row.raw.decode()) for row in read_rows] == [
            (number, "\t".join(row)) for number, row in enumerate(rows, start=1)
        ]
        assert [bool(row.reason) for row in read_rows] == [not (a.strip() and b.strip()) for a, b in rows]


def test_parallel_files_of_different_lengths_are_an_error_with_their_line_counts(tmp_path):
    paths = [write(tmp_path, "a.en", "x\n" * 5), write(tmp_path, "a.de", "x\n" * 4)]
    for shard_bytes in (3, 1000):
        with pytest.raises(DamagedFileError) as error:
            read(paths, PAIR, shard_bytes=shard_bytes, parallel=True)
        assert error.value.code == "parallel-lines-mismatched"
        assert error.value.fields == {"counts": {str(paths[0]): 5, str(paths[1]): 4}}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["a.tsv", "a.jsonl", "a.txt"]),
    st.lists(st.sampled_from([b"", b" ", b"x\ty", b'{"t": "x"}', b"\xff", b"text"]), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 20),
)
def test_lines_are_rows_or_rejects_with_their_numbers_however_the_file_is_cut(
    name, lines, end, is_ended, is_marked, shard_bytes
):
    is_tsv = name == "a.tsv"
    content = end.join([b"t\tu"] * is_tsv + lines) + end * is_ended
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, name, b"\xef\xbb\xbf" * is_marked + content)
        rows = read([path], {"text": "t", "label": "u"} if is_tsv else {"text": "t"}, shard_bytes=shard_bytes)
    written = enumerate((line.removesuffix(b"\r") for line in content.removesuffix(b"\n").split(b"\n")), start=1)
    expected = [(number, line) for number, line in written if (number > 1 if is_tsv else line.strip())]
    assert [(row.number, row.raw) for row in rows] == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=6), st.integers(1, 40), st.booleans())
def test_json_fields_are_read_by_key_or_dotted_path(rows, shard_bytes, nested):
    with tempfile.TemporaryDirectory() as folder:
        records = [{"en": en, "de": de, "n": 1} for en, de in rows]
        lines = [json.dumps({"translation": record} if nested else record) for record in records]
        path = write(folder, "a.jsonl", "\ufeff" + "\n\n".join([*lines, ""]))
        columns = {"source": "translation.en", "target": "translation.de"} if nested else PAIR
        assert texts(read([path], columns, shard_bytes=shard_bytes)) == rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": 3', "not valid JSON"),
        ('"text"', "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"test": "x"}', "no 'text'"),
        ('{"text": null}', "no 'text'"),
        ('{"text": ["x"]}', "'text' is not text"),
        ('{"text": "\\ud800"}', "'text' is not valid Unicode"),
        ('{"text": " "}', "empty text"),
        (b'{"text": "\xff"}', "not valid UTF-8"),
    ],
)
def test_json_that_is_not_text_is_rejected(tmp_path, line, reason):
    (row,) = read([write(tmp_path, "a.jsonl", line)], TEXT)
    assert row.reason == reason


def test_json_labels_may_be_numbers_or_booleans(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"t": "x", "y": 1}\n{"t": "x", "y": true}\n{"t": "x", "y": 0.5}\n')
    assert texts(read([path], {"text": "t", "label": "y"})) == [("x", "1"), ("x", "true"), ("x", "0.5")]


def test_a_row_of_a_text_file_is_a_line_a_paragraph_or_the_file(tmp_path):
    path = write(tmp_path, "a.txt", "\ufeffone\r\ntwo\r\n\r\n\r\nthree\r\n")
    rows = {unit: texts(read([path], TEXT, InputConfig(unit=unit))) for unit in ("line", "paragraph", "file")}
    assert rows["line"] == [("one",), ("two",), ("three",)]
    assert rows["paragraph"] == [("one\ntwo",), ("three",)]
    assert rows["file"] == [("one\ntwo\n\n\nthree",)]


def test_a_file_whose_columns_are_numbers_has_no_header(tmp_path):
    content = "1,hello,hallo\n2,bye,ade\n"
    columns = {"source": "2", "target": "3"}
    rows = [("hello", "hallo"), ("bye", "ade")]
    assert texts(read([write(tmp_path, "a.csv", content)], columns)) == rows
    assert texts(read([write(tmp_path, "a.tsv", content.replace(",", "\t"))], columns)) == rows


@pytest.mark.parametrize("delimiter", [";;", '"', "\n"])
def test_an_invalid_csv_delimiter_is_an_error_and_tsv_supports_longer_ones(tmp_path, delimiter):
    path = write(tmp_path, "a.csv", "en;;de\nx;;y\n")
    with pytest.raises(UserError, match=r"a\.csv: setting data\.delimiter must be one character for CSV") as error:
        read([path], PAIR, InputConfig(delimiter=delimiter))
    assert error.value.code == "delimiter-invalid"
    assert error.value.fields == {"path": str(path), "setting": "data.delimiter"}
    assert texts(read([path], PAIR, InputConfig(format="tsv", delimiter=";;"))) == [("x", "y")]


def test_a_reject_with_quotation_marks_names_the_setting_that_reads_them(tmp_path):
    path = write(tmp_path, "a.tsv", 'en\tde\n"Two\tfountains"\tZwei\n')
    assert "data.quoting=csv" in read([path], PAIR, InputConfig(quoting="none"))[0].detail
    assert texts(read([path], PAIR, InputConfig(quoting="csv"))) == [("Two\tfountains", "Zwei")]
