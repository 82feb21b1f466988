"""The record of the data behind a tokenizer or a model: a file beside it, which stays with it where it is copied."""

import json
import os
from collections.abc import Mapping
from typing import Any

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.uris import is_remote
from seq2serve.components.storage.files import write_file

DATA_RECORD = "data.json"
PRETRAINED = "pretrained"  # in the record of a model: the properties of the imported model behind it


def source_files(files: list[dict]) -> list[dict[str, Any]]:
    """Returns name, bytes and SHA-256 of a user's files; of a file at a URL without a hash, as its content is not read.

    Args:
        files: those of RawFiles.
    """
    return [
        {"name": os.path.basename(file["path"]), "bytes": file["bytes"]}
        | ({} if is_remote(file["path"]) else {"sha256": file["sha256"]})
        for file in files
    ]


def describe_data(examples: Artifact) -> dict[str, Any]:
    """Returns the record of Examples: files (see `source_files`), num_rows (rows read), num_examples {split: n}."""
    return {
        key: examples.properties[key]
        for key in ("files_read", "num_rows", "num_examples")
        if key in examples.properties
    }


def write_record(folder: str, record: Mapping[str, Any]) -> None:
    """Writes a record, unless it is empty, into the folder, or at the URL, of a tokenizer or a model."""
    if record:
        write_file(f"{folder}/{DATA_RECORD}", json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")


def read_record(folder: str) -> dict[str, Any] | None:
    """Reads the record in a local folder; None if there is none, or the file is something else."""
    try:
        with open(os.path.join(folder, DATA_RECORD), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "files_read" in record else None
