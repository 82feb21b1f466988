"""Fingerprints: what a result is made of, as one hash, and what differs between two of them, as words.

Comes in: a component with its input artifacts and parameters; raw files. Goes out: the parts (JSON), their hash, and
the reasons a component has to run again. Read next: runner.py, which decides by them.
"""

import ast
import dataclasses
import functools
import glob
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.artifact import Artifact, RawFiles
from components.component import Node
from components.errors import UserError
from components.file_formats import named_format, parse_roles

# Packages whose source counts even where seq2serve is installed beside the libraries.
_OWN_PACKAGES = frozenset({"pipeline", "components", "models"})
# Imported to show progress; a new version changes no result.
_COSMETIC = frozenset({"rich"})


def execution_parts(node: Node, inputs: Mapping[str, Artifact]) -> dict:
    """Collects everything an execution's result depends on.

    Args:
        node: a component with its parameters.
        inputs: input key -> published artifact.
    Returns:
        JSON: component, inputs {key: fingerprint}, parameters, code {file: SHA-256}, versions {library: version}. Beam
        options, scratch and staging folders are not in it.
    Raises:
        TypeError: a parameter does not serialise.
    """
    code, libraries = _code(node.component.function)
    return {
        "component": node.id,
        "inputs": {key: artifact.fingerprint for key, artifact in inputs.items()},
        "parameters": {key: as_json(f"{node.id}'s parameter {key!r}", node.parameters[key]) for key in node.parameters},
        "code": code,
        "versions": {"Python": ".".join(platform.python_version_tuple()[:2]), **_versions(libraries)},
    }


def fingerprint(parts: Any) -> str:
    """Returns the hex SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def changes(before: dict, after: dict) -> list[str]:
    """Says how the parts of two executions of one component differ.

    Args:
        before: `execution_parts` of the earlier one.
        after: those of the later one.
    Returns:
        One phrase a change, such as "parameter training.steps: 100 -> 200" or "code changed: models/layers.py".
    """
    found = [f"input {key} changed" for key, *_ in _differences(before["inputs"], after["inputs"])]
    old, new = _flat(before["parameters"]), _flat(after["parameters"])
    found += [f"parameter {key}: {_short(was)} -> {_short(now)}" for key, was, now in _differences(old, new)]
    files = [key for key, *_ in _differences(before["code"], after["code"])]
    found += [f"code changed: {', '.join(files)}"] if files else []
    versions = _differences(before["versions"], after["versions"])
    return found + [f"{key} {was or 'not used'} -> {now or 'not used'}" for key, was, now in versions]


def as_json(what: str, value: Any) -> Any:
    """Returns a value as plain JSON types: dataclasses as objects, tuples as lists.

    Raises:
        TypeError: something in it does not serialise; the message begins with `what`.
    """
    try:
        return json.loads(json.dumps(value, default=dataclasses.asdict, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be made of JSON values and dataclasses of such: {error}") from error


def resolve_raw_files(constant: RawFiles) -> RawFiles:
    """Finds and hashes the user's files.

    Args:
        constant: RawFiles whose uri is a path, a glob pattern (`**` for folders), a URL, or several of these with their
            roles (see components/file_formats.py).
    Returns:
        The same with the property `files`, in the order of their roles and paths, and a fingerprint of what they hold.
    Raises:
        UserError: no file, a folder, an empty file or one that cannot be read.
    """
    files, contents = [], []
    for role in parse_roles(constant.uri):
        for place, file in enumerate(_found(role.pattern)):
            given = {"split": role.split, "column": role.column}
            files.append(file | {key: value for key, value in given.items() if value})
            # Of a name only what decides how the file is read; parallel files go together by their place.
            contents.append(
                [file["sha256"], role.split, role.column, named_format(file["path"]), place if role.column else 0]
            )
    return type(constant)(constant.uri, {"files": files}, fingerprint(sorted(contents, key=str)))


def _found(pattern: str) -> list[dict]:
    """Returns the files that a path, a pattern or a URL stands for, hashed, in order."""
    if "://" not in pattern:
        return [_hashed(Path(path).absolute()) for path in _matches(pattern)]
    from components.remote_files import find_files  # imports Beam, which no run on local files should wait for

    return find_files(pattern)


def _matches(pattern: str) -> list[str]:
    """Returns the paths that a path or pattern stands for, sorted; what is there by its very name is no pattern."""
    folder, name = os.path.split(pattern)
    literal = os.path.join(glob.escape(folder), name) if os.path.isdir(folder) else pattern
    matches = [path for path in sorted(glob.glob(literal, recursive=True)) if not os.path.isdir(path)]
    paths = [pattern] if os.path.lexists(pattern) else matches
    if not paths:
        raise UserError(f"no file {pattern!r} (looked in {os.getcwd()}); give a file that exists or a pattern")
    return paths


def _hashed(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name its files, as in '{path}/*.tsv'") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not size:
        raise UserError(f"{path} is empty; give a file with at least a header and some rows")
    return {"path": str(path), "bytes": size, "sha256": digest}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested objects: {"training": {"steps": 1}} -> {"training.steps": 1}."""
    if not isinstance(value, dict) or (prefix and not value):
        return {prefix: value}
    return {
        path: leaf
        for key, child in value.items()
        for path, leaf in _flat(child, f"{prefix}.{key}" if prefix else key).items()
    }


