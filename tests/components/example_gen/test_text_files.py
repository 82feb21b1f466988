"""Text files: for every way to cut them, each line is read exactly once, completely and in order."""

import bz2
import gzip
import pathlib
import tempfile

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.text_files import (
    MAX_LINE_BYTES,
    DamagedFileError,
    Segment,
    TextFile,
    count_lines,
    plan_shards,
    read_first_lines,
    read_lines,
)


def files_in(folder) -> list[TextFile]:
    return [TextFile(str(path), path.stat().st_size) for path in sorted(pathlib.Path(folder).iterdir())]


@settings(max_examples=150, deadline=None)
@given(
    contents=st.lists(st.text(alphabet="ab\n\r").map(str.encode), min_size=1, max_size=4),
    shard_bytes=st.integers(1, 20),
)
def test_every_line_is_read_once_and_in_order_for_any_shard_size(contents, shard_bytes):
    with tempfile.TemporaryDirectory() as folder:
        for index, content in enumerate(contents):
            pathlib.Path(folder, f"{index}.tsv").write_bytes(content)
        shards = plan_shards(files_in(folder), shard_bytes)
        segments = [segment for shard in shards for segment in shard]
        lines = [(segment.path, line) for segment in segments for line in read_lines(segment)]
        counted = [(segment, count_lines(segment)) for segment in segments if segment.end is not None]
        expected = [
            (f"{folder}/{index}.tsv", line.removesuffix(b"\r"))
            for index, content in enumerate(contents)
            for line in content.removesuffix(b"\n").split(b"\n")
            if content
        ]
        assert lines == expected
        assert all(count == len(list(read_lines(segment))) for segment, count in counted)


def test_small_files_share_a_shard_and_large_files_have_several(tmp_path):
    for name, size in (("a", 10), ("b", 10), ("c", 95), ("d", 5)):
        (tmp_path / name).write_bytes(b"x" * size)
    shards = plan_shards(files_in(tmp_path), 40)
    assert [[(pathlib.Path(s.path).name, s.start, s.end) for s in shard] for shard in shards] == [
        [("a", 0, None), ("b", 0, None)],
        [("c", 0, 40)],
        [("c", 40, 80)],
        [("c", 80, None), ("d", 0, None)],
    ]


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".zst", zstandard.compress)]
)
def test_a_compressed_file_has_the_lines_of_the_plain_one_and_a_truncated_one_is_an_error(tmp_path, suffix, pack):
    lines = [b"%d\t%d" % (i, i * i) for i in range(50_000)]
    packed = pack(b"\n".join(lines))
    for name, content in (("a", packed), ("b", packed[:-20]), ("c", b"not packed"), ("d", packed + pack(b"\nend"))):
        (tmp_path / f"{name}.tsv{suffix}").write_bytes(content)
    assert list(read_lines(Segment(f"{tmp_path}/a.tsv{suffix}", 0, None))) == lines
    assert list(read_lines(Segment(f"{tmp_path}/d.tsv{suffix}", 0, None))) == [*lines, b"end"]
    for name in ("b", "c"):
        path = f"{tmp_path}/{name}.tsv{suffix}"
        with pytest.raises(DamagedFileError) as damage:
            list(read_lines(Segment(path, 0, None)))
        assert (damage.value.code, damage.value.fields) == ("file-damaged", {"path": path})
    with pytest.raises(UserError) as error:
        read_first_lines(path, 1)
    assert (error.value.code, error.value.fields) == ("file-unreadable", {"path": path})
    assert str(error.value).startswith(f"cannot read {path}: truncated or corrupt: ")


def test_a_long_line_is_not_buffered_and_later_lines_are_not_lost(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"one\n" + b"x" * (5 * MAX_LINE_BYTES) + b"\nthree\n" + b"y" * (3 * MAX_LINE_BYTES))
    for shard_bytes in (2**40, 3 * MAX_LINE_BYTES):
        shards = plan_shards(files_in(tmp_path), shard_bytes)
        lines = [line for shard in shards for segment in shard for line in read_lines(segment)]
        assert [line[:3] for line in lines] == [b"one", b"xxx", b"thr", b"yyy"]
        assert all(MAX_LINE_BYTES < len(lines[i]) <= 3 * MAX_LINE_BYTES for i in (1, 3))


@pytest.mark.parametrize("name", ["", "none.tsv"])
def test_an_unreadable_file_is_an_error_with_its_path(tmp_path, name):
    path = f"{tmp_path}/{name}"
    with pytest.raises(UserError, match=f"^cannot read {path}: ") as error:
        read_first_lines(path, 1)
    assert (error.value.code, error.value.fields) == ("file-unreadable", {"path": path})


def test_a_line_longer_than_its_segments_is_not_read_once_per_segment(tmp_path, bytes_read):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * (24 * MAX_LINE_BYTES) + b"\nend")
    segments = [segment for shard in plan_shards(files_in(tmp_path), MAX_LINE_BYTES) for segment in shard]
    assert [line[-3:] for segment in segments for line in read_lines(segment)] == [b"xxx", b"end"]
    assert bytes_read() < 4 * path.stat().st_size
