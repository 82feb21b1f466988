"""What TensorFlow Serving accepts is accepted: JSON extensions, base64, gzip, more rows than a batch, examples.

The rules are in tensorflow_serving/util/json_tensor.cc.
"""

import gzip
import http.client
import json
import math
import sys
import time

import numpy as np
import pytest

from seq2serve.models.runtime.protos import example_pb2
from seq2serve.models.runtime.saved_model import Signature, TensorSpec
from seq2serve.pipeline.serving.limits import MAX_BATCH_ROWS, MAX_BODY_BYTES, MAX_ROWS
from seq2serve.pipeline.serving.rest_json import parse_body, parse_examples, parse_predict, write_predictions

SIGNATURES = {"serving_default": Signature({"text": TensorSpec("string", (None,), "text:0")}, {})}


@pytest.mark.parametrize(
    ("body", "number"),
    [
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("Inf", math.inf),
        ("-Inf", -math.inf),
        ("1e400", math.inf),
    ],
)
def test_numbers_that_json_does_not_have_are_read(body, number):
    parsed = parse_body(f'{{"Inf \\" Inf": [{body}, "NaN, Inf"]}}'.encode())
    assert parsed == {'Inf " Inf': [pytest.approx(number, nan_ok=True), "NaN, Inf"]}


@pytest.mark.parametrize(
    "body", [b'\xef\xbb\xbf {"a": 1}', b'{"a": 1} and more', b' \r\n\t{"a": 1}', b'{"a": 1}{"a": 2}']
)
def test_a_byte_order_mark_and_text_after_the_object_are_ignored(body):
    assert parse_body(body) == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"nan", b'{"a": nan}', b'{"a": "\xff"}', b'{"a": "' + b"Inf" * 10**6, b'{"a": ' + b"[" * 10**6],
)
def test_other_text_is_an_error(body):
    with pytest.raises(ValueError, match="JSON"):
        parse_body(body)


@pytest.mark.parametrize("text", ["aGk=", "aGk", "aGk.", "a G\nk ="])
def test_base64_may_lack_its_padding_and_have_white_space(text):
    body = json.dumps({"instances": [{"b64": text}]}).encode()
    assert parse_predict(body, SIGNATURES).inputs == {"text": [b"hi"]}


@pytest.mark.parametrize("value", ["aGk==", "a", "a-_k", "ä", 7, None])
def test_wrong_base64_is_an_error(value):
    with pytest.raises(ValueError, match="base64"):
        parse_predict(json.dumps({"instances": [{"b64": value}]}).encode(), SIGNATURES)


@pytest.mark.parametrize(
    "instances", ['[{"text": "a"}, "b"]', '["a", {"text": "b"}]', '[{"b64": "aGk="}, {"text": "b"}]']
)
def test_instances_are_all_named_or_all_plain(instances):
    with pytest.raises(ValueError, match="at item 1 of input list"):
        parse_predict(f'{{"instances": {instances}}}'.encode(), SIGNATURES)


def test_columns_that_are_no_inputs_are_ignored():
    body = b'{"inputs": {"text": ["a"], "other": [1]}}'
    assert parse_predict(body, SIGNATURES).inputs == {"text": ["a"]}


def test_numbers_that_json_does_not_have_are_written():
    outputs = {"x": np.array([0.1, np.nan, np.inf, -np.inf], np.float32), "n": np.arange(4)}
    assert write_predictions(outputs, by_row=False) == b'{"outputs":{"x":[0.1,NaN,Infinity,-Infinity],"n":[0,1,2,3]}}'
    row = b'{"predictions":[{"x":0.1,"n":0},{"x":NaN,"n":1},{"x":Infinity,"n":2},{"x":-Infinity,"n":3}]}'
    assert write_predictions(outputs, by_row=True) == row


def test_an_output_without_rows_is_an_error_in_the_row_format():
    with pytest.raises(ValueError, match="x has no shape information"):
        write_predictions({"x": np.array(1)}, by_row=True)


