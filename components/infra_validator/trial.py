"""The process in which InfraValidator tests a model, with the C++ runtime and without Python TensorFlow.

The process reads a pickled Trial from stdin and writes JSON lines to stdout: one when a check begins, one when it ends,
one per answer, and finally the measurements. After a crash, the last line that begins a check names the cause.
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

from seq2serve.components.infra_validator.ops import functions_that_require_xla, unsupported_ops
from seq2serve.models.runtime import runtime, saved_model

# Texts that have broken servers: empty, blanks, NUL, characters with several code points, right-to-left text, control
# tokens, 100,000 characters.
HOSTILE_TEXTS = (
    b"",
    b" \t ",
    b"a\0b",
    "e\u0301 \U0001f469\u200d\U0001f467 \ufb01".encode(),
    "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0627\u0644\u0645".encode(),
    b"<s> </s> <pad> <unk>",
    b"word " * 20_000,
)
# The shape of a batch changes the order of additions, which can decide a near tie between two hypotheses. If rows
# depend on each other or on padding, most rows differ.
MAX_DIFFERING_SHARE = 1 / 16
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-4
MAX_REASON = 1000  # characters


class Trial(NamedTuple):
    """The input of the process.

    Args:
        directory: the folder of the SavedModel.
        columns: column of Examples -> its test sentences, in the order of the columns; all have the same number.
        warmup: (signature, inputs) of each warm-up request.
        warmup_error: why the warm-up requests could not be read, or "".
        time_limit: seconds after which the process is killed.
        answers_path: output file for the requests and answers: a pickled list with the fields of each `Exchange`.
    """

    directory: str
    columns: dict[str, list[bytes]]
    warmup: list[tuple[str, dict[str, np.ndarray]]]
    warmup_error: str
    time_limit: int
    answers_path: str


class Exchange(NamedTuple):
    """A request to the C++ runtime and its answer: arrays by input and output name."""

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


class CheckFailedError(Exception):
    """A check failed; the message is the reason."""


CHECK_FAILURES = (CheckFailedError, ValueError, runtime.TensorFlowError)


class Validation:
    """The checks of a Trial. Each returns its observation or raises one of `CHECK_FAILURES`.

    Checks store results that later checks use, so they must run in the order of `stages`.

    Args:
        trial: the model and its requests.
        on_answer: called after each answer with the number of answers so far.
    """

    def __init__(self, trial: Trial, on_answer: Callable[[int], None] = lambda _: None):
        self.trial, self._on_answer, self._num_answers = trial, on_answer, 0
        self.measurements: dict[str, float] = {}
        self.meta_graph: saved_model.MetaGraphDef
        self.model: runtime.SavedModelRuntime
        self.rows: list[dict[str, bytes]]
        self.answers: list[dict[str, np.ndarray]] = []
        self.exchanges: list[Exchange] = []

    def stages(self) -> tuple[tuple[Callable[[], str], ...], ...]:
        """Returns the checks in stages; a stage runs only if all checks of the earlier stages passed."""
        return (
            (self.graph,),
            (self.ops, self.compiled_functions, self.signatures),
            (self.load,),
            (self.warm_up, self.one_by_one),
            (self.batch, self.batches_of_every_signature, self.no_python),
        )

    def graph(self) -> str:
        """Checks that saved_model.pb can be parsed and contains a graph for serving."""
        self.meta_graph = saved_model.read_meta_graph(self.trial.directory)
        nodes = sum(1 for _ in saved_model.iterate_nodes(self.meta_graph))
        functions = sum(1 for _ in saved_model.iterate_functions(self.meta_graph))
        return f"{nodes} nodes, {functions} functions"

    def ops(self) -> str:
        """Checks that the model server can run every op of the graph and its functions."""
        _require_no_problems(unsupported_ops(self.meta_graph, runtime.registered_ops(), runtime.ops_with_cpu_kernel()))
        ops = {node.op for _, node in saved_model.iterate_nodes(self.meta_graph)}
        return f"{len(ops)} ops, all available on the server"

    def compiled_functions(self) -> str:
        """Checks that no function requires XLA."""
        _require_no_problems(functions_that_require_xla(self.meta_graph))
        return "no function requires XLA"

    def signatures(self) -> str:
        """Checks that the server can batch every signature: dimension 0 of each input and output is the batch size."""
        signatures = saved_model.read_signatures(self.meta_graph)
        if saved_model.SERVING_DEFAULT not in signatures:
            raise CheckFailedError(
                f"no signature {saved_model.SERVING_DEFAULT!r}; the model has {', '.join(signatures) or 'none'}"
            )
        _require_no_problems(
            f"signature {name!r}: {key!r} is {spec}; dimension 0 must be the batch size, and the dtype serialisable"
            for name, signature in signatures.items()
            for key, spec in [*signature.inputs.items(), *signature.outputs.items()]
            if not spec.accepts_any_batch()
        )
        return ", ".join(signatures)

    def load(self) -> str:
        """Checks that the C++ runtime can load the model."""
        start = time.perf_counter()
        try:
            self.model = runtime.SavedModelRuntime(self.trial.directory)
        except runtime.TensorFlowError as error:
            raise CheckFailedError(f"the runtime cannot load the graph and its variables: {error}") from error
        self.measurements["load_seconds"] = round(time.perf_counter() - start, 3)
        return "loaded by the C++ runtime without XLA"

    def warm_up(self) -> str:
        """Sends the warm-up requests, as the server does when it loads the model."""
        if self.trial.warmup_error:
            raise CheckFailedError(self.trial.warmup_error)
        for number, (signature, inputs) in enumerate(self.trial.warmup, 1):
            try:
                self.exchanges.append(self._request(signature, inputs))
            except CHECK_FAILURES as error:
                raise CheckFailedError(f"warm-up request {number}: {error}") from error
        return f"requests replayed: {len(self.trial.warmup)}"

    def _request(self, signature: str, inputs: Mapping[str, Any]) -> Exchange:
        """Sends a request and checks that the answer has one row per input row, as the REST API requires."""
        answer = self._run(signature, inputs)
        _check_outputs(answer, _batch_size(inputs))
        return Exchange(signature, dict(inputs), answer)

    def _run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        answer = self.model.run(signature, inputs)
        self._num_answers += 1
        self._on_answer(self._num_answers)
        return answer

    def one_by_one(self) -> str:
        """Sends each sentence to `serving_default` in a request of its own."""
        self.rows = _rows(self.trial.columns, self.model.signatures[saved_model.SERVING_DEFAULT])
        milliseconds = []
        for row in self.rows:
            start = time.perf_counter()
            answer = self._run(saved_model.SERVING_DEFAULT, {key: [text] for key, text in row.items()})
            milliseconds.append(1000 * (time.perf_counter() - start))
            try:
                _check_outputs(answer, 1)
            except CheckFailedError as error:
                raise CheckFailedError(f"{error}; the request was {row}") from error
            self.answers.append(answer)
        sentences = milliseconds[len(HOSTILE_TEXTS) :] or milliseconds
        self.measurements["median_latency_ms"] = round(statistics.median(sentences), 3)
        return f"{len(self.rows)} sentences, each answered with one row of valid UTF-8"

    def batch(self) -> str:
        """Sends all sentences in one batch and compares the answers with those of the single requests."""
        inputs = {key: np.array([row[key] for row in self.rows], object) for key in self.rows[0]}
        together = self._request(saved_model.SERVING_DEFAULT, inputs)
        self.exchanges.append(together)
        differing = _compare_rows(self.answers, together)
        return f"{len(self.rows)} rows in one batch, {differing} of them different from the row alone"

    def batches_of_every_signature(self) -> str:
        """Compares the answers to each signature's largest warm-up request with those to its single and padded rows.

        The model server merges requests into batches, and pads a batch to an allowed size by repeating a row.
        """
        largest = {}
        for exchange in self.exchanges[: len(self.trial.warmup)]:
            known = largest.setdefault(exchange.signature, exchange)
            if _batch_size(exchange.inputs) > _batch_size(known.inputs):
                largest[exchange.signature] = exchange
        for name, together in largest.items():
            size = _batch_size(together.inputs)
            alone = [self._request(name, _take(together.inputs, [row])).outputs for row in range(size)]
            padded = self._request(name, _take(together.inputs, [*range(size), *[0] * size]))
            _compare_rows(alone, together)
            _compare_rows(
                [{key: array[[row]] for key, array in padded.outputs.items()} for row in range(size)], together
            )
        return f"rows alone, in a batch and in a padded batch agree: {', '.join(largest) or 'no warm-up requests'}"

    def no_python(self) -> str:
        """Checks that the process did not import Python TensorFlow; otherwise the other checks prove nothing."""
        if "tensorflow" in sys.modules:
            raise CheckFailedError(
                "the validating process imported Python TensorFlow, so the other checks prove nothing"
            )
        return "Python TensorFlow was never imported"


def main() -> None:
    """Reads a Trial from stdin, runs its checks and reports to stdout."""
    trial = pickle.load(sys.stdin.buffer)  # written by InfraValidator, so it can be trusted
    signal.alarm(trial.time_limit)  # kills this process even inside the C++ runtime, and even if the parent is dead
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps output of the graph out of the report
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
    # On Linux, ru_maxrss starts at the size of the parent process, so the peak is read from /proc.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return round(kibibytes / 2**10, 1)


def _run_check(check: Callable[[], str], report: TextIO) -> bool:
    name = check.__name__
    _write(report, {"begun": name})
    try:
        passed, saw = True, check()
    except CHECK_FAILURES as error:
        passed, saw = False, " ".join(str(error).split())[:MAX_REASON]
    _write(report, {"check": name, "passed": passed, "saw": saw})
    return passed


def _write(report: TextIO, line: dict[str, Any]) -> None:
    report.write(json.dumps(line) + "\n")
    report.flush()


def _require_no_problems(problems: Iterable[str]) -> None:
    problems = list(problems)
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckFailedError("; ".join(problems[:5]) + more)


def _rows(columns: Mapping[str, list[bytes]], signature: saved_model.Signature) -> list[dict[str, bytes]]:
    """Returns rows of input name -> text: first the hostile texts, then the test sentences.

    Each input is read from the column of the same name, or from the first column if there is none.
    """
    for name, spec in signature.inputs.items():
        if spec.dtype != "string":
            raise CheckFailedError(f"{saved_model.SERVING_DEFAULT}: input {name!r} is {spec}; its dtype must be string")
    first = next(iter(columns.values()), [])
    hostile = [dict.fromkeys(signature.inputs, text) for text in HOSTILE_TEXTS]
    return hostile + [
        {name: columns.get(name, first)[index] for name in signature.inputs} for index in range(len(first))
    ]


def _take(arrays: Mapping[str, np.ndarray], rows: list[int]) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in arrays.items()}


def _compare_rows(alone: list[dict[str, np.ndarray]], together: Exchange) -> int:
    """Compares the answers to single rows with those in a batch, and returns how many differ.

    Raises:
        CheckFailedError: too many answers differ.
    """
    differing = [
        row
        for row, answer in enumerate(alone)
        if not all(alike(answer[key][0], array[row]) for key, array in together.outputs.items())
    ]
    # Even one of a few rows can be a near tie. If rows depend on each other, more than one row differs.
    tolerated = max(1, MAX_DIFFERING_SHARE * len(alone)) if len(alone) > 2 else 0
    if len(differing) > tolerated:
        row = differing[0]
        request = _row(together.inputs, row)
        raise CheckFailedError(
            f"signature {together.signature!r}: {len(differing)} of {len(alone)} rows have different answers in a "
            f"batch and alone; the first, {request:.200}, returns {_row(alone[row], 0):.300} alone and "
            f"{_row(together.outputs, row):.300} in a batch"
        )
    return len(differing)


def _batch_size(inputs: Mapping[str, np.ndarray]) -> int:
    return next((array.shape[0] for array in inputs.values() if array.ndim), 0)


def _check_outputs(outputs: Mapping[str, np.ndarray], batch: int) -> None:
    for name, array in outputs.items():
        if array.shape[:1] != (batch,):
            raise CheckFailedError(f"output {name!r} has the shape {list(array.shape)} for a batch of {batch}")
        # REST returns outputs with this suffix as base64, so they can be any bytes.
        if array.dtype == object and not name.endswith("_bytes"):
            for text in array.flat:
                _check_utf8(name, text)


def _check_utf8(name: str, text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise CheckFailedError(f"output {name!r} is not valid UTF-8: {text!r:.200}") from error


def alike(alone: Any, together: Any) -> bool:
    """Returns whether two rows of an output are equal within tolerance; the surplus of the longer row is padding."""
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
