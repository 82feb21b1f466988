"""Parquet and TFRecord: rows in = rows out + rows rejected, each at its number, wherever Parquet is cut."""

import gzip

import pyarrow
import pytest
import tensorflow as tf
from pyarrow import parquet

from components.errors import UserError
from components.file_formats import Reading
from components.layouts import make_table
from components.row_readers import Row
from components.text_files import DamagedFileError, plan_shards

COLUMNS = {"text": "t", "label": "y"}


def read(path, shard_bytes: int = 1 << 40, columns=None) -> list[Row]:
    table = make_table(({"path": str(path), "bytes": path.stat().st_size},), columns or COLUMNS, Reading(), shard_bytes)
    segments = [segment for shard in plan_shards([table.file], shard_bytes) for segment in shard]
    assert not table.reader.to_scan(segments)
    return [row for segment in segments for row in table.reader.read(segment, {})]


def example(**features) -> bytes:
    result = tf.train.Example()
    for name, values in features.items():
        feature = result.features.feature[name]
        (feature.int64_list if isinstance(values[0], int) else feature.bytes_list).value.extend(values)
    return result.SerializeToString()


def write_records(path, records) -> None:
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)


def test_parquet_rows_come_once_and_in_order_however_the_file_is_cut(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"text {i}" if i % 10 else None for i in range(200)]
    labels = pyarrow.array([str(i % 3) for i in range(200)]).dictionary_encode()
    parquet.write_table(pyarrow.table({"t": texts, "y": labels}), path, row_group_size=9)
    rows = read(path)
    assert [row.number for row in rows] == list(range(1, 201))
    assert [row.number for row in rows if row.reason == "no 'text'"] == list(range(1, 201, 10))
    assert [tuple(row.cells.values()) for row in rows[1:3]] == [("text 1", "1"), ("text 2", "2")]
    for shard_bytes in (50, 777, 3000):
        assert read(path, shard_bytes) == rows


@pytest.mark.parametrize(("values", "text"), [([7], "7"), ([True], "true"), ([0.5], "0.5"), ([b"yes"], "yes")])
def test_labels_in_parquet_may_be_numbers_truth_values_or_bytes(tmp_path, values, text):
    parquet.write_table(pyarrow.table({"t": ["x"], "y": values}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0].cells["label"] == text


def test_a_parquet_file_that_cannot_be_used_is_explained(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"t": ["x"], "y": [["list"]]}), path)
    with pytest.raises(UserError, match=r"column 'y' holds list<.*, not text"):
        read(path)
    with pytest.raises(UserError, match=r"no column 'u'.* It has: t, y"):
        read(path, columns={"text": "u"})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a\.parquet: not a Parquet file, or cut off"):
        read(path)


@pytest.mark.parametrize("packed", [False, True])
def test_every_record_is_a_row_or_a_reject_with_its_number(tmp_path, packed):
    records = [
        example(t=[b"fine"], y=[3]),
        b"no example",
        example(t=[b"x"]),
        example(t=[b"x", b"y"], y=[1]),
        example(t=["ä".encode()], y=[b"b"]),
        example(t=[b"\xff"], y=[b"b"]),
    ]
    path = tmp_path / "a.tfrecord"
    write_records(path, records)
    if packed:
        (tmp_path / "a.tfrecord.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "a.tfrecord.gz"
    rows = read(path)
    assert [row.number for row in rows] == [1, 2, 3, 4, 5, 6]
    reasons = ["", "not a tf.Example", "no 'label'", "feature 't' has several values", "", "not valid UTF-8"]
    assert [row.reason for row in rows] == reasons
    assert (rows[0].cells, rows[4].cells) == ({"text": "fine", "label": "3"}, {"text": "ä", "label": "b"})


def test_records_cut_off_are_noticed(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [example(t=[b"fine"], y=[3])] * 2000)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DamagedFileError, match=r"a\.tfrecord: cut off or damaged"):
        read(path)
