"""`seq2serve serve` has TensorFlow Serving's REST API; invalid requests get the right status and do no harm."""

import base64
import contextlib
import http.client
import json
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from seq2serve.pipeline.serving.rest_json import parse_examples


def answer(server, path, body):
    status, value = server.post(f"/v1/models/echo{path}", json.dumps(body))
    assert status == 200, value
    return value


def test_the_response_has_the_format_of_the_request_rows_or_columns(server):
    row = {"translation": "one:hi", "score": 0.2}
    assert answer(server, ":predict", {"instances": ["hi", "hi"]}) == {"predictions": [row, row]}
    assert answer(server, ":predict", {"instances": [{"text": "hi"}]}) == {"predictions": [row]}
    columns = {"outputs": {"translation": ["one:hi"], "score": [0.2]}}
    assert answer(server, ":predict", {"inputs": ["hi"]}) == columns
    assert answer(server, ":predict", {"inputs": {"text": ["hi"]}}) == columns
    assert answer(server, ":predict", {"inputs": []}) == {"outputs": {"translation": [], "score": []}}


def test_a_single_output_has_no_name_in_the_response(server):
    request = {"signature_name": "only", "instances": [[1, 2.5], [0, 0]]}
    assert answer(server, ":predict", request) == {"predictions": [[2, 5], [0, 0]]}


def test_bytes_are_sent_and_returned_as_base64(server):
    data = base64.b64encode(b"\xff\0").decode()
    request = {"signature_name": "encode", "instances": [{"b64": data}, {"data": {"b64": data}}][:1]}
    assert answer(server, ":predict", request) == {"predictions": [{"same_bytes": {"b64": data}, "length": 2}]}
    named = {"signature_name": "encode", "inputs": {"data": [{"b64": data}, "text"]}}
    assert answer(server, ":predict", named)["outputs"]["length"] == [2, 4]


def test_classify_accepts_examples_with_a_common_context(server):
    request = {"signature_name": "classify", "context": {"text": "both"}, "examples": [{}, {"other": [1, 2]}]}
    results = [[["length", 4], ["both", -4]]] * 2
    assert answer(server, ":classify", request) == {"results": results}


