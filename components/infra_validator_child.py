"""The process in which InfraValidator tries a model: the C++ runtime alone, without Python TensorFlow.

Comes in: a pickled Trial on stdin. Goes out: on stdout, a JSON object a line for each check as it begins and ends and
for each answer meanwhile, then the measurements; after a crash, the last check begun is the one that crashed.
Read next: serving_ops.py for the list of ops, models/runtime.py for the runtime.
"""

import json
import os
import pickle
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TextIO

import numpy as np
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

from components.serving_ops import refused_functions, refused_ops
from models import runtime, saved_model

# Text that has broken servers before: nothing, blanks, a NUL, characters of several code points, right to left, control
# pieces written out, 100,000 characters.
HOSTILE_TEXTS = (
    b"",
    b" \t ",
    b"a\0b",
    "e\u0301 \U0001f469\u200d\U0001f467 \ufb01".encode(),
    "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0627\u0644\u0645".encode(),
    b"<s> </s> <pad> <unk>",
    b"word " * 20_000,
)
# The batch's shape changes the order of additions; a near tie between two hypotheses may then fall either way. A model
# that looks at a row's neighbours or at padding fails for most rows.
MAX_DIFFERING_SHARE = 1 / 16
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-4
MAX_REASON = 1000  # characters


class Trial(NamedTuple):
    """What is tried.

    Args:
        directory: the folder of the SavedModel.
        columns: column of Examples -> its test sentences, all of one length, in the order of the columns.
        warmup: (signature, inputs) of each warm-up request.
        warmup_error: why the warm-up requests could not be read, or "".
        time_limit: seconds after which the process ends itself.
        answers_path: of a file for what was asked and answered, a pickled list of the fields of each `Exchange`.
    """

    directory: str
    columns: dict[str, list[bytes]]
    warmup: list[tuple[str, dict[str, np.ndarray]]]
    warmup_error: str
    time_limit: int
    answers_path: str


class Exchange(NamedTuple):
    """One request and what the C++ runtime answered; inputs and outputs are by name."""

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


class Refused(Exception):
    """A check failed; the message is the reason."""


REFUSALS = (Refused, ValueError, runtime.TensorFlowError)


