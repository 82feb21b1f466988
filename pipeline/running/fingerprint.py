"""Fingerprints: everything a result depends on as one hash, and the differences between two of them in words."""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seq2serve.components.base.artifact import Artifact
from seq2serve.components.base.component import Code, Node
from seq2serve.components.storage.files import sha256_of
from seq2serve.pipeline.running.closure import code_of


def execution_parts(node: Node, inputs: Mapping[str, Artifact]) -> dict:
    """Collects everything the result of an execution depends on.

    Args:
        node: a component with its parameters.
        inputs: input key -> published artifact.
    Returns:
        JSON: component, inputs {key: fingerprint, or {split: fingerprint} if it reads only some}, parameters, code
        {file: SHA-256}, versions {library: version}. Beam options, scratch and staging folders are not part of it.
    Raises:
        TypeError: a parameter does not serialise.
    """
    component = node.component
    assert component, "raw files are not executed"
    code, versions = code_of(code_in(node))
    return {
        "component": node.id,
        "inputs": {key: _input_fingerprint(artifact, component.splits.get(key)) for key, artifact in inputs.items()},
        "parameters": {key: as_json(f"{node.id}'s parameter {key!r}", node.parameters[key]) for key in node.parameters},
        "code": code,
        "versions": {"Python": ".".join(platform.python_version_tuple()[:2]), **versions},
    }


def _input_fingerprint(artifact: Artifact, splits: tuple[str, ...] | None) -> str | dict[str, str]:
    contents = artifact.properties.get("split_fingerprints")
    return {split: contents[split] for split in splits} if splits and contents else artifact.fingerprint


def was_input(artifact: Artifact, parts: Mapping[str, Any]) -> bool:
    """Returns whether an execution with these parts read an artifact, or one with the same content in its splits."""
    contents = artifact.properties.get("split_fingerprints", {})
    return any(
        recorded
        == ({split: contents.get(split) for split in recorded} if isinstance(recorded, dict) else artifact.fingerprint)
        for recorded in parts.get("inputs", {}).values()
    )


def content_fingerprint(folder: str) -> str:
    """Returns the fingerprint of the names and contents of all files in a local folder."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return fingerprint({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


def code_in(node: Node) -> list[Callable]:
    """Returns the function of a component, and the classes of its parameters that are code."""
    assert node.component, "raw files have no code"
    return [node.component.function, *(type(value) for value in node.parameters.values() if isinstance(value, Code))]


def fingerprint(parts: Any) -> str:
    """Returns the hex SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def changes(before: dict, after: dict) -> list[str]:
    """Describes the differences between the parts of two executions of one component.

    Args:
        before: `execution_parts` of the earlier one.
        after: those of the later one.
    Returns:
        One phrase per change, such as "parameter training.steps: 100 -> 200", "input examples changed (test)" with the
        splits that changed, or "code changed: models/layers.py".
    """
    phrases = [_changed_input(*change) for change in _differences(before["inputs"], after["inputs"])]
    old, new = _flat(before["parameters"]), _flat(after["parameters"])
    phrases += [_changed_parameter(*change) for change in _differences(old, new)]
    files = [key for key, *_ in _differences(before["code"], after["code"])]
    phrases += [f"code changed: {', '.join(files)}"] if files else []
    versions = _differences(before["versions"], after["versions"])
    return phrases + [f"{key} {was or 'not used'} -> {now or 'not used'}" for key, was, now in versions]


def _changed_input(key: str, before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return f"input {key} changed ({', '.join(split for split, *_ in _differences(before, after))})"
    return f"input {key} changed"


def _changed_parameter(key: str, before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):
        gone, added = ([_short(item) for item in a if item not in b] for a, b in ((before, after), (after, before)))
        if gone or added:
            changed = [f"{word} {', '.join(items)}" for word, items in (("without", gone), ("with", added)) if items]
            return f"parameter {key}: {' and '.join(changed)}"
    return f"parameter {key}: {_short(before)} -> {_short(after)}"


def as_json(name: str, value: Any) -> Any:
    """Returns a value as plain JSON types: dataclasses as objects, tuples as lists, code by its name.

    Raises:
        TypeError: part of it does not serialise; the message begins with `name`.
    """
    try:
        return json.loads(json.dumps(value, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must consist of JSON values and dataclasses of them: {error}") from error


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Code) else dataclasses.asdict(value)


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
