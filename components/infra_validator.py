"""InfraValidator: would the model server load this model and answer? Tried before anything is pushed.

Comes in: Model and Examples. Goes out: InfraBlessing, with every check, what it saw, load time, memory and latency.
Read next: infra_validator_child.py for the checks, pusher.py for what the blessing is for.
"""

import functools
import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from components.artifact import Examples, InfraBlessing, Model
from components.component import Input, Output, component
from components.progress import Reporter, progress

if TYPE_CHECKING:
    from components.infra_validator_child import Trial


@component
def InfraValidator(
    model: Input[Model],
    examples: Input[Examples],
    blessing: Output[InfraBlessing],
    num_sentences: int = 32,
    time_limit: int = 300,
    model_server: str = "tensorflow_model_server",
) -> None:
    """Tries the exported model in a process that has the model server's C++ runtime and no Python TensorFlow.

    A bad model is no error: the blessing is withheld with the reason, and the Pusher stops there.
    Source: https://www.tensorflow.org/tfx/guide/infra_validator

    Args:
        model: its Format-Serving/ is tried.
        examples: sentences of the test split are asked of `serving_default`; an input is fed from the column of its
            name, and otherwise from the first column.
        blessing: INFRA_BLESSED or INFRA_NOT_BLESSED.
        num_sentences: how many sentences are asked, one by one and then in one batch.
        time_limit: seconds for all of it; a model that hangs is not blessed.
        model_server: name or path of TensorFlow's own server, which is asked the same where it is installed.
    """
    sentences = _test_sentences(examples, num_sentences)
    checks, measurements = _validate(os.path.abspath(model.path("Format-Serving")), sentences, time_limit, model_server)
    failures = [f"{check['name']}: {check['saw']}" for check in checks if not check["passed"]]
    reason = "; ".join(failures) or f"all {len(checks)} checks passed"
    verdict = {"blessed": not failures, "reason": reason, "checks": checks, **measurements}
    name = "INFRA_NOT_BLESSED" if failures else "INFRA_BLESSED"
    text = json.dumps(verdict, indent=2, ensure_ascii=False) + "\n"
    pathlib.Path(blessing.path(name)).write_text(text, encoding="utf-8")
    blessing.properties.update(blessed=not failures, reason=reason)


def _validate(
    directory: str, sentences: dict[str, list[bytes]], time_limit: int, model_server: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Returns the checks, as {"name", "passed", "saw"}, and the measurements."""
    from components.infra_validator_child import Trial, Validation
    from models.warmup import read_warmup_requests

    warmup, warmup_error = [], ""
    try:
        warmup = [tuple(request) for request in read_warmup_requests(directory)]
    except ValueError as error:
        warmup_error = str(error)
    with tempfile.TemporaryDirectory() as scratch:
        answers = pathlib.Path(scratch, "answers")
        trial = Trial(directory, sentences, warmup, warmup_error, time_limit, str(answers))
        binary = shutil.which(model_server)
        total = sum(map(len, Validation(trial).stages())) + (2 if binary else 1)
        with progress("InfraValidator", total, "") as reporter:
            child = _try(trial, reporter)
            checks, measurements = _read_report(child, time_limit)
            if all(check["passed"] for check in checks):  # else the graph may do anything to this process
                exchanges = pickle.loads(answers.read_bytes())
                for name, compare in _peers(directory, exchanges, time_limit, binary).items():
                    reporter.update(len(checks), name)
                    checks.append(_compared(name, compare))
    return checks, measurements


def _try(trial: "Trial", reporter: Reporter) -> "subprocess.CompletedProcess[bytes]":
    """Runs the process that tries the model, and shows how far it is."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
        pickle.dump(trial, asked)
        asked.seek(0)
        # -P: the current folder may hold modules with the names of ours.
        command = [sys.executable, "-P", "-m", type(trial).__module__]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        with subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE, stderr=errors, env=environment) as child:
            try:
                told = _followed(child.stdout, reporter)
            except BaseException:
                child.kill()
                raise
        errors.seek(0)
        return subprocess.CompletedProcess(command, child.returncode, told, errors.read())


def _followed(report: IO[bytes], reporter: Reporter) -> bytes:
    """Returns all that a process reports, once it has ended; shows its checks and answers meanwhile."""
    lines, num_checks, begun = [], 0, ""
    for text in report:
        lines.append(text)
        line = json.loads(text)
        num_checks += "check" in line
        begun = line.get("begun", begun)
        answered = f", {line['answered']} requests answered" if "answered" in line else ""
        reporter.update(num_checks, f"{begun}{answered}")
    return b"".join(lines)


def _peers(directory: str, exchanges: list, time_limit: int, binary: str | None) -> dict[str, Callable[[], str]]:
    """Returns the checks that compare the answers of the C++ runtime with those of Python, and of the model server."""
    from components import infra_validator_peers as peers
    from components.infra_validator_child import Exchange

    exchanges = [Exchange(*fields) for fields in exchanges]
    checks = {"python": functools.partial(peers.compare_with_python, directory, exchanges)}
    if binary:
        checks["model_server"] = functools.partial(peers.compare_with_server, binary, directory, exchanges, time_limit)
    return checks


def _compared(name: str, compare: Callable[[], str]) -> dict[str, Any]:
    """Returns what came of a check here."""
    from components.infra_validator_child import Refused

    try:
        return {"name": name, "passed": True, "saw": compare()}
    except Refused as error:
        return {"name": name, "passed": False, "saw": str(error)}


def _test_sentences(examples: Examples, number: int) -> dict[str, list[bytes]]:
    """Returns column -> its first sentences of the test split; an empty one where a row lacks the column."""
    from components.examples_io import read_batches
    from components.shards import shard_paths

    columns = examples.properties["columns"]
    batches = (batch for path in shard_paths(examples, "test") for batch in read_batches(path, columns))
    sentences = {column: [] for column in columns}
    for batch in batches:
        for column, rows in batch.items():
            sentences[column] += [values[0] if values else b"" for values in rows]
        if len(sentences[columns[0]]) >= number:
            break
    return {column: rows[:number] for column, rows in sentences.items()}


def _read_report(
    child: "subprocess.CompletedProcess[bytes]", time_limit: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    checks, measurements, begun = [], {}, "start"
    for line in map(json.loads, child.stdout.splitlines()):
        begun = line.get("begun", begun)
        measurements = line.get("measurements", measurements)
        if "check" in line:
            checks.append({"name": line["check"], "passed": line["passed"], "saw": line["saw"]})
    # The measurements come last: without them the process did not get to its end, whatever code it ended with.
    if child.returncode != 0 or not measurements:
        checks.append({"name": begun, "passed": False, "saw": _death(child, time_limit)})
    return checks, measurements


def _death(child: "subprocess.CompletedProcess[bytes]", time_limit: int) -> str:
    """Says in a sentence how the child died."""
    if child.returncode == -signal.SIGALRM:
        return f"not done after {time_limit} seconds"
    lines = child.stderr.decode(errors="replace").splitlines()
    # The C++ runtime's last words: a failed check is logged as FATAL, and a stack of addresses may follow.
    last = next((line for line in lines if line.startswith("F") or "Check failed" in line), "".join(lines[-1:]))
    if child.returncode < 0:
        return f"the runtime was killed by {signal.Signals(-child.returncode).name}: {last[:500] or 'no last words'}"
    return f"the validating process ended with code {child.returncode}: {last[:500]}"
