"""Errors and notes about several files, in one message."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from seq2serve.components.base.errors import UserError

MAX_LISTED = 20
Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each_file(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Returns the result of a function for each item.

    Raises:
        UserError: the function fails for some items; the message has all failures.
    """
    results, errors = [], []
    for item in items:
        try:
            results.append(function(item))
        except UserError as error:
            errors.append(error)
    if errors:
        raise join_errors(errors)
    return results


def join_errors(errors: Sequence[UserError]) -> UserError:
    """Returns several errors as one. Files with the same problem share a line, and MAX_LISTED files are named.

    Args:
        errors: at least one; those that this function returned are taken apart.
    Returns:
        The error itself if there is one. Otherwise a UserError with the field `errors`, a list of {"path", "code",
        "message"}, and the errors' code if it is the same for all.
    """
    if len(errors) == 1:
        return errors[0]
    parts = [part for error in errors for part in error.fields.get("errors", [_part(error)])]
    parts.sort(key=lambda part: part["path"])  # files are read in the order of their contents, which nobody sees
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for part in parts[:MAX_LISTED]:
        problem = part["message"].replace(part["path"], "") if part["path"] else part["message"]
        by_problem.setdefault(problem, []).append(part)
    lines = [f"{len(parts)} files cannot be used:"]
    for first, *others in by_problem.values():
        lines.append(first["message"])
        lines += [f"  also {', '.join(part['path'] for part in others)}"] if others else []
    lines += [f"and {len(parts) - MAX_LISTED} more"] if len(parts) > MAX_LISTED else []
    codes = {part["code"] for part in parts}
    code = codes.pop() if len(codes) == 1 else "files-unusable"
    return UserError("\n  ".join(lines), code=code, path=parts[0]["path"], errors=parts)


def _part(error: UserError) -> dict[str, Any]:
    return {"path": str(error.fields.get("path", "")), "code": error.code, "message": str(error)}


def join_notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Returns a line for each note, by path.

    Args:
        notes: (path, note about this file).
    """
    paths_by_note: dict[str, list[str]] = {}
    for path, note in sorted(notes):
        paths_by_note.setdefault(note, []).append(path)
    return [
        f"{paths[0] if len(paths) == 1 else f'{len(paths)} files, such as {paths[0]}'}: {note}"
        for note, paths in paths_by_note.items()
    ]
