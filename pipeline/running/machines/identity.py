"""What machines must have in common before they train together: code, libraries and data."""

import hashlib
import importlib
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2serve.pipeline.running.closure import code_of

_NAMED = 3  # differences that a message names


def names_of(functions: Sequence[Callable]) -> list[str]:
    """Returns functions and classes by name, such as "package.module:Name", for another machine to import."""
    return [f"{function.__module__}:{function.__qualname__}" for function in functions]


def functions_of(names: Sequence[str]) -> list[Callable]:
    """Imports the functions and classes of `names_of`.

    Raises:
        ImportError: this machine lacks one of them.
    """
    functions = []
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except AttributeError as error:
            raise ImportError(f"{module} has no {attribute}") from error
        functions.append(getattr(function, "function", function))  # of a component
    return functions


def identity_of(functions: Sequence[Callable]) -> dict[str, dict[str, str]]:
    """Returns the code behind functions and this package, {file: SHA-256}, and the libraries, {name: version}."""
    code, versions = code_of(functions)
    for path in Path(__file__).parent.glob("*.py"):  # the messages between machines
        code[f"{__package__.replace('.', '/')}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"code": code, "versions": {"Python": ".".join(platform.python_version_tuple()[:2]), **versions}}


def difference(chief: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Returns how a machine's identity differs from the chief's, with what to do; empty if it does not."""
    versions = _differing(chief["versions"], other.get("versions", {}))
    if versions:
        pairs = [
            f"{key} {other['versions'].get(key, 'missing')} instead of {chief['versions'].get(key)}" for key in versions
        ]
        return f"other libraries: {_listed(pairs)}; install the same versions on every machine"
    code = _differing(chief["code"], other.get("code", {}))
    return f"other code: {_listed(code)}; install the same seq2serve on every machine" if code else ""


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
