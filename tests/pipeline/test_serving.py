"""`seq2serve serve` speaks as TF Serving does, to its clients, while versions change; bad requests do no harm."""

import base64
import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from components.infra_validator_child import Exchange
from components.infra_validator_peers import compare_with_server
from components.serving_client import ServingClient, free_port
from components.serving_folder import publish, rollback, versions
from models.export import export
from models.warmup import alone_and_together

REPOSITORY = pathlib.Path(__file__).parents[2]
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def spec(dtype, name, *more):
    return tf.TensorSpec([None, *more], dtype, name=name)


class Vocabulary:
    """As much of a tokenizer as `export` asks for."""

    vocab_size = 3

    def id_to_piece(self, ids):
        return tf.strings.as_string(ids)


class Echo(tf.Module):
    """A server that answers with its tag, so that one sees which version answered."""

    tokenizer = Vocabulary()

    def __init__(self, tag):
        super().__init__()
        self.tag = tag

    def signatures(self):
        names = ("serving_default", "n_best", "attention", "classify", "only", "encode")
        return {name: getattr(self, name) for name in names}

    def warmup_requests(self, samples):
        return alone_and_together("serving_default", {"text": samples})

    def config(self):
        return {"tag": self.tag}

    @tf.function(input_signature=[spec(tf.string, "text")])
    def serving_default(self, text):
        translation = tf.strings.join([self.tag, ":", text])
        return {"translation": translation, "score": 0.1 * tf.cast(tf.strings.length(text), tf.float32)}

    @tf.function(input_signature=[spec(tf.string, "text")])
    def n_best(self, text):
        translations = tf.stack([text, tf.strings.upper(text)], 1)
        return {"translations": translations, "scores": tf.zeros_like(translations, tf.float32)}

    @tf.function(input_signature=[spec(tf.string, "source"), spec(tf.string, "target")])
    def attention(self, source, target):
        size, pieces = tf.shape(source)[0], tf.tile([["▁Gu", "ten", "▁Tag"]], [tf.shape(source)[0], 1])
        return {
            "source_tokens": pieces,
            "source_length": tf.fill([size], 3),
            "target_tokens": pieces[:, 1:],
            "target_length": tf.fill([size], 2),
            "attention": tf.fill([size, 1, 2, 2, 3], 0.25),
        }

    @tf.function(input_signature=[spec(tf.string, "inputs")])
    def classify(self, inputs):
        text = tf.io.parse_example(inputs, {"text": tf.io.FixedLenFeature([], tf.string)})["text"]
        classes = tf.stack([tf.fill(tf.shape(text), "length"), text], 1)
        lengths = tf.cast(tf.strings.length(text), tf.float32)
        return {"classes": classes, "scores": tf.stack([lengths, -lengths], 1)}

    @tf.function(input_signature=[spec(tf.float32, "x", 2)])
    def only(self, x):
        return {"doubled": 2.0 * x}

    @tf.function(input_signature=[spec(tf.string, "data")])
    def encode(self, data):
        return {"same_bytes": tf.identity(data), "length": tf.strings.length(data)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Returns a function that exports a model with a tag, once."""
    exported = {}

    def model(tag):
        if tag not in exported:
            exported[tag] = str(tmp_path_factory.mktemp(f"model-{tag}"))
            export(Echo(tag), exported[tag], ["a", "few words"])
        return exported[tag]

    return model


class Server:
    """A `seq2serve serve` in a process of its own."""

    def __init__(self, folder, *options):
        self.rest_port, self.grpc_port = free_port(), free_port()
        ports = ["--port", str(self.rest_port), "--grpc-port", str(self.grpc_port)]
        command = [sys.executable, "-m", "pipeline", "serve", str(folder), *ports, *options]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.client = ServingClient("echo", self.rest_port, self.grpc_port)

    def post(self, path, body):
        """Posts bytes; returns status and parsed answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def ask(self, text, which=""):
        status, answer = self.post(f"/v1/models/echo{which}:predict", json.dumps({"instances": [text]}))
        return answer["predictions"][0]["translation"] if status == 200 else f"{status} {answer['error']}"

    def memory_mib(self):
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def running(folder, *options):
    server = Server(folder, *options)
    try:
        assert server.client.wait_until_ready(60, lambda: server.process.poll() is None), server.process.stderr.read()
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving") / "echo"
    publish(str(folder), models("one"), {}, 5)
    with running(folder) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


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
        (":classify", b'{"examples": [{"text": "a"}]}', 400, "lacks input text"),
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


# gRPC.


def predict_request(signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "echo", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def test_the_client_stub_predicts(stub):
    response = stub.Predict(predict_request(text=["hi", "größer"]))
    assert tf.make_ndarray(response.outputs["translation"]).tolist() == [b"one:hi", "one:größer".encode()]
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["score"]), [0.2, 0.8])
    assert (response.model_spec.name, response.model_spec.signature_name) == ("echo", "serving_default")
    request = predict_request(text=["hi"])
    request.model_spec.version_label = "stable"
    request.output_filter.append("score")
    assert list(stub.Predict(request).outputs) == ["score"]
    empty = stub.Predict(predict_request("only", x=np.zeros([0, 2], np.float32)))
    assert tf.make_ndarray(empty.outputs["doubled"]).shape == (0, 2)


