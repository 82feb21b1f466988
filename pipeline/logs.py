"""Quiet by default: what the libraries would print is switched off in this one place.

Comes in: whether the user asked for more. Goes out: environment, logging and warnings set for this process and its
children. Read next: __main__.py, which calls it before anything imports TensorFlow or Beam.
"""

import contextlib
import importlib.abc
import importlib.machinery
import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator, Sequence


def set_up_logs(verbose: bool) -> None:
    """Sets how much the libraries may say; call it before TensorFlow or Beam is imported.

    Args:
        verbose: True shows Python's and TensorFlow's informative messages; False shows neither these nor warnings, and
            leaves the words to seq2serve, whose errors are exceptions.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")
    os.environ.setdefault("GRPC_VERBOSITY", "INFO" if verbose else "NONE")
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    if not verbose:
        warnings.simplefilter("ignore")
        sys.meta_path.insert(0, _QuietImport("tensorflow"))


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports one package with standard error put aside.

    TensorFlow's C++ start-up writes to file descriptor 2 before it reads TF_CPP_MIN_LOG_LEVEL; nothing else stops it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: types.ModuleType) -> None:
                with _stderr_aside():
                    execute(module)

            spec.loader.exec_module = execute_quietly
        return spec


@contextlib.contextmanager
def _stderr_aside() -> Iterator[None]:
    """Sends file descriptor 2 to a temporary file, and shows that file only if an error passes through."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(saved, 2)
            aside.seek(0)
            os.write(2, aside.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
