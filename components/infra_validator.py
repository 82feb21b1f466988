"""InfraValidator: would the model server load this model and answer? Tried before anything is pushed.

Comes in: Model and Examples. Goes out: InfraBlessing, with every check, what it saw, load time, memory and latency.
Read next: infra_validator_child.py for the checks, pusher.py for what the blessing is for.
"""

import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
from typing import Any

from components.artifact import Examples, InfraBlessing, Model
from components.component import Input, Output, component


@component
def InfraValidator(
    model: Input[Model],
    examples: Input[Examples],
    blessing: Output[InfraBlessing],
    num_sentences: int = 32,
    time_limit: int = 300,
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
    """
    checks, measurements = _validate(model, examples, num_sentences, time_limit)
    failures = [f"{check['name']}: {check['saw']}" for check in checks if not check["passed"]]
    reason = "; ".join(failures) or f"all {len(checks)} checks passed"
    verdict = {"blessed": not failures, "reason": reason, "checks": checks, **measurements}
    name = "INFRA_NOT_BLESSED" if failures else "INFRA_BLESSED"
    text = json.dumps(verdict, indent=2, ensure_ascii=False) + "\n"
    pathlib.Path(blessing.path(name)).write_text(text, encoding="utf-8")
    blessing.properties.update(blessed=not failures, reason=reason)


def _validate(
    model: Model, examples: Examples, num_sentences: int, time_limit: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Returns the checks, as {"name", "passed", "saw"}, and the measurements."""
    from components.infra_validator_child import Trial
    from models.warmup import read_warmup_requests

    directory, warmup, warmup_error = os.path.abspath(model.path("Format-Serving")), [], ""
    try:
        warmup = [tuple(request) for request in read_warmup_requests(directory)]
    except ValueError as error:
        warmup_error = str(error)
    trial = Trial(directory, _test_sentences(examples, num_sentences), warmup, warmup_error, time_limit)
    child = subprocess.run(
        # -P: the current folder may hold modules with the names of ours.
        [sys.executable, "-P", "-m", Trial.__module__],
        input=pickle.dumps(trial),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )
    return _read_report(child, time_limit)


def _test_sentences(examples: Examples, number: int) -> dict[str, list[bytes]]:
    """Returns column -> its first sentences of the test split; an empty one where a row lacks the column."""
    from components.examples_io import read_batches, shard_paths

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
