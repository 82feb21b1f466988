"""Checks of the user's files, before and after their rows are read: empty, damaged, rejected, in another encoding."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.encodings import NOT_UTF8
from seq2serve.components.example_gen.file_errors import MAX_LISTED, join_errors, join_notes
from seq2serve.components.example_gen.tables import Table
from seq2serve.components.example_gen.text_files import read_beginning
from seq2serve.components.example_gen.workers import FileCounts

Group = tuple[dict, ...]
# If this number of rows of a file is not UTF-8, and most of those beyond ASCII, then the file is in another encoding.
MIN_NOT_UTF8 = 10
_MAX_EMPTY_BYTES = 100  # a larger file has content: this is the size of an empty compressed file, with its name
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def without_empty_files(groups: list[Group]) -> tuple[list[Group], list[str]]:
    """Returns (the groups with a file that is not empty, the paths of the others); all groups if all are empty."""
    are_empty = [all(map(_is_empty, group)) for group in groups]
    filled = [group for group, is_empty in zip(groups, are_empty, strict=True) if not is_empty]
    empty = [file["path"] for group, is_empty in zip(groups, are_empty, strict=True) if is_empty for file in group]
    return (filled, sorted(empty)) if filled else (groups, [])


def _is_empty(file: dict) -> bool:
    if not file["bytes"] or file["bytes"] > _MAX_EMPTY_BYTES:
        return not file["bytes"]
    try:
        beginning = read_beginning(file["path"], _MAX_EMPTY_BYTES)
    except UserError:
        return False  # it is reported when the file is read
    mark = next((mark for mark in _MARKS if beginning.startswith(mark)), b"")
    return not beginning.removeprefix(mark).strip()


def empty_notes(paths: Sequence[str]) -> list[str]:
    """Returns a line about empty files that were skipped; none if there are none."""
    if not paths:
        return []
    more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    number = f"{len(paths)} empty files" if len(paths) > 1 else "1 empty file"
    return [f"{number} skipped: {', '.join(paths[:MAX_LISTED])}{more}"]


def merged_counts(summaries: Iterable[dict]) -> dict[str, FileCounts]:
    """Returns path -> counts of all its rows, sorted by path, from the summaries of the shards."""
    result: dict[str, FileCounts] = {}
    for summary in summaries:
        for path, part in summary["files"].items():
            counts = result.setdefault(path, FileCounts())
            for name in ("rows", "rejected", "beyond_ascii", "not_utf8"):
                setattr(counts, name, getattr(counts, name) + part[name])
            counts.first_reject = counts.first_reject or part["first_reject"]
    return dict(sorted(result.items()))


def check_damage(summaries: Iterable[dict]) -> None:
    """Raises a UserError with all files that could not be read to their end."""
    damages = {damage["message"]: damage for summary in summaries for damage in summary["damages"]}
    if damages:
        raise join_errors([UserError(d["message"], code=d["code"], **d["fields"]) for d in damages.values()])


def check_encodings(counts: dict[str, FileCounts]) -> None:
    """Raises a UserError with all files that are in another encoding, even if few of their rows are beyond ASCII."""
    errors = [
        _wrong_encoding(path, file)
        for path, file in counts.items()
        if file.not_utf8 >= MIN_NOT_UTF8 and 2 * file.not_utf8 > file.beyond_ascii
    ]
    if errors:
        raise join_errors(errors)


def _wrong_encoding(path: str, counts: FileCounts) -> UserError:
    number, line = f"{counts.not_utf8} of {counts.beyond_ascii}", counts.first_reject["line"]
    return UserError(
        f"{path}: {number} rows with characters beyond ASCII are not valid UTF-8; the first reject is in line {line} "
        f"({counts.first_reject['reason']}; {counts.first_reject['detail']})",
        code="encoding-invalid",
        path=path,
        line=line,
    )


def too_many_rejects(properties: dict[str, Any], counts: dict[str, FileCounts], max_reject_share: float) -> UserError:
    """Returns the error of too many rejected rows, with the first one of each file.

    Args:
        properties: of the Examples.
        counts: path -> counts, as `merged_counts` returns them.
        max_reject_share: the largest share that is allowed.
    """
    first, *others = [file.first_reject for file in counts.values() if file.first_reject]
    num_rejected, num_rows = properties["num_rejected"], properties["num_rows"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in properties["num_rejected_by_reason"].items())
    lines = [
        f"{_described(first)}: {first['text'][:80]!r}. This is the first of {num_rejected} rejected rows out of "
        f"{num_rows} ({reasons}), more than data.max_reject_share={max_reject_share:g} allows; fix the rows or allow a "
        "larger share",
        *(f"{_described(reject)} ({_share(counts[reject['file']])})" for reject in others[: MAX_LISTED - 1]),
    ]
    lines += [f"and {len(others) + 1 - MAX_LISTED} more files"] if len(others) >= MAX_LISTED else []
    return UserError(
        "\n  ".join(lines),
        code="too-many-rejects",
        path=first["file"],
        line=first["line"],
        reason=first["reason"],
        detail=first["detail"],
        num_rejected=num_rejected,
        num_rows=num_rows,
    )


def _described(reject: dict) -> str:
    detail = f" ({reject['detail']})" if reject["detail"] else ""
    return f"{reject['file']}, line {reject['line']}: {reject['reason']}{detail}"


def _share(counts: FileCounts) -> str:
    return f"{counts.rejected} of {counts.rows} rows rejected"


def file_notes(tables: Iterable[Table], counts: dict[str, FileCounts]) -> list[str]:
    """Returns a line for each thing that the user should know about how files were read."""
    notes = [(table.file.path, note) for table in tables for note in table.notes]
    for path, file in counts.items():
        if file.rows > 1 and file.rejected == file.rows:
            notes.append((path, f"all {file.rows} rows are rejected: {file.first_reject['reason']}"))
        elif file.first_reject and file.first_reject["reason"] == NOT_UTF8 and 2 * file.not_utf8 > file.beyond_ascii:
            number = f"{file.not_utf8} of {file.beyond_ascii} rows with characters beyond ASCII"
            notes.append((path, f"{number} are not valid UTF-8 ({file.first_reject['detail']})"))
    return join_notes(notes)
