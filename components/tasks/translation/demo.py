"""The demo corpus of translation: interface text."""

import json
import pathlib
import re
import zipfile
from collections.abc import Iterator

from seq2serve.components.base.errors import UserError, did_you_mean
from seq2serve.components.storage.packages import Package, extracted
from seq2serve.components.tasks.corpus import Corpus

# The interface text of Home Assistant, English and 63 other languages.
HOME_ASSISTANT = Package(
    "homeassistant",
    "2026.11.0",
    "homeassistant-2026.11.0-py3-none-any.whl",
    "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7",
)
# Listed here, so that a misspelled language is reported before the download.
_CODES = """
    af ar bg bn bs ca cs cy da de el en-GB eo es es-419 et eu fa fi fr fy ga gl gsw he hi hr hu hy id is it ja ka ko
    lb lt lv mk ml nb ne nl nn pl pt pt-BR ro ru sk sl sq sr sr-Latn sv ta th tr uk ur vi zh-Hans zh-Hant
"""
LANGUAGES = tuple(_CODES.split())
_UNSPACED_LANGUAGES = ("ja", "th", "zh-Hans", "zh-Hant")

# Placeholders {name}, markup <b> [a](b) `c` **d** \_ &nbsp;, links, and text with line breaks.
_NOT_PROSE = re.compile(r"[{}<>\[\]`*\\\n\r\t]|&\w+;|https?:|www\.")
_MIN_WORDS = 2


def fetch_pairs(language: str) -> str:
    """Extracts the corpus of English sentences and their translations, or returns the cached one.

    The corpus of a language is reproducible byte for byte.

    Args:
        language: one of LANGUAGES, with Home Assistant's codes, such as "de" or "pt-BR".
    Returns:
        Path of a UTF-8 file with the header `source<TAB>target`; for German it has 28,840 pairs.
    Raises:
        UserError: the language is unknown or has no pairs, the package cannot be downloaded, or the cache is damaged or
            not writable.
    """
    if language not in LANGUAGES:
        hint = did_you_mean(language.replace("_", "-"), LANGUAGES)
        raise UserError(
            f"no demo corpus for the language {language!r}{hint}; there are {', '.join(LANGUAGES)}",
            code="name-unknown",
            kind="language",
            name=language,
        )
    return str(extracted(HOME_ASSISTANT, f"en-{language}.tsv", __file__, lambda path: _write_pairs(path, language)))


PAIRS = Corpus(HOME_ASSISTANT, "Apache-2.0", fetch_pairs, lambda language: f"en-{language}")


def _write_pairs(path: pathlib.Path, language: str) -> None:
    with zipfile.ZipFile(HOME_ASSISTANT.fetch()) as package:
        rows = [f"{source}\t{target}\n" for source, target in pairs(package, language)]
    path.write_text("source\ttarget\n" + "".join(rows), encoding="utf-8", newline="\n")


def pairs(package: zipfile.ZipFile, language: str) -> Iterator[tuple[str, str]]:
    """Yields the sentence pairs of a package, sorted by the name of their component.

    Interface text has many duplicates, so each pair is taken once per section (such as `config` or `options`) of a
    component. German has 63,034 strings, of which 32,908 are usable prose. 28,840 pairs remain; 22,987 are distinct.
    "Failed to connect" still occurs hundreds of times, once per integration that can fail to connect.

    Args:
        package: the wheel.
        language: the target language; the source is English.
    Yields:
        (source, target), without surrounding white space.
    Raises:
        UserError: there are no pairs.
    """
    seen = set()
    names = package.namelist()
    suffix = f"/translations/{language}.json"
    for name in sorted(n for n in names if n.startswith("homeassistant/components/") and n.endswith(suffix)):
        component = name.removesuffix(suffix)
        english = _strings(json.loads(package.read(f"{component}/translations/en.json")))
        for key, target in _strings(json.loads(package.read(name))).items():
            pair = (english.get(key, "").strip(), target.strip())
            section_pair = (component, key[0], *pair)
            if section_pair not in seen and _is_prose(*pair, language):
                seen.add(section_pair)
                yield pair
    if not seen:
        raise UserError(
            f"{HOME_ASSISTANT.file} has no sentences in {language!r}; choose a language with more text, such as 'de'",
            code="language-without-text",
            language=language,
        )


def _strings(tree: dict, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Returns path of keys -> string for nested objects."""
    strings: dict[tuple[str, ...], str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            strings |= _strings(value, (*prefix, key))
        else:
            strings[*prefix, key] = value
    return strings


def _is_prose(source: str, target: str, language: str) -> bool:
    """Returns whether a pair is plain text, translated, and at least a phrase on both sides."""
    target_words = target if language in _UNSPACED_LANGUAGES else target.split()
    return (
        min(len(source.split()), len(target_words)) >= _MIN_WORDS
        and source.casefold() != target.casefold()
        and not _NOT_PROSE.search(source + target)
    )
