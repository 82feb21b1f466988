"""The formats of files, one row each; a reader is imported only when a file needs it."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Literal, NamedTuple


class FileFormat(NamedTuple):
    """A format of files.

    Args:
        title: its name in texts for people.
        suffixes: the extensions of its files.
        reader: imports the module of its reader, whose `make_reader(file, columns, input_config)` returns a RowReader.
        raw: whether the reader takes the bytes of a file as they are; otherwise they are text in `data.encoding`.
    """

    title: str
    suffixes: tuple[str, ...]
    reader: Callable[[], ModuleType]
    raw: bool = False


FORMATS = {
    "tsv": FileFormat("TSV", (".tsv", ".tab"), lambda: import_module(".readers.tsv", __package__)),
    "csv": FileFormat("CSV", (".csv",), lambda: import_module(".readers.csv", __package__)),
    "jsonl": FileFormat("JSON", (".jsonl", ".ndjson", ".json"), lambda: import_module(".readers.jsonl", __package__)),
    "parquet": FileFormat("Parquet", (".parquet",), lambda: import_module(".readers.parquet", __package__), raw=True),
    "tfrecord": FileFormat(
        "TFRecord", (".tfrecord", ".tfrecords"), lambda: import_module(".readers.tfrecord", __package__), raw=True
    ),
    "tmx": FileFormat("TMX", (".tmx",), lambda: import_module(".readers.tmx", __package__), raw=True),
    "text": FileFormat("plain text", (), lambda: import_module(".readers.text", __package__)),
}
Format = Literal["auto", *FORMATS]
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


def compression(path: str) -> str:
    """Returns the compression that a file's extension names; empty for none."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower(), "")


def named_format(path: str) -> str | None:
    """Returns the format that a file's extension names; None if it names none."""
    name = os.path.basename(path)
    base = os.path.splitext(name)[0] if compression(name) else name
    if re.search(r"tfrecord-\d+-of-\d+$", base):
        return "tfrecord"
    suffix = os.path.splitext(base)[1].lower()
    return next((name for name, known in FORMATS.items() if suffix in known.suffixes), None)
