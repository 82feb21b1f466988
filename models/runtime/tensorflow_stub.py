"""Imports of generated code from the tensorflow package, without TensorFlow."""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def tensorflow_stub() -> Iterator[None]:
    """Makes submodules of tensorflow importable without running tensorflow itself; it can still be imported later.

    Raises:
        ImportError: TensorFlow is not installed.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package tensorflow is not installed")
    stub = types.ModuleType("tensorflow")
    stub.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = stub
    try:
        yield
    finally:
        del sys.modules["tensorflow"]
