"""Silences libraries: their logging and warnings inside a `with`, and the output of a package's import."""

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

_LOGGERS = ("absl", "apache_beam", "keras", "tensorflow")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences the libraries of components inside the `with`; on exit, loggers and warnings are as before.

    Environment variables that the user has set stay. TensorFlow and gRPC read theirs when they are imported, so only
    the first call affects them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    quiet_import("tensorflow")
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def quiet_import(name: str, without: Sequence[str] = ()) -> None:
    """Makes a later import of a package silent: its standard error is shown only if the import fails.

    TensorFlow's C++ start-up writes to file descriptor 2 before it reads TF_CPP_MIN_LOG_LEVEL; nothing else stops it.

    Args:
        name: the package.
        without: optional dependencies that it does not find during its import. Afterwards they can be imported.
    """
    if not any(isinstance(finder, _QuietFinder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder(name, without))


@contextlib.contextmanager
def hidden(packages: Sequence[str]) -> Iterator[None]:
    """Makes imports of packages fail inside the `with`; a package that is already imported stays."""
    names = [name for name in packages if name not in sys.modules]
    modules: dict[str, types.ModuleType | None] = dict.fromkeys(names)
    sys.modules.update(modules)  # type: ignore[arg-type]  # for None, `import` raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Redirects file descriptor 2 to a temporary file; on an exception, its content is written to standard error."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Imports one package with standard error held back, and without some of its optional dependencies."""

    def __init__(self, name: str, without: Sequence[str]) -> None:
        self.name, self.without = name, without

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: types.ModuleType) -> None:
                with held_stderr(), hidden(self.without):
                    execute(module)

            setattr(spec.loader, "exec_module", execute_quietly)  # noqa: B010 - mypy forbids assigning to a method
        return spec
