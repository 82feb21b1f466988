"""Shards are found by their names; a split without shards is an error."""

import pytest

from seq2serve.components.base.artifact import Examples
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.shards import shard_name, shard_paths


def test_shards_are_sorted_and_other_files_are_skipped(tmp_path):
    folder = tmp_path / "Split-train"
    folder.mkdir()
    names = [shard_name("data", index, 12) for index in range(12)]
    for name in [*reversed(names), "notes.txt"]:
        (folder / name).touch()
    assert shard_paths(Examples(str(tmp_path)), "train") == [str(folder / name) for name in names]


def test_a_split_without_shards_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"^no shards in .*Split-test; run the pipeline again$") as error:
        shard_paths(Examples(str(tmp_path)), "test")
    assert (error.value.code, error.value.fields) == ("shards-missing", {"path": f"{tmp_path}/Split-test"})
