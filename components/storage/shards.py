"""Names and paths of the shards in Split-*/ folders, without TensorFlow."""

import posixpath

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.files import list_files


def shard_name(stem: str, index: int, total: int) -> str:
    """Returns the name of a shard, such as `data_tfrecord-00000-of-00004`."""
    return f"{stem}-{index:05d}-of-{total:05d}"


def shard_paths(artifact: Artifact, split: str) -> list[str]:
    """Returns the paths of a split's shards, in order.

    Args:
        artifact: Examples or TransformedExamples.
        split: name of the split.
    Raises:
        UserError: the split has no shards.
        ValueError: the artifact was passed to a component that declares to read other splits.
    """
    if split not in artifact.properties.get("splits", [split]):
        raise ValueError(f"the component reads only the splits {artifact.properties['splits']}, not {split!r}")
    folder = artifact.path(f"Split-{split}")
    shards = [path for path in list_files(folder) if "-of-" in posixpath.basename(path)]
    if not shards:
        raise UserError(f"no shards in {folder}; run the pipeline again", code="shards-missing", path=folder)
    return shards
