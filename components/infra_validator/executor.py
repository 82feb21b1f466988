"""The executor of InfraValidator: runs trial.py in a process, then compares its answers with other runtimes."""

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
from typing import IO, Any

from seq2serve.components.base.artifact import Examples, InfraBlessing, Model
from seq2serve.components.base.progress import Reporter, progress
from seq2serve.components.infra_validator.peers import compare_with_python, compare_with_server
from seq2serve.components.infra_validator.trial import CheckFailedError, Exchange, Trial, Validation
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from seq2serve.models.export.warmup import read_warmup_requests


def validate_model(
    model: Model,
    examples: Examples,
    blessing: InfraBlessing,
    num_sentences: int = 32,
    time_limit: int = 300,
    model_server: str = "tensorflow_model_server",
) -> None:
    """Executes InfraValidator; see component.py for the arguments."""
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
            child = _run_trial(trial, reporter)
            checks, measurements = _read_report(child, time_limit)
            if all(check["passed"] for check in checks):  # a graph that failed a check might crash this process
                exchanges = pickle.loads(answers.read_bytes())
                for name, compare in _comparisons(directory, exchanges, time_limit, binary).items():
                    reporter.update(len(checks), name)
                    checks.append(_run_comparison(name, compare))
    return checks, measurements


def _run_trial(trial: Trial, reporter: Reporter) -> subprocess.CompletedProcess[bytes]:
    """Runs trial.py in a process and shows its progress."""
    with tempfile.TemporaryFile() as pickled_trial, tempfile.TemporaryFile() as errors:
        pickle.dump(trial, pickled_trial)
        pickled_trial.seek(0)
        # With -P, modules in the current folder cannot shadow others.
        command = [sys.executable, "-P", "-m", type(trial).__module__]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        with subprocess.Popen(
            command, stdin=pickled_trial, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as child:
            try:
                output = _follow(child.stdout, reporter)
            except BaseException:
                child.kill()
                raise
        errors.seek(0)
        return subprocess.CompletedProcess(command, child.returncode, output, errors.read())


def _follow(report: IO[bytes], reporter: Reporter) -> bytes:
    """Shows the progress of a process until it ends, and returns its complete report."""
    lines, num_checks, begun = [], 0, ""
    for text in report:
        lines.append(text)
        line = json.loads(text)
        num_checks += "check" in line
        begun = line.get("begun", begun)
        answered = f", {line['answered']} requests answered" if "answered" in line else ""
        reporter.update(num_checks, f"{begun}{answered}")
    return b"".join(lines)


def _comparisons(directory: str, exchanges: list, time_limit: int, binary: str | None) -> dict[str, Callable[[], str]]:
    """Returns the checks that compare the C++ runtime with Python and, if installed, the model server."""
    exchanges = [Exchange(*fields) for fields in exchanges]
    checks = {"python": functools.partial(compare_with_python, directory, exchanges)}
    if binary:
        checks["model_server"] = functools.partial(compare_with_server, binary, directory, exchanges, time_limit)
    return checks


def _run_comparison(name: str, compare: Callable[[], str]) -> dict[str, Any]:
    """Runs a comparison in this process and returns its result as a check."""
    try:
        return {"name": name, "passed": True, "saw": compare()}
    except CheckFailedError as error:
        return {"name": name, "passed": False, "saw": str(error)}


def _test_sentences(examples: Examples, number: int) -> dict[str, list[bytes]]:
    """Returns column -> its first sentences in the test split; a missing value becomes an empty sentence."""
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
    child: subprocess.CompletedProcess[bytes], time_limit: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    checks, measurements, begun = [], {}, "start"
    for line in map(json.loads, child.stdout.splitlines()):
        begun = line.get("begun", begun)
        measurements = line.get("measurements", measurements)
        if "check" in line:
            checks.append({"name": line["check"], "passed": line["passed"], "saw": line["saw"]})
    # The measurements are the last line. Without them the process did not finish, even if its exit code is 0.
    if child.returncode != 0 or not measurements:
        checks.append({"name": begun, "passed": False, "saw": _describe_exit(child, time_limit)})
    return checks, measurements


def _describe_exit(child: subprocess.CompletedProcess[bytes], time_limit: int) -> str:
    """Describes why the process ended early."""
    if child.returncode == -signal.SIGALRM:
        return f"not finished after {time_limit} seconds"
    lines = child.stderr.decode(errors="replace").splitlines()
    # The C++ runtime logs a failed check with the severity F; a stack trace may follow.
    last = next((line for line in lines if line.startswith("F") or "Check failed" in line), "".join(lines[-1:]))
    if child.returncode < 0:
        return f"the runtime was killed by {signal.Signals(-child.returncode).name}: {last[:500] or 'no message'}"
    return f"the validating process exited with code {child.returncode}: {last[:500]}"
