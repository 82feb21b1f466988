"""Tables: the user's files, each with the reader of its format and the columns from its header."""

import dataclasses
import itertools
import os
from collections.abc import Iterator

from seq2serve.components.base.artifact import CORPUS, SPLITS
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig, Unit
from seq2serve.components.example_gen.encodings import SAMPLE_BYTES, encoding_note, text_encoding
from seq2serve.components.example_gen.file_errors import for_each_file
from seq2serve.components.example_gen.foreign_formats import foreign_format
from seq2serve.components.example_gen.formats import FORMATS, named_format
from seq2serve.components.example_gen.readers.base import Row, RowReader
from seq2serve.components.example_gen.readers.parallel import ParallelReader
from seq2serve.components.example_gen.text_files import TextFile, plan_shards, read_beginning


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of rows, or a group of parallel files.

    Args:
        file: the file whose segments are read; the first of parallel files.
        split: of all rows. Empty if a hash assigns the splits, as for training files, from which splits without files
            are taken.
        reader: reads the rows of a segment.
        notes: what the user should know about how the file is read.
        label_columns: example columns of labels.
        corpus: the name of the rows' corpus; empty if there is only one.
    """

    file: TextFile
    split: str
    reader: RowReader
    notes: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    corpus: str = ""

    def completed(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Returns the rows of the reader with their corpus, without white space around labels."""
        return map(self._complete, rows) if self.label_columns or self.corpus else rows

    def _complete(self, row: Row) -> Row:
        if not row.cells:
            return row
        labels = {column: row.cells[column].strip() for column in self.label_columns}
        return row._replace(cells=row.cells | labels | ({CORPUS: self.corpus} if self.corpus else {}))


def make_table(group: tuple[dict, ...], columns: dict[str, str], input_config: InputConfig, shard_bytes: int) -> Table:
    """Returns the table of a file, or of a group of parallel files.

    Args:
        group: one of those that `group_files` returns.
        columns: example column -> column of the file: a name, or a number from 1 if the files have no header.
        input_config: how files are read.
        shard_bytes: the size of the segments that parallel files are cut into.
    Raises:
        UserError: a column is missing, or the file cannot be read or is not text.
    """
    path, split, corpus = group[0]["path"], group[0].get("split", "").replace("train", ""), group[0].get("corpus", "")
    if group[0].get("column"):
        return dataclasses.replace(_parallel_table(group, split, input_config, shard_bytes), corpus=corpus)
    data_format = input_config.format
    if data_format == "auto":
        data_format = named_format(path) or ("tsv" if len(columns) > 1 else "text")
    file, note = TextFile(path, group[0]["bytes"]), ""
    if not FORMATS[data_format].raw:
        file, note = _text_file(group[0], data_format, input_config)
    reader = FORMATS[data_format].reader().make_reader(file, columns, input_config)
    notes = tuple(text for text in (note, reader.note) if text)
    file = dataclasses.replace(file, whole=not reader.is_cut)
    return Table(file, split, reader, notes, input_config.label_columns, corpus)


def _parallel_table(group: tuple[dict, ...], split: str, input_config: InputConfig, shard_bytes: int) -> Table:
    files, notes = zip(*for_each_file(lambda entry: _text_file(entry, "text", input_config), group), strict=True)
    is_whole = any(file.compressed or file.encoding for file in files)
    files = [dataclasses.replace(file, whole=is_whole) for file in files]
    segments = [s for file in files for s in itertools.chain(*plan_shards([file], shard_bytes))]
    paths = {entry["column"]: file.path for entry, file in zip(group, files, strict=True)}
    named = (f"{os.path.basename(file.path)}: {note}" for file, note in zip(files, notes, strict=True) if note)
    return Table(files[0], split, ParallelReader(paths, segments), tuple(named), input_config.label_columns)


def _text_file(entry: dict, data_format: str, input_config: InputConfig) -> tuple[TextFile, str]:
    """Returns (a text file with its encoding, what the user should know about that or "").

    Raises:
        UserError: the file is in a format that is not read.
    """
    path = entry["path"]
    beginning = read_beginning(path, SAMPLE_BYTES)
    if hint := foreign_format(beginning, path, data_format):
        raise UserError(f"{path} is {hint}", code="file-not-text", path=path)
    encoding = text_encoding(beginning, input_config.encoding)
    note = encoding_note(beginning, encoding, input_config.encoding)
    return TextFile(path, entry["bytes"], encoding=encoding), note


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
