"""Runs a SavedModel as the model server does: on TensorFlow's C++ runtime, without Python TensorFlow and without XLA.

The C API is called through ctypes. See also saved_model.py for signatures and the conversion of inputs.
"""

import contextlib
import ctypes
import functools
import importlib.util
import os
import pathlib
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seq2serve.models.runtime import saved_model
from seq2serve.models.runtime.literal_path import literal_path
from seq2serve.models.runtime.tensorflow_stub import tensorflow_stub

with tensorflow_stub():
    from tensorflow.core.framework import kernel_def_pb2, op_def_pb2
    from tensorflow.core.protobuf import config_pb2

_STRING_BYTES = 24  # sizeof(TF_TString), the runtime's string type, on all 64-bit platforms
_ALIGNMENT = 64  # in bytes; the runtime aborts if a tensor is aligned to less
_DISABLE_XLA = "_ZN10tensorflow21DisableXlaCompilationEv"  # tensorflow::DisableXlaCompilation()
_lock = threading.Lock()


class TensorFlowError(RuntimeError):
    """The C++ runtime failed to load or to run a model.

    Args:
        code: absl's status code, as in gRPC.
        message: the runtime's message.
    """

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class SavedModelRuntime:
    """A loaded SavedModel (LoadSavedModel and Session::Run in the model server).

    It works with or without Python TensorFlow in the same process, but disables XLA for the whole process, as the model
    server does. `run` is thread-safe; `close` must not be called while a thread is in `run`.

    Args:
        directory: the folder of a SavedModel with the tag `serve`.
    Raises:
        ValueError: the folder does not contain a SavedModel with this tag.
        TensorFlowError: the runtime cannot load it.
        ImportError: TensorFlow or TensorFlow Text is not installed, or the wheel does not contain the C++ runtime.
    """

    def __init__(self, directory: str):
        self.signatures = saved_model.read_signatures(saved_model.read_meta_graph(directory))
        self._library = _load_library()
        getattr(self._library, _DISABLE_XLA)()
        session, graph = _load_session(self._library, directory)
        self._session = session
        self._finalizer = weakref.finalize(self, _delete_session, self._library, session, graph)
        self._finalizer.atexit = False  # at exit the operating system frees the memory
        self._endpoints = {
            name: tuple(_endpoints(self._library, graph, specs) for specs in signature)
            for name, signature in self.signatures.items()
        }

    def run(
        self, signature_name: str, inputs: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
            signature_name: one of `signatures`.
            inputs: input name -> array or nested list, see `saved_model.convert_inputs`.
            timeout: seconds after which the graph is stopped, in the next round of its loop; None for no limit.
        Returns:
            Output name -> array in the signature's dtype; strings as an object array of bytes.
        Raises:
            ValueError: the signature does not exist, the inputs do not fit it, or the runtime is closed.
            TensorFlowError: the graph failed; with the code DEADLINE_EXCEEDED, it was stopped.
        """
        if not self._finalizer.alive:
            raise ValueError("this SavedModelRuntime is closed")
        if signature_name not in self.signatures:
            raise ValueError(f"no signature {signature_name!r}; the model has {', '.join(self.signatures) or 'none'}")
        signature = self.signatures[signature_name]
        arrays = saved_model.convert_inputs(signature_name, signature, inputs)
        with contextlib.ExitStack() as tensors:
            feeds = (ctypes.c_void_p * len(arrays))()
            for index, (array, spec) in enumerate(zip(arrays.values(), signature.inputs.values(), strict=True)):
                feeds[index] = _make_tensor(self._library, array, spec.dtype)
                tensors.callback(self._library.TF_DeleteTensor, feeds[index])
            fetches = self._session_run(signature_name, feeds, timeout)
            for tensor in fetches:
                tensors.callback(self._library.TF_DeleteTensor, tensor)
            return {
                name: _read_tensor(self._library, tensor, spec.dtype)
                for (name, spec), tensor in zip(signature.outputs.items(), fetches, strict=True)
            }

    def _session_run(self, signature_name: str, feeds: ctypes.Array, timeout: float | None) -> ctypes.Array:
        inputs, outputs = self._endpoints[signature_name]
        fetches = (ctypes.c_void_p * len(outputs))()
        with _run_options(self._library, timeout) as options, _status(self._library) as status:
            self._library.TF_SessionRun(
                *(self._session, options, inputs, feeds, len(inputs), outputs, fetches, len(outputs)),
                *(None, 0, None, status),
            )
        return fetches

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        self._finalizer()

    def __enter__(self) -> "SavedModelRuntime":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def registered_ops() -> set[str]:
    """Returns the names of all ops that are registered in the C++ runtime, including those of TF Text."""
    library = _load_library()
    op_list = op_def_pb2.OpList.FromString(_read_buffer(library, library.TF_GetAllOpList()))
    return {op.name for op in op_list.op}


def ops_with_cpu_kernel() -> set[str]:
    """Returns the names of the ops that the C++ runtime can run on a CPU.

    An op can be registered without a kernel: the kernel of PyFunc is in the Python part of TensorFlow.
    """
    library = _load_library()
    with _status(library) as status:
        content = _read_buffer(library, library.TF_GetAllRegisteredKernels(status))
    kernels = kernel_def_pb2.KernelList.FromString(content)
    return {kernel.op for kernel in kernels.kernel if kernel.device_type in ("CPU", "DEFAULT")}


class _Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


class _Output(ctypes.Structure):
    """TF_Output: one output of one operation."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


_Deallocator = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_pointer, _text, _int, _size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
_dims = ctypes.POINTER(ctypes.c_int64)

# Function -> (result type, argument types), from tensorflow/c/c_api.h, tf_tensor.h, tf_tstring.h and kernels.h.
_PROTOTYPES = {
    "TF_NewStatus": (_pointer, ()),
    "TF_DeleteStatus": (None, (_pointer,)),
    "TF_GetCode": (_int, (_pointer,)),
    "TF_Message": (_text, (_pointer,)),
    "TF_NewBufferFromString": (ctypes.POINTER(_Buffer), (_text, _size)),
    "TF_DeleteBuffer": (None, (_pointer,)),
    "TF_LoadLibrary": (_pointer, (_text, _pointer)),
    "TF_GetAllOpList": (ctypes.POINTER(_Buffer), ()),
    "TF_GetAllRegisteredKernels": (ctypes.POINTER(_Buffer), (_pointer,)),
    "TF_NewGraph": (_pointer, ()),
    "TF_DeleteGraph": (None, (_pointer,)),
    "TF_GraphOperationByName": (_pointer, (_pointer, _text)),
    "TF_NewSessionOptions": (_pointer, ()),
    "TF_DeleteSessionOptions": (None, (_pointer,)),
    "TF_LoadSessionFromSavedModel": (
        _pointer,
        (_pointer, _pointer, _text, ctypes.POINTER(_text), _int, _pointer, _pointer, _pointer),
    ),
    "TF_SessionRun": (
        None,
        (_pointer, _pointer, _pointer, _pointer, _int, _pointer, _pointer, _int, _pointer, _int, _pointer, _pointer),
    ),
    "TF_CloseSession": (None, (_pointer, _pointer)),
    "TF_DeleteSession": (None, (_pointer, _pointer)),
    "TF_AllocateTensor": (_pointer, (_int, _dims, _int, _size)),
    "TF_NewTensor": (_pointer, (_int, _dims, _int, _pointer, _size, _Deallocator, _pointer)),
    "TF_DeleteTensor": (None, (_pointer,)),
    "TF_TensorData": (_pointer, (_pointer,)),
    "TF_NumDims": (_int, (_pointer,)),
    "TF_Dim": (ctypes.c_int64, (_pointer, _int)),
    "TF_StringInit": (None, (_pointer,)),
    "TF_StringCopy": (None, (_pointer, _text, _size)),
    "TF_StringGetDataPointer": (_pointer, (_pointer,)),
    "TF_StringGetSize": (_size, (_pointer,)),
    "TF_StringDealloc": (None, (_pointer,)),
    _DISABLE_XLA: (None, ()),
}


def _load_library() -> ctypes.CDLL:
    """Returns the C++ runtime with TF Text's ops; it is loaded once per process."""
    with _lock:
        return _load_library_once()


@functools.cache
def _load_library_once() -> ctypes.CDLL:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # fatal errors only; read when the library loads
    suffix = ".2.dylib" if sys.platform == "darwin" else ".so.2"
    folder = _wheel("tensorflow")
    try:
        with _silent_stderr():
            ctypes.CDLL(str(folder / f"libtensorflow_framework{suffix}"))
            library = ctypes.CDLL(str(folder / f"libtensorflow_cc{suffix}"))
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ImportError(f"the tensorflow wheel in {folder} has no usable C++ runtime: {error}") from error
    for path in sorted(_wheel("tensorflow_text").glob("python/*/_*.so")):
        with _status(library) as status:
            library.TF_LoadLibrary(os.fsencode(path), status)
    return library


def _wheel(package: str) -> pathlib.Path:
    # find_spec does not run the __init__ of a top-level package.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the package {package} is not installed; it contains the C++ runtime for SavedModels")
    return pathlib.Path(spec.submodule_search_locations[0])


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides messages about oneDNN and CUDA that the library writes while it loads, before the log level applies."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


@contextlib.contextmanager
def _status(library: ctypes.CDLL) -> Iterator[int]:
    """Yields a TF_Status for one call and raises TensorFlowError if the call fails."""
    status = library.TF_NewStatus()
    try:
        yield status
        code = library.TF_GetCode(status)
        if code:
            raise TensorFlowError(code, library.TF_Message(status).decode(errors="replace"))
    finally:
        library.TF_DeleteStatus(status)


@contextlib.contextmanager
def _run_options(library: ctypes.CDLL, timeout: float | None) -> Iterator[Any]:
    """Yields a TF_Buffer with RunOptions for one call, or None for the defaults."""
    if timeout is None:
        yield None
        return
    options = config_pb2.RunOptions(timeout_in_ms=max(1, round(1000 * timeout))).SerializeToString()  # 0 is no limit
    buffer = library.TF_NewBufferFromString(options, len(options))
    try:
        yield buffer
    finally:
        library.TF_DeleteBuffer(buffer)


def _read_buffer(library: ctypes.CDLL, buffer: Any) -> bytes:
    """Returns the content of a TF_Buffer and frees it."""
    content = ctypes.string_at(buffer.contents.data, buffer.contents.length)
    library.TF_DeleteBuffer(buffer)
    return content


def _load_session(library: ctypes.CDLL, directory: str) -> tuple[int, int]:
    """Loads a SavedModel. Returns pointers to the session and to its graph."""
    graph, options = library.TF_NewGraph(), library.TF_NewSessionOptions()
    tags = (ctypes.c_char_p * 1)(saved_model.SERVE.encode())
    try:
        with literal_path(directory) as path, _status(library) as status:
            export_dir = os.fsencode(path)
            session = library.TF_LoadSessionFromSavedModel(options, None, export_dir, tags, 1, graph, None, status)
    except TensorFlowError:
        library.TF_DeleteGraph(graph)
        raise
    finally:
        library.TF_DeleteSessionOptions(options)
    return session, graph


def _delete_session(library: ctypes.CDLL, session: int, graph: int) -> None:
    with _status(library) as status:
        library.TF_CloseSession(session, status)
    with _status(library) as status:
        library.TF_DeleteSession(session, status)
    library.TF_DeleteGraph(graph)


def _endpoints(library: ctypes.CDLL, graph: int, specs: Mapping[str, saved_model.TensorSpec]) -> ctypes.Array:
    """Returns the TF_Outputs of the inputs or the outputs of a signature."""
    outputs = (_Output * len(specs))()
    for index, (name, spec) in enumerate(specs.items()):
        operation, _, number = spec.tensor.partition(":")
        outputs[index] = _Output(library.TF_GraphOperationByName(graph, operation.encode()), int(number or 0))
        if not outputs[index].operation:
            raise ValueError(f"{name!r} of a signature is the tensor {spec.tensor!r}, which is not in the graph")
    return outputs


def _make_tensor(library: ctypes.CDLL, array: np.ndarray, dtype: str) -> int:
    number, dims = saved_model.DTYPE_NUMBERS[dtype], (ctypes.c_int64 * array.ndim)(*array.shape)
    if dtype == "string":
        return _make_string_tensor(library, array, number, dims)
    tensor = library.TF_AllocateTensor(number, dims, array.ndim, array.nbytes)
    ctypes.memmove(library.TF_TensorData(tensor), np.ascontiguousarray(array).ctypes.data, array.nbytes)
    return tensor


# Address -> memory of a string tensor that the runtime still uses. A graph may keep an input after the call, such as in
# a variable, so the memory is freed with the runtime's last reference.
_string_memory: dict[int, np.ndarray] = {}


def _make_string_tensor(library: ctypes.CDLL, array: np.ndarray, number: int, dims: ctypes.Array) -> int:
    memory = np.empty(array.size * _STRING_BYTES + _ALIGNMENT, np.uint8)
    start = -(-memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
    for index, text in enumerate(array.flat):
        library.TF_StringInit(start + index * _STRING_BYTES)
        library.TF_StringCopy(start + index * _STRING_BYTES, text, len(text))
    _string_memory[start] = memory
    return library.TF_NewTensor(number, dims, array.ndim, start, array.size * _STRING_BYTES, _free_strings, None)


@_Deallocator
def _free_strings(start: int, length: int, _: None) -> None:
    library = _load_library_once()
    for address in range(start, start + length, _STRING_BYTES):
        library.TF_StringDealloc(address)
    del _string_memory[start]


def _read_tensor(library: ctypes.CDLL, tensor: int, dtype: str) -> np.ndarray:
    shape = [library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor))]
    if dtype not in saved_model.DTYPE_NUMBERS:
        raise ValueError(f"an output has the dtype {dtype}, which cannot be converted to an array")
    array, data = np.empty(shape, object if dtype == "string" else dtype), library.TF_TensorData(tensor)
    if dtype != "string":
        ctypes.memmove(array.ctypes.data, data, array.nbytes)
        return array
    for index in range(array.size):
        address = data + index * _STRING_BYTES
        size = library.TF_StringGetSize(address)
        array.flat[index] = ctypes.string_at(library.TF_StringGetDataPointer(address), size)
    return array
