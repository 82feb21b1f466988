"""The process that process.py starts: runs a program and leaves its Outcome in the file that the argument names."""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from seq2serve.components.base import artifact, interrupt
from seq2serve.components.base.errors import Seq2ServeError
from seq2serve.components.base.progress import display
from seq2serve.pipeline.running.machines.process import Outcome
from seq2serve.pipeline.running.quiet import quiet_libraries


def main() -> None:
    """Runs the program of the job on standard input, which stays open for as long as the parent process lives."""
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
    outcome = Outcome("done")
    with interrupt.listening(), display(job["display"]), quiet_libraries():
        try:
            inputs = {key: getattr(artifact, kind)(*values) for key, (kind, *values) in job["inputs"].items()}
            importlib.import_module(job["program"]).main(inputs, job["arguments"])
        except KeyboardInterrupt:
            outcome = Outcome("interrupted", exit_code=130)
        except Seq2ServeError as error:
            outcome = Outcome("failed", str(error), error.code, error.exit_code)
        except Exception as error:
            outcome = _explain(error)
    staging = Path(f"{sys.argv[1]}.staging")
    staging.write_text(json.dumps(outcome._asdict()), encoding="utf-8")
    os.replace(staging, sys.argv[1])
    sys.stderr.flush()
    os._exit(outcome.exit_code if outcome.kind != "done" else 0)  # TensorFlow would wait for the other machines


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _explain(error: Exception) -> Outcome:
    """Returns "lost" for an error of the communication between machines."""
    import tensorflow as tf

    errors = tf.errors
    of_peers = (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError)
    # An operation that waited for a lost machine fails with an internal error, too.
    is_lost = isinstance(error, of_peers) or "ollective" in str(error)
    if not is_lost:
        traceback.print_exception(error)
    line = str(error).strip().partition("\n")[0]
    return Outcome("lost" if is_lost else "failed", f"{type(error).__name__}: {line}")


if __name__ == "__main__":
    main()
