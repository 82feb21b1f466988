"""The user's files, found and hashed when a run begins."""

import glob
import hashlib
import os
from pathlib import Path

from seq2serve.components.base.artifact import RawFiles
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.example_gen.corpora import parse_data, parse_roles
from seq2serve.components.example_gen.file_errors import for_each_file, join_errors
from seq2serve.components.example_gen.formats import named_format
from seq2serve.components.storage.files import beam_files
from seq2serve.pipeline.running.fingerprint import fingerprint


def resolve_raw_files(constant: RawFiles) -> RawFiles:
    """Finds and hashes the user's files.

    Args:
        constant: RawFiles whose uri is a path, a glob pattern (`**` for folders), a URL, or several of these with their
            roles (see components/example_gen/corpora.py).
    Returns:
        The same with the property `files`, in the order of roles and paths, and a fingerprint of their contents.
    Raises:
        UserError: no file, a folder, or files that are empty or cannot be read; the message has all of them. Empty
            files of a pattern are allowed if others have content, so that ExampleGen skips and counts them.
    """
    files, contents = [], []
    may_be_empty = type(constant) is RawFiles  # files of rows, which ExampleGen skips if they have none
    roles = parse_data(constant.uri) if type(constant) is RawFiles else parse_roles(constant.uri)
    found = for_each_file(lambda role: _find(role.pattern, may_be_empty, constant.suffixes), roles)
    for role, role_files in zip(roles, found, strict=True):
        for index, file in enumerate(role_files):
            split = role.split or ("train" if role.corpus else "")  # several corpora are the same with and without
            properties = {"split": split, "column": role.column, "corpus": role.corpus}
            files.append(file | {key: value for key, value in properties.items() if value})
            # Usually, only the format counts of a file's name; parallel files belong together by their position. Rows
            # carry the names of corpora, but not their weights.
            position, path = index if role.column else 0, file["path"]
            name = os.path.basename(path) if constant.has_roles_by_name else named_format(path)
            contents.append(
                [file["sha256"], split, role.column, name, position] + ([role.corpus] if role.corpus else [])
            )
    return type(constant)(constant.uri, {"files": files}, fingerprint(sorted(contents, key=str)))


def _find(pattern: str, may_be_empty: bool, suffixes: tuple[str, ...]) -> list[dict]:
    """Returns the files of a path, a pattern or a URL, hashed, in order."""
    if is_remote(pattern):
        files = beam_files().find_files(pattern)
    else:
        files = for_each_file(_hash, [Path(path).absolute() for path in _match(pattern, suffixes)])
    empty = [file["path"] for file in files if not file["bytes"]]
    if empty and not (may_be_empty and len(empty) < len(files)):
        text = "is empty; it needs at least a header and some rows"
        raise join_errors([UserError(f"{path} {text}", code="file-empty", path=path) for path in empty])
    return files


def _match(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    """Returns the paths of a path or pattern, sorted; an existing file of exactly that name is not a pattern."""
    folder, name = os.path.split(pattern)
    literal = os.path.join(glob.escape(folder), name) if os.path.isdir(folder) else pattern
    found = [path for path in sorted(glob.glob(literal, recursive=True)) if not os.path.isdir(path)]
    matches = [path for path in found if path.endswith(suffixes or "")]
    paths = [pattern] if os.path.lexists(pattern) else matches
    if not paths:
        raise UserError(
            f"file not found: {pattern!r} (in {os.getcwd()}); name an existing file or a pattern that matches some",
            code="file-missing",
            path=pattern,
        )
    return paths


def _hash(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder; name its files, as in '{path}/*.tsv'", code="file-is-folder", path=str(path)
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", code="file-unreadable", path=str(path)) from error
    return {"path": str(path), "bytes": size, "sha256": digest}
