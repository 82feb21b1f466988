"""Character n-gram models with back-off: the baselines of language modelling."""

from collections.abc import Sequence

import numpy as np

_BITS = 12  # of a character's id in a key: five ids make a key of 60 bits
_START, _END, _RARE = 0, 1, 2  # ids below those of the most frequent characters
_NUM_CHARACTERS = (1 << _BITS) - 3
_NUM_UNICODE = 0x110000


class NgramModel:
    """Interpolated Kneser-Ney smoothing (Chen and Goodman 1999, equation 4.35) of characters, one discount per order.

    Args:
        texts: the training texts.
        order: n, from 1 to 5; with 1, characters have their relative frequencies as probabilities.
    """

    def __init__(self, texts: Sequence[str], order: int):
        codes = np.concatenate([_codes(text) for text in texts] or [np.empty(0, int)])
        characters, counts = np.unique(codes, return_counts=True)
        frequent = characters[np.argsort(-counts, kind="stable")][:_NUM_CHARACTERS]
        self._ids = np.full(_NUM_UNICODE, _RARE, np.uint64)
        self._ids[frequent] = np.arange(_RARE + 1, _RARE + 1 + len(frequent))
        # The id _RARE stands for all characters that are not frequent, each of them equally likely.
        self._log_choice = -np.log(_NUM_UNICODE - len(frequent))
        self._num_ids = len(frequent) + 2
        self._order = order
        keys = np.concatenate([self._keys(text, order) for text in texts])
        types, counts = np.unique(keys, return_counts=True)
        self._levels = [_Level(types, counts)]
        for shorter in range(order - 1, 0, -1):
            # Below the highest order, a count is the number of contexts, not of occurrences (Kneser and Ney 1995).
            types, counts = np.unique(types & np.uint64((1 << _BITS * shorter) - 1), return_counts=True)
            self._levels.insert(0, _Level(types, counts))

    def log_probability(self, text: str) -> float:
        """Returns the natural logarithm of the probability of a text, including its end."""
        return float(self._log_probabilities(self._keys(text, self._order)).sum())

    def _log_probabilities(self, keys: np.ndarray) -> np.ndarray:
        """Returns the log probability of the last character of each n-gram given the preceding ones."""
        probability = np.full(len(keys), 1 / self._num_ids)
        for order, level in enumerate(self._levels, start=1):
            probability = level.interpolate(keys & np.uint64((1 << _BITS * order) - 1), probability)
        is_rare = (keys & np.uint64((1 << _BITS) - 1)) == _RARE
        return np.log(probability) + is_rare * self._log_choice

    def _keys(self, text: str, order: int) -> np.ndarray:
        """Returns the keys of the n-grams that end with each character of the text and with its end, uint64."""
        ids = np.concatenate([np.full(order - 1, _START), self._ids[_codes(text)], [_END]]).astype(np.uint64)
        keys = np.zeros(len(ids) - order + 1, np.uint64)
        for offset in range(order):
            keys = keys << np.uint64(_BITS) | ids[offset : offset + len(keys)]
        return keys


class _Level:
    """The n-grams of one order.

    Args:
        types: keys of the distinct n-grams, uint64, sorted.
        counts: count of each.
    """

    def __init__(self, types: np.ndarray, counts: np.ndarray):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self._types, self._counts = types, counts
        self._discount = once / (once + 2 * twice) if once else 0.5
        self._contexts, first = np.unique(types >> np.uint64(_BITS), return_index=True)
        self._totals = np.add.reduceat(counts, first)
        self._num_types = np.diff(np.append(first, len(types)))

    def interpolate(self, keys: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Returns the probability of each key's last character.

        Args:
            keys: n-grams, uint64 [N].
            shorter: the same probability with a context that is one character shorter, [N].
        """
        counts = _look_up(keys, self._types, self._counts)
        contexts = keys >> np.uint64(_BITS)
        totals = _look_up(contexts, self._contexts, self._totals)
        back_off = self._discount * _look_up(contexts, self._contexts, self._num_types)
        is_known = totals > 0
        mixed = (np.maximum(counts - self._discount, 0) + back_off * shorter) / np.where(is_known, totals, 1)
        return np.where(is_known, mixed, shorter)


def _look_up(keys: np.ndarray, table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the value of each key, or 0 if the sorted table lacks the key."""
    indices = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[indices] == keys, values[indices], 0)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
