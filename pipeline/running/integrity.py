"""Whether the files of a published artifact are there and are those that were published, so that it can be reused."""

import dataclasses
import os
from collections.abc import Iterable

from seq2serve.components.base.artifact import Artifact, PushedModel, RawFiles
from seq2serve.components.base.uris import is_remote
from seq2serve.components.pusher.store import GRAPH_FILE, open_store, version_path
from seq2serve.components.storage.files import has_files, sha256_of, stat_files
from seq2serve.pipeline.metadata.store import FileRecord

_PUSHED = "pushed_destination"  # property of a PushedModel; it also names its files among those of the artifact


def is_present(artifact: Artifact) -> bool:
    """Returns whether the files of an artifact exist; of a PushedModel, also those of the pushed version.

    A version that a rollback withdrew is present: otherwise, the next run would push it again.

    Imports Beam only for artifacts on an object store.

    Raises:
        OSError: the store cannot be reached.
    """
    if isinstance(artifact, RawFiles):
        return True  # they were read when this run began
    if isinstance(artifact, PushedModel):
        version = open_store(version_path(artifact.properties.get(_PUSHED, "")))
        return has_files(artifact.uri) and version.has(GRAPH_FILE)
    return has_files(artifact.uri)


def record_files(artifact: Artifact, copy: str = "") -> list[FileRecord]:
    """Returns size, time and hash of each file of an artifact; of a PushedModel, also of the pushed version.

    Args:
        artifact: as it is about to be published.
        copy: a local folder with the same files, if the artifact is on an object store. Without it, the hashes are
            empty: every file would have to be read twice, and a store writes an object whole or not at all.
    Raises:
        OSError: a file cannot be read.
    """
    records = []
    for prefix, folder in _folders(artifact).items():
        local = copy if is_remote(folder) and not prefix else "" if is_remote(folder) else folder
        for name, (size, modified) in sorted(stat_files(folder).items()):
            digest = sha256_of(os.path.join(local, name)) if local else ""
            records.append(FileRecord(prefix + name, size, modified, digest))
    return records


def find_damage(artifact: Artifact, records: Iterable[FileRecord]) -> tuple[str, list[FileRecord]]:
    """Compares the files of an artifact with those that were published.

    A file of the same size and time is trusted; one of another time is hashed. Further files are ignored.

    Args:
        artifact: published, or a local copy of one.
        records: of its files when it was published.
    Returns:
        What is wrong with the first damaged file; empty if none is. The records with the times of files whose content
        is unchanged, so that they are not hashed again.
    Raises:
        OSError: a file cannot be read.
    """
    folders = _folders(artifact)
    stats = {prefix: stat_files(folder) for prefix, folder in folders.items()}
    current = []
    for record in records:
        prefix = next(prefix for prefix in sorted(folders, reverse=True) if record.path.startswith(prefix))
        name = record.path.removeprefix(prefix)
        if name not in stats[prefix]:
            return f"{record.path.removeprefix(prefix)} is missing in {folders[prefix]}", []
        size, modified = stats[prefix][name]
        path = f"{folders[prefix]}/{name}"
        if size != record.bytes:
            return f"{path} has {size:,} bytes instead of {record.bytes:,}", []
        is_trusted = modified == record.modified or not record.sha256 or is_remote(path)
        if not is_trusted and sha256_of(path) != record.sha256:
            return f"{path} has another SHA-256 than when it was published", []
        current.append(dataclasses.replace(record, modified=modified))
    return "", current


def _folders(artifact: Artifact) -> dict[str, str]:
    """Returns prefix of a record's path -> folder of the files with that prefix."""
    pushed = artifact.properties.get(_PUSHED)
    return {"": artifact.uri} | ({f"{_PUSHED}/": version_path(pushed)} if pushed else {})
