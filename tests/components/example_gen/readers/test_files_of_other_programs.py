"""Files as other programs write them: quoted TSV, other encodings, JSON arrays, header names with spaces, archives."""

import csv
import io
import json
import pathlib
import tempfile

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.readers.base import Row
from seq2serve.components.example_gen.tables import Table, make_table
from seq2serve.components.example_gen.text_files import DamagedFileError
from tests.components.example_gen.readers.reading import read_table

PAIR = {"source": "en", "target": "de"}
# Direct speech, measures and unbalanced marks, as in Tatoeba and Moses corpora.
SPEECH = [('"Go away," he said.', '"Geh weg", sagte er.'), ('"Stop!"', '"Halt!"'), ('a 5" pipe', 'ein 5" Rohr')]
PLAIN = [(f"House {i}", f"Haus {i}") for i in range(50)]
cells = st.text(alphabet='ab"\t\n, é', min_size=1, max_size=6).filter(str.strip)


def write(folder, name: str, content: str | bytes) -> pathlib.Path:
    path = pathlib.Path(folder, name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table_of(path, columns=None, shard_bytes=1 << 40, **config) -> Table:
    group = ({"path": str(path), "bytes": path.stat().st_size},)
    return make_table(group, columns or PAIR, InputConfig(**config), shard_bytes)


def read(path, columns=None, shard_bytes=1 << 40, **config) -> list[Row]:
    return read_table(table_of(path, columns, shard_bytes, **config), shard_bytes)


def texts(rows: list[Row]) -> list[tuple[str, ...]]:
    assert not [row for row in rows if row.reason]
    return [tuple(row.cells.values()) for row in rows]


def tsv(rows, quoting=csv.QUOTE_MINIMAL, end="\n") -> str:
    content = io.StringIO(newline="")
    csv.writer(content, delimiter="\t", quoting=quoting, lineterminator=end).writerows([("en", "de"), *rows])
    return content.getvalue()


def excel_tsv(rows) -> str:
    """Returns rows as Excel writes them: cells with a comma are quoted, too."""
    quoted = [[f'"{cell}"' if "," in cell else cell for cell in row] for row in rows]
    return "".join("\t".join(row) + "\r\n" for row in [("en", "de"), *quoted])


NEEDED = [('say "hi"', "sag"), ("two\tcells", "zwei"), ("two\nlines", "Zeilen"), ("plain", "schlicht")]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        *((tsv([row, *PLAIN]), [row, *PLAIN]) for row in NEEDED),
        (tsv(PLAIN, csv.QUOTE_ALL, "\r\n"), PLAIN),
        (tsv(NEEDED, csv.QUOTE_ALL), NEEDED),
        (tsv(PLAIN).replace("Haus 7", '"Haus 7"\t').replace("\t\n", "\n"), None),
        (
            excel_tsv([("Yes, sir", "Ja"), ("No, sir", "Nein, Herr"), *PLAIN]),
            [("Yes, sir", "Ja"), ("No, sir", "Nein, Herr"), *PLAIN],
        ),
        ('en\tde\n"Two\tfountains"\tZwei\n', [("Two\tfountains", "Zwei")]),
        ('en\tde\n"Hello"\tHallo\n"Bye"\tAde\n', [("Hello", "Hallo"), ("Bye", "Ade")]),
    ],
)
def test_a_tsv_with_quoted_cells_is_read_without_the_marks(tmp_path, content, rows):
    path = write(tmp_path, "a.tsv", content)
    if rows is None:  # one cell in marks among many without: text
        assert ("House 7", '"Haus 7"') in texts(read(path))
        assert "quotation marks around some cells are read as text" in table_of(path).notes[0]
        return
    assert texts(read(path)) == rows
    assert texts(read(path, shard_bytes=9)) == rows
    note = (
        "cells are quoted, as pandas and Excel do it, and read without the quotation marks; if the marks are text, use "
    )
    assert table_of(path).notes == ((f"{note}--set data.quoting=none",) if '"' in content else ())


@pytest.mark.parametrize("rows", [SPEECH, [*SPEECH, *PLAIN], [SPEECH[1], *PLAIN], [*PLAIN, SPEECH[2]]])
def test_quotation_marks_in_a_plain_tsv_are_text(tmp_path, rows):
    content = "".join("\t".join(row) + "\n" for row in [("en", "de"), *rows])
    assert texts(read(write(tmp_path, "a.tsv", content))) == rows
    numbered = write(tmp_path, "b.tsv", content.removeprefix("en\tde\n"))
    assert texts(read(numbered, {"source": "1", "target": "2"})) == rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8), st.integers(1, 30))