def _differences(before: dict, after: dict) -> list[tuple[str, Any, Any]]:
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _code(function: Callable) -> tuple[dict[str, str], set[str]]:
    """Follows a function's imports, those inside functions too, without importing anything.

    Returns:
        {file: SHA-256} of the function's module and the first-party modules it reaches, files named relative to where
        imports start; and the names of the third-party modules they import.
    """
    start = function.__module__
    waiting, seen, libraries, hashes = [(start, _source_file(function))], {start}, set(), {}
    while waiting:
        module, path = waiting.pop()
        is_package = path is not None and path.name == "__init__.py"
        source = path.read_bytes() if path else inspect.getsource(function).encode()
        name = module.replace(".", "/") + ("/__init__.py" if is_package else ".py")
        hashes[name] = hashlib.sha256(source).hexdigest()
        for name in _imports(source, module if is_package else module.rpartition(".")[0]) - seen:
            seen.add(name)
            path = _first_party_file(name)
            if path:
                waiting.append((name, path))
            elif _is_library(name):
                libraries.add(name)
    return hashes, libraries


def _source_file(function: Callable) -> Path | None:
    """Returns the file that holds a function; None for one typed into a notebook."""
    path = Path(inspect.getfile(function))
    return path if path.is_file() else None


@functools.lru_cache(maxsize=1024)
def _imports(source: bytes, package: str) -> frozenset[str]:
    """Returns every module that a source may import, its parent packages included."""
    names = set()
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
            base = ".".join([*parts, *filter(None, [statement.module])])
            names.add(base)
            # `from package import name`: the name may be a module of its own.
            names.update(f"{base}.{alias.name}" for alias in statement.names)
    return frozenset(parent for name in names for parent in _with_parents(name))


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _first_party_file(module: str) -> Path | None:
    """Returns the file of a module that is neither the standard library's nor an installed library's."""
    top, *rest = module.split(".")
    folder = _first_party_folder(top)
    if folder is None:
        return None
    base = folder.joinpath(top, *rest)
    candidates = (base.with_name(f"{base.name}.py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _first_party_folder(top: str) -> Path | None:
    spec = _spec(top)
    if spec is None:
        return None
    location = Path(spec.origin or next(iter(spec.submodule_search_locations), ""))
    if {"site-packages", "dist-packages"} & set(location.parts) and top not in _OWN_PACKAGES:
        return None
    return location.parent.parent if location.name == "__init__.py" else location.parent


@functools.cache
def _spec(top: str) -> importlib.machinery.ModuleSpec | None:
    """Finds a top-level module without importing it; None for the standard library's and for what is not there."""
    if top in sys.stdlib_module_names or top == "__main__":
        return None
    try:
        return importlib.util.find_spec(top)
    except ValueError:
        return None


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in _COSMETIC and _first_party_folder(top) is None and _spec(top) is not None


def _versions(modules: set[str]) -> dict[str, str]:
    """Maps imported modules to the distributions they come from, with their versions."""
    return {name: version for module in modules for name, version in _distributions(module)}


@functools.cache
def _distributions(module: str) -> tuple[tuple[str, str], ...]:
    top, _, rest = module.partition(".")
    # A namespace such as google's belongs to many distributions; the name below it is the telling one.
    is_namespace = _spec(top).origin is None
    name = rest.partition(".")[0] if is_namespace else top
    try:
        return ((name.replace("_", "-"), importlib.metadata.version(name)),)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        names = _installed().get(top, [])
        known = names if len(names) == 1 or not is_namespace else []
        return tuple((name, importlib.metadata.version(name)) for name in known)


@functools.cache
def _installed() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
