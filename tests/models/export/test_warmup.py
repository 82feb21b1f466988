"""Warm-up requests are read as they were written, in the model server's format; invalid ones are errors."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from seq2serve.models.export.warmup import WARMUP_FILE, WarmupRequest, read_warmup_requests, write_warmup_requests


class Sampler(tf.Module):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None], tf.float32, name="temperature"),
            tf.TensorSpec([None], tf.int64, name="seed"),
        ]
    )
    def sample(self, text, temperature, seed):
        return {"completion": text, "used": temperature + tf.cast(seed, tf.float32)}


@pytest.fixture
def directory(tmp_path):
    module = Sampler()
    tf.saved_model.save(module, str(tmp_path), signatures={"sample": module.sample})
    return str(tmp_path)


def request(*texts):
    size = len(texts)
    return WarmupRequest("sample", {"text": list(texts), "temperature": [0.5] * size, "seed": [2**40] * size})


def records(directory):
    return list(tf.data.TFRecordDataset(str(pathlib.Path(directory, WARMUP_FILE))).as_numpy_iterator())


def test_requests_are_read_as_they_were_written(directory):
    write_warmup_requests(directory, [request("short"), request("größer", "", b"\xff"), request()])
    short, batch, empty = read_warmup_requests(directory)
    assert short.signature == "sample"
    assert batch.inputs["text"].tolist() == ["größer".encode(), b"", b"\xff"]
    assert [batch.inputs[name].dtype for name in ("temperature", "seed")] == [np.float32, np.int64]
    assert batch.inputs["seed"].tolist() == [2**40] * 3
    assert empty.inputs["text"].shape == (0,)


def test_the_file_has_the_format_of_the_model_server(directory):
    write_warmup_requests(directory, [request("a", "b")])
    (record,) = records(directory)
    predict = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert predict.model_spec.signature_name == "sample"
    assert predict.inputs["text"].dtype == tf.string.as_datatype_enum
    assert [dimension.size for dimension in predict.inputs["text"].tensor_shape.dim] == [2]


def test_equal_requests_are_written_as_equal_bytes(directory):
    write_warmup_requests(directory, [request("a"), request("b")])
    before = records(directory)
    write_warmup_requests(directory, iter([request("a"), request("b")]))
    assert records(directory) == before


def test_without_a_file_there_are_no_requests(directory):
    assert read_warmup_requests(directory) == []


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        (
            [WarmupRequest("nonsense", {})],
            "warm-up request for signature 'nonsense', which the model does not have; it has sample",
        ),
        ([WarmupRequest("sample", {"text": ["a"]})], "signature 'sample'"),
        ([WarmupRequest("sample", {**request("a").inputs, "text": [1]})], "signature 'sample'"),
        ([request("a")] * 1001, "1001 warm-up requests; the model server accepts at most 1000"),
    ],
)
def test_requests_that_the_model_server_would_reject_are_not_written(directory, requests, message):
    with pytest.raises(ValueError, match=message):
        write_warmup_requests(directory, requests)
    assert not pathlib.Path(directory, WARMUP_FILE).exists()


def test_the_error_for_a_broken_file_has_the_number_of_the_request(directory):
    write_warmup_requests(directory, [request("a"), request("b")])
    path = pathlib.Path(directory, WARMUP_FILE)
    content = path.read_bytes()
    for broken, message in ((content[:-3], "at request 2"), (content[:20] + b"?" + content[21:], "at request 1")):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=f"cut off or corrupted {message}"):
            read_warmup_requests(directory)
    for record, message in ((b"\xff", "Error parsing"), (b"", "contains nothing instead of predict_log")):
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record)
        with pytest.raises(ValueError, match=f"request 1 is broken.*{message}"):
            read_warmup_requests(directory)
