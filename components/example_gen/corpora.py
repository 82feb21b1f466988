"""The user's text as named on the command line: files with roles, of one corpus or of several with weights."""

import collections
import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from seq2serve.components.base.artifact import SPLITS
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.components.example_gen.formats import compression
from seq2serve.models.config import Range

WEIGHTS = Range(0.001, 1000)
MAX_WEIGHT_RATIO = 1000  # of two corpora: with less than a thousandth of the rows, a corpus has no effect
# `split.column=`, `split=` or `column=`
_ROLE = re.compile(rf"\s*(?:(?P<split>{'|'.join(SPLITS)})\b\.?)?(?P<column>\w*)=(?P<pattern>.*)", re.DOTALL)
_NEXT_ROLE = re.compile(r",(?=\s*[\w.]+=)")
_MAGIC = re.compile(r"[*?\[\]]+")
_OTHER_SPLIT = re.compile(rf",(?=\s*(?:{'|'.join(SPLITS)})\b[\w.]*=)")


class Role(NamedTuple):
    """The use of some files.

    Args:
        split: of their rows, empty if a hash decides.
        column: of parallel files, or empty.
        pattern: their path or pattern.
        corpus: the name of their corpus, empty if there is only one.
        weight: of that corpus in training; None if it has none.
    """

    split: str
    column: str
    pattern: str
    corpus: str = ""
    weight: float | None = None


def parse_roles(text: str, folder: str = "") -> list[Role]:
    """Parses files as they are named on the command line; `parse_data` parses those of the user's text.

    Args:
        text: a path or pattern; or parts joined by commas, each `split=pattern`, `column=pattern` or
            `split.column=pattern`, such as `train.source=a.en,train.target=a.de,test=b.tsv`.
        folder: relative paths are relative to it; empty for the current folder.
    Returns:
        The roles, in the same order.
    Raises:
        UserError: a role has no file.
    """
    if os.path.lexists(os.path.join(folder, text)):
        return [Role("", "", text)]
    matches = [_ROLE.fullmatch(part) for part in _NEXT_ROLE.split(text)]
    if not all(matches):
        return [Role("", "", text)]
    if empty := next((match for match in matches if not match["pattern"].strip(" ,")), None):
        role = empty[0].partition("=")[0].strip()
        raise UserError(f"{text!r} has no file after {role}=; write {role}=FILE", code="file-unnamed", path=text)
    return [Role(match["split"] or "", match["column"], match["pattern"].strip()) for match in matches]


def parse_data(text: str, folder: str = "") -> list[Role]:
    """Parses the user's text: what `parse_roles` parses, where a role may name several corpora, each with a weight.

    A corpus is a file, a pattern, or one of each column. Corpora are joined by commas, `own.tsv:3,general.tsv:1`, or
    have a role each, `train=own.tsv:3,train=general.tsv:1`. Commas and colons may be part of a name: an existing file
    comes first.

    Args:
        text: as on the command line.
        folder: relative paths are relative to it; empty for the current folder.
    Returns:
        The roles, in the same order. If a split has several corpora, every role has the name of its corpus. Weights
        stand only at several corpora of train, and either all of these have one or none; the default is then 1.
    Raises:
        UserError: a name or a weight is missing, a weight is not in WEIGHTS, two differ by more than MAX_WEIGHT_RATIO,
            or one does not apply to the train split.
    """
    if os.path.lexists(os.path.join(folder, text)):
        return [Role("", "", text)]
    roles = [
        Role(role.split, role.column, path, weight=weight)
        for role in _roles(text, folder)
        for path, weight in (_with_weight(part, folder) for part in _split_at_commas(role.pattern, folder))
    ]
    _check_roles(roles, text)
    corpora = _corpora(roles)
    if len(corpora) == len({_split(roles[members[0]]) for members in corpora}):
        for role in (role for role in roles if role.weight is not None):
            raise UserError(
                f"{role.pattern}: a weight compares corpora, and train has only one; remove it, or add a corpus",
                code="weight-unexpected",
                path=role.pattern,
                split=_split(role),
            )
        return roles
    names = _names([roles[members[0]].pattern for members in corpora], folder)
    weights = _weights(roles, corpora)
    for name, weight, members in zip(names, weights, corpora, strict=True):
        for index in members:
            roles[index] = roles[index]._replace(corpus=name, weight=weight)
    return roles