def test_the_client_stub_classifies(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "echo", "classify"
    example = request.input.example_list.examples.add()
    example.features.feature["text"].bytes_list.value.append(b"four")
    (row,) = stub.Classify(request).result.classifications
    assert [(entry.label, entry.score) for entry in row.classes] == [("length", 4), ("four", -4)]


def test_the_client_stub_reads_metadata_and_status(server, stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "echo"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["only"].inputs["x"].dtype == tf.float32.as_datatype_enum
    with grpc.insecure_channel(f"localhost:{server.grpc_port}") as channel:
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "echo"
        (version,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status
    assert version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def with_spec(**fields):
    request = predict_request(text=["a"])
    for name, value in fields.items():
        setattr(request.model_spec, name, value)
    return request


def broken_tensor():
    request = predict_request(text=["a"])
    request.inputs["text"].tensor_shape.dim[0].size = 2**40
    return request


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (with_spec(name="other"), grpc.StatusCode.NOT_FOUND),
        (with_spec(version_label="beta"), grpc.StatusCode.INVALID_ARGUMENT),
        (with_spec(signature_name="nonsense"), grpc.StatusCode.INVALID_ARGUMENT),
        (predict_request(txet=["a"]), grpc.StatusCode.INVALID_ARGUMENT),
        (predict_request(text=[1.5]), grpc.StatusCode.INVALID_ARGUMENT),
        (broken_tensor(), grpc.StatusCode.INVALID_ARGUMENT),
        (predict_request(text=["x" * (40 * 2**20)]), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_bad_call_gets_its_code(stub, request_, code):
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(request_)
    assert raised.value.code() == code


# Versions.


def test_pushes_and_rollbacks_are_picked_up_under_load_without_a_failed_request(models, tmp_path):
    """Thirty-two clients at once, over REST and gRPC; tests/benchmarks/serve.py does it for a minute."""
    folder, tags = str(tmp_path / "echo"), itertools.cycle(["two", "one"])
    models("two")
    publish(folder, models("one"), {}, 3)
    with running(folder) as server, concurrent.futures.ThreadPoolExecutor(32) as pool:
        end = time.monotonic() + 5

        def client(number):
            answers = set()
            for text in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
                text = f"{number} {text}"
                if number % 2:
                    got = server.ask(text)
                else:
                    got = server.client.predict_by_grpc("serving_default", {"text": np.array([text.encode()], object)})
                    got = got["translation"][0].decode()
                tag, _, rest = got.partition(":")
                answers.add(tag if rest == text else got)
            return answers

        clients = [pool.submit(client, number) for number in range(32)]
        while time.monotonic() < end - 2:
            time.sleep(0.7)
            publish(folder, models(next(tags)), {}, 3)
        _, copy = rollback(folder)
        assert set().union(*(client.result() for client in clients)) == {"one", "two"}
        expected = [str(version) for version in (copy, versions(folder)[-2])]
        _, status = server.client.rest("GET", "/v1/models/echo")
        assert [version["version"] for version in status["model_version_status"]] == expected
        assert server.ask("hi", "/labels/stable") != server.ask("hi", "/labels/canary")


def test_a_version_that_cannot_be_loaded_leaves_the_one_before(models, tmp_path):
    folder = tmp_path / "echo"
    first = publish(str(folder), models("one"), {}, 3)
    broken = shutil.copytree(models("two"), tmp_path / "broken")
    next(broken.glob("variables/variables.index")).write_bytes(b"")
    (broken / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"broken")
    with running(folder) as server:
        second = publish(str(folder), str(broken), {}, 3)
        end = time.monotonic() + 20
        while (
            time.monotonic() < end
            and len(states := server.client.rest("GET", "/v1/models/echo")[1]["model_version_status"]) < 2
        ):
            time.sleep(0.1)
        assert [(int(state["version"]), state["state"]) for state in states] == [(second, "END"), (first, "AVAILABLE")]
        assert "tf_serving_warmup_requests" in states[0]["status"]["error_message"]
        assert server.ask("hi") == "one:hi"


def test_ctrl_c_ends_it_well(models):
    with running(models("one"), "--name", "echo") as server:
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=30)
    assert (server.process.returncode, err) == (0, b"")
    assert b"Serving echo, version 1, until Ctrl-C." in out


@pytest.mark.parametrize("which", ["rest", "grpc", "nothing"])
def test_what_keeps_it_from_starting_is_explained(server, models, tmp_path, which):
    ports = {"--port": free_port(), "--grpc-port": free_port()}
    ports.update({"rest": {"--port": server.rest_port}, "grpc": {"--grpc-port": server.grpc_port}}.get(which, {}))
    folder = str(tmp_path) if which == "nothing" else models("one")
    options = [str(part) for option in ports.items() for part in option]
    command = [sys.executable, "-m", "pipeline", "serve", folder, *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    message = "there is no version" if which == "nothing" else "cannot listen at 127.0.0.1:"
    assert (done.returncode, done.stderr.startswith("seq2serve: "), message in done.stderr) == (2, True, True)
    assert len(done.stderr.splitlines()) == 1


# The validator's comparison, and the page.


def test_the_validator_compares_with_a_server_over_rest_and_grpc(models, tmp_path):
    """`serve` in the place of the model server, for it takes the same requests."""
    binary = tmp_path / "tensorflow_model_server"
    binary.write_text(
        f"#!{sys.executable}\nimport os, sys\nflags = dict(flag[2:].split('=', 1) for flag in sys.argv[1:])\n"
        f"os.chdir({str(REPOSITORY)!r})\n"
        "serve = ['-m', 'pipeline', 'serve', flags['model_base_path'], '--name', flags['model_name']]\n"
        "ports = ['--port', flags['rest_api_port'], '--grpc-port', flags['port']]\n"
        "os.execv(sys.executable, [sys.executable, *serve, *ports])\n"
    )
    binary.chmod(0o755)
    texts = np.array([b"a", b"\xff", b""], object)
    outputs = {"same_bytes": texts, "length": np.array([1, 1, 0], np.int32)}
    only = Exchange("only", {"x": np.ones([2, 2], np.float32)}, {"doubled": np.full([2, 2], 2, np.float32)})
    saw = compare_with_server(str(binary), models("one"), [Exchange("encode", {"data": texts}, outputs), only], 60)
    assert saw == (
        "5 rows by the model server over REST, 0 unlike the C++ runtime's; "
        "5 rows by the model server over gRPC, 0 unlike the C++ runtime's"
    )


browser = next(filter(None, map(shutil.which, BROWSERS)), "")


def browse(server, text, profile):
    """Returns the page as a headless browser shows it after a text was typed."""
    url = f"http://127.0.0.1:{server.rest_port}/?text={text}"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    command = [browser, *flags, "--virtual-time-budget=10000", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.skipif(not browser, reason="there is no headless browser")
def test_the_page_shows_answer_alternatives_and_attention(server, tmp_path):
    page = browse(server, "%3Cb%3Ehi", tmp_path)
    assert '<body data-ready="&lt;b&gt;hi">' in page  # nothing failed on the way
    assert ">one:&lt;b&gt;hi</div>" in page
    assert "<td>&lt;B&gt;HI</td>" in page
    assert "<th>Guten</th><th>Tag</th>" in page
    assert 'title="ten looks at Guten: 50 %"' in page
    assert '<section id="sampling" hidden="">' in page


class Other(Echo):
    """A model with classes, and one that samples."""

    def signatures(self):
        return {"serving_default": self.label, "sample": self.sample}

    @tf.function(input_signature=[spec(tf.string, "text")])
    def label(self, text):
        size = tf.shape(text)[0]
        best = {"label": tf.fill([size], "good"), "probability": tf.fill([size], 0.75)}
        labels, probabilities = tf.constant([["bad", "good"]]), tf.constant([[0.25, 0.75]])
        return {**best, "labels": tf.tile(labels, [size, 1]), "probabilities": tf.tile(probabilities, [size, 1])}

    @tf.function(input_signature=[spec(tf.string, "text"), spec(tf.float32, "temperature"), spec(tf.int32, "top_k")])
    def sample(self, text, temperature, top_k):
        return {"completion": tf.strings.join([text, tf.strings.as_string(top_k)], " at ")}


@pytest.mark.skipif(not browser, reason="there is no headless browser")
def test_the_page_shows_labels_and_samples_where_the_signatures_have_them(tmp_path):
    export(Other("other"), str(tmp_path / "model"), ["a"])
    with running(tmp_path / "model", "--name", "echo") as server:
        page = browse(server, "hi", tmp_path)
    assert '<body data-ready="hi">' in page
    assert ">good</div>" in page
    assert re.search(r"<th>good</th>.* 75.0 %.*<th>bad</th>.* 25.0 %", page)
    assert '<section id="nbest" hidden="">' in page
    assert '<section id="attention" hidden="">' in page
    assert '<input name="temperature" type="number" step="any">' in page
    assert '<p id="sample">hi at 40</p>' in page