class Validation:
    """The checks of one Trial, which build on one another. Each returns what it saw, or raises one of `REFUSALS`.

    Args:
        trial: what is tried.
        tell: called with how many requests have been answered, after each.
    """

    def __init__(self, trial: Trial, tell: Callable[[int], None] = lambda _: None):
        self.trial, self._tell, self._num_answers = trial, tell, 0
        self.measurements: dict[str, float] = {}
        self.meta_graph: MetaGraphDef
        self.model: runtime.SavedModelRuntime
        self.rows: list[dict[str, bytes]]
        self.answers: list[dict[str, np.ndarray]] = []
        self.exchanges: list[Exchange] = []

    def stages(self) -> tuple[tuple[Callable[[], str], ...], ...]:
        """Returns the checks; those of a stage make sense only if all before it passed."""
        return (
            (self.graph,),
            (self.ops, self.compiled_functions, self.signatures),
            (self.load,),
            (self.warm_up, self.one_by_one),
            (self.batch, self.batches_of_every_signature, self.no_python),
        )

    def graph(self) -> str:
        """Checks that the file parses and has a graph for serving."""
        self.meta_graph = saved_model.read_meta_graph(self.trial.directory)
        nodes = sum(1 for _ in saved_model.iterate_nodes(self.meta_graph))
        functions = sum(1 for _ in saved_model.iterate_functions(self.meta_graph))
        return f"{nodes} nodes, {functions} functions"

    def ops(self) -> str:
        """Checks every op of the graph and of its functions against what the model server can run."""
        _refuse(refused_ops(self.meta_graph, runtime.registered_ops(), runtime.ops_with_cpu_kernel()))
        ops = {node.op for _, node in saved_model.iterate_nodes(self.meta_graph)}
        return f"{len(ops)} ops, all on the server's list"

    def compiled_functions(self) -> str:
        """Checks that nothing needs XLA."""
        _refuse(refused_functions(self.meta_graph))
        return "no function that only XLA can run"

    def signatures(self) -> str:
        """Checks that every signature is one the server can batch: dimension 0 of everything is the batch."""
        signatures = saved_model.read_signatures(self.meta_graph)
        if saved_model.SERVING_DEFAULT not in signatures:
            raise Refused(f"there is no signature {saved_model.SERVING_DEFAULT!r}; there is {', '.join(signatures)}")
        _refuse(
            f"signature {name!r}: {key!r} is {spec}, but dimension 0 must be the batch and the type one that travels"
            for name, signature in signatures.items()
            for key, spec in [*signature.inputs.items(), *signature.outputs.items()]
            if not spec.accepts_any_batch()
        )
        return ", ".join(signatures)

    def load(self) -> str:
        """Loads the model."""
        start = time.perf_counter()
        try:
            self.model = runtime.SavedModelRuntime(self.trial.directory)
        except runtime.TensorFlowError as error:
            raise Refused(f"the runtime cannot load the graph and its variables: {error}") from error
        self.measurements["load_seconds"] = round(time.perf_counter() - start, 3)
        return "loaded by the C++ runtime with XLA off"

    def warm_up(self) -> str:
        """Replays the warm-up requests as the server does while it loads the model."""
        if self.trial.warmup_error:
            raise Refused(self.trial.warmup_error)
        for number, (signature, inputs) in enumerate(self.trial.warmup, 1):
            try:
                self.exchanges.append(self._ask(signature, inputs))
            except REFUSALS as error:
                raise Refused(f"warm-up request {number}: {error}") from error
        return f"requests replayed: {len(self.trial.warmup)}"

    def _ask(self, signature: str, inputs: Mapping[str, Any]) -> Exchange:
        """Asks and checks the answer's form: what REST needs to write it row by row."""
        answer = self._run(signature, inputs)
        _check_outputs(answer, _batch_size(inputs))
        return Exchange(signature, dict(inputs), answer)

    def _run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        answer = self.model.run(signature, inputs)
        self._num_answers += 1
        self._tell(self._num_answers)
        return answer

    def one_by_one(self) -> str:
        """Asks serving_default for each sentence alone."""
        self.rows = _rows(self.trial.columns, self.model.signatures[saved_model.SERVING_DEFAULT])
        milliseconds = []
        for row in self.rows:
            start = time.perf_counter()
            answer = self._run(saved_model.SERVING_DEFAULT, {key: [text] for key, text in row.items()})
            milliseconds.append(1000 * (time.perf_counter() - start))
            try:
                _check_outputs(answer, 1)
            except Refused as error:
                raise Refused(f"{error}; asked for {row}") from error
            self.answers.append(answer)
        sentences = milliseconds[len(HOSTILE_TEXTS) :] or milliseconds
        self.measurements["median_latency_ms"] = round(statistics.median(sentences), 3)
        return f"{len(self.rows)} sentences, each answered with one row of valid UTF-8"

    def batch(self) -> str:
        """Asks for all sentences at once and compares."""
        inputs = {key: np.array([row[key] for row in self.rows], object) for key in self.rows[0]}
        together = self._ask(saved_model.SERVING_DEFAULT, inputs)
        self.exchanges.append(together)
        differing = _compare_rows(self.answers, together)
        return f"{len(self.rows)} rows in one batch, {differing} unlike the row asked for alone"

    def batches_of_every_signature(self) -> str:
        """Asks for the rows of each signature's largest warm-up request one by one, and with a row repeated.

        The model server joins requests, and fills a batch up to an allowed size by repeating a row of it.
        """
        largest = {}
        for exchange in self.exchanges[: len(self.trial.warmup)]:
            known = largest.setdefault(exchange.signature, exchange)
            if _batch_size(exchange.inputs) > _batch_size(known.inputs):
                largest[exchange.signature] = exchange
        for name, together in largest.items():
            size = _batch_size(together.inputs)
            alone = [self._ask(name, _take(together.inputs, [row])).outputs for row in range(size)]
            padded = self._ask(name, _take(together.inputs, [*range(size), *[0] * size]))
            _compare_rows(alone, together)
            _compare_rows(
                [{key: array[[row]] for key, array in padded.outputs.items()} for row in range(size)], together
            )
        return f"rows alone, in a batch and in a padded batch agree: {', '.join(largest) or 'nothing to ask'}"

    def no_python(self) -> str:
        """Checks that the trial was fair: nothing here had Python TensorFlow to lean on."""
        if "tensorflow" in sys.modules:
            raise Refused("the validating process imported Python TensorFlow, so it proves nothing")
        return "Python TensorFlow was never imported"


