"""Chief: the machine that runs the pipeline. It admits the others, starts the training on all, and ends it on all.

The others connect when they start, so a wrong machine is refused before the data are prepared. The connections stay
open: a machine whose connection breaks has stopped.
"""

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.component import Node
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.base.progress import note
from seq2serve.pipeline.running.fingerprint import code_in, content_fingerprint
from seq2serve.pipeline.running.machines.cluster import Cluster, listen, read_cluster
from seq2serve.pipeline.running.machines.connection import Connection
from seq2serve.pipeline.running.machines.identity import difference, identity_of, names_of
from seq2serve.pipeline.running.machines.process import Outcome, TrainingProcess, failure, running, stopped_message

WAIT_SECONDS = 600  # that machines wait for each other
ANSWER_SECONDS = 30  # for an answer in a handshake
CAUSE_SECONDS = 30  # for the machine that caused a failure to report it, or for its connection to break
CLOCK_SECONDS = 60  # difference of clocks that is reported
DATA_SECONDS = 7200  # to copy and hash the data
_POLL_SECONDS = 0.2  # between two looks at Ctrl-C
_BROKEN = "its connection has broken"


class Chief:
    """The other machines of a cluster, as their chief sees them; see component.Machines for `run`.

    Args:
        cluster: whose chief this machine is.
        root: the pipeline root on this machine.
        functions: the component and the classes whose code and libraries must be the same everywhere.
    """

    def __init__(self, cluster: Cluster, root: Path, functions: Sequence[Callable]) -> None:
        self._cluster, self._root = cluster, root
        self._names, self._identity = names_of(functions), identity_of(functions)
        self._admitted = threading.Condition()  # guards the next three
        self._workers: dict[int, Connection] = {}  # by index
        self._refused: dict[str, str] = {}  # why a machine was refused last, by name
        self._phase = "waiting"  # for the others; then "training", then "over"
        self._is_closed = threading.Event()
        self._events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()

    def run(self, program: str, inputs: Mapping[str, Artifact], arguments: Mapping[str, Any]) -> None:
        """Runs a program on all machines."""
        self._wait_for_all()
        try:
            self._send_job(program, inputs, arguments)
            with interrupt.put_off(), running(program, inputs, arguments, self._cluster) as process:
                process.listen(lambda report: self._events.put((0, report)))
                self._send_all(start=True)
                self._supervise(process)
        finally:
            with self._admitted:
                self._phase = "over"

    def accept(self, listener: socket.socket) -> None:
        """Greets the machines that connect, until they are dismissed."""
        listener.settimeout(_POLL_SECONDS)  # closing it would not end a wait
        while not self._is_closed.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = listener.accept()
                threading.Thread(target=self._greet, args=(Connection(sock),), daemon=True).start()

    def dismiss(self, reason: str, exit_code: int) -> None:
        """Tells the machines that still wait that there will be no training, and with which code they exit."""
        self._is_closed.set()
        with self._admitted:
            self._phase = "over"
            workers, self._workers = self._workers, {}
        for connection in workers.values():
            connection.send(end=reason, code=exit_code)
            connection.close()

    def _greet(self, connection: Connection) -> None:
        """Compares another machine with this one, and admits or refuses it by name."""
        hello = connection.receive(ANSWER_SECONDS)
        index, addresses, clock = map(hello.get, ("index", "addresses", "time"))
        if type(index) is not int or not isinstance(addresses, list) or not isinstance(clock, float):
            connection.close()  # another program
            return
        is_known, own = 0 < index < len(self._cluster.names), self._cluster.addresses
        name = self._cluster.describe(index) if is_known else f"machine {index}"
        if is_known and addresses == list(own):
            problem = self._problem(name, clock, connection)
        else:
            listed = ", ".join(map(str, addresses))
            problem = f"its TF_CONFIG names other machines: {listed} instead of {', '.join(own)}"
        with self._admitted:
            if not problem and index in self._workers:
                problem = "another machine has joined under this name; give each machine its own task in TF_CONFIG"
            if not problem and self._phase != "waiting":
                problem = f"it is too late: training {'has begun' if self._phase == 'training' else 'is over'}"
            if problem:
                self._refused[name] = problem
            else:
                connection.send(accepted=True)  # before it is among the workers, so before the job
                self._workers[index] = connection
                self._refused.pop(name, None)
                self._admitted.notify_all()
        if problem:
            message = f"{name} was refused by the chief: {problem}"
            note(message)
            connection.send(refused=message)
            connection.close()
            return
        self._listen_to(index, connection)

    def _problem(self, name: str, clock: float, connection: Connection) -> str:
        """Returns why a machine cannot take part; empty if it can."""
        seconds = clock - time.time()
        if abs(seconds) > CLOCK_SECONDS:
            warning = (
                f"warning: the clock of {name} is {abs(seconds):.0f} s "
                f"{'ahead of' if seconds > 0 else 'behind'} the chief's: set both by NTP, or object stores may refuse "
                f"them; training does not depend on it"
            )
            note(warning)
            connection.send(note=warning)
        connection.send(functions=self._names)
        identity = connection.receive(ANSWER_SECONDS)
        if "missing" in identity or not identity:
            return identity.get("missing", "it did not answer")
        return difference(self._identity, identity)

    def _listen_to(self, index: int, connection: Connection) -> None:
        """Passes on the messages of a machine; an empty one, the last, if its connection has broken."""
        while message := connection.receive():
            self._events.put((index, message))
        with self._admitted:
            if self._phase == "waiting" and index in self._workers:
                del self._workers[index]
                note(f"{self._cluster.describe(index)} has left; Trainer waits for it")
                return
        self._events.put((index, {}))

    def _wait_for_all(self) -> None:
        """Waits for the other machines.

        Raises:
            Seq2ServeError: one did not join in time.
        """
        limit, is_reported = time.monotonic() + WAIT_SECONDS, False
        with self._admitted:
            while missing := [i for i in range(1, len(self._cluster.names)) if i not in self._workers]:
                names = ", ".join(map(self._cluster.describe, missing))
                if not is_reported:
                    note(f"Trainer waits for {names}, up to {WAIT_SECONDS / 60:.3g} minutes")
                    is_reported = True
                if time.monotonic() > limit:
                    refused = [f"{name} was refused: {why}" for name, why in self._refused.items()]
                    raise Seq2ServeError(
                        f"{names} did not join within {WAIT_SECONDS / 60:.3g} minutes; start `seq2serve train-worker` "
                        f"there with the same TF_CONFIG as here but for its task, and check that it reaches "
                        f"{':'.join(map(str, self._cluster.chief_endpoint))}{'; '.join(['', *refused])}",
                        code="machine-missing",
                        machines=[self._cluster.names[i] for i in missing],
                    )
                self._admitted.wait(_POLL_SECONDS)
                interrupt.check()
            self._phase = "training"

    def _send_job(self, program: str, inputs: Mapping[str, Artifact], arguments: Mapping[str, Any]) -> None:
        """Sends the job, and compares the data that each machine reads for it with those of this one.

        Raises:
            UserError: a machine has other data.
            Seq2ServeError: a machine has stopped.
        """
        artifacts = {key: [type(value).__name__, self._uri(value), value.properties] for key, value in inputs.items()}
        self._send_all(program=program, inputs=artifacts, arguments=dict(arguments))
        own = {key: content_fingerprint(value.uri) for key, value in inputs.items()}
        missing, limit = set(self._workers), time.monotonic() + DATA_SECONDS
        while missing:
            index, message = self._next_event(missing, limit)
            missing.discard(index)
            read = message.get("inputs", {})
            if problem := message.get("failed") or ", ".join(key for key in own if own[key] != read.get(key)):
                where = f"{self._cluster.describe(index)} has other data than the chief"
                self._send_all(end=f"{where}: {problem}", code=2)
                raise UserError(
                    f"{where}: {problem}; give it the same --pipeline-root, on a disk or object store that all share",
                    code="machine-data-differ",
                    machine=self._cluster.names[index],
                )

    def _uri(self, artifact: Artifact) -> str:
        """Returns the path of an artifact, relative to the pipeline root if it is there."""
        path = Path(artifact.uri)
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else artifact.uri

    def _next_event(self, missing: Collection[int], limit: float) -> tuple[int, dict[str, Any]]:
        """Returns the next message of another machine.

        Raises:
            Seq2ServeError: its connection has broken, or none has come until the limit; the missing machines are named.
        """
        while time.monotonic() < limit:
            with contextlib.suppress(queue.Empty):
                index, message = self._events.get(timeout=_POLL_SECONDS)
                if not message:
                    raise self._stopped([index], _BROKEN)
                return index, message
            interrupt.check()
        raise self._stopped(missing, f"it has not read the data within {DATA_SECONDS / 3600:.3g} hours")

    def _supervise(self, process: TrainingProcess) -> None:
        """Returns when all processes are done.

        Raises:
            Seq2ServeError: one failed or was lost, with the name of its machine.
            KeyboardInterrupt: the chief's has ended after Ctrl-C on any machine.
        """
        devices, done, lost = dict[int, int](), set[int](), dict[int, Outcome]()
        limit = time.monotonic() + WAIT_SECONDS  # for all to join
        while len(done) < len(self._cluster.names):
            if interrupt.pressed():
                process.interrupt()
            if time.monotonic() > limit or len(done) + len(lost) == len(self._cluster.names):
                raise self._late(devices, done, lost)
            with contextlib.suppress(queue.Empty):
                index, report = self._events.get(timeout=_POLL_SECONDS)
                if "interrupted" in report:
                    note(f"{self._cluster.describe(index)} was interrupted")
                    process.interrupt()
                elif "devices" in report:
                    devices[index] = report["devices"]
                    self._compare(devices)
                elif "joined" in report:
                    limit = limit if lost else float("inf")
                elif (outcome := _outcome(report)).kind == "done":
                    done.add(index)
                elif outcome.kind == "lost":
                    lost[index], limit = outcome, min(limit, time.monotonic() + CAUSE_SECONDS)
                elif outcome.kind == "interrupted":
                    self._end_all(end="interrupted", code=130)
                    raise KeyboardInterrupt
                elif index not in done:
                    raise self._failure(index, outcome)
        self._end_all(end="training is complete; the chief evaluates and exports the model", code=0)

    def _compare(self, devices: Mapping[int, int]) -> None:
        """Checks that all machines have the same number of GPUs: each replica takes part in every exchange."""
        if len(set(devices.values())) > 1:
            numbers = ", ".join(f"{self._cluster.describe(index)} {number}" for index, number in devices.items())
            message = (
                f"the machines need the same number of GPUs: {numbers}; use equal machines, or hide GPUs by "
                f"CUDA_VISIBLE_DEVICES"
            )
            self._send_all(end=message, code=UserError.exit_code)
            raise UserError(message, code="machine-gpus-differ")

    def _late(self, devices: Collection[int], done: Collection[int], lost: Mapping[int, Outcome]) -> Seq2ServeError:
        """Returns the error to raise if machines have not joined in time, or have not followed those that were lost."""
        machines, minutes = range(len(self._cluster.names)), f"{WAIT_SECONDS / 60:.3g} minutes"
        if lost:
            first, outcome = next(iter(lost.items()))
            if silent := [index for index in machines if index not in lost and index not in done]:
                how = f"no report {CAUSE_SECONDS:.3g} s after that of {self._cluster.describe(first)}"
                return self._stopped(silent, f"{how}: {outcome.message}")
            return self._stopped([first], outcome.message)
        if missing := [index for index in machines if index not in devices]:
            return self._stopped(missing, f"the training process has not started within {minutes}")
        how = f"training processes have not connected within {minutes}; check that all machines reach all ports"
        return self._stopped(machines, how)

    def _failure(self, index: int, outcome: Outcome) -> Seq2ServeError:
        """Returns the error to raise for a process that failed, and tells the other machines."""
        if not outcome.code:
            return self._stopped([index], outcome.message)
        self._send_all(end=f"{self._cluster.describe(index)}: {outcome.message}", code=outcome.exit_code)
        message = outcome.message if index == 0 else f"{self._cluster.describe(index)}: {outcome.message}"
        return failure(message, outcome.code, outcome.exit_code)

    def _stopped(self, machines: Collection[int], how: str) -> Seq2ServeError:
        """Returns the error to raise for machines that have stopped, and tells the other machines."""
        message = stopped_message(self._cluster, machines, how)
        self._send_all(end=message, code=1)
        names = ", ".join(self._cluster.names[index] for index in machines)
        return Seq2ServeError(message, code="machine-stopped", machine=names)

    def _end_all(self, **message: Any) -> None:
        """Ends the processes of the other machines, which need the service in the chief's process until then."""
        self._send_all(**message)
        present, limit = set(self._workers), time.monotonic() + ANSWER_SECONDS
        while present and time.monotonic() < limit:
            with contextlib.suppress(queue.Empty):
                index, report = self._events.get(timeout=_POLL_SECONDS)
                present.difference_update([] if report else [index])

    def _send_all(self, **message: Any) -> None:
        for connection in self._workers.values():
            connection.send(**message)


