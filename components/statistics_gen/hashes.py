"""Samples of texts by their hash, which can be merged in any order."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

# A HashSample is exact up to this number of distinct texts (8 MB of hashes) and estimates above it.
SAMPLE_CAPACITY = 1 << 20


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """Returns a hash of each text, uint64."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def sample_length(hashes: np.ndarray, halvings: int) -> int:
    """Returns how many of the sorted hashes are in a sample of a share of 2 ** -halvings of all texts."""
    return int(np.searchsorted(hashes, np.uint64((1 << 64 - halvings) - 1), side="right"))


@dataclasses.dataclass
class HashSample:
    """Counts of texts by their hash: of all texts up to SAMPLE_CAPACITY, then of a share of the texts.

    The texts with the smallest hashes are kept, so two samples contain the same texts and their overlap estimates the
    overlap of the full sets. The result does not depend on the order of merging (Beyer et al. 2007, "On synopses for
    distinct-value estimation under multiset operations").

    Args:
        hashes: uint64 [N], sorted and unique.
        counts: int64 [N].
        halvings: the share of texts that is kept is 2 ** -halvings.
    """

    hashes: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.uint64))
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    halvings: int = 0

    @classmethod
    def of(cls, texts: Iterable[str]) -> "HashSample":
        """Returns the sample of `texts`."""
        return cls.of_hashes(hash_texts(texts))

    @classmethod
    def of_hashes(cls, hashes: np.ndarray) -> "HashSample":
        """Returns the sample of the texts with the given hashes, uint64."""
        hashes, counts = np.unique(hashes, return_counts=True)
        return cls(hashes, counts.astype(np.int64))

    @classmethod
    def merged(cls, samples: Iterable["HashSample"]) -> "HashSample":
        """Returns the sample of the texts of several samples together."""
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
        """Returns the sample, reduced to a share of 2 ** -halvings of all texts."""
        length = sample_length(self.hashes, halvings)
        return HashSample(self.hashes[:length], self.counts[:length], halvings)

    @property
    def num_unique(self) -> int:
        """Returns the number of distinct texts."""
        return len(self.hashes) << self.halvings

    @property
    def num_repeated(self) -> int:
        """Returns the number of duplicates, not counting the first occurrence of each text."""
        return int(self.counts.sum() - len(self.counts)) << self.halvings

    def share_in(self, other: "HashSample") -> float:
        """Returns the share of this sample's texts, including duplicates, that also occur in the other sample."""
        halvings = max(self.halvings, other.halvings)
        reduced, other_reduced = self.reduced(halvings), other.reduced(halvings)
        total = int(reduced.counts.sum())
        return int(reduced.counts[np.isin(reduced.hashes, other_reduced.hashes)].sum()) / total if total else 0.0