def test_rows_from_a_tsv_writer_are_read_back_however_the_file_is_cut(rows, shard_bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, "a.tsv", tsv(rows))
        assert texts(read(path)) == rows
        assert read(path, shard_bytes=shard_bytes) == read(path)


def test_the_setting_decides_how_quotation_marks_are_read(tmp_path):
    path = write(tmp_path, "a.tsv", 'en\tde\n"a ""b"""\tc\n')
    assert texts(read(path)) == texts(read(path, quoting="csv")) == [('a "b"', "c")]
    assert texts(read(path, quoting="none")) == [('"a ""b"""', "c")]
    with pytest.raises(UserError) as error:
        read(write(tmp_path, "a.csv", "en,de\n"), quoting="none")
    assert (error.value.code, error.value.fields["setting"]) == ("settings-conflict", "data.quoting")


ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"]
ACCENTED = [(f"tea {i}", f"größer als „{i}“ €") for i in range(30)]
CHINESE = [(f"茶{i}", f"喝茶的人很多{i}") for i in range(30)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [ACCENTED, CHINESE])
def test_utf_16_and_utf_32_are_recognised(tmp_path, encoding, rows):
    content = "".join("\t".join(row) + "\r\n" for row in [("en", "de"), *rows])
    path = write(tmp_path, "a.tsv", content.encode(encoding))
    assert texts(read(path, shard_bytes=50)) == rows
    assert [row.number for row in read(path)] == list(range(2, 32))
    lines = "".join(json.dumps({"en": en, "de": de}, ensure_ascii=False) + "\n" for en, de in rows)
    assert texts(read(write(tmp_path, "a.jsonl", lines.encode(encoding)))) == rows


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_another_encoding_is_read_with_the_setting(tmp_path, name):
    content = "".join("\t".join(row) + "\n" for row in [("en", "größe"), *ACCENTED]).encode("windows-1252")
    path, columns = write(tmp_path, name, content), {"source": "en", "target": "größe"}
    assert texts(read(path, columns, encoding="windows-1252")) == ACCENTED
    with pytest.raises(UserError) as error:
        read(path, columns)
    assert (error.value.code, error.value.fields) == ("encoding-invalid", {"path": str(path), "line": 1})
    hint = "byte 0xF6; it looks like Windows-1252 or Latin-1: use --set data.encoding=windows-1252, or save the file as"
    assert hint in str(error.value)


def test_bytes_that_the_encoding_does_not_have_reject_their_row_only(tmp_path):
    path = write(tmp_path, "a.tsv", b"en\tde\nx\ty\nb\x81d\ty\n\xe9\ty\n")
    rows = read(path, encoding="windows-1252")
    assert [row.reason for row in rows] == ["", "not valid in data.encoding", ""]
    assert rows[2].cells == {"source": "é", "target": "y"}
    assert [row.reason for row in read(path)] == ["", "not valid UTF-8", "not valid UTF-8"]


def test_a_byte_order_mark_overrides_the_setting_and_valid_utf_8_in_another_encoding_is_a_note(tmp_path):
    content = "en\tde\ngrößer\tü\n"
    marked = write(tmp_path, "a.tsv", content.encode("utf-8-sig"))
    assert texts(read(marked, encoding="windows-1252")) == [("größer", "ü")]
    note = "its beginning is valid UTF-8, but it is read as windows-1252, which data.encoding names"
    assert table_of(write(tmp_path, "b.tsv", content), encoding="windows-1252").notes == (note,)


