"""A served model: the versions of a serving folder, loaded, warmed up and replaced while requests are answered."""

import contextlib
import ctypes
import dataclasses
import errno
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np

from seq2serve.components.pusher.versions import Served, served
from seq2serve.models.export.warmup import read_warmup_requests
from seq2serve.models.runtime import saved_model
from seq2serve.models.runtime.protos import get_model_metadata_pb2, get_model_status_pb2
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError
from seq2serve.pipeline.serving.metrics import LOAD_ATTEMPTS, Metrics

POLL_SECONDS = 1.0  # the model server's default
MAX_RETRY_SECONDS = 30.0  # the longest wait before another attempt to load a broken version

_State = get_model_status_pb2.ModelVersionStatus
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """A request that cannot be answered. `code`: a grpc.StatusCode."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class VersionSpec:
    """The version that a request is for, by number or by label; without either, the newest."""

    number: int | None = None
    label: str = ""


@dataclasses.dataclass(eq=False)
class LoadedVersion:
    """A version in memory.

    Args:
        number: version number.
        runtime: its SavedModel.
        signatures: its signatures, a tensorflow.serving.SignatureDefMap.
        users: number of requests and graph runs that use it.
    """

    number: int
    runtime: SavedModelRuntime
    signatures: Any
    users: int = 0

    def run(self, signature: str, inputs: Mapping[str, Any], timeout: float) -> dict[str, np.ndarray]:
        """Calls a signature and returns its outputs; the graph is stopped after `timeout` seconds.

        Raises:
            ServingError: there is no such signature, the inputs do not match it, or the graph fails or is stopped.
        """
        try:
            return self.runtime.run(signature, inputs, timeout)
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except TensorFlowError as error:
            code, message = _CODES.get(error.code, grpc.StatusCode.UNKNOWN), str(error)
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"the graph was stopped after {timeout:.1f} seconds; send fewer rows or shorter texts"
            raise ServingError(code, message) from error
        except MemoryError as error:
            raise ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "not enough memory for this request") from error


@dataclasses.dataclass(frozen=True)
class LoadFailure:
    """A failed attempt to load a version.

    Args:
        reason: message of the error.
        wait: seconds until the next attempt.
        due: time of the next attempt, on the monotonic clock.
    """

    reason: str
    wait: float
    due: float


class ServedModel:
    """Keeps the versions of a folder in memory that its models.config selects; by default the newest.

    A version answers requests as soon as it is loaded and warmed up. It is freed once its successor is loaded and its
    last request is answered. If a version fails to load, the versions in memory stay, and loading is retried, because
    files may still be arriving. Each switch and each failure is printed to standard error.

    One thread loads and frees the versions. Requests only take and return them, so that they never wait for that.

    Args:
        name: name of the model in requests.
        folder: a serving folder, or the folder of one SavedModel, which is served as version 1.
        metrics: counts the attempts to load a version.
    """

    def __init__(self, name: str, folder: str, metrics: Metrics):
        self.name, self.folder, self._metrics = name, folder, metrics
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._loaded: dict[int, LoadedVersion] = {}
        self._retired: list[LoadedVersion] = []  # they get no new requests
        self._newest = 0  # the version that was last announced
        self._labels: dict[str, int] = {}
        self._failures: dict[int, LoadFailure] = {}
        self._thread = threading.Thread(target=self._poll, daemon=True, name=f"poll {name}")

    def start(self) -> None:
        """Loads the versions, and starts to poll the folder for changes.

        Raises:
            ServingError: no version can be served.
        """
        self.refresh()
        if not self._loaded:
            reasons = "; ".join(f"version {number}: {failure.reason}" for number, failure in self._failures.items())
            raise ServingError(grpc.StatusCode.NOT_FOUND, reasons or f"no versions in {self.folder}")
        self._thread.start()

    def close(self, timeout: float | None = None) -> bool:
        """Stops polling, and frees the versions that are not in use.

        Args:
            timeout: seconds to wait for a version that is being loaded; by default until it is loaded.
        Returns:
            False if a version is still being loaded or in use, so that this object must not be destroyed.
        """
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        for number in list(self._loaded):
            self._retire(number)
        self._free_retired()
        return not self._retired

    def refresh(self) -> None:
        """Loads and frees versions to match the folder and its models.config."""
        self._free_retired()
        # The versions and labels that the model server would serve.
        wanted = Served("latest", (1,), {}) if self._is_single() else served(self.folder)
        if not wanted.numbers:  # the folder may be missing for a moment; the loaded versions stay
            return
        self._apply(wanted)  # frees unused versions before others are loaded, so that memory stays low
        waiting = {number for number, failure in self._failures.items() if time.monotonic() < failure.due}
        for number in sorted(set(wanted.numbers) - set(self._loaded) - waiting, reverse=True):
            self._load(number)
            self._apply(wanted)
        self._announce_switch()

    def _announce_switch(self) -> None:
        newest = max(self._loaded, default=0)
        if self._newest and newest != self._newest:
            _print(f"now serving version {newest} of {self.name}, before version {self._newest}")
        self._newest = newest

    def _apply(self, wanted: Served) -> None:
        """Moves each label whose version is loaded, and frees the other versions, but never the last that can answer.

        Source: tensorflow_serving/core/availability_preserving_policy.cc
        """
        with self._lock:
            moved = {label: number for label, number in wanted.labels.items() if number in self._loaded}
            self._labels = {label: number for label, number in self._labels.items() if label in wanted.labels} | moved
            self._failures = {number: failure for number, failure in self._failures.items() if number in wanted.numbers}
            unwanted = set(self._loaded) - set(wanted.numbers)
            if unwanted == set(self._loaded):
                unwanted.discard(max(unwanted, default=0))
        for number in unwanted:
            self._retire(number)

    @contextlib.contextmanager
    def use(self, spec: VersionSpec) -> Iterator[LoadedVersion]:
        """Yields a version, which stays in memory until the context ends.

        Raises:
            ServingError: there is no such version.
        """
        with self._lock:
            loaded = self._find(spec)
            loaded.users += 1
        try:
            yield loaded
        finally:
            self.release(loaded)

    def retain(self, loaded: LoadedVersion) -> None:
        """Keeps a version that is in use in memory until `release`, also after the context of `use` has ended."""
        with self._lock:
            loaded.users += 1

    def release(self, loaded: LoadedVersion) -> None:
        """Ends one use of a version."""
        with self._lock:
            loaded.users -= 1

    def status(self, spec: VersionSpec) -> Any:
        """Returns a GetModelStatusResponse for one version, or for all versions if `spec` is empty."""
        response = get_model_status_pb2.GetModelStatusResponse()
        with self._lock:
            states = dict.fromkeys(self._loaded, (_State.AVAILABLE, ""))
            states.update({number: (_State.END, failure.reason) for number, failure in self._failures.items()})
            if spec != VersionSpec():
                number = spec.number or self._find(spec).number
                if number not in states:
                    message = f"Could not find version {number} of model {self.name}"
                    raise ServingError(grpc.StatusCode.NOT_FOUND, message)
                states = {number: states[number]}
        for number, (state, reason) in sorted(states.items(), reverse=True):
            status = response.model_version_status.add(version=number, state=state)
            code = grpc.StatusCode.UNKNOWN if reason else grpc.StatusCode.OK
            status.status.error_code, status.status.error_message = code.value[0], reason
        return response

    def _find(self, spec: VersionSpec) -> LoadedVersion:
        number = spec.number
        if spec.label:
            if spec.label not in self._labels:
                message = f"Unrecognized servable version label: {spec.label}"
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
            number = self._labels[spec.label]
        if number is None:
            number = max(self._loaded, default=0)
        if number not in self._loaded:
            request = f"Specific({self.name}, {number})" if number else f"Latest({self.name})"
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
        return self._loaded[number]

    def _is_single(self) -> bool:
        return os.path.isfile(os.path.join(self.folder, "saved_model.pb"))

    def _load(self, number: int) -> None:
        directory = self.folder if self._is_single() else os.path.join(self.folder, str(number))
        try:
            meta_graph = saved_model.read_meta_graph(directory)
            _check_variables(directory, meta_graph)
            loaded = LoadedVersion(number, SavedModelRuntime(directory), _signature_map(meta_graph))
            for request in read_warmup_requests(directory):
                loaded.runtime.run(request.signature, request.inputs)
        except (OSError, ValueError, TensorFlowError, MemoryError) as error:
            self._metrics.count(LOAD_ATTEMPTS, model_path=directory, status="fail")
            self._record_failure(number, str(error) or "not enough memory")
            return
        self._metrics.count(LOAD_ATTEMPTS, model_path=directory, status="success")
        trim_heap()  # graph optimisation needed about twice the memory that the model keeps
        with self._lock:
            self._loaded[number] = loaded
            self._failures.pop(number, None)

    def _record_failure(self, number: int, reason: str) -> None:
        """Prints a reason once, and doubles the wait, because each attempt to load costs time."""
        before = self._failures.get(number)
        if before is None or before.reason != reason:
            _print(f"version {number} of {self.name} cannot be served: {reason}; the server tries again")
        wait = min(2 * before.wait, MAX_RETRY_SECONDS) if before else POLL_SECONDS
        with self._lock:
            self._failures[number] = LoadFailure(reason, wait, time.monotonic() + wait)

    def _retire(self, number: int) -> None:
        with self._lock:
            self._retired.append(self._loaded.pop(number))
        self._free_retired()

    def _free_retired(self) -> None:
        """Frees the retired versions that no request uses any more."""
        with self._lock:
            unused = [loaded for loaded in self._retired if not loaded.users]
            self._retired = [loaded for loaded in self._retired if loaded.users]
        for loaded in unused:
            loaded.runtime.close()
            trim_heap()

    def _poll(self) -> None:
        error = ""
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.refresh()
                error = ""
            except Exception as exception:  # whatever it is, the server must follow later versions
                if error != str(exception):
                    error = str(exception)
                    _print(f"cannot read the versions in {self.folder}: {error}; the server tries again")


def _print(message: str) -> None:
    print(f"seq2serve: {message}", file=sys.stderr, flush=True)


def trim_heap() -> None:
    """Returns free memory to the system. Otherwise glibc keeps it in fragments too small for the next version."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a libc other than glibc
            ctypes.CDLL(None).malloc_trim(0)


def _check_variables(directory: str, meta_graph: Any) -> None:
    """Raises ValueError if the variables are missing: the runtime would load the graph, and fail in each request."""
    path = os.path.join(directory, "variables", "variables.index")
    if meta_graph.saver_def.restore_op_name and not os.path.exists(path):
        raise ValueError(f"no variables: {path}: {os.strerror(errno.ENOENT)}")


def _signature_map(meta_graph: Any) -> Any:
    """Returns the signatures in the form of the model server, a SignatureDefMap."""
    result = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in meta_graph.signature_def.items():
        if not name.startswith("__saved_model"):
            result.signature_def[name].CopyFrom(definition)
    return result
