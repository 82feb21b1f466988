"""Cluster: the machines that TF_CONFIG names, and which of them this one is.

TF_CONFIG='{"cluster": {"chief": ["host-0:2222"], "worker": ["host-1:2222"]}, "task": {"type": "worker", "index": 0}}'

Kubeflow's TFJob and Vertex AI set the variable. Without a chief, worker 0 is the chief.
"""

import contextlib
import dataclasses
import json
import re
import socket
from collections.abc import Mapping
from typing import Any

from seq2serve.components.base.errors import UserError

VARIABLE = "TF_CONFIG"
_ROLES = ("chief", "master", "worker")  # in the order of the replicas; master is an older name of the chief
_ADDRESS = re.compile(r"([^:\s]+):(\d+)")
_EXAMPLE = '{"cluster": {"chief": ["host-0:2222"], "worker": ["host-1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Machines that train together.

    Args:
        names: of the machines, such as "worker 0"; the first is the chief.
        addresses: host:port of each, at which TensorFlow listens. The chief also listens at the next port, where the
            others report to it.
        index: of this machine.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Returns whether this machine is the chief."""
        return self.index == 0

    @property
    def chief_endpoint(self) -> tuple[str, int]:
        """Returns host and port at which the chief listens for the others."""
        host, port = _split(self.addresses[0])
        return host, port + 1

    def describe(self, index: int) -> str:
        """Returns the name of a machine with its address."""
        return f"{self.names[index]} ({self.addresses[index]})"

    def tf_config(self) -> str:
        """Returns the value of TF_CONFIG for a process of this machine; every machine is a worker in it.

        It also has `names`, for messages.
        """
        task = {"type": "worker", "index": self.index}
        names = [self.describe(index) for index in range(len(self.names))]
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task, "names": names})

    def check_port(self) -> None:
        """Checks that TensorFlow can listen at this machine's port.

        Raises:
            UserError: another program has it.
        """
        host, port = _split(self.addresses[self.index])
        listen((host, port), f"port {port} of {self.describe(self.index)}").close()


def listen(endpoint: tuple[str, int], name: str) -> socket.socket:
    """Returns a socket that listens at a port: on all interfaces, or on loopback if the host is.

    Args:
        endpoint: host and port.
        name: of the port, for the message.
    Raises:
        UserError: another program has the port.
    """
    host, port = endpoint
    is_loopback = host in ("localhost", "127.0.0.1")
    try:
        return socket.create_server(("127.0.0.1" if is_loopback else "", port))
    except OSError as error:
        raise UserError(
            f"{name} cannot be used: {error.strerror}; end the program that has it, such as an earlier training, or "
            f"change the port in {VARIABLE} on every machine",
            code="port-taken",
            port=port,
        ) from error


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Returns the machines that TF_CONFIG names; None if it names at most one.

    Raises:
        UserError: TF_CONFIG is malformed, or has a task that is not for training.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    with _explained(text):
        config = json.loads(text)
        machines: dict[str, list[str]] = config.get("cluster", {})
        task = config.get("task", {})
        if unknown := [role for role in (*machines, task.get("type", "worker")) if role not in _ROLES]:
            raise ValueError(f"{unknown[0]} is not a task of training, only chief and worker are")
        if len(machines.get("chief", [])) + len(machines.get("master", [])) > 1:
            raise ValueError("it has more than one chief")
        tasks = [(role, index) for role in _ROLES for index in range(len(machines.get(role, [])))]
        if len(tasks) < 2:
            return None
        addresses = tuple(machines[role][index] for role, index in tasks)
        (host, port), *_ = map(_split, addresses)
        if len(set(addresses)) < len(addresses):
            raise ValueError("two machines have the same address")
        if (other := f"{host}:{port + 1}") in addresses:
            raise ValueError(f"{other} cannot be the address of another machine, because the chief listens there, too")
        own = (task["type"], int(task["index"]))
        if own not in tasks:
            raise ValueError(f"the cluster has no {own[0]} {own[1]}")
    names = tuple("chief" if role != "worker" else f"worker {index}" for role, index in tasks)
    return Cluster(names, addresses, tasks.index(own))


def _split(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[2]) < 65535:  # the chief needs the next port, too
        raise ValueError(
            f"{address!r} is not host:port with a host name or an IPv4 address (TensorFlow does not listen on IPv6) "
            f"and a port from 1 to 65534"
        )
    return match[1], int(match[2])


@contextlib.contextmanager
def _explained(text: str) -> Any:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"the environment variable {VARIABLE} does not name machines: {problem}; write it like {_EXAMPLE}, or "
            f"unset it to train on this machine alone; it is {text}",
            code="cluster-malformed",
        ) from error