RECORDS = [{"en": "Hello [", "de": 'Hallo, "Welt"'}, {"en": "é\u2028", "de": "ü"}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n  "])
def test_a_json_array_is_read_like_json_lines(tmp_path, indent, before):
    path = write(tmp_path, "a.json", before + json.dumps(RECORDS, indent=indent, ensure_ascii=False) + "\n")
    assert texts(read(path, shard_bytes=5)) == [tuple(record.values()) for record in RECORDS]


def test_an_element_that_is_no_row_is_rejected_with_its_line_and_number(tmp_path):
    elements = [
        '{"en": "a", "de": "b"}',
        '{"en": "a"}',
        "3",
        "[1]",
        '{"en": "a",\n "de": null}',
        '{"en": "\xff", "de": "x"}',
    ]
    path = write(tmp_path, "a.json", f"[{(',' + chr(10)).join(elements)}\n]".encode("latin-1"))
    rows = read(path)
    assert [(row.number, row.reason) for row in rows] == [
        (1, ""),
        (2, "no 'de'"),
        (3, "not a JSON object"),
        (4, "not a JSON object"),
        (5, "no 'de'"),
        (7, "not valid UTF-8"),
    ]
    assert rows[1].detail == "element 2 of the array"


@pytest.mark.parametrize(
    "content", ['[{"en": "a", "de": "b"},', '[{"en": "a", "de": "b"} {}]', '[{"en": "a", "de": "b"}', '[{"en" "a"}]']
)
def test_a_damaged_json_array_is_an_error_with_its_line(tmp_path, content):
    path = write(tmp_path, "a.json", content)
    with pytest.raises(DamagedFileError) as error:
        read(path)
    assert (error.value.code, error.value.fields) == ("file-damaged", {"path": str(path), "line": 1})


def test_a_long_json_array_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("seq2serve.components.example_gen.readers.json_array._CHUNK_BYTES", 7)
    records = [{"en": "é" * i + "a", "de": str(i)} for i in range(40)]
    path = write(tmp_path, "a.json", json.dumps(records, ensure_ascii=False, indent=1))
    assert texts(read(path)) == [tuple(record.values()) for record in records]


def test_a_json_object_over_several_lines_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a JSON object over several lines; write one object per line") as error:
        read(write(tmp_path, "a.json", json.dumps({"data": RECORDS}, indent=1)))
    assert error.value.code == "file-not-json-lines"


@pytest.mark.parametrize("header", [" en , de ", "en\u00a0, de", "\ufeff\ufeffen,de", "\ten\t,de "])
def test_spaces_around_header_names_have_no_meaning(tmp_path, header):
    assert texts(read(write(tmp_path, "a.csv", f"{header}\nx,y\n"))) == [("x", "y")]
    assert texts(
        read(write(tmp_path, "a.tsv", f"{header.strip(chr(9)).replace(chr(9), '').replace(',', chr(9))}\nx\ty\n"))
    ) == [("x", "y")]
    names = header.split(",")
    parquet.write_table(pyarrow.table({names[0]: ["x"], names[1]: ["y"]}), tmp_path / "a.parquet")
    assert texts(read(tmp_path / "a.parquet")) == [("x", "y")]


def test_a_name_with_spaces_that_two_columns_share_is_ambiguous(tmp_path):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, "a.csv", " en,en ,de\nx,y,z\n"))
    assert error.value.code == "column-ambiguous"
    assert texts(read(write(tmp_path, "a.csv", "en ,en,de\nx,y,z\n"))) == [("y", "z")]


@pytest.mark.parametrize("line", ["sep=|", "SEP=|", '"sep=|"', "sep=|||", "\ufeffsep=|"])
@pytest.mark.parametrize(
    ("name", "shard_bytes"), [("a.csv", 3), ("a.csv", 1 << 40), ("a.tsv", 12), ("a.tsv", 16), ("a.tsv", 1 << 40)]
)
def test_a_line_that_names_the_separator_is_no_header(tmp_path, line, name, shard_bytes):
    path = write(tmp_path, name, f"{line}\r\nen|de\r\na,b|c\r\n")
    rows = read(path, shard_bytes=shard_bytes)
    assert (texts(rows), rows[0].number) == ([("a,b", "c")], 3)
    assert texts(read(path, {"source": "1", "target": "2"}))[0] == ("en", "de")


def test_lines_of_old_macs_are_named(tmp_path):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, "a.csv", "en,de\rx,y\r"))
    assert error.value.code == "line-ends-unsupported"


TAR = b"a.tsv".ljust(257, b"\0") + b"ustar"


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.zip", b"PK\x03\x04", r"is a zip archive; unpack it \(unzip FILE\) and name the files in it$"),
        ("a.xlsx", b"PK\x03\x04", r"is an Excel file; export the sheet as CSV \(UTF-8\)$"),
        ("a.tar", TAR, r"is a tar archive; unpack it"),
        ("a.tgz", b"\x1f\x8b\x08", r"is a tar archive; unpack it \(tar -xf FILE\)"),
        ("a.tar.xz", b"\xfd7zXZ", r"is a tar archive; unpack it \(tar -xf FILE\)"),
        ("a.csv", b"\x1f\x8b\x08", r"is compressed with gzip; let its name end in .gz, or unpack it"),
        ("a.lzma", b"\x5d\0\0\x80", r"is compressed with LZMA, which is not read; unpack it"),
        ("a.doc", b"\xd0\xcf\x11\xe0", r"is an old Word document; save it as plain text"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0", r"is an Excel file with a password; export the sheet as CSV"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", r"is a 7-Zip archive"),
        ("a.pdf", b"%PDF-1.7", r"is a PDF"),
        ("a.tsv", b"PAR1", r"is a Parquet file; name it .parquet"),
        ("a.csv", b"<!DOCTYPE html><html>", r"is a web page, perhaps an error page of the download"),
        ("a.tsv", '<?xml version="1.0"?><tmx version="1.4">'.encode("utf-16"), r"is TMX; let its name end in .tmx, or"),
        ("a.xlf", b'<?xml version="1.0"?>\n<xliff>', r"is XML, which is not read; convert it to TSV"),
    ],
)
def test_formats_that_are_not_read_are_named_with_the_way_out(tmp_path, name, content, hint):
    with pytest.raises(UserError, match=hint) as error:
        read(write(tmp_path, name, content))
    assert error.value.code == "file-not-text"


