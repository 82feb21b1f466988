"""A machine that trains for a chief: joins it, reads the same data, runs its program, and ends when the chief does."""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from seq2serve.components.base import artifact as artifacts
from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.base.progress import note
from seq2serve.components.base.uris import is_remote
from seq2serve.pipeline.running.fingerprint import content_fingerprint
from seq2serve.pipeline.running.machines.chief import ANSWER_SECONDS, CAUSE_SECONDS, WAIT_SECONDS
from seq2serve.pipeline.running.machines.cluster import VARIABLE, Cluster, read_cluster
from seq2serve.pipeline.running.machines.connection import Connection
from seq2serve.pipeline.running.machines.identity import functions_of, identity_of
from seq2serve.pipeline.running.machines.process import Outcome, TrainingProcess, failure, running, stopped_message
from seq2serve.pipeline.running.root import open_root

_RETRY_SECONDS, _POLL_SECONDS = 1.0, 0.2


class _Dismissed(Exception):
    """The chief's run ended without training, or after it."""


def worker_cluster(environment: Mapping[str, str]) -> Cluster:
    """Returns the machines that TF_CONFIG names.

    Raises:
        UserError: TF_CONFIG is malformed, or names no cluster or this machine as the chief.
    """
    cluster = read_cluster(environment)
    if cluster is None or cluster.is_chief:
        problem = "names no other machines" if cluster is None else "says that this machine is the chief"
        raise UserError(
            f"the environment variable {VARIABLE} {problem}: `seq2serve train-worker` is for the others, and "
            f"`seq2serve run` for the chief",
            code="machine-not-worker",
        )
    return cluster


def work(cluster: Cluster, pipeline_root: str) -> str:
    """Trains for the chief of a cluster.

    Args:
        cluster: with the index of this machine.
        pipeline_root: the chief's, as this machine reaches it.
    Returns:
        What the chief says at the end, one line.
    Raises:
        UserError: a port is taken, or the chief refuses this machine.
        Seq2ServeError: the chief does not answer, training failed, or a machine was lost.
        KeyboardInterrupt: after Ctrl-C here or on the chief.
    """
    cluster.check_port()
    try:
        with interrupt.listening(), contextlib.closing(_connect(cluster, pipeline_root)) as connection:
            note(f"{cluster.names[cluster.index]} has joined {cluster.describe(0)} and waits for training to begin")
            job = _receive(cluster, connection)
            inputs = _agreed_inputs(job["inputs"], pipeline_root, connection)
            _receive(cluster, connection)  # the chief has compared the data
            with running(job["program"], inputs, job["arguments"], cluster) as process:
                _follow(cluster, connection, process)
    except _Dismissed as dismissed:
        return str(dismissed)


def _connect(cluster: Cluster, pipeline_root: str) -> Connection:
    """Joins the chief, which may start later.

    Raises:
        UserError: the chief refuses this machine.
        Seq2ServeError: the chief does not answer in time.
    """
    limit, is_reported = time.monotonic() + WAIT_SECONDS, False
    host, port = cluster.chief_endpoint
    while True:
        with contextlib.suppress(OSError):
            connection = Connection(socket.create_connection((host, port), timeout=ANSWER_SECONDS))
            if _join(cluster, pipeline_root, connection):
                return connection
            connection.close()
        if not is_reported:
            note(
                f"{cluster.names[cluster.index]} waits for {cluster.describe(0)}, up to {WAIT_SECONDS / 60:.3g} minutes"
            )
            is_reported = True
        if time.monotonic() > limit:
            raise Seq2ServeError(
                f"{cluster.describe(0)} did not answer within {WAIT_SECONDS / 60:.3g} minutes; run `seq2serve run` "
                f"there with the same TF_CONFIG as here but for its task, and check that {host}:{port} can be reached "
                f"and is not used by another program",
                code="machine-missing",
                machines=[cluster.names[0]],
            )
        time.sleep(_RETRY_SECONDS)


