"""What the user's files are: how they are named on the command line, and what a name says of a file's format.

Comes in: a path, a pattern, or roles such as `source=train.en,target=train.de`. Goes out: roles and formats.
Read next: row_readers.py, which reads each format; pipeline/fingerprint.py, which finds the files.
"""

import dataclasses
import os
import re
from typing import Literal, NamedTuple

from components.artifact import SPLITS
from components.errors import UserError

Format = Literal["tsv", "csv", "jsonl", "text", "parquet", "tfrecord"]

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_SUFFIXES: dict[str, Format] = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # what files begin with
_NOT_ASCII = re.compile(rb"[\x80-\xff]+")
# `split.column=`, `split=` or `column=`
_ROLE = re.compile(rf"\s*(?:(?P<split>{'|'.join(SPLITS)})\b\.?)?(?P<column>\w*)=(?P<pattern>.+)", re.DOTALL)
_NEXT_ROLE = re.compile(r",(?=\s*[\w.]+=)")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are read.

    Args:
        format: of every file; auto goes by each file's name. A name that says nothing is tsv, or text where one column
            is wanted. Files that were given a column each (parallel files) are text.
        delimiter: between the cells of tsv and csv; empty is a tab for tsv, and for csv whichever of , ; tab | makes
            the header hold the columns.
        unit: what a row of plain text is: a line, a paragraph (lines without an empty one between), a whole file.
    """

    format: Literal["auto", "tsv", "csv", "jsonl", "text", "parquet", "tfrecord"] = "auto"
    delimiter: str = ""
    unit: Literal["line", "paragraph", "file"] = "line"


class Role(NamedTuple):
    """What files are for. `split`: where their rows go, empty for a hash to decide; `column`: of parallel files."""

    split: str
    column: str
    pattern: str


def parse_roles(text: str) -> list[Role]:
    """Reads how files are named on the command line.

    Args:
        text: a path or pattern; or parts joined by commas, each `split=pattern`, `column=pattern` or
            `split.column=pattern`, such as `train.source=a.en,train.target=a.de,test=b.tsv`.
    Returns:
        The roles, in the order given.
    """
    if os.path.lexists(text):
        return [Role("", "", text)]
    matches = [_ROLE.fullmatch(part) for part in _NEXT_ROLE.split(text)]
    if not all(matches):
        return [Role("", "", text)]
    return [Role(match["split"] or "", match["column"], match["pattern"].strip()) for match in matches]


def compression(path: str) -> str:
    """Returns how the name says that a file is compressed; empty for not at all."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower(), "")


def named_format(path: str) -> Format | None:
    """Returns the format that a file's name speaks of, None for none."""
    name = os.path.basename(path)
    base = os.path.splitext(name)[0] if compression(name) else name
    if re.search(r"tfrecord-\d+-of-\d+$", base):
        return "tfrecord"
    return _SUFFIXES.get(os.path.splitext(base)[1].lower())


def file_format(path: str, reading: Reading, num_columns: int) -> Format:
    """Returns the format that a file is read as."""
    if reading.format != "auto":
        return reading.format
    return named_format(path) or ("tsv" if num_columns > 1 else "text")


def not_text(beginning: bytes) -> str:
    """Says by the four bytes that a file begins with what it is instead of text, and how to mend it; empty if it is."""
    if beginning == _ZIP:
        return "an Excel file or another zip, whatever its name; export the sheet as CSV (UTF-8), or unpack the zip"
    return "an old Excel file, whatever its name; export the sheet as CSV (UTF-8)" if beginning == _OLD_EXCEL else ""


def not_utf8(text: bytes) -> str:
    """Says how to mend a file in which a text is not UTF-8, and what the text looks like if that can be told.

    In Latin-1, or its kin for Windows, what is not ASCII are letters with accents, and seldom two of them together. In
    other scripts whole words are not ASCII, and UTF-16 has NULs.
    """
    others = _NOT_ASCII.findall(text)
    letters = sum(run[0] >= 0xC0 for run in others)
    told = others and b"\0" not in text and 2 * letters > len(others) and max(map(len, others)) <= 2
    return f"save the file as UTF-8{'; it looks like Latin-1' * bool(told)}"


def group_files(files: list[dict], columns: list[str], reading: Reading) -> list[tuple[dict, ...]]:
    """Puts parallel files together.

    Args:
        files: {"path", "bytes", "sha256"}, with "split" and "column" where these are given.
        columns: that an example has.
        reading: how files are read.
    Returns:
        Groups of one file, or of one file a column, in the order of their content: whatever files are called, the same
        text gives the same bytes.
    Raises:
        UserError: a column lacks its files, or has not as many as the others; a file is named twice.
    """
    paths = [file["path"] for file in files]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"{twice} is named twice; a file has one place")
    groups = [(file,) for file in files if not file.get("column")]
    for split in dict.fromkeys(file.get("split", "") for file in files if file.get("column")):
        mine = {c: [f for f in files if (f.get("split", ""), f.get("column")) == (split, c)] for c in columns}
        unknown = {file["column"] for file in files if file.get("column")} - set(columns)
        counts = {column: len(found) for column, found in mine.items()}
        if unknown or len(set(counts.values())) > 1 or 0 in counts.values():
            found = ", ".join(f"{n} for {column}" for column, n in counts.items())
            extra = f", and some for {', '.join(sorted(unknown))}" if unknown else ""
            raise UserError(
                f"parallel files{f' of {split}' if split else ''}: there are {found}{extra}; give the same number of "
                f"files for each of {', '.join(columns)}, such as {','.join(f'{c}=train.{c}' for c in columns)}"
            )
        if reading.unit != "line":
            raise UserError(f"parallel files go together line by line, not by data.unit={reading.unit}")
        groups += zip(*mine.values(), strict=True)
    return sorted(groups, key=lambda group: [file["sha256"] for file in group])
