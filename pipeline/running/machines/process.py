"""TrainingProcess: a program in a process of its own, which ends with the process that started it.

It is separate because TensorFlow must join the machines before it does anything else, cannot leave them again, and
ends the whole process if one of them is lost.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.errors import Seq2ServeError, UserError
from seq2serve.components.base.progress import current_mode
from seq2serve.pipeline.running.machines.cluster import VARIABLE, Cluster

_CHILD = "seq2serve.pipeline.running.machines.child"


class Outcome(NamedTuple):
    """How a process ended.

    Args:
        kind: "done"; "interrupted" after Ctrl-C; "failed"; or "lost", which may follow from the end of another machine.
        message: why it failed.
        code: of a Seq2ServeError; empty for another failure.
        exit_code: of the command that reports it.
    """

    kind: str
    message: str = ""
    code: str = ""
    exit_code: int = 1


def failure(message: str, code: str, exit_code: int) -> Seq2ServeError:
    """Returns the error with which a command ends if a process has failed with an exit code."""
    return (UserError if exit_code == UserError.exit_code else Seq2ServeError)(message, code=code)


def stopped_message(cluster: Cluster, machines: Iterable[int], reason: str) -> str:
    """Returns the message about machines that have stopped."""
    names = [cluster.describe(index) for index in machines]
    have = "has" if len(names) == 1 else "have"
    return (
        f"{', '.join(names)} {have} stopped: {reason}; run the same commands again on all machines to resume from the "
        f"last checkpoint"
    )


class TrainingProcess:
    """A running program.

    Args:
        process: reads its job from standard input, and writes what it reports to standard output.
    """

    def __init__(self, process: subprocess.Popen) -> None:
        self._process, self._is_interrupted = process, False

    def interrupt(self) -> None:
        """Sends Ctrl-C, but never a second one: the process would not save its work."""
        if not self._is_interrupted:
            self._is_interrupted = True
            self._process.send_signal(signal.SIGINT)

    def listen(self, receive: Callable[[dict[str, Any]], None]) -> None:
        """Passes on, from a thread, what the program reports; then `outcome`, the fields of its Outcome."""
        threading.Thread(target=self._pass_on, args=(receive,), daemon=True).start()

    def _pass_on(self, receive: Callable[[dict[str, Any]], None]) -> None:
        with contextlib.suppress(ValueError):  # it was killed while it wrote a line
            for line in self._process.stdout:  # type: ignore[union-attr]
                report = json.loads(line)
                receive(report)
                if "outcome" in report:
                    return
        receive({"outcome": _killed(self._process.wait())._asdict()})


def _killed(code: int) -> Outcome:
    """Returns the Outcome of a process that has ended without one."""
    if code == -signal.SIGINT:  # before the program has begun
        return Outcome("interrupted", exit_code=130)
    # TensorFlow aborts the process if it loses the chief.
    kind = "lost" if code == -signal.SIGABRT else "failed"
    how = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    return Outcome(kind, f"its training process {how}")


@contextlib.contextmanager
def running(
    program: str, inputs: Mapping[str, Artifact], arguments: Mapping[str, Any], cluster: Cluster
) -> Iterator[TrainingProcess]:
    """Starts a program, and kills it at the end of the `with` if it still runs.

    Args:
        program, inputs, arguments: see component.Machines.
        cluster: with this machine's index.
    """
    job = {
        "program": program,
        "inputs": {key: [type(value).__name__, value.uri, value.properties] for key, value in inputs.items()},
        "arguments": arguments,
        "display": "hidden" if current_mode() == "hidden" else "visible",  # it is not in a notebook
    }
    # In a session of its own, so that Ctrl-C on the terminal reaches it once, from this process.
    process = subprocess.Popen(
        [sys.executable, "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, VARIABLE: cluster.tf_config()},
        start_new_session=True,
    )
    try:
        with contextlib.suppress(BrokenPipeError):  # it has failed already, and `listen` reports it
            process.stdin.write(json.dumps(job).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        yield TrainingProcess(process)
    finally:
        process.kill()
        process.wait()
