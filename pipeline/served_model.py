"""A model that is being served: the versions of a serving folder, loaded, warmed up and changed while requests go on.

Comes in: a serving folder or a SavedModel. Goes out: answers by the version, or the label, that a request names.
Read next: serving_rest.py and serving_grpc.py, which ask; models/runtime.py, which answers.
"""

import contextlib
import ctypes
import dataclasses
import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np

from components.serving_folder import labels, read_versions
from models import saved_model
from models.runtime import SavedModelRuntime, TensorFlowError
from models.serving_protos import get_model_metadata_pb2, get_model_status_pb2, meta_graph_pb2
from models.warmup import read_warmup_requests

POLL_SECONDS = 1.0  # as the model server does
MOST_SECONDS = 30.0  # until a version that does not load is tried again

_State = get_model_status_pb2.ModelVersionStatus
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """A request that is refused; `code`: a grpc.StatusCode."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which version a request asks for: by number, by label, or neither for the newest."""

    version: int | None = None
    label: str = ""


@dataclasses.dataclass(eq=False)
class Loaded:
    """A version in memory; freed when it is retired and its last request is answered."""

    number: int
    runtime: SavedModelRuntime
    signatures: Any  # tensorflow.serving.SignatureDefMap
    users: int = 0
    retired: bool = False

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Calls a signature; returns its outputs.

        Raises:
            ServingError: no such signature, inputs that do not fit it, or the graph failed.
        """
        try:
            return self.runtime.run(signature, inputs)
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except TensorFlowError as error:
            raise ServingError(_CODES.get(error.code, grpc.StatusCode.UNKNOWN), str(error)) from error
        except MemoryError as error:
            raise ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "not enough memory for this request") from error


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a version did not load, and when to try again: after `wait` seconds, which is at `due` of the clock."""

    reason: str
    wait: float
    due: float


