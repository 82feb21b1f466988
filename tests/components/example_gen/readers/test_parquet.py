"""Parquet and TFRecord: every record is a row or a reject with its number, for every way to cut Parquet files."""

import gzip

import pyarrow
import pytest
import tensorflow as tf
from pyarrow import parquet

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.readers.base import Row
from seq2serve.components.example_gen.tables import make_table
from seq2serve.components.example_gen.text_files import DamagedFileError, plan_shards

COLUMNS = {"text": "t", "label": "y"}


def read(path, shard_bytes: int = 1 << 40, columns=None) -> list[Row]:
    table = make_table(
        ({"path": str(path), "bytes": path.stat().st_size},), columns or COLUMNS, InputConfig(), shard_bytes
    )
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


def test_parquet_rows_are_read_once_and_in_order_however_the_file_is_cut(tmp_path):
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
def test_parquet_labels_may_be_numbers_booleans_or_bytes(tmp_path, values, text):
    parquet.write_table(pyarrow.table({"t": ["x"], "y": values}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0].cells["label"] == text


def test_an_unusable_parquet_file_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"t": ["x"], "y": [["list"]]}), path)
    with pytest.raises(UserError, match=r"column 'y' has type list<.*, not text, number or boolean; name") as error:
        read(path)
    assert (error.value.code, error.value.fields["column"]) == ("column-type-unsupported", "y")
    with pytest.raises(UserError, match=r"no column 'u'\. The file has: 't', 'y'\. Pass the right name") as error:
        read(path, columns={"text": "u"})
    assert error.value.code == "column-missing"
    assert error.value.fields == {"column": "u", "nearest": "", "path": str(path)}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError) as error:
        read(path)
    assert (error.value.code, error.value.fields) == ("file-damaged", {"path": str(path)})


@pytest.mark.parametrize("packed", [False, True])
def test_every_tfrecord_is_a_row_or_a_reject_with_its_number(tmp_path, packed):
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


def test_a_truncated_tfrecord_file_is_an_error(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [example(t=[b"fine"], y=[3])] * 2000)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DamagedFileError) as error:
        read(path)
    assert (error.value.code, error.value.fields) == ("file-damaged", {"path": str(path)})
