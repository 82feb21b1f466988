"""tf.Examples and TFRecords made without TensorFlow are those that TensorFlow makes, byte for byte."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from components.tf_records import ExampleEncoder, RecordWriter, pack_numbers, read_records

NAMES = st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True)
NUMBERS = st.integers(0, 2**32 - 1)


def reference(features: dict[str, list], kind: str) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        getattr(example.features.feature[name], f"{kind}_list").value.extend(values)
    return example.SerializeToString(deterministic=True)


@given(NAMES, st.data())
def test_texts_are_serialised_as_tensorflow_does(names, data):
    values = data.draw(st.lists(st.binary(max_size=20_000), min_size=len(names), max_size=len(names)))
    expected = reference({name: [value] for name, value in zip(names, values, strict=True)}, "bytes")
    assert ExampleEncoder(names, "bytes").encode(values) == expected


@given(NAMES, st.data())
def test_numbers_are_serialised_as_tensorflow_does(names, data):
    rows = data.draw(st.lists(st.lists(NUMBERS, min_size=1, max_size=40), min_size=len(names), max_size=len(names)))
    packed = pack_numbers(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
    expected = reference(dict(zip(names, rows, strict=True)), "int64")
    assert ExampleEncoder(names, "int64").encode(packed) == expected


def test_rows_without_numbers_stay_rows():
    packed = pack_numbers(np.array([300]), np.array([0, 0, 1, 1]))
    assert packed == [b"", b"\xac\x02", b""]
    assert pack_numbers(np.array([], np.int32), np.array([0, 0])) == [b""]
    example = tf.train.Example.FromString(ExampleEncoder(["a"], "int64").encode([b""]))
    assert example.features.feature["a"].WhichOneof("kind") == "int64_list"


def test_files_are_those_that_tensorflow_writes(tmp_path):
    records = [b"", b"x", bytes(range(256)) * 99]
    with RecordWriter(str(tmp_path / "ours")) as ours, tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in records:
            ours.write(record)
            theirs.write(record)
    written = (tmp_path / "ours").read_bytes()
    assert written == (tmp_path / "theirs").read_bytes()
    assert list(read_records(io.BytesIO(written))) == records


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b[:5], lambda b: b[:14] + b"?" + b[15:]]
)
def test_damage_is_noticed(tmp_path, damage):
    with RecordWriter(str(tmp_path / "records")) as writer:
        writer.write(b"a record")
        writer.write(b"another")
    with pytest.raises(ValueError, match=r"record [12] "):
        list(read_records(io.BytesIO(damage((tmp_path / "records").read_bytes()))))
