"""A name for a folder that TensorFlow reads as it stands.

Comes in: a folder. Goes out: the same folder, under a name of no special meaning while that is needed.
Read next: runtime.py, which loads SavedModels by it.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def literal_path(folder: str) -> Iterator[str]:
    """Lends a path by which TensorFlow finds a checkpoint or SavedModel in a folder, whatever the folder is called.

    Before it reads one it looks for it by its name as a pattern, in which `[old]` is one letter and a backslash stands
    for none (RestoreV2 in tensorflow/core/kernels/save_restore_v2_ops.cc); there is no way to quote these.

    Args:
        folder: local, or a URL, which is lent as it is; so is a folder that has no such letter.
    """
    if not re.search(r"[\[\\]", folder) or "://" in folder:
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        link = os.path.join(scratch, "folder")
        os.symlink(os.path.abspath(folder), link)
        yield link
