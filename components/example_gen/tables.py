"""Tables: the user's files, each with the reader of its format and the columns from its header."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import Format, InputConfig, binary_format_hint, compression, file_format
from seq2serve.components.example_gen.readers import csv, jsonl, parquet, text, tsv
from seq2serve.components.example_gen.readers.base import Row, RowReader, Scans
from seq2serve.components.example_gen.readers.parallel import ParallelReader
from seq2serve.components.example_gen.text_files import Segment, TextFile, plan_shards, read_beginning


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of rows, or a group of parallel files.

    Args:
        file: the file whose segments are read; the first of parallel files.
        split: of all rows. Empty if a hash assigns the splits, as for training files, from which splits without files
            are taken.
        reader: reads the rows of a segment.
        label_columns: example columns of labels.
    """

    file: TextFile
    split: str
    reader: RowReader
    label_columns: tuple[str, ...] = ()

    def read(self, segment: Segment, scans: Scans) -> Iterator[Row]:
        """Yields the rows of a segment, without white space around labels; see RowReader.read."""
        for row in self.reader.read(segment, scans):
            if self.label_columns and row.cells:
                labels = {column: row.cells[column].strip() for column in self.label_columns}
                row = row._replace(cells=row.cells | labels)
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
    path, size, split = group[0]["path"], group[0]["bytes"], group[0].get("split", "").replace("train", "")
    for file in group:
        if hint := binary_format_hint(read_beginning(file["path"], 4)):
            raise UserError(f"{file['path']} is {hint}", code="file-not-text", path=file["path"])
    if group[0].get("column"):
        files = [TextFile(f["path"], f["bytes"], whole=any(compression(g["path"]) for g in group)) for f in group]
        segments = [s for file in files for s in itertools.chain(*plan_shards([file], shard_bytes))]
        paths = {file["column"]: file["path"] for file in group}
        return Table(files[0], split, ParallelReader(paths, segments), input_config.label_columns)
    reader = READERS[file_format(path, input_config, len(columns))](path, columns, input_config)
    return Table(TextFile(path, size, whole=not reader.is_cut), split, reader, input_config.label_columns)


def _tfrecord_reader(path: str, columns: dict[str, str], input_config: InputConfig) -> RowReader:
    # Imports TensorFlow, which only this format needs.
    from seq2serve.components.example_gen.readers import tfrecord

    return tfrecord.make_reader(path, columns, input_config)


READERS: dict[Format, Callable[[str, dict[str, str], InputConfig], RowReader]] = {
    "tsv": tsv.make_reader,
    "csv": csv.make_reader,
    "jsonl": jsonl.make_reader,
    "text": text.make_reader,
    "parquet": parquet.make_reader,
    "tfrecord": _tfrecord_reader,
}