def test_the_values_of_a_feature_decide_its_type():
    body = b'{"examples": [{"i": [1, true], "f": [1.5, NaN], "s": ["a", {"b64": "aGk="}], "none": []}]}'
    _, (serialized,) = parse_examples(body, "classify")
    feature = example_pb2.Example.FromString(serialized).features.feature
    assert list(feature["i"].int64_list.value) == [1, 1]
    assert list(feature["f"].float_list.value) == pytest.approx([1.5, math.nan], nan_ok=True)
    assert list(feature["s"].bytes_list.value) == [b"a", b"hi"]
    assert feature["none"].WhichOneof("kind") is None


@pytest.mark.parametrize("values", ["[1, 1.5]", '["a", 1]', "null", "[[1]]", "[9223372036854775808]"])
def test_a_feature_of_mixed_or_other_types_is_an_error(values):
    with pytest.raises(ValueError):  # noqa: PT011 - some errors are protobuf's
        parse_examples(f'{{"examples": [{{"x": {values}}}]}}'.encode(), "classify")


# The server.


def post(server, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    connection.request("POST", "/v1/models/echo:predict", body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_request_of_several_batches_gets_the_answers_of_its_rows(slow, graph_runs):
    numbers = [float(number) for number in range(2 * MAX_BATCH_ROWS + 1)]
    columns = {"x": numbers, "tag": [str(number) for number in numbers]}
    before = graph_runs(slow)
    assert post(slow, json.dumps({"signature_name": "echo", "inputs": columns})) == (200, {"outputs": columns})
    assert graph_runs(slow) == before + 3


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        (
            "wait",
            [0.0] * (MAX_ROWS + 1),
            f"Task size {MAX_ROWS + 1} is larger than maximum input batch size {MAX_ROWS}",
        ),
        ("echo", {"x": [1.0], "tag": ["a", "b"]}, "must have equal 0th-dimension size"),
        ("echo", {"x": [1.0] * 33, "tag": ["a"] * 32 + [1]}, "takes strings, got 1 at [32]"),
        ("ragged", [1] * 32 + [2], "send at most 32 rows"),
        ("ragged", [36_000_000], "the request needs more than 128 MiB of memory"),
        ("wait", [1] * 3_000_000, "the request needs more than 128 MiB of memory"),
    ],
)
def test_a_request_that_is_too_large_or_cannot_be_joined_is_refused(slow, signature, inputs, message):
    status, answer = post(slow, json.dumps({"signature_name": signature, "inputs": inputs}))
    assert (status, message in answer["error"]) == (400, True), answer


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_large_request_is_given_back(slow):
    requests = [
        ({"signature_name": "ragged", "inputs": [3_000_000]}, 200),
        ({"signature_name": "wait", "inputs": [0] * 1_000_000}, 400),
        ({"signature_name": "echo", "inputs": {"x": [0.5], "tag": ["x" * 20_000_000]}}, 200),
    ]
    memory = []
    for _ in range(3):
        for request, status in requests:
            assert post(slow, json.dumps(request))[0] == status
        time.sleep(0.3)
        memory.append(slow.memory_mib())
    assert memory[-1] < memory[0] + 32


def test_numbers_that_json_does_not_have_pass_through_the_server(slow):
    body = b'{"signature_name": "echo", "inputs": {"x": [NaN, Inf], "tag": ["a", "b"]}}'
    connection = http.client.HTTPConnection("127.0.0.1", slow.rest_port, timeout=30)
    connection.request("POST", "/v1/models/echo:predict", body)
    assert b'"x":[NaN,Infinity]' in connection.getresponse().read()


def test_a_compressed_body_is_read(server):
    body = gzip.compress(b'{"instances": ["hi"]}')
    assert post(server, body, **{"Content-Encoding": "gzip"})[1]["predictions"][0]["translation"] == "one:hi"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), 413),
        (gzip.compress(b'{"instances": ["hi"]}')[:-9], 400),
        (gzip.compress(b'{"instances": ["hi"]}') + gzip.compress(b" "), 400),
        (b"{}", 400),
    ],
    # Not the bytes: they have the time in them, and all workers must collect the same names.
    ids=["too large", "cut off", "data at the end", "not compressed"],
)
def test_a_compressed_body_that_is_too_large_or_broken_is_refused(server, body, status):
    before = server.memory_mib()
    assert post(server, body, **{"Content-Encoding": "gzip"})[0] == status
    assert server.ask("hi") == "one:hi"
    assert server.memory_mib() < before + 64