def corpus_weights(text: str) -> dict[str, float]:
    """Returns corpus -> weight for a text as `parse_data` takes it; empty if each row counts once."""
    return {role.corpus: role.weight for role in parse_data(text) if role.weight is not None}


def data_text(roles: Iterable[Role]) -> str:
    """Returns the text that `parse_data` parses to these roles."""
    parts = []
    for role in roles:
        # Roles keep commas of folders apart from those between corpora.
        name = ".".join(filter(None, [role.split or ("train" if role.corpus else ""), role.column]))
        weight = "" if role.weight is None else f":{role.weight!r}".removesuffix(".0")
        parts.append(f"{name}={role.pattern}{weight}" if name else role.pattern)
    return ",".join(parts)


def _roles(text: str, folder: str) -> list[Role]:
    """Returns the roles of a text, which may begin with files for train that have none."""
    head, *rest = _OTHER_SPLIT.split(text, maxsplit=1)
    others = parse_roles(rest[0], folder) if rest else []
    is_headed = others and all(role.split for role in others) and not _exists(text, folder)
    if is_headed and len(parse_roles(head, folder)) == 1 and "=" not in head:
        return [Role("train", "", head), *others]
    return parse_roles(text, folder)


def _check_roles(roles: Iterable[Role], text: str) -> None:
    for role in roles:
        if not role.pattern:
            problem = "has a comma without a file on each side; remove it, or name a file there"
            raise UserError(f"{text!r} {problem if ',' in text else 'names no file'}", code="file-unnamed", path=text)
        if role.weight is not None and role.split not in ("", "train"):
            raise UserError(
                f"{role.pattern}: weights apply only to training; remove the weight of the file for {role.split}",
                code="weight-unexpected",
                path=role.pattern,
                split=role.split,
            )


def _split(role: Role) -> str:
    return role.split or "train"


def _corpora(roles: Sequence[Role]) -> list[list[int]]:
    """Returns the indices of each corpus's roles: one, or the n-th one of each column in a split."""
    corpora: dict[tuple, list[int]] = {}
    numbers: collections.Counter = collections.Counter()
    for index, role in enumerate(roles):
        number = numbers[_split(role), role.column]
        numbers[_split(role), role.column] += 1
        corpora.setdefault((_split(role), bool(role.column), number), []).append(index)
    return list(corpora.values())


def _weights(roles: Sequence[Role], corpora: Sequence[Sequence[int]]) -> list[float | None]:
    """Returns the weight of each corpus; None if train has no weights or only one corpus, or for other splits."""
    is_train = [_split(roles[members[0]]) == "train" for members in corpora]
    named = [{roles[index].weight for index in members} - {None} for members in corpora]
    for members in (members for members, weights in zip(corpora, named, strict=True) if len(weights) > 1):
        files = " and ".join(roles[index].pattern for index in members)
        raise UserError(
            f"{files} are parallel files of one corpus and have different weights; write one", code="weight-invalid"
        )
    if sum(is_train) < 2 or not any(named):
        return [None] * len(corpora)
    weights = [next(iter(weights), 1.0) if train else None for train, weights in zip(is_train, named, strict=True)]
    known = {weight: roles[members[0]] for weight, members in zip(weights, corpora, strict=True) if weight is not None}
    low, high = min(known), max(known)
    if high > MAX_WEIGHT_RATIO * low:
        raise UserError(
            f"the weights of {known[low].pattern} ({low:g}) and {known[high].pattern} ({high:g}) differ by more than a "
            f"factor of {MAX_WEIGHT_RATIO:,}, so training would hardly see the former; raise its weight, or leave it "
            "out",
            code="weight-invalid",
            path=known[low].pattern,
            weight=f"{low:g}",
        )
    return weights


