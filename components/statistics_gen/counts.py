"""Counts of texts that can be merged: lengths, words, and how often each text occurs."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from seq2serve.components.statistics_gen.conflicts import LabelSample, labelled_rows
from seq2serve.components.statistics_gen.hashes import HashSample, hash_texts
from seq2serve.components.statistics_gen.statistics_file import MAX_LABELS
from seq2serve.components.storage.examples_io import Batch
from seq2serve.components.storage.text_keys import exact_key, normalize
from seq2serve.models.tokenizers.scripts import script

# Rows of a split that are kept as a sample. The standard error of a share among them is at most 1.6 points.
SAMPLED_ROWS = 1000
SAMPLED_CHARACTERS = 200
# The most frequent words of a shard that are kept: enough for the most frequent words of the corpus, in bounded memory.
MAX_WORDS = 1 << 15
# Longer texts and their translations differ less than this in length (Moses, clean-corpus-n).
MAX_RATIO = 9
MIN_ALIGNED_CHARACTERS = 20


@dataclasses.dataclass
class ColumnCounts:
    """The counts of one column in one split.

    Args:
        num_missing, num_empty: rows without the column, and with blank text in the column.
        characters, words: length -> number of texts.
        word_lengths: characters -> number of words.
        word_counts: word -> number of occurrences; the rare words of a large corpus are dropped.
        scripts: script -> number of texts.
        texts: the sample of the normalised texts.
        labels: label -> number of rows; None for text columns and for more than MAX_LABELS labels.
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
    """The counts of one split.

    Args:
        num_rows: all rows.
        num_untranslated: rows whose text columns are equal.
        length_ratios: characters of the second text in percent of those of the first -> number of rows.
        num_misaligned: rows in which one text is more than MAX_RATIO times as long as the other; short rows are not
            counted.
        rows: the sample of whole rows, normalised.
        exact_rows: the sample of whole rows, of which rows that differ in case or digits are different ones.
        sample: hash of a row -> its texts, shortened, and empty if missing. These are the SAMPLED_ROWS rows with the
            smallest hashes, so the order of the rows does not matter (Cohen and Kaplan 2007, bottom-k sketches).
        columns: column -> its counts.
        labels: label column -> the sample of the labels of each text.
    """

    num_rows: int = 0
    num_untranslated: int = 0
    length_ratios: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    num_misaligned: int = 0
    rows: HashSample = dataclasses.field(default_factory=HashSample)
    exact_rows: HashSample = dataclasses.field(default_factory=HashSample)
    sample: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    columns: dict[str, ColumnCounts] = dataclasses.field(default_factory=dict)
    labels: dict[str, LabelSample] = dataclasses.field(default_factory=dict)


def count_batch(batch: Batch, label_columns: Sequence[str] = ()) -> SplitCounts:
    """Counts a batch of rows.

    Args:
        batch: column -> the values of each row; empty if the row has no value.
        label_columns: those of the columns that contain labels, not text.
    """
    texts = {column: [values[0].decode() if values else None for values in rows] for column, rows in batch.items()}
    keys = {column: [text and normalize(text) for text in rows] for column, rows in texts.items()}
    rows = list(zip(*keys.values(), strict=True))
    text_rows = list(zip(*(keys[column] for column in keys if column not in label_columns), strict=True))
    hashes = _hash_rows(rows)
    exact_rows = zip(*([text and exact_key(text) for text in column] for column in texts.values()), strict=True)
    shortened = zip(*([(text or "")[:SAMPLED_CHARACTERS] for text in column] for column in texts.values()), strict=True)
    result = SplitCounts(
        num_rows=len(rows),
        num_untranslated=sum(len(row) > 1 and len(set(row)) == 1 for row in text_rows),
        rows=HashSample.of_hashes(hashes),
        exact_rows=HashSample.of_hashes(_hash_rows(exact_rows)),
        sample=_smallest(zip(hashes.tolist(), shortened, strict=True)),
        columns={column: _count_column(texts[column], keys[column], column in label_columns) for column in texts},
        labels={c: LabelSample.of(list(labelled_rows(batch, c, label_columns))) for c in label_columns if c in batch},
    )
    _count_ratios(result, text_rows)
    return result


def _hash_rows(rows: Iterable[tuple[str | None, ...]]) -> np.ndarray:
    return hash_texts("\0".join(map(str, row)) for row in rows)


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
    """Returns the summed counts of at least one part of a split. The first part's counters are updated in place."""
    return SplitCounts(
        num_rows=sum(part.num_rows for part in parts),
        num_untranslated=sum(part.num_untranslated for part in parts),
        length_ratios=_sum([part.length_ratios for part in parts]),
        num_misaligned=sum(part.num_misaligned for part in parts),
        rows=HashSample.merged(part.rows for part in parts),
        exact_rows=HashSample.merged(part.exact_rows for part in parts),
        sample=_smallest(itertools.chain.from_iterable(part.sample.items() for part in parts)),
        columns={column: _merge_columns([part.columns[column] for part in parts]) for column in parts[0].columns},
        labels={column: LabelSample.merged(part.labels[column] for part in parts) for column in parts[0].labels},
    )


def empty_like(counts: SplitCounts) -> SplitCounts:
    """Returns the counts of no rows, with the same columns."""
    return count_batch({column: [] for column in counts.columns}, tuple(counts.labels))


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
    """Returns the counts of a shard with the MAX_WORDS most frequent words of each column; ties are sorted by word."""
    columns = {}
    for name, column in counts.columns.items():
        ranked = column.word_counts.items()
        if len(ranked) > MAX_WORDS:
            ranked = sorted(ranked, key=lambda item: (-item[1], item[0]))[:MAX_WORDS]
        columns[name] = dataclasses.replace(column, word_counts=collections.Counter(dict(ranked)))
    return dataclasses.replace(counts, columns=columns)


def _smallest(rows: Iterable[tuple[int, tuple[str, ...]]]) -> dict[int, tuple[str, ...]]:
    """Returns the SAMPLED_ROWS rows with the smallest hashes; of rows with equal hashes the alphabetically first."""
    texts_by_hash: dict[int, tuple[str, ...]] = {}
    for row_hash, texts in rows:
        texts_by_hash[row_hash] = min(texts_by_hash.get(row_hash, texts), texts)
    return {row_hash: texts_by_hash[row_hash] for row_hash in sorted(texts_by_hash)[:SAMPLED_ROWS]}


def _sum(counters: list[collections.Counter]) -> collections.Counter:
    result, *rest = counters
    for counter in rest:
        result.update(counter)
    return result
