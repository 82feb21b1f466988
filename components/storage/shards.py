"""The files of Examples and TransformedExamples, without TensorFlow: shards in Split-*/ folders, and rejects."""

import glob
import itertools
import json
import posixpath
from typing import Any

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.files import list_files, local_copy


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


def first_rejects(uri: str, number: int) -> list[dict[str, Any]]:
    """Returns the first `number` rejected rows in the folder or URL of Examples; see artifact.Examples."""
    lines: list[str] = []
    with local_copy(f"{uri}/rejects") as folder:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*.jsonl")):
            with open(path, encoding="utf-8") as file:
                lines += itertools.islice(file, number - len(lines))
    return [json.loads(line) for line in lines]