def _outcome(message: Mapping[str, Any]) -> Outcome:
    """Returns the outcome that a machine reports, or that of one whose connection has broken."""
    return Outcome(**message["outcome"]) if message else Outcome("failed", _BROKEN)


@contextlib.contextmanager
def led_machines(nodes: Sequence[Node], root: Path) -> Iterator[Chief | None]:
    """Yields the chief of the machines that TF_CONFIG names, if a component uses them; otherwise None.

    It admits the others from now on, and dismisses them at the end of the `with`.

    Args:
        nodes: of the pipeline.
        root: the pipeline root on this machine.
    Raises:
        UserError: TF_CONFIG is malformed, this machine is not the chief, or a port is taken.
    """
    functions = [
        function for node in nodes if node.component and node.component.uses_machines for function in code_in(node)
    ]
    cluster = read_cluster(os.environ) if functions else None
    if cluster is None:
        yield None
        return
    if not cluster.is_chief:
        raise UserError(
            f"TF_CONFIG says that this machine is {cluster.names[cluster.index]}: run `seq2serve train-worker` here, "
            f"and this command on {cluster.describe(0)}",
            code="machine-not-chief",
        )
    cluster.check_port()
    # This process and that of the training share a GPU, and TensorFlow would take all of its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    chief, endpoint = Chief(cluster, root, functions), cluster.chief_endpoint
    with listen(endpoint, f"port {endpoint[1]}, at which the chief waits for the other machines,") as listener:
        accepting = threading.Thread(target=chief.accept, args=(listener,), daemon=True)
        accepting.start()
        try:
            yield chief
        except BaseException as error:
            exit_code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
            chief.dismiss(f"the chief's run has failed: {str(error) or type(error).__name__}", exit_code)
            raise
        else:
            chief.dismiss("the chief's run has ended", 0)
        finally:
            accepting.join()
