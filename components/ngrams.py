"""N-grams of characters with back-off: what a language model has to beat.

Comes in: the documents of a train split. Goes out: the log probability of others.
Read next: task_language_model.py, which asks.
"""

from collections.abc import Sequence

import numpy as np

_BITS = 12  # of a character's id in a key: five make a key of 60 bits
_START, _END, _RARE = 0, 1, 2  # ids before those of the most frequent characters
_NUM_CHARACTERS = (1 << _BITS) - 3
_NUM_UNICODE = 0x110000


def normalize(text: str) -> str:
    """Returns the text with all white space, line ends too, as single spaces, as the tokenizer reads it."""
    return " ".join(text.split())


class NgramModel:
    """Interpolated Kneser-Ney smoothing (Chen and Goodman 1999, equation 4.35), one discount an order, for characters.

    Args:
        texts: of training.
        order: n, 1 to 5; with 1 a character is as likely as it is frequent.
    """

    def __init__(self, texts: Sequence[str], order: int):
        codes = np.concatenate([_codes(text) for text in texts] or [np.empty(0, int)])
        found, counts = np.unique(codes, return_counts=True)
        frequent = found[np.argsort(-counts, kind="stable")][:_NUM_CHARACTERS]
        self._ids = np.full(_NUM_UNICODE, _RARE, np.uint64)
        self._ids[frequent] = np.arange(_RARE + 1, _RARE + 1 + len(frequent))
        # A rare character is one of all those that are not frequent.
        self._log_choice = -np.log(_NUM_UNICODE - len(frequent))
        self._num_ids = len(frequent) + 2
        self._order = order
        keys = np.concatenate([self._keys(text, order) for text in texts])
        types, counts = np.unique(keys, return_counts=True)
        self._levels = [_Level(types, counts)]
        for shorter in range(order - 1, 0, -1):
            # Below the highest order it counts in how many contexts, not how often (Kneser and Ney 1995).
            types, counts = np.unique(types & np.uint64((1 << _BITS * shorter) - 1), return_counts=True)
            self._levels.insert(0, _Level(types, counts))

    def log_probability(self, text: str) -> float:
        """Returns the natural logarithm of the probability of a text and of its end."""
        return float(self._log_probabilities(self._keys(text, self._order)).sum())

    def _log_probabilities(self, keys: np.ndarray) -> np.ndarray:
        """Returns the log probability of the last character of each n-gram given the others."""
        probability = np.full(len(keys), 1 / self._num_ids)
        for order, level in enumerate(self._levels, start=1):
            probability = level.interpolate(keys & np.uint64((1 << _BITS * order) - 1), probability)
        rare = (keys & np.uint64((1 << _BITS) - 1)) == _RARE
        return np.log(probability) + rare * self._log_choice

    def _keys(self, text: str, order: int) -> np.ndarray:
        """Returns a number for each n-gram that ends with a character of the text or with its end, uint64."""
        ids = np.concatenate([np.full(order - 1, _START), self._ids[_codes(text)], [_END]]).astype(np.uint64)
        keys = np.zeros(len(ids) - order + 1, np.uint64)
        for place in range(order):
            keys = keys << np.uint64(_BITS) | ids[place : place + len(keys)]
        return keys


class _Level:
    """The n-grams of one order.

    Args:
        types: uint64, sorted.
        counts: of each.
    """

    def __init__(self, types: np.ndarray, counts: np.ndarray):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self._types, self._counts = types, counts
        self._discount = once / (once + 2 * twice) if once else 0.5
        self._contexts, first = np.unique(types >> np.uint64(_BITS), return_index=True)
        self._totals = np.add.reduceat(counts, first)
        self._num_types = np.diff(np.append(first, len(types)))

    def interpolate(self, keys: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Returns the probability of each key's last character after the others, given that after one fewer."""
        counts = _look_up(keys, self._types, self._counts)
        contexts = keys >> np.uint64(_BITS)
        totals = _look_up(contexts, self._contexts, self._totals)
        left = self._discount * _look_up(contexts, self._contexts, self._num_types)
        known = totals > 0
        mixed = (np.maximum(counts - self._discount, 0) + left * shorter) / np.where(known, totals, 1)
        return np.where(known, mixed, shorter)


def _look_up(keys: np.ndarray, table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the value of each key, 0 where the sorted table lacks it."""
    places = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[places] == keys, values[places], 0)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