class ServedModel:
    """Keeps the versions in memory that the folder's labels name (the model server's version policy "specific").

    A version is answered with once it is loaded and warmed up, and let go once its successor is. One that does not load
    leaves what there was, and is tried again: its files may still be on their way.

    Args:
        name: the model's, in requests.
        folder: a serving folder, or the folder of one SavedModel, which then is version 1.
    """

    def __init__(self, name: str, folder: str):
        self.name, self.folder = name, folder
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._loaded: dict[int, Loaded] = {}
        self._labels: dict[str, int] = {}
        self._failures: dict[int, Failure] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"watch {name}")

    def start(self) -> None:
        """Loads what there is, then looks every second.

        Raises:
            ServingError: nothing there can be served.
        """
        self.refresh()
        if not self._loaded:
            reasons = "; ".join(f"version {number}: {failure.reason}" for number, failure in self._failures.items())
            raise ServingError(grpc.StatusCode.NOT_FOUND, reasons or f"there is no version in {self.folder}")
        self._thread.start()

    def close(self) -> None:
        """Stops looking, and frees each version when its last request is answered."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for number in list(self._loaded):
            self._retire(number)

    def refresh(self) -> None:
        """Loads and lets go of versions, as the folder says now."""
        wanted = self._wanted()
        if not wanted:  # the folder is away for a while; what is loaded goes on answering
            return
        self._settle(wanted)  # before the next is loaded, so that no more are in memory than have to be
        waiting = {number for number, failure in self._failures.items() if time.monotonic() < failure.due}
        for number in sorted(set(wanted.values()) - set(self._loaded) - waiting, reverse=True):
            self._load(number)
            self._settle(wanted)

    def _settle(self, wanted: Mapping[str, int]) -> None:
        """Moves each label to its version as soon as that is loaded, and lets go of what nothing names any more."""
        with self._lock:
            moved = {label: number for label, number in wanted.items() if number in self._loaded}
            self._labels = {label: number for label, number in self._labels.items() if label in wanted} | moved
            self._failures = {number: why for number, why in self._failures.items() if number in wanted.values()}
            superfluous = set(self._loaded) - set(wanted.values()) - set(self._labels.values())
        for number in superfluous:
            self._retire(number)

    def run(self, choice: Choice, signature: str, inputs: Mapping[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
        """Calls a signature; returns the version that answered, and its outputs.

        Raises:
            ServingError: no such version; or as `Loaded.run`.
        """
        with self.use(choice) as loaded:
            return loaded.number, loaded.run(signature, inputs)

    def classify(self, choice: Choice, signature: str, examples: list[bytes]) -> tuple[int, dict[str, np.ndarray]]:
        """Calls a signature that is made for it with serialised tf.Examples; see `run`.

        Returns:
            The version that answered; `classes` and `scores`, [B, C] each.
        Raises:
            ServingError: as `run`; or the signature is not one to classify with.
        """
        with self.use(choice) as loaded:
            known = loaded.signatures.signature_def
            if signature in known and known[signature].method_name != saved_model.CLASSIFY_METHOD:
                message = (
                    f"Expected classification signature method_name to be {saved_model.CLASSIFY_METHOD}. "
                    f"Was: {known[signature].method_name} (signature {signature!r})"
                )
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
            return loaded.number, loaded.run(signature, {"inputs": examples})

    @contextlib.contextmanager
    def use(self, choice: Choice) -> Iterator[Loaded]:
        """Lends a version, which stays in memory meanwhile.

        Raises:
            ServingError: there is none.
        """
        with self._lock:
            loaded = self._find(choice)
            loaded.users += 1
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.users -= 1
                last = loaded.retired and not loaded.users
            if last:
                _free(loaded)

    def status(self, choice: Choice) -> Any:
        """Returns a GetModelStatusResponse on the chosen version, or on all."""
        response = get_model_status_pb2.GetModelStatusResponse()
        with self._lock:
            states = dict.fromkeys(self._loaded, (_State.AVAILABLE, ""))
            states.update({number: (_State.END, failure.reason) for number, failure in self._failures.items()})
            if choice != Choice():
                number = choice.version or self._find(choice).number
                if number not in states:
                    message = f"Could not find version {number} of model {self.name}"
                    raise ServingError(grpc.StatusCode.NOT_FOUND, message)
                states = {number: states[number]}
        for number, (state, reason) in sorted(states.items(), reverse=True):
            status = response.model_version_status.add(version=number, state=state)
            code = grpc.StatusCode.UNKNOWN if reason else grpc.StatusCode.OK
            status.status.error_code, status.status.error_message = code.value[0], reason
        return response

    def _find(self, choice: Choice) -> Loaded:
        number = choice.version
        if choice.label:
            if choice.label not in self._labels:
                message = f"Unrecognized servable version label: {choice.label}"
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
            number = self._labels[choice.label]
        if number is None:
            number = max(self._loaded, default=0)
        if number not in self._loaded:
            asked = f"Specific({self.name}, {number})" if number else f"Latest({self.name})"
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
        return self._loaded[number]

    def _wanted(self) -> dict[str, int]:
        """Returns label -> version; a SavedModel on its own has no labels, and so stands under an empty one."""
        return {"": 1} if self._is_single() else labels(read_versions(self.folder))

    def _is_single(self) -> bool:
        return os.path.isfile(os.path.join(self.folder, "saved_model.pb"))

    def _load(self, number: int) -> None:
        directory = self.folder if self._is_single() else os.path.join(self.folder, str(number))
        try:
            meta_graph = saved_model.read_meta_graph(directory)
            _check_variables(directory, meta_graph)
            loaded = Loaded(number, SavedModelRuntime(directory), _signature_map(meta_graph))
            for request in read_warmup_requests(directory):
                loaded.runtime.run(request.signature, request.inputs)
        except (OSError, ValueError, TensorFlowError) as error:
            self._note_failure(number, str(error))
            return
        _give_memory_back()  # optimising its graphs took twice what it keeps
        with self._lock:
            self._loaded[number] = loaded
            self._failures.pop(number, None)

    def _note_failure(self, number: int, reason: str) -> None:
        """Says once why a version does not load. What is broken is tried ever more seldom, for a try takes its time."""
        before = self._failures.get(number)
        if before is None or before.reason != reason:
            logging.getLogger(__name__).error("version %d of %s cannot be served: %s", number, self.name, reason)
        wait = min(2 * before.wait, MOST_SECONDS) if before else POLL_SECONDS
        with self._lock:
            self._failures[number] = Failure(reason, wait, time.monotonic() + wait)

    def _retire(self, number: int) -> None:
        with self._lock:
            loaded = self._loaded.pop(number)
            loaded.retired = True
            idle = not loaded.users
        if idle:
            _free(loaded)

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.refresh()
            except OSError as error:
                logging.getLogger(__name__).error("cannot look into %s: %s", self.folder, error)


def _free(loaded: Loaded) -> None:
    loaded.runtime.close()
    _give_memory_back()


def _give_memory_back() -> None:
    """Returns to the system what is free: glibc would keep it, in holes that the next version may not fit."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a libc other than glibc
            ctypes.CDLL(None).malloc_trim(0)


def _check_variables(directory: str, meta_graph: Any) -> None:
    """Refuses a graph whose variables are not there yet: the runtime would load it, and then fail at each request."""
    path = os.path.join(directory, "variables", "variables.index")
    if meta_graph.saver_def.restore_op_name and not os.path.exists(path):
        raise ValueError(f"no variables: {path}: {os.strerror(errno.ENOENT)}")


def _signature_map(meta_graph: Any) -> Any:
    """Returns the signatures as the model server describes them."""
    result = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in meta_graph.signature_def.items():
        if not name.startswith("__saved_model"):
            definition = meta_graph_pb2.SignatureDef.FromString(definition.SerializeToString())
            result.signature_def[name].CopyFrom(definition)
    return result