def main() -> None:
    """Runs the checks of the Trial on stdin and reports to stdout."""
    trial = pickle.load(sys.stdin.buffer)  # InfraValidator's own
    signal.alarm(trial.time_limit)  # ends this process even inside the C++ runtime, and even if the parent is gone
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the graph prints must not end up in the report
    validation = Validation(trial, lambda number: _write(report, {"answered": number}))
    for stage in validation.stages():
        passed = [_run_check(check, report) for check in stage]
        if not all(passed):
            break
    with open(trial.answers_path, "wb") as file:
        pickle.dump([tuple(exchange) for exchange in validation.exchanges], file)
    _write(
        report, {"begun": "exit", "measurements": {**validation.measurements, "peak_memory_mib": _peak_memory_mib()}}
    )


def _peak_memory_mib() -> float:
    if sys.platform == "darwin":
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    # Linux's ru_maxrss starts at the size of the parent, so the kernel's mark of this process alone is read.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return round(kibibytes / 2**10, 1)


def _run_check(check: Callable[[], str], report: TextIO) -> bool:
    name = check.__name__
    _write(report, {"begun": name})
    try:
        passed, saw = True, check()
    except REFUSALS as error:
        passed, saw = False, " ".join(str(error).split())[:MAX_REASON]
    _write(report, {"check": name, "passed": passed, "saw": saw})
    return passed


def _write(report: TextIO, line: dict[str, Any]) -> None:
    report.write(json.dumps(line) + "\n")
    report.flush()


def _refuse(reasons: Iterable[str]) -> None:
    reasons = list(reasons)
    if reasons:
        more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise Refused("; ".join(reasons[:5]) + more)


def _rows(columns: Mapping[str, list[bytes]], signature: saved_model.Signature) -> list[dict[str, bytes]]:
    """Returns the hostile texts, then the test sentences, each as input name -> text.

    An input is fed from the column of its name, and otherwise from the first.
    """
    for name, spec in signature.inputs.items():
        if spec.dtype != "string":
            raise Refused(f"{saved_model.SERVING_DEFAULT}: the input {name!r} is {spec}; strings go in")
    first = next(iter(columns.values()), [])
    hostile = [dict.fromkeys(signature.inputs, text) for text in HOSTILE_TEXTS]
    return hostile + [
        {name: columns.get(name, first)[index] for name in signature.inputs} for index in range(len(first))
    ]


def _take(arrays: Mapping[str, np.ndarray], rows: list[int]) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in arrays.items()}


def _compare_rows(alone: list[dict[str, np.ndarray]], together: Exchange) -> int:
    """Compares answers of one row each with those of a batch; returns how many differ, which may be a few.

    Raises:
        Refused: too many do.
    """
    differing = [
        row
        for row, answer in enumerate(alone)
        if not all(alike(answer[key][0], array[row]) for key, array in together.outputs.items())
    ]
    # Of a few rows one may be a near tie; a model that looks at neighbours fails for more.
    tolerated = max(1, MAX_DIFFERING_SHARE * len(alone)) if len(alone) > 2 else 0
    if len(differing) > tolerated:
        row = differing[0]
        asked = _row(together.inputs, row)
        raise Refused(
            f"{len(differing)} of {len(alone)} rows differ between alone and in a batch; the first, {asked:.200}, "
            f"gives {_row(alone[row], 0):.300} alone and {_row(together.outputs, row):.300} in a batch "
            f"({together.signature})"
        )
    return len(differing)


def _batch_size(inputs: Mapping[str, np.ndarray]) -> int:
    return next((array.shape[0] for array in inputs.values() if array.ndim), 0)


def _check_outputs(outputs: Mapping[str, np.ndarray], batch: int) -> None:
    for name, array in outputs.items():
        if array.shape[:1] != (batch,):
            raise Refused(f"output {name!r} has the shape {list(array.shape)} for a batch of {batch}")
        # REST sends an output whose name ends so as base64.
        if array.dtype == object and not name.endswith("_bytes"):
            for text in array.flat:
                _check_utf8(name, text)


def _check_utf8(name: str, text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"output {name!r} is not valid UTF-8: {text!r:.200}") from error


def alike(alone: Any, together: Any) -> bool:
    """Compares one row of an output; what is longer in one of them is padding."""
    if isinstance(alone, bytes):
        return alone == together
    alone, together = np.asarray(alone), np.asarray(together)
    if alone.ndim != together.ndim:
        return False
    common = tuple(slice(min(sizes)) for sizes in zip(alone.shape, together.shape, strict=True))
    if alone.dtype.kind == "f":
        return np.allclose(alone[common], together[common], RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE, equal_nan=True)
    return np.array_equal(alone[common], together[common])


def _row(outputs: Mapping[str, np.ndarray], index: int) -> str:
    return str({name: np.asarray(array[index]).tolist() for name, array in outputs.items()})


if __name__ == "__main__":
    main()
