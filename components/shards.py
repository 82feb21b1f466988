"""Split-*/ folders of shards: what they are called, and which there are; without TensorFlow.

Comes in: Examples, TransformedExamples. Goes out: names and paths.
Read next: examples_io.py, which reads the shards; tf_records.py, which writes them.
"""

import posixpath

from components.artifact import Artifact
from components.errors import UserError
from components.remote_files import list_files


def shard_name(stem: str, index: int, total: int) -> str:
    """Returns the name of a shard, such as `data_tfrecord-00000-of-00004`."""
    return f"{stem}-{index:05d}-of-{total:05d}"


def shard_paths(artifact: Artifact, split: str) -> list[str]:
    """Returns the paths of a split's shards, in order.

    Raises:
        UserError: the split has none.
    """
    folder = artifact.path(f"Split-{split}")
    shards = [path for path in list_files(folder) if "-of-" in posixpath.basename(path)]
    if not shards:
        raise UserError(f"{folder}: no examples are there; run the pipeline again")
    return shards