def _join(cluster: Cluster, pipeline_root: str, connection: Connection) -> bool:
    """Introduces this machine to the chief.

    Returns:
        Whether the chief has admitted it; False if another program has the port, or the chief has just stopped.
    Raises:
        UserError: the chief refuses it.
    """
    connection.send(index=cluster.index, addresses=list(cluster.addresses), time=time.time())
    while message := connection.receive(ANSWER_SECONDS):
        if "refused" in message:
            raise UserError(message["refused"], code="machine-refused")
        if "note" in message:
            note(message["note"])
        if "functions" in message:
            connection.send(**_identity(message["functions"], pipeline_root))
        if "accepted" in message:
            return True
    return False


def _identity(names: Sequence[str], pipeline_root: str) -> dict[str, Any]:
    """Returns what the chief compares with its own, or `missing`, what this machine lacks."""
    if not is_remote(pipeline_root) and not os.path.isdir(pipeline_root):
        root = os.path.abspath(pipeline_root)
        return {"missing": f"its pipeline root {root} does not exist; pass the chief's, on a disk that all share"}
    try:
        return identity_of(functions_of(names))
    except ImportError as error:
        return {"missing": f"other code: {error}; install the same packages on every machine"}


def _receive(cluster: Cluster, connection: Connection) -> dict[str, Any]:
    """Waits for the chief's next message; raises what ends this command."""
    return _checked(cluster, connection.receive())


def _checked(cluster: Cluster, message: dict[str, Any]) -> dict[str, Any]:
    if "end" in message:
        raise _end(message)
    if not message:
        raise Seq2ServeError(
            stopped_message(cluster, [0], "its connection has broken"), code="machine-stopped", machine=cluster.names[0]
        )
    return message


def _end(message: Mapping[str, Any]) -> BaseException:
    """Returns the exception with which the chief's last message ends this command."""
    if message["code"] in (0, 130):
        return KeyboardInterrupt() if message["code"] else _Dismissed(message["end"])
    return failure(message["end"], "machine-stopped", message["code"])


def _agreed_inputs(inputs: Mapping[str, list], pipeline_root: str, connection: Connection) -> dict[str, Artifact]:
    """Returns the artifacts that the chief names, as this machine reaches them, and sends their fingerprints."""
    readable = {}
    try:
        root = open_root(pipeline_root).artifacts
        for key, (kind, uri, properties) in inputs.items():
            published = getattr(artifacts, kind)(uri if os.path.isabs(uri) else f"{root.name}/{uri}", properties)
            readable[key] = root.local_copy(published, on_workers=False)
            if not os.path.isdir(readable[key].uri):
                raise FileNotFoundError(f"there is no {published.uri}")
    except (OSError, Seq2ServeError) as error:
        connection.send(failed=str(error))
        return {}
    connection.send(inputs={key: content_fingerprint(value.uri) for key, value in readable.items()})
    return readable


def _follow(cluster: Cluster, connection: Connection, process: TrainingProcess) -> NoReturn:
    """Waits for the end of this machine's process, and for the chief's word on all of them, which it raises."""
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    process.listen(events.put)
    threading.Thread(target=lambda: events.put(connection.receive()), daemon=True).start()
    is_interrupted, limit, outcome = False, float("inf"), Outcome("lost")
    with interrupt.put_off():
        while time.monotonic() < limit and outcome.kind != "failed":
            if interrupt.pressed() and not is_interrupted:
                is_interrupted = True
                note(f"{cluster.names[cluster.index]} asks the chief to save and stop")
                connection.send(interrupted=True)
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=_POLL_SECONDS)
                if "end" in event or not event:
                    _checked(cluster, event)
                connection.send(**event)
                if "outcome" in event:
                    outcome = Outcome(**event["outcome"])
                    if outcome.kind == "lost":  # after "done", the chief may take long to save
                        limit = time.monotonic() + CAUSE_SECONDS + ANSWER_SECONDS
    if outcome.kind == "failed":
        message = stopped_message(cluster, [cluster.index], outcome.message)
        raise failure(message, outcome.code or "machine-stopped", outcome.exit_code)
    message = stopped_message(cluster, [0], f"it has said nothing since this machine reported: {outcome.message}")
    raise failure(message, "machine-stopped", 1)