def test_plain_text_may_be_markup(tmp_path):
    path = write(tmp_path, "a.txt", "<html>\n<p>\n")
    assert texts(read(path, {"text": "text"})) == [("<html>",), ("<p>",)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "en\tde\ttopic\nx\ty\t\nx\ty\t \n"),
        ("a.tsv", 'en\tde\ttopic\n"x"\t"y"\t""\n"x"\t"y"\t" "\n'),
        ("a.csv", "en,de,topic\nx,y,\nx,y, \n"),
        ("a.jsonl", '{"en": "x", "de": "y"}\n{"en": "x", "de": "y", "topic": null}\n'),
        ("a.json", '[{"en": "x", "de": "y", "topic": ""},\n{"en": "x", "de": "y", "topic": null}]'),
    ],
)
def test_an_empty_optional_cell_does_not_reject_its_row(tmp_path, name, content):
    columns = PAIR | {"topic": "topic"}
    path = write(tmp_path, name, content)
    assert texts(read(path, columns, optional=("topic",))) == [("x", "y", "")] * 2
    assert all(row.reason for row in read(path, columns))


def test_an_empty_optional_value_in_parquet_does_not_reject_its_row(tmp_path):
    parquet.write_table(
        pyarrow.table({"en": ["x", "x", None], "de": ["y"] * 3, "topic": [None, "", "t"]}), tmp_path / "a.parquet"
    )
    rows = read(tmp_path / "a.parquet", PAIR | {"topic": "topic"}, optional=("topic",))
    assert [row.reason for row in rows] == ["", "", "no 'source'"]
    assert [row.cells["topic"] for row in rows[:2]] == ["", ""]


TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="EN-us"><seg>Tom &amp; <bpt i="1">&lt;b&gt;</bpt><hi>Jerry</hi><ept i="1">&lt;/b&gt;</ept></seg></tuv>
<tuv xml:lang="de"><seg>größer</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>alone</seg></tuv></tu>
<tu><tuv lang="en"><seg>a</seg></tuv><tuv lang="en-GB"><seg>b</seg></tuv><tuv lang="de"><seg> c </seg></tuv></tu>
<tu><tuv lang="en"><seg>a</seg></tuv><tuv lang="de"><seg>b</seg></tuv><tuv lang="de"><seg>c</seg></tuv></tu>
<tu><tuv lang="en"><seg/></tuv><tuv lang="de"><seg>b</seg></tuv></tu>
</body></tmx>
"""
LANGUAGES = {"source": "en", "target": "de"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_every_unit_of_tmx_is_a_row_or_a_reject(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr("seq2serve.components.example_gen.readers.tmx._CHUNK_BYTES", 11)
    rows = read(write(tmp_path, "a.tmx", TMX.format(encoding=encoding).encode(encoding)), LANGUAGES, shard_bytes=9)
    assert [(row.number, row.reason) for row in rows] == [
        (4, ""),
        (6, "no 'de'"),
        (7, ""),
        (8, "several texts in 'de'"),
        (9, "empty source"),
    ]
    assert [tuple(row.cells.values()) for row in rows if row.cells] == [("Tom & Jerry", "größer"), ("a", "c")]


ENTITIES = (
    '<!DOCTYPE tmx [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><tmx><tu><tuv lang="en"><seg>&b;</seg></tuv></tu></tmx>'
)


@pytest.mark.parametrize(
    ("content", "code", "wording"),
    [
        (ENTITIES, "file-damaged", "it declares XML entities, which are not expanded; replace them"),
        (TMX.format(encoding="utf-8")[:-20], "file-damaged", "not well-formed XML: "),
        ("<tmx/>", "rows-missing", "no translation units"),
        (
            TMX.format(encoding="utf-8").replace('"de"', '"fr"'),
            "column-missing",
            "no column 'de'. The file has: 'EN-us', ",
        ),
    ],
)
def test_unusable_tmx_is_an_error(tmp_path, content, code, wording):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, "a.tmx", content), LANGUAGES)
    assert error.value.code == code
    assert wording in str(error.value)
