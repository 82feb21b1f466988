"""What is counted of text: lengths, words, and how often each text occurs, in parts that add up.

Comes in: batches of rows. Goes out: SplitCounts, which merge in any order to the same result.
Read next: statistics_gen_beam.py, which merges them; statistics_protos.py, which writes them down.
"""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from components.example_gen_beam import normalize
from components.examples_io import Batch
from models.text_scripts import script

# How many different texts a HashSample tells apart before it begins to estimate: 8 MB of hashes.
SAMPLE_CAPACITY = 1 << 20
# Rows of a split that are kept to be read: a share among them is off by a point or so.
SAMPLED_ROWS = 1000
SAMPLED_CHARACTERS = 200
# Words of a shard that are counted on: those that the commonest of a corpus are among, and no more however large it is.
MAX_WORDS = 1 << 15
MAX_LABELS = 1000  # a column with more different values holds no labels
# Texts of more than a few words that are each other's translation differ less in length (Moses, clean-corpus-n).
MAX_RATIO = 9
MIN_ALIGNED_CHARACTERS = 20


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """Returns a hash of each text, uint64."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


@dataclasses.dataclass
class HashSample:
    """How often each text occurs, by its hash: exact up to SAMPLE_CAPACITY texts, then of a share of all texts.

    The share is decided by the hash itself (the smallest stay), so two samples are of the same texts, their overlap
    estimates the overlap of the whole, and the result depends on no order of merging (Beyer et al. 2007, "On synopses
    for distinct-value estimation under multiset operations").

    Args:
        hashes: uint64, sorted, each once.
        counts: int64, of the same length.
        halvings: the share of texts kept is 2 ** -halvings.
    """

    hashes: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.uint64))
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    halvings: int = 0

    @classmethod
    def of(cls, texts: Iterable[str]) -> "HashSample":
        """Returns the sample of some texts."""
        return cls.of_hashes(hash_texts(texts))

    @classmethod
    def of_hashes(cls, hashes: np.ndarray) -> "HashSample":
        """Returns the sample of the texts with some hashes, uint64."""
        hashes, counts = np.unique(hashes, return_counts=True)
        return cls(hashes, counts.astype(np.int64))

    @classmethod
    def merged(cls, samples: Iterable["HashSample"]) -> "HashSample":
        """Returns the sample of all the texts of several samples."""
        samples = list(samples)
        halvings = max((sample.halvings for sample in samples), default=0)
        hashes = np.concatenate([sample.hashes for sample in samples] or [np.empty(0, np.uint64)])
        counts = np.concatenate([sample.counts for sample in samples] or [np.empty(0, np.int64)])
        hashes, positions = np.unique(hashes, return_inverse=True)
        result = cls(hashes, np.bincount(positions, counts, len(hashes)).astype(np.int64), halvings)
        result = result.reduced(halvings)
        while len(result.hashes) > SAMPLE_CAPACITY:
            result = result.reduced(result.halvings + 1)
        return result

    def reduced(self, halvings: int) -> "HashSample":
        """Returns the part of the sample that a share of 2 ** -halvings keeps."""
        kept = int(np.searchsorted(self.hashes, np.uint64((1 << 64 - halvings) - 1), side="right"))
        return HashSample(self.hashes[:kept], self.counts[:kept], halvings)

    @property
    def num_unique(self) -> int:
        """Returns how many different texts there are."""
        return len(self.hashes) << self.halvings

    @property
    def num_repeated(self) -> int:
        """Returns how many texts are there for the second time or more."""
        return int(self.counts.sum() - len(self.counts)) << self.halvings

    def share_in(self, other: "HashSample") -> float:
        """Returns the share of this sample's texts, repetitions counted, that the other has, too."""
        halvings = max(self.halvings, other.halvings)
        mine, theirs = self.reduced(halvings), other.reduced(halvings)
        total = int(mine.counts.sum())
        return int(mine.counts[np.isin(mine.hashes, theirs.hashes)].sum()) / total if total else 0.0


@dataclasses.dataclass
class ColumnCounts:
    """What is counted of one column in one split.

    Args:
        num_missing, num_empty: rows without the column, and with blank text in it.
        characters, words: length -> number of texts.
        word_lengths: characters -> number of words.
        word_counts: word -> how often; of a large corpus the rare words are left out.
        scripts: script that a text is written in -> number of texts.
        texts: of the normalised texts.
        labels: text -> number of texts, of a column of labels; None once there are more than MAX_LABELS.
    """

    num_missing: int = 0
    num_empty: int = 0
    characters: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    words: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    word_lengths: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    word_counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    scripts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    texts: HashSample = dataclasses.field(default_factory=HashSample)
    labels: collections.Counter | None = None


@dataclasses.dataclass
class SplitCounts:
    """What is counted of one split.

    Args:
        num_rows: rows.
        num_untranslated: rows whose columns of text are equal.
        length_ratios: characters of the second text in per cent of those of the first -> number of rows.
        num_misaligned: rows of which one text is more than MAX_RATIO times as long as the other, and not short.
        rows: of all columns together.
        sample: hash of a row -> its texts, shortened, empty where missing; of the SAMPLED_ROWS rows with the smallest
            hashes, and so of the same rows in whatever order they come (Cohen and Kaplan 2007, bottom-k sketches).
        columns: column -> its counts.
    """

    num_rows: int = 0
    num_untranslated: int = 0
    length_ratios: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    num_misaligned: int = 0
    rows: HashSample = dataclasses.field(default_factory=HashSample)
    sample: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    columns: dict[str, ColumnCounts] = dataclasses.field(default_factory=dict)


def count_batch(batch: Batch, label_columns: Sequence[str] = ()) -> SplitCounts:
    """Counts a batch of rows.

    Args:
        batch: column -> for each row its values, none where the row lacks the column.
        label_columns: of them, those that hold labels and no text.
    """
    texts = {column: [values[0].decode() if values else None for values in rows] for column, rows in batch.items()}
    keys = {column: [text and normalize(text) for text in rows] for column, rows in texts.items()}
    rows = list(zip(*keys.values(), strict=True))
    text_rows = list(zip(*(keys[column] for column in keys if column not in label_columns), strict=True))
    hashes = hash_texts("\0".join(map(str, row)) for row in rows)
    shortened = zip(*([(text or "")[:SAMPLED_CHARACTERS] for text in column] for column in texts.values()), strict=True)
    result = SplitCounts(
        num_rows=len(rows),
        num_untranslated=sum(len(row) > 1 and len(set(row)) == 1 for row in text_rows),
        rows=HashSample.of_hashes(hashes),
        sample=_smallest(zip(hashes.tolist(), shortened, strict=True)),
        columns={column: _count_column(texts[column], keys[column], column in label_columns) for column in texts},
    )
    _count_ratios(result, text_rows)
    return result


def _count_ratios(counts: SplitCounts, rows: list[tuple[str | None, ...]]) -> None:
    for first, second in (row[:2] for row in rows if len(row) > 1 and row[0] and row[1]):
        percent = 100 * len(second) // len(first)
        counts.length_ratios[percent] += 1
        is_long = max(len(first), len(second)) >= MIN_ALIGNED_CHARACTERS
        counts.num_misaligned += is_long and not 100 / MAX_RATIO <= percent <= 100 * MAX_RATIO


def _count_column(rows: list[str | None], keys: list[str | None], is_label: bool) -> ColumnCounts:
    texts = [text for text in rows if text is not None]
    words = [text.split() for text in texts]
    return ColumnCounts(
        num_missing=len(rows) - len(texts),
        num_empty=sum(not cell for cell in words),
        characters=collections.Counter(map(len, texts)),
        words=collections.Counter(map(len, words)),
        word_lengths=collections.Counter(map(len, itertools.chain.from_iterable(words))),
        word_counts=collections.Counter(itertools.chain.from_iterable(words)),
        scripts=collections.Counter(map(script, texts)),
        texts=HashSample.of(key for key in keys if key is not None),
        labels=_bounded(collections.Counter(texts)) if is_label else None,
    )


def _bounded(labels: collections.Counter) -> collections.Counter | None:
    return labels if len(labels) <= MAX_LABELS else None


def merge_counts(parts: list[SplitCounts]) -> SplitCounts:
    """Adds up the counts of parts of a split, at least one. The first part's counters are taken over, not copied."""
    return SplitCounts(
        num_rows=sum(part.num_rows for part in parts),
        num_untranslated=sum(part.num_untranslated for part in parts),
        length_ratios=_sum([part.length_ratios for part in parts]),
        num_misaligned=sum(part.num_misaligned for part in parts),
        rows=HashSample.merged(part.rows for part in parts),
        sample=_smallest(itertools.chain.from_iterable(part.sample.items() for part in parts)),
        columns={column: _merge_columns([part.columns[column] for part in parts]) for column in parts[0].columns},
    )


def _merge_columns(parts: list[ColumnCounts]) -> ColumnCounts:
    labels = [part.labels for part in parts]
    return ColumnCounts(
        num_missing=sum(part.num_missing for part in parts),
        num_empty=sum(part.num_empty for part in parts),
        characters=_sum([part.characters for part in parts]),
        words=_sum([part.words for part in parts]),
        word_lengths=_sum([part.word_lengths for part in parts]),
        word_counts=_sum([part.word_counts for part in parts]),
        scripts=_sum([part.scripts for part in parts]),
        texts=HashSample.merged(part.texts for part in parts),
        labels=None if None in labels else _bounded(_sum(labels)),
    )


def without_rare_words(counts: SplitCounts) -> SplitCounts:
    """Returns the counts of a shard with the MAX_WORDS commonest words of each column, of equals the first by name."""
    columns = {}
    for name, column in counts.columns.items():
        ranked = column.word_counts.items()
        if len(ranked) > MAX_WORDS:
            ranked = sorted(ranked, key=lambda item: (-item[1], item[0]))[:MAX_WORDS]
        columns[name] = dataclasses.replace(column, word_counts=collections.Counter(dict(ranked)))
    return dataclasses.replace(counts, columns=columns)


def _smallest(rows: Iterable[tuple[int, tuple[str, ...]]]) -> dict[int, tuple[str, ...]]:
    """Returns the SAMPLED_ROWS rows with the smallest hashes; of rows of one hash the first by name."""
    found: dict[int, tuple[str, ...]] = {}
    for row_hash, texts in rows:
        found[row_hash] = min(found.get(row_hash, texts), texts)
    return {row_hash: found[row_hash] for row_hash in sorted(found)[:SAMPLED_ROWS]}


def _sum(counters: list[collections.Counter]) -> collections.Counter:
    result, *others = counters
    for other in others:
        result.update(other)
    return result
