"""TF_CONFIG: which machines train together, and which of them this one is."""

import json
import socket

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.running.machines.cluster import read_cluster


def environment(machines, role="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": machines, "task": {"type": role, "index": index}})}


def test_the_chief_is_the_first_machine_and_without_one_worker_0():
    cluster = read_cluster(environment({"worker": ["b:1", "c:2"], "chief": ["a:3"]}, index=1))
    assert (cluster.names, cluster.addresses) == (("chief", "worker 0", "worker 1"), ("a:3", "b:1", "c:2"))
    assert cluster.describe(cluster.index) == "worker 1 (c:2)"
    assert cluster.chief_endpoint == ("a", 4)
    assert not cluster.is_chief
    assert read_cluster(environment({"worker": ["b:1", "c:2"]})).is_chief
    task = json.loads(cluster.tf_config())
    assert task == {
        "cluster": {"worker": ["a:3", "b:1", "c:2"]},
        "task": {"type": "worker", "index": 2},
        "names": ["chief (a:3)", "worker 0 (b:1)", "worker 1 (c:2)"],
    }


@pytest.mark.parametrize(
    "values", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, environment({"chief": ["a:1"]}, "chief")]
)
def test_one_machine_is_no_cluster(values):
    assert read_cluster(values) is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"TF_CONFIG": "a:1,b:2"}, "Expecting value"),
        ({"TF_CONFIG": "[]"}, "'list' object"),
        (environment({"worker": ["a:1", "b:2"], "ps": ["c:3"]}), "ps is not a task of training"),
        (environment({"worker": ["a:1", "b:2"]}, "evaluator"), "evaluator is not a task of training"),
        (environment({"worker": ["a:1", "b:2"]}, index=2), "the cluster has no worker 2"),
        (environment({"worker": ["a:1", "b"]}), "'b' is not host:port"),
        (environment({"worker": ["a:1", "b:65535"]}), "a port from 1 to 65534"),
        (environment({"worker": ["a:1", "a:1"]}), "two machines have the same address"),
        (environment({"worker": ["a:1", "a:2"]}), "a:2 cannot be the address of another machine, because the chief"),
        (environment({"worker": ["a:1", "[::1]:2"]}), "'[::1]:2' is not host:port with a host name or an IPv4 address"),
        (environment({"chief": ["a:1", "b:1"]}, "chief"), "it has more than one chief"),
        (environment({"chief": ["a:1"], "master": ["b:1"]}, "chief"), "it has more than one chief"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'}, "'type' is missing"),
    ],
)
def test_a_malformed_value_is_an_error_that_says_why(values, problem):
    with pytest.raises(UserError, match="the environment variable TF_CONFIG does not name machines: ") as error:
        read_cluster(values)
    assert problem in str(error.value)
    assert error.value.code == "cluster-malformed"


def test_a_port_that_another_program_has_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = read_cluster(environment({"worker": ["localhost:1", f"localhost:{port}"]}, index=1))
        with pytest.raises(
            UserError, match=rf"^port {port} of worker 1 \(localhost:{port}\) cannot be used: "
        ) as error:
            cluster.check_port()
    assert (error.value.code, error.value.fields) == ("port-taken", {"port": port})
    cluster.check_port()
