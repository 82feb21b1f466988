"""Paths in which TensorFlow does not interpret special characters."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def literal_path(folder: str) -> Iterator[str]:
    """Yields a path under which TensorFlow finds a checkpoint or SavedModel, whatever the folder's name is.

    TensorFlow uses the path as a pattern: `[old]` matches one letter, and a backslash matches nothing. Quoting is not
    possible (RestoreV2 in tensorflow/core/kernels/save_restore_v2_ops.cc). For a path with these characters, this
    function creates a symbolic link with a plain name.

    Args:
        folder: a local folder, or a URL. A URL, or a path without these characters, is yielded unchanged.
    """
    if not re.search(r"[\[\\]", folder) or "://" in folder:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        link = os.path.join(scratch, "folder")
        os.symlink(os.path.abspath(folder), link)
        yield link
