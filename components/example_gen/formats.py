"""The user's files as named on the command line: splits, columns and formats."""

import dataclasses
import os
import re
from typing import Literal, NamedTuple

from seq2serve.components.base.artifact import SPLITS
from seq2serve.components.base.errors import UserError

Format = Literal["tsv", "csv", "jsonl", "text", "parquet", "tfrecord", "tmx"]  # tables.READERS has their readers
Unit = Literal["auto", "line", "paragraph", "file", "document"]

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
    ".tmx": "tmx",
}
# `split.column=`, `split=` or `column=`
_ROLE = re.compile(rf"\s*(?:(?P<split>{'|'.join(SPLITS)})\b\.?)?(?P<column>\w*)=(?P<pattern>.*)", re.DOTALL)
_NEXT_ROLE = re.compile(r",(?=\s*[\w.]+=)")


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How files are read.

    Args:
        format: the format of every file. `auto` follows each file's extension; without a known extension it is tsv, or
            text if there is only one column. Parallel files (one file per column) are always text.
        delimiter: separates the cells of tsv and csv. If empty, tsv uses a tab, and csv uses the one of , ; tab | with
            which the header contains the columns.
        unit: a row of plain text: a line, a paragraph (lines up to the next empty one), a whole file, or a part of a
            file that is one document (readers/document.py). For `auto`, and for single files, see `text_unit`.
        label_columns: example columns of labels. White space around a label is removed.
        encoding: of text files; `auto` is UTF-8, or UTF-16 if the bytes show it.
        quoting: of tsv. `csv`: cells may be quoted, as in CSV; `none`: quotation marks are text; `auto`: the file shows
            it.
        optional: the columns that may be empty: those that are kept only to slice metrics by.
    """

    format: Literal["auto", Format] = "auto"
    delimiter: str = ""
    unit: Unit = "line"
    label_columns: tuple[str, ...] = ()
    encoding: str = "auto"
    quoting: Literal["auto", "csv", "none"] = "auto"
    optional: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How rows are assigned to the splits that have no files of their own.

    Args:
        eval_share, test_share: shares of the rows; the rest is for training.
        seed: of the hash that assigns rows to splits.
        split_key: rows with the same key share a split: `loose` for the text without case, digits and spaces, `exact`
            for the text, or the name of a column.
        drop_overlap: whether rows of the train split that are equal to a row of another split are dropped.
    """

    eval_share: float = 0.05
    test_share: float = 0.05
    seed: int = 1
    split_key: str = "loose"
    drop_overlap: bool = False


class Role(NamedTuple):
    """The use of some files.

    Args:
        split: of their rows, empty if a hash decides.
        column: of parallel files, or empty.
        pattern: their path or pattern.
        corpus: the name of their corpus, empty if there is only one (see corpora.py).
        weight: of that corpus in training; None if it has none.
    """

    split: str
    column: str
    pattern: str
    corpus: str = ""
    weight: float | None = None


def parse_roles(text: str, folder: str = "") -> list[Role]:
    """Parses files as they are named on the command line; corpora.py parses those of the user's text.

    Args:
        text: a path or pattern; or parts joined by commas, each `split=pattern`, `column=pattern` or
            `split.column=pattern`, such as `train.source=a.en,train.target=a.de,test=b.tsv`.
        folder: relative paths are relative to it; empty for the current folder.
    Returns:
        The roles, in the same order.
    Raises:
        UserError: a role has no file.
    """
    if os.path.lexists(os.path.join(folder, text)):
        return [Role("", "", text)]
    matches = [_ROLE.fullmatch(part) for part in _NEXT_ROLE.split(text)]
    if not all(matches):
        return [Role("", "", text)]
    if empty := next((match for match in matches if not match["pattern"].strip(" ,")), None):
        role = empty[0].partition("=")[0].strip()
        raise UserError(f"{text!r} has no file after {role}=; write {role}=FILE", code="file-unnamed", path=text)
    return [Role(match["split"] or "", match["column"], match["pattern"].strip()) for match in matches]


