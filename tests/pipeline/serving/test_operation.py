"""`seq2serve serve` under an operator: stop, abandoned requests, status and metrics under load, addresses, messages."""

import asyncio
import http.client
import json
import shutil
import signal
import socket
import time

import grpc
import numpy as np
import pytest

from seq2serve.components.pusher.versions import publish
from seq2serve.models.runtime.protos import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    to_tensor_proto,
)
from seq2serve.pipeline.serving import inference
from seq2serve.pipeline.serving.limits import MAX_ROWS, WORKERS
from seq2serve.pipeline.serving.metrics import Metrics
from seq2serve.pipeline.serving.model import ServedModel, ServingError, VersionSpec
from seq2serve.pipeline.serving.workers import Workers


def wait_by_rest(server, seconds, rows=1):
    """Starts a request that takes a number of seconds for each 32 rows; returns its connection."""
    body = json.dumps({"signature_name": "wait", "inputs": [seconds] * rows})
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    connection.request("POST", "/v1/models/echo:predict", body)
    return connection


def wait_by_grpc(channel, seconds, **options):
    """The same over gRPC; returns its future."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "echo", "wait"
    request.inputs["seconds"].CopyFrom(to_tensor_proto(np.array([seconds], np.float32)))
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(request, **options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_answers_requests_in_progress_and_refuses_new_ones(slow_model, running, number):
    with running(slow_model, "--name", "echo") as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            idle = socket.create_connection(("127.0.0.1", server.rest_port))
            rest, rpc = wait_by_rest(server, 1.5), wait_by_grpc(channel, 1.5)
            time.sleep(0.5)
            server.process.send_signal(number)
            time.sleep(0.5)
            assert wait_by_grpc(channel, 0).code() == grpc.StatusCode.UNAVAILABLE
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.rest_port))
            assert idle.recv(1) == b""
            assert rest.getresponse().status == 200
            assert rpc.code() == grpc.StatusCode.OK
        _, err = server.process.communicate(timeout=10)
    message = b"seq2serve: stopping: 2 requests in progress have 8 seconds to finish\n"
    assert (server.process.returncode, err) == (0, message)


def test_a_request_that_outlasts_the_grace_does_not_keep_the_server_from_stopping(slow_model, running):
    with running(slow_model, "--name", "echo") as server:
        connection = wait_by_rest(server, 60)
        time.sleep(0.3)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 503
        assert server.process.wait(timeout=20) == 0
        assert 7 < time.monotonic() - start < 12


def test_a_request_whose_client_is_gone_or_whose_deadline_has_passed_runs_no_further_batch(slow, graph_runs):
    before = graph_runs(slow)
    connection = wait_by_rest(slow, 0.2, rows=MAX_ROWS)
    with grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}") as channel:
        calls = [wait_by_grpc(channel, 0.3, timeout=0.2) for _ in range(10 * WORKERS)]
        assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        cancelled = [wait_by_grpc(channel, 0.3) for _ in range(10 * WORKERS)]
        time.sleep(0.1)
        for call in cancelled:
            call.cancel()
    connection.close()
    runs = [before, graph_runs(slow)]
    while runs[-1] != runs[-2]:  # until the batches that had started have ended
        time.sleep(1)
        runs.append(graph_runs(slow))
    assert runs[-1] - before < 8 * WORKERS  # of 100 batches and 20 * WORKERS calls


def test_a_running_batch_is_stopped_when_the_deadline_of_its_client_passes(slow):
    with grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}") as channel:
        calls = [wait_by_grpc(channel, 100, timeout=1) for _ in range(2 * WORKERS)]
        assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert wait_by_rest(slow, 0).getresponse().status == 200  # within 30 s: the workers are free again


def test_a_batch_that_takes_too_long_is_stopped(slow_model, monkeypatch):
    monkeypatch.setattr(inference, "RUN_SECONDS", 0.5)
    model = ServedModel("echo", slow_model, Metrics())
    model.start()

    async def wait():
        answers = inference.Inference(model, Workers(), Metrics())
        with model.use(VersionSpec()) as loaded, answers.answer("Predict", "REST") as job:
            await answers.run(job, loaded, "wait", {"seconds": [100.0]})

    with pytest.raises(ServingError, match=r"stopped after 0\.5 seconds; send fewer rows or shorter texts") as error:
        asyncio.run(asyncio.wait_for(wait(), 30))
    assert error.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert model.close()


def test_status_metrics_and_page_are_answered_while_all_workers_are_busy(slow, fetch, graph_runs):
    before, waiting = graph_runs(slow), [wait_by_rest(slow, 0.3) for _ in range(2 * WORKERS)]
    with grpc.insecure_channel(f"127.0.0.1:{slow.grpc_port}") as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "echo"
        (status,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request).model_version_status
        assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    for path in ("/v1/models/echo", "/v1/models/echo/metadata", "/monitoring/prometheus/metrics", "/"):
        assert fetch(slow, path)
    assert graph_runs(slow) - before < 2 * WORKERS  # some still waited
    assert [connection.getresponse().status for connection in waiting] == [200] * len(waiting)


def test_metrics_have_the_names_of_the_model_server(server, fetch):
    assert server.ask("hi") == "one:hi"
    server.post("/v1/models/echo:predict", b"{")
    text = fetch(server, "/monitoring/prometheus/metrics")
    for line in (
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="echo",status="OK"} ',
        ':tensorflow:serving:request_count{model_name="echo",status="INVALID_ARGUMENT"} ',
        "# TYPE :tensorflow:serving:request_latency histogram",
        ':tensorflow:serving:request_latency_bucket{model_name="echo",API="Predict",entrypoint="REST",le="+Inf"} ',
        ':tensorflow:serving:runtime_latency_count{model_name="echo",API="Predict",runtime="TF1"} ',
        ":tensorflow:core:graph_runs{} ",
        ":tensorflow:cc:saved_model:load_attempt_count{",
    ):
        assert f"\n{line}" in f"\n{text}"


def test_each_switch_and_each_failure_is_printed_at_once(models, running, tmp_path):
    folder = tmp_path / "echo"
    first = publish(str(folder), models("one"), {}, 3)
    broken = shutil.copytree(models("two"), tmp_path / "broken")
    (broken / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"broken")
    with running(folder) as server:
        second = publish(str(folder), models("two"), {}, 3)
        lines = [server.process.stderr.readline().decode()]
        third = publish(str(folder), str(broken), {}, 3)
        lines.append(server.process.stderr.readline().decode())
        assert server.ask("hi") == "two:hi"
    assert lines[0] == f"seq2serve: now serving version {second} of echo, before version {first}\n"
    assert lines[1].startswith(f"seq2serve: version {third} of echo cannot be served: ")


def get_status(server, host, headers):
    connection = http.client.HTTPConnection(host, server.rest_port, timeout=10)
    connection.request("GET", "/v1/models/echo", headers=headers)
    return connection.getresponse().status


def test_a_local_server_refuses_requests_from_pages_of_other_sites(server):
    for host in ("localhost", "localhost:80", "127.0.0.1", "[::1]:1", "LOCALHOST"):
        assert get_status(server, "127.0.0.1", {"Host": host}) == 200
    for host in ("attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example", "10.0.0.1", "[", ""):
        assert get_status(server, "127.0.0.1", {"Host": host}) == 403
    own = f"127.0.0.1:{server.rest_port}"
    assert get_status(server, "127.0.0.1", {"Origin": f"http://{own}"}) == 200
    for origin in ("null", "http://attacker.example", "http://127.0.0.1:1", f"https://{own}"):
        assert get_status(server, "127.0.0.1", {"Origin": origin}) == 403


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_both_addresses_that_mean_all_accept_ipv4_and_ipv6_over_both_protocols(models, running, host):
    with running(models("one"), "--name", "echo", "--host", host) as server:
        for address in ("127.0.0.1", "::1"):
            assert get_status(server, address, {"Host": "any.example", "Origin": "http://any.example"}) == 200
            with grpc.insecure_channel(f"{'[::1]' if ':' in address else address}:{server.grpc_port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=10)
