"""Tables: the user's files, each with the reader of its format and the columns from its header."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator

from seq2serve.components.base.artifact import CORPUS
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.encodings import SAMPLE_BYTES, encoding_note, text_encoding
from seq2serve.components.example_gen.file_errors import for_each_file
from seq2serve.components.example_gen.foreign_formats import foreign_format
from seq2serve.components.example_gen.formats import Format, InputConfig, file_format
from seq2serve.components.example_gen.readers import csv, jsonl, parquet, text, tmx, tsv
from seq2serve.components.example_gen.readers.base import Row, RowReader, Scans
from seq2serve.components.example_gen.readers.parallel import ParallelReader
from seq2serve.components.example_gen.text_files import Segment, TextFile, plan_shards, read_beginning

SELF_DESCRIBED_FORMATS = ("parquet", "tfrecord", "tmx")  # the file itself names its encoding


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

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        """Yields the rows of a segment with their corpus, without white space around labels; see RowReader.read."""
        corpus = {CORPUS: self.corpus} if self.corpus else {}
        for row in self.reader.read(segment, scans):
            if (self.label_columns or corpus) and row.cells:
                labels = {column: row.cells[column].strip() for column in self.label_columns}
                row = row._replace(cells=row.cells | labels | corpus)
            yield row


def make_table(group: tuple[dict, ...], columns: dict[str, str], input_config: InputConfig, shard_bytes: int) -> Table:
    """Returns the table of a file, or of a group of parallel files.

    Args:
        group: one of those that `formats.group_files` returns.
        columns: example column -> column of the file: a name, or a number from 1 if the files have no header.
        input_config: how files are read.
        shard_bytes: the size of the segments that parallel files are cut into.
    Raises:
        UserError: a column is missing, or the file cannot be read or is not text.
    """
    path, split, corpus = group[0]["path"], group[0].get("split", "").replace("train", ""), group[0].get("corpus", "")
    if group[0].get("column"):
        return dataclasses.replace(_parallel_table(group, split, input_config, shard_bytes), corpus=corpus)
    data_format = file_format(path, input_config, len(columns))
    file, note = TextFile(path, group[0]["bytes"]), ""
    if data_format not in SELF_DESCRIBED_FORMATS:
        file, note = _text_file(group[0], data_format, input_config)
    reader = READERS[data_format](file, columns, input_config)
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


def _text_file(entry: dict, data_format: Format, input_config: InputConfig) -> tuple[TextFile, str]:
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


def _tfrecord_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> RowReader:
    # Imports TensorFlow, which only this format needs.
    from seq2serve.components.example_gen.readers import tfrecord

    return tfrecord.make_reader(file, columns, input_config)


READERS: dict[Format, Callable[[TextFile, dict[str, str], InputConfig], RowReader]] = {
    "tsv": tsv.make_reader,
    "csv": csv.make_reader,
    "jsonl": jsonl.make_reader,
    "text": text.make_reader,
    "parquet": parquet.make_reader,
    "tfrecord": _tfrecord_reader,
    "tmx": tmx.make_reader,
}
