"""The process that process.py starts: runs the program of the job on standard input; reports on standard output."""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

from seq2serve.components.base import artifact, interrupt
from seq2serve.components.base.errors import Seq2ServeError
from seq2serve.components.base.progress import display
from seq2serve.pipeline.running.machines.process import Outcome
from seq2serve.pipeline.running.quiet import quiet_libraries


def main() -> None:
    """Runs the program, reports its Outcome, and waits to be killed: standard input is open while the parent lives."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the program prints: standard output has the reports here, the components' lines in the parent
    sys.stdout = sys.stderr

    def report(**message: Any) -> None:
        print(json.dumps(message), file=reports, flush=True)

    job = json.loads(sys.stdin.buffer.readline())
    ending = threading.Thread(target=_end_with_parent, daemon=True)
    ending.start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
    outcome = Outcome("done")
    with interrupt.listening(), display(job["display"]), quiet_libraries():
        try:
            inputs = {key: getattr(artifact, kind)(*values) for key, (kind, *values) in job["inputs"].items()}
            importlib.import_module(job["program"]).main(inputs, job["arguments"], report)
        except KeyboardInterrupt:
            outcome = Outcome("interrupted", exit_code=130)
        except Seq2ServeError as error:
            outcome = Outcome("failed", str(error), error.code, error.exit_code)
        except Exception as error:
            outcome = _explain(error)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report(outcome=outcome._asdict())
    ending.join()  # the other machines need the service in the chief's process to the end


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _explain(error: Exception) -> Outcome:
    """Returns "lost" for an error of the communication between machines."""
    import tensorflow as tf

    errors = tf.errors
    of_peers = (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError)
    # An operation that waited for a lost machine fails with an internal error, too.
    of_operation = isinstance(error, errors.InternalError) and "ollective" in str(error)
    is_lost = isinstance(error, of_peers) or of_operation
    if not is_lost:
        traceback.print_exception(error)
    line = str(error).strip().partition("\n")[0]
    return Outcome("lost" if is_lost else "failed", f"{type(error).__name__}: {line}")


if __name__ == "__main__":
    main()