def test_status_and_metadata_of_the_model_a_version_and_a_label(server):
    status, value = server.client.rest("GET", "/v1/models/echo")
    (version,) = value["model_version_status"]
    assert (status, version["state"], version["status"]) == (
        200,
        "AVAILABLE",
        {"error_code": "OK", "error_message": ""},
    )
    number = version["version"]
    for version_path in ("", f"/versions/{number}", "/labels/live"):
        assert server.ask("hi", version_path) == "one:hi"
        assert server.client.rest("GET", f"/v1/models/echo{version_path}")[1] == value
        metadata = server.client.rest("GET", f"/v1/models/echo{version_path}/metadata")[1]
        assert metadata["model_spec"] == {"name": "echo", "signature_name": "", "version": number}
        text = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["text"]
        assert (text["dtype"], text["tensor_shape"]["dim"]) == ("DT_STRING", [{"size": "-1", "name": ""}])


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_plain_curl_works(server):
    url = f"http://localhost:{server.rest_port}/v1/models/echo:predict"
    process = subprocess.run(["curl", "-s", "-d", '{"instances": ["hi"]}', url], capture_output=True, check=True)
    assert json.loads(process.stdout) == {"predictions": [{"translation": "one:hi", "score": 0.2}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (":predict", b"", 400, "The document is empty"),
        (":predict", b"{", 400, "JSON Parse error"),
        (":predict", b"\xff", 400, "JSON Parse error"),
        (":predict", b"[" * 100_000, 400, "JSON Parse error"),
        (":predict", b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}", 400, ""),
        (":predict", b"[]", 400, "not a JSON object"),
        (":predict", b"{}", 400, "Missing 'inputs' or 'instances' key"),
        (":predict", b'{"instances": ["a"], "inputs": ["a"]}', 400, "not both"),
        (":predict", b'{"instances": []}', 400, "non-empty list"),
        (":predict", b'{"instances": "a"}', 400, "non-empty list"),
        (":predict", b'{"instances": [1]}', 400, "takes strings, got 1"),
        (":predict", b'{"instances": [["a"], "b"]}', 400, "takes strings"),
        (":predict", b'{"instances": [{"txet": "a"}]}', 400, "must be equal to: text"),
        (":predict", b'{"instances": [{"text": "a"}, {"text": "b", "more": 1}]}', 400, "element: 1"),
        (":predict", b'{"instances": [{"b64": "?"}]}', 400, "unable to base64 decode"),
        (":predict", b'{"inputs": {"text": "a"}}', 400, "got the shape []"),
        (":predict", b'{"signature_name": "nonsense", "instances": ["a"]}', 400, '"nonsense" not found'),
        (":predict", b'{"signature_name": 7, "instances": ["a"]}', 400, "must be a string"),
        (":predict", b'{"signature_name": "attention", "instances": ["a"]}', 400, "must be named"),
        (":predict", b'{"signature_name": "only", "instances": [["a", "b"]]}', 400, "takes float32"),
        (":predict", b'{"signature_name": "only", "instances": [[1, 2], [1]]}', 400, ""),
        (":classify", b'{"signature_name": "classify", "examples": []}', 400, "examples"),
        (":classify", b'{"signature_name": "classify", "examples": [{"text": {"a": 1}}]}', 400, "'text' must be"),
        (":classify", b'{"signature_name": "classify", "examples": [{}]}', 400, "text"),
        (":classify", b'{"examples": [{"text": "a"}]}', 400, "method_name to be tensorflow/serving/classify"),
        (
            ":classify",
            b'{"signature_name": "nonsense", "examples": [{"text": "a"}]}',
            400,
            "No signature was found with the name: nonsense",
        ),
        (":regress", b"{}", 400, "When method is regress, key 'examples' is expected"),
        (":regress", b'{"examples": [{"text": "a"}]}', 400, "method_name to be tensorflow/serving/regress. Was: "),
        (":generate", b"{}", 400, "Malformed request: POST /v1/models/echo:generate"),
        ("/versions/x:predict", b"{}", 400, "Malformed request"),
        ("/versions/7:predict", b'{"instances": ["a"]}', 404, "Servable not found for request: Specific(echo, 7)"),
        ("/labels/stable:predict", b'{"instances": ["a"]}', 400, "Unrecognized servable version label: stable"),
        ("es:predict", b'{"instances": ["a"]}', 404, "Servable not found for request: Latest(echoes)"),
    ],
)
def test_an_invalid_request_gets_a_status_and_a_reason_and_the_server_continues(server, path, body, status, message):
    actual_status, value = server.post(f"/v1/models/echo{path}", body)
    assert (actual_status, list(value)) == (status, ["error"])
    assert message in value["error"]
    assert server.ask("hi") == "one:hi"


@pytest.mark.parametrize("features", [b"[" * 900 + b"]" * 900, b'{"text": ' + b"[" * 900 + b"{}" + b"]" * 900 + b"}"])
def test_an_example_that_is_nested_too_deeply_is_an_error(features):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_examples(b'{"examples": [' + features + b"]}", "classify")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_mebibytes_is_rejected_without_being_buffered(server, declared):
    chunk = b"x" * 2**20
    body = (chunk for _ in range(100))
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    headers = {"Content-Length": str(100 * 2**20)} if declared else {}
    before = server.memory_mib()
    with contextlib.closing(connection), contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/v1/models/echo:predict", body, headers, encode_chunked=not declared)
    response = connection.getresponse() if connection.sock else None
    assert response is None or response.status == 413
    assert server.ask("hi") == "one:hi"
    assert server.memory_mib() < before + 64


def test_a_body_that_is_too_large_gets_status_413(server):
    with socket.create_connection(("127.0.0.1", server.rest_port)) as client:
        client.sendall(b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_slow_clients_do_not_block_other_requests(server):
    with contextlib.ExitStack() as connections:
        for start in [
            b"",
            b"POST /v1",
            b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        ] * 200:  # more connections than the server keeps
            client = connections.enter_context(socket.create_connection(("127.0.0.1", server.rest_port)))
            client.sendall(start)
        assert server.ask("hi") == "one:hi"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_accepts_connections_only_from_this_machine(server):
    listening = [line.split()[1:4] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening += [line.split()[1:4] for line in pathlib.Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    for port in (server.rest_port, server.grpc_port):
        addresses = {local for local, _, state in listening if state == "0A" and local.endswith(f":{port:04X}")}
        assert {address[-13:] for address in addresses} == {f"0100007F:{port:04X}"}  # as IPv4, or mapped to IPv6
