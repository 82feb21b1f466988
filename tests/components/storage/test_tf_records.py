"""tf.Examples and TFRecord files that are written without TensorFlow equal TensorFlow's, byte for byte."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seq2serve.components.storage.tf_records import ExampleEncoder, RecordWriter, pack_numbers, read_records


def is_prefix_free(names: list[str]) -> bool:
    return not any(one != other and other.startswith(one) for one in names for other in names)


# The reference is protobuf's Python implementation (upb). If one name is a prefix of another, it writes the longer one
# first, unlike the C++ implementation.
NAMES = st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True).filter(is_prefix_free)
NUMBERS = st.integers(0, 2**32 - 1)


def reference(features: dict[str, list], kind: str) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        getattr(example.features.feature[name], f"{kind}_list").value.extend(values)
    return example.SerializeToString(deterministic=True)


@given(NAMES, st.data())
def test_texts_are_serialised_as_in_tensorflow(names, data):
    values = data.draw(st.lists(st.binary(max_size=20_000), min_size=len(names), max_size=len(names)))
    expected = reference({name: [value] for name, value in zip(names, values, strict=True)}, "bytes")
    assert ExampleEncoder(names, "bytes").encode(values) == expected


@given(NAMES, st.data())
def test_numbers_are_serialised_as_in_tensorflow(names, data):
    rows = data.draw(st.lists(st.lists(NUMBERS, min_size=1, max_size=40), min_size=len(names), max_size=len(names)))
    packed = pack_numbers(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
    expected = reference(dict(zip(names, rows, strict=True)), "int64")
    assert ExampleEncoder(names, "int64").encode(packed) == expected


def test_a_name_that_is_a_prefix_of_another_comes_first():
    encoded = ExampleEncoder(["text_ids", "text"], "bytes").encode([b"long", b"short"])
    assert encoded.index(b"short") < encoded.index(b"long")
    features = tf.train.Example.FromString(encoded).features.feature
    assert {name: list(feature.bytes_list.value) for name, feature in features.items()} == {
        "text": [b"short"],
        "text_ids": [b"long"],
    }


def test_rows_without_numbers_are_preserved():
    packed = pack_numbers(np.array([300]), np.array([0, 0, 1, 1]))
    assert packed == [b"", b"\xac\x02", b""]
    assert pack_numbers(np.array([], np.int32), np.array([0, 0])) == [b""]
    example = tf.train.Example.FromString(ExampleEncoder(["a"], "int64").encode([b""]))
    assert example.features.feature["a"].WhichOneof("kind") == "int64_list"


def test_files_equal_those_of_tensorflow(tmp_path):
    records = [b"", b"x", bytes(range(256)) * 99]
    with RecordWriter(str(tmp_path / "ours")) as ours, tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in records:
            ours.write(record)
            theirs.write(record)
    written = (tmp_path / "ours").read_bytes()
    assert written == (tmp_path / "theirs").read_bytes()
    assert list(read_records(io.BytesIO(written))) == records


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "^record 2 has a wrong checksum$"),
        (lambda b: b[:20], "^record 1 has a wrong checksum$"),
        (lambda b: b[:5], "^record 1 has an invalid length$"),
        (lambda b: b[:14] + b"?" + b[15:], "^record 1 has a wrong checksum$"),
    ],
    ids=["last byte missing", "record truncated", "length truncated", "byte changed"],
)
def test_damage_is_an_error_that_names_the_record(tmp_path, damage, message):
    with RecordWriter(str(tmp_path / "records")) as writer:
        writer.write(b"a record")
        writer.write(b"another")
    with pytest.raises(ValueError, match=message):
        list(read_records(io.BytesIO(damage((tmp_path / "records").read_bytes()))))