def compression(path: str) -> str:
    """Returns the compression that a file's extension names; empty for none."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower(), "")


def named_format(path: str) -> Format | None:
    """Returns the format that a file's extension names; None if it names none."""
    name = os.path.basename(path)
    base = os.path.splitext(name)[0] if compression(name) else name
    if re.search(r"tfrecord-\d+-of-\d+$", base):
        return "tfrecord"
    return _SUFFIXES.get(os.path.splitext(base)[1].lower())


def file_format(path: str, input_config: InputConfig, num_columns: int) -> Format:
    """Returns the format in which a file is read."""
    if input_config.format != "auto":
        return input_config.format
    return named_format(path) or ("tsv" if num_columns > 1 else "text")


def text_unit(files: list[dict], unit: Unit) -> Unit:
    """Returns the unit in which plain text is read.

    With `auto`, a file that is the only one of its split is a document, and several are read by paragraph. With `file`,
    a file is a document if it would be the only row from which train and another split are to be taken.

    Args:
        files: with "split" if assigned.
        unit: the setting.
    """
    splits = [file.get("split", "") or "train" for file in files]
    if unit == "auto":
        return "document" if len(set(splits)) == len(splits) else "paragraph"
    must_be_split = splits.count("train") == 1 and set(splits) != set(SPLITS)
    return "document" if unit == "file" and must_be_split else unit


def group_files(files: list[dict], columns: list[str], input_config: InputConfig) -> list[tuple[dict, ...]]:
    """Groups parallel files.

    Args:
        files: {"path", "bytes", "sha256"}, and "split" and "column" if assigned.
        columns: the columns of an example.
        input_config: how files are read.
    Returns:
        Groups of one file, or of one file per column, sorted by content, so that renaming files does not change the
        result.
    Raises:
        UserError: columns do not have the same number of files, or a file is named twice.
    """
    paths = [file["path"] for file in files]
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"{repeated} is named twice; name each file once", code="file-repeated", path=repeated)
    groups: list[tuple[dict, ...]] = [(file,) for file in files if not file.get("column")]
    for split in dict.fromkeys(file.get("split", "") for file in files if file.get("column")):
        groups += _group_parallel(files, columns, split)
        if input_config.unit != "line":
            raise UserError(
                f"parallel files are read line by line, so they do not support data.unit={input_config.unit}; use "
                "data.unit=line",
                code="parallel-unit-unsupported",
                setting="data.unit",
            )
    return sorted(groups, key=lambda group: [file["sha256"] for file in group])


def _group_parallel(files: list[dict], columns: list[str], split: str) -> list[tuple[dict, ...]]:
    """Returns the parallel files of a split, in groups of one file per column."""
    files_by_column = {
        column: [file for file in files if (file.get("split", ""), file.get("column")) == (split, column)]
        for column in columns
    }
    unknown = sorted({file["column"] for file in files if file.get("column")} - set(columns))
    counts = {column: len(column_files) for column, column_files in files_by_column.items()}
    if unknown or len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{count} for {column}" for column, count in counts.items())
        extra = f", and some for the unknown column {', '.join(unknown)}" if unknown else ""
        raise UserError(
            f"parallel files{f' of {split}' if split else ''}: there are {listed}{extra}; name the same number of "
            f"files for each of {', '.join(columns)}, such as {','.join(f'{name}=train.{name}' for name in columns)}",
            code="parallel-files-mismatched",
            split=split,
            counts=counts,
            unknown=unknown,
        )
    groups = list(zip(*files_by_column.values(), strict=True))
    for group in groups:
        if len({file.get("corpus") for file in group}) > 1:
            listed = " and ".join(f"{file['path']} ({file['corpus']})" for file in group)
            raise UserError(
                f"parallel files of different corpora: {listed}; name the same number of files for each column of a "
                "corpus, in the same order",
                code="parallel-files-mismatched",
                paths=[file["path"] for file in group],
            )
    return groups
