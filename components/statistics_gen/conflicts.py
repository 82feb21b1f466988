"""Equal texts with different labels: their number from a sample of hashes that can be merged, then some of them."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from seq2serve.components.statistics_gen.hashes import SAMPLE_CAPACITY, hash_texts, sample_length
from seq2serve.components.storage.examples_io import Batch
from seq2serve.components.storage.text_keys import exact_key

NUM_CONFLICTS = 3  # texts that are reported
_MAX_CHARACTERS = 200  # of a text that is reported


@dataclasses.dataclass
class LabelSample:
    """The labels of texts, by hash: of all texts up to SAMPLE_CAPACITY, then of a share of the texts (see HashSample).

    Args:
        hashes: of the texts, uint64 [N], sorted and unique.
        lowest, highest: the smallest and the largest hash of each text's labels, uint64 [N].
        halvings: the share of texts that is kept is 2 ** -halvings.
    """

    hashes: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    halvings: int = 0

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str]]) -> "LabelSample":
        """Returns the sample of (text, label) rows."""
        labels = hash_texts(label for _, label in rows)
        return _combined(hash_texts(text for text, _ in rows), labels, labels, 0)

    @classmethod
    def merged(cls, samples: Iterable["LabelSample"]) -> "LabelSample":
        """Returns the sample of the rows of at least one sample together."""
        samples = list(samples)
        halvings = max(sample.halvings for sample in samples)
        names = ("hashes", "lowest", "highest")
        result = _combined(*(np.concatenate([getattr(s, name) for s in samples]) for name in names), halvings)
        while True:
            length = sample_length(result.hashes, result.halvings)
            result = LabelSample(*(getattr(result, name)[:length] for name in names), result.halvings)
            if length <= SAMPLE_CAPACITY:
                return result
            result.halvings += 1

    def conflicts(self) -> tuple[int, list[int]]:
        """Returns the number of texts with different labels, and the hashes of some of them as int64, as Beam needs."""
        hashes = self.hashes[self.lowest != self.highest]
        return len(hashes) << self.halvings, hashes[:NUM_CONFLICTS].view(np.int64).tolist()


def _combined(hashes: np.ndarray, lowest: np.ndarray, highest: np.ndarray, halvings: int) -> LabelSample:
    order = np.argsort(hashes, kind="stable")
    unique, starts = np.unique(hashes[order], return_index=True)
    if not len(unique):  # NumPy reduces no empty arrays
        return LabelSample(unique, lowest, highest, halvings)
    lowest = np.minimum.reduceat(lowest[order], starts)
    return LabelSample(unique, lowest, np.maximum.reduceat(highest[order], starts), halvings)


def labelled_rows(batch: Batch, column: str, label_columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (text, label) of the rows that have both; several text columns are joined.

    Args:
        batch: column -> the values of each row.
        column: the label column.
        label_columns: all label columns.
    """
    texts = [batch[name] for name in batch if name not in label_columns]
    for values, *cells in zip(batch[column], *texts, strict=True):
        if values and all(cells):
            yield "\0".join(exact_key(cell[0].decode()) for cell in cells), values[0].decode()


def count_conflicts(batch: Batch, column: str, label_columns: Sequence[str], hashes: Sequence[int]) -> dict:
    """Counts the rows of the texts with the given hashes.

    Args:
        batch, column, label_columns: see `labelled_rows`.
        hashes: of texts, as LabelSample.conflicts returns them.
    Returns:
        (shortened text, label) -> number of rows.
    """
    rows = list(labelled_rows(batch, column, label_columns))
    is_selected = np.isin(hash_texts(text for text, _ in rows), np.array(hashes, np.int64).view(np.uint64))
    selected = (rows[index] for index in np.flatnonzero(is_selected))
    return collections.Counter((text.replace("\0", " | ")[:_MAX_CHARACTERS], label) for text, label in selected)
