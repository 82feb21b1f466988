"""The user's files on an object store, or wherever else Beam's file systems reach.

Comes in: a URL or a pattern of such. Goes out: what is there.
Read next: text_files.py, which reads them; pipeline/fingerprint.py, which finds files that are here.
"""

import hashlib

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from components.errors import UserError


def find_files(pattern: str) -> list[dict]:
    """Finds files by a URL, such as `gs://bucket/*.tsv`.

    Args:
        pattern: with `*` for any characters, where it is not the name of one file.
    Returns:
        {"path", "bytes", "sha256"} of each, by path; the last stands for name, size, time and the store's own checksum,
        for to read them all before they are read would take too long.
    Raises:
        UserError: there is none, one is empty, or the store cannot be reached.
    """
    try:
        (result,) = FileSystems.match([pattern])
        found = sorted(result.metadata_list, key=lambda file: file.path)
        seals = [f"{file.path}\n{file.last_updated_in_seconds}\n{FileSystems.checksum(file.path)}" for file in found]
    except (BeamIOError, OSError, ValueError) as error:
        raise UserError(
            f"cannot read {pattern}: {error} (gs:// needs the extra gcp: pip install 'seq2serve[gcp]')"
        ) from error
    if not found:
        raise UserError(f"no file {pattern!r}; give a file that exists or a pattern")
    if empty := next((file.path for file in found if not file.size_in_bytes), None):
        raise UserError(f"{empty} is empty; give a file with at least a header and some rows")
    return [
        {"path": file.path, "bytes": file.size_in_bytes, "sha256": hashlib.sha256(seal.encode()).hexdigest()}
        for file, seal in zip(found, seals, strict=True)
    ]
