"""`seq2serve serve` takes and gives what TF Serving does over REST; bad requests get their code and do no harm."""

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

from pipeline.serving_json import parse_classify


def answer(server, path, body):
    status, value = server.post(f"/v1/models/echo{path}", json.dumps(body))
    assert status == 200, value
    return value


# REST.


def test_rows_come_back_as_rows_and_columns_as_columns(server):
    row = {"translation": "one:hi", "score": 0.2}
    assert answer(server, ":predict", {"instances": ["hi", "hi"]}) == {"predictions": [row, row]}
    assert answer(server, ":predict", {"instances": [{"text": "hi"}]}) == {"predictions": [row]}
    columns = {"outputs": {"translation": ["one:hi"], "score": [0.2]}}
    assert answer(server, ":predict", {"inputs": ["hi"]}) == columns
    assert answer(server, ":predict", {"inputs": {"text": ["hi"]}}) == columns
    assert answer(server, ":predict", {"inputs": []}) == {"outputs": {"translation": [], "score": []}}


def test_the_only_output_of_a_signature_comes_without_its_name(server):
    request = {"signature_name": "only", "instances": [[1, 2.5], [0, 0]]}
    assert answer(server, ":predict", request) == {"predictions": [[2, 5], [0, 0]]}


def test_bytes_go_in_and_out_as_base64(server):
    data = base64.b64encode(b"\xff\0").decode()
    request = {"signature_name": "encode", "instances": [{"b64": data}, {"data": {"b64": data}}][:1]}
    assert answer(server, ":predict", request) == {"predictions": [{"same_bytes": {"b64": data}, "length": 2}]}
    named = {"signature_name": "encode", "inputs": {"data": [{"b64": data}, "text"]}}
    assert answer(server, ":predict", named)["outputs"]["length"] == [2, 4]


def test_classify_takes_examples_with_a_context(server):
    request = {"signature_name": "classify", "context": {"text": "both"}, "examples": [{}, {"other": [1, 2]}]}
    results = [[["length", 4], ["both", -4]]] * 2
    assert answer(server, ":classify", request) == {"results": results}


def test_versions_labels_status_and_metadata(server):
    status, value = server.client.rest("GET", "/v1/models/echo")
    (version,) = value["model_version_status"]
    assert (status, version["state"], version["status"]) == (
        200,
        "AVAILABLE",
        {"error_code": "OK", "error_message": ""},
    )
    number = version["version"]
    for which in ("", f"/versions/{number}", "/labels/stable", "/labels/canary"):
        assert server.ask("hi", which) == "one:hi"
        assert server.client.rest("GET", f"/v1/models/echo{which}")[1] == value
        described = server.client.rest("GET", f"/v1/models/echo{which}/metadata")[1]
        assert described["model_spec"] == {"name": "echo", "signature_name": "", "version": number}
        text = described["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["text"]
        assert (text["dtype"], text["tensor_shape"]["dim"]) == ("DT_STRING", [{"size": "-1", "name": ""}])


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_plain_curl_works(server):
    url = f"http://localhost:{server.rest_port}/v1/models/echo:predict"
    done = subprocess.run(["curl", "-s", "-d", '{"instances": ["hi"]}', url], capture_output=True, check=True)
    assert json.loads(done.stdout) == {"predictions": [{"translation": "one:hi", "score": 0.2}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (":predict", b"", 400, "not a JSON object"),
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
        (":predict", b'{"instances": [{"txet": "a"}]}', 400, "lacks input text"),
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
        (":classify", b'{"signature_name": "nonsense", "examples": [{"text": "a"}]}', 400, "no signature 'nonsense'"),
        (":regress", b"{}", 400, "Malformed request: POST /v1/models/echo:regress"),
        ("/versions/x:predict", b"{}", 400, "Malformed request"),
        ("/versions/7:predict", b'{"instances": ["a"]}', 404, "Servable not found for request: Specific(echo, 7)"),
        ("/labels/beta:predict", b'{"instances": ["a"]}', 400, "Unrecognized servable version label: beta"),
        ("es:predict", b'{"instances": ["a"]}', 404, "Servable not found for request: Latest(echoes)"),
    ],
)
def test_a_bad_request_gets_its_code_and_reason_and_the_server_lives(server, path, body, status, message):
    got, value = server.post(f"/v1/models/echo{path}", body)
    assert (got, list(value)) == (status, ["error"])
    assert message in value["error"]
    assert server.ask("hi") == "one:hi"


@pytest.mark.parametrize("features", [b"[" * 900 + b"]" * 900, b'{"text": ' + b"[" * 900 + b"{}" + b"]" * 900 + b"}"])
def test_an_example_that_is_nested_too_deeply_is_refused(features):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_classify(b'{"examples": [' + features + b"]}")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_a_hundred_mebibytes_is_refused(server, declared):
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


def test_a_body_that_is_too_large_is_named_so(server):
    with socket.create_connection(("127.0.0.1", server.rest_port)) as client:
        client.sendall(b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_clients_that_dawdle_keep_nobody_waiting(server):
    with contextlib.ExitStack() as dawdling:
        for start in [
            b"",
            b"POST /v1",
            b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        ] * 40:
            client = dawdling.enter_context(socket.create_connection(("127.0.0.1", server.rest_port)))
            client.sendall(start)
        assert server.ask("hi") == "one:hi"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_to_this_machine_alone(server):
    listening = [line.split()[1:4] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening += [line.split()[1:4] for line in pathlib.Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    for port in (server.rest_port, server.grpc_port):
        addresses = {local for local, _, state in listening if state == "0A" and local.endswith(f":{port:04X}")}
        assert {address[-13:] for address in addresses} == {f"0100007F:{port:04X}"}  # as IPv4, or mapped into IPv6