def _split_at_commas(text: str, folder: str) -> list[str]:
    """Splits names at the commas that are not part of a name: of an existing file, the longest one, or of a URL."""
    pieces, parts, is_open = text.split(","), [], False
    while pieces:
        candidates = ((n, ",".join(pieces[:n])) for n in range(len(pieces), 0, -1))
        number, name = next(((n, name) for n, name in candidates if _exists(name, folder)), (1, pieces[0]))
        is_known = _exists(name, folder)
        if is_open and name.strip() and not is_known and not is_remote(name):
            parts[-1] += f",{name}"
        else:
            parts.append(name.strip())
        # A name that no file has may have a comma, unless it ends with a weight.
        is_open = bool(name.strip()) and not is_known and not _is_number(name.rpartition(":")[2])
        pieces = pieces[number:]
    return parts


def _exists(name: str, folder: str) -> bool:
    """Returns whether there are files of a name or pattern, with or without a weight; False for URLs."""
    path, _, weight = name.rpartition(":")
    return _matches(name.strip(), folder) or ("," not in weight and _matches(path.strip(), folder))


def _matches(name: str, folder: str) -> bool:
    if not name.strip() or is_remote(name) or "\0" in name:
        return False
    if os.path.isfile(os.path.join(folder, name)):
        return True
    pattern = name if os.path.isabs(name) else os.path.join(glob.escape(folder), name)
    return glob.has_magic(name) and any(True for _ in glob.iglob(pattern, recursive=True))


def _with_weight(part: str, folder: str) -> tuple[str, float | None]:
    """Returns (path, weight or None) of a part of the text; an existing file of exactly that name has no weight."""
    path, colon, number = (word.strip() for word in part.rpartition(":"))
    if not colon or "/" in number or _matches(part, folder):
        return part, None
    is_known = _matches(path, folder)
    if number and not _is_number(number) and not is_known:
        return part, None  # a name with a colon, which will not be found
    problem, example = "", path
    if not path:
        problem, example = "there is no file before the colon", "own.tsv"
    elif not number:
        problem = "there is no weight after the colon"
    elif not is_known and not is_remote(path) and _is_number(path.rpartition(":")[2]):
        problem, example = "there are two weights", path.rpartition(":")[0]
    elif not _is_number(number) or not WEIGHTS.allows(float(number)):
        problem = f"the weight of a corpus must be a number {WEIGHTS}, got {number!r}"
    if problem:
        raise UserError(
            f"{part!r}: {problem}; write FILE:WEIGHT, such as {example}:3",
            code="weight-invalid",
            path=path,
            weight=number,
        )
    return path, float(number)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names(patterns: Sequence[str], folder: str) -> list[str]:
    """Returns a unique name for each pattern: that of its files or, if several have it, with that of their folder."""
    paths = [path if is_remote(path) else os.path.abspath(os.path.join(folder, path)) for path in patterns]
    stems = [_stem(path) for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{os.path.basename(os.path.dirname(path))}/{stem}"
        for stem, path in zip(stems, paths, strict=True)
    ]
    return list(_numbered(names))


def _numbered(names: Sequence[str]) -> Iterator[str]:
    used: set[str] = set()
    for name in names:
        others = (f"{name}-{number}" for number in itertools.count(2))
        free = (other for other in others if other not in used and other not in names)
        used.add(unique := next(free) if name in used else name)
        yield unique


def _stem(path: str) -> str:
    """Returns the name of a file without extensions; of a pattern, its constant part or the name of the folder."""
    name = os.path.basename(path)
    if not name:
        return "corpus"
    stem = os.path.splitext(os.path.splitext(name)[0] if compression(name) else name)[0]
    stem = _MAGIC.sub("", stem).strip("-_. ") if glob.has_magic(name) else stem
    return stem or _stem(os.path.dirname(path))
