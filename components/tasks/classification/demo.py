"""The demo corpus of classification: rated sentences."""

import html
import io
import pathlib
import tarfile
from collections.abc import Iterator

from seq2serve.components.storage.packages import Package, extracted
from seq2serve.components.tasks.corpus import Corpus

# Sentences with human ratings from -4 to 4 (Hutto and Gilbert 2014).
VADER = Package(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
_MIN_RATING = 0.5


def fetch_sentences() -> str:
    """Extracts the corpus of sentences with their sentiment, or returns the cached one.

    Returns:
        Path of a UTF-8 file with the header `text<TAB>label` and 9,093 rows; labels are positive and negative.
    Raises:
        UserError: the package cannot be downloaded, or the cache is damaged or not writable.
    """
    return str(extracted(VADER, "sentiment.tsv", __file__, _write_sentiment))


SENTENCES = Corpus(VADER, "MIT", lambda language: fetch_sentences(), lambda language: "classification")


def _write_sentiment(path: pathlib.Path) -> None:
    resources = f"{VADER.file.removesuffix('.tar.gz')}/additional_resources/hutto_ICWSM_2014.tar.gz"
    with tarfile.open(VADER.fetch()) as package, tarfile.open(fileobj=_member(package, resources)) as ratings:
        rows = [f"{text}\t{label}\n" for text, label in rated_sentences(ratings)]
    path.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8", newline="\n")


def _member(package: tarfile.TarFile, name: str) -> io.BytesIO:
    file = package.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return io.BytesIO(file.read())


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
