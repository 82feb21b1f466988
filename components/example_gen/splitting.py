"""How rows are assigned to splits: by a hash of their text, of their exact text, or of a column."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping

from seq2serve.components.example_gen.readers.base import Row
from seq2serve.components.storage.text_keys import exact_key, normalize

MAX_LABELS = 1000  # a column with more values has no labels; SchemaGen says so
MIN_SHARE_OF_FEW = 0.2  # for eval and for test, of rows that are too few for the shares of the settings
Cells = Mapping[str, str]  # example column -> text


@dataclasses.dataclass(frozen=True)
class Splitter:
    """Assigns rows to splits by a hash of their key, so that a row's split depends on nothing else.

    With the key `loose`, texts that differ only in case, digits and spaces share a split. Otherwise the model could
    have memorised the answer to a near-duplicate of a test sentence. Only the first column, the model's input, counts:
    outputs may recur ("Connection failed" answers many questions). If outputs had to share a split as well, the splits
    would be connected components of the whole corpus, and rows would change splits as the corpus grows.

    Args:
        eval_share, test_share: expected shares of the rows, not exact ones.
        seed: of the hash; another seed gives other splits.
        key: `loose` or `exact` for the text in the first column, or the name of an example column.
        train_keys: hashes of keys whose rows are for training, whatever their share.
    """

    eval_share: float
    test_share: float
    seed: int
    key: str = "loose"
    train_keys: frozenset[str] = frozenset()

    def widened(self) -> "Splitter":
        """Returns the splitter for few rows: it holds out at least MIN_SHARE_OF_FEW for each split with a share."""
        shares = (share and max(share, MIN_SHARE_OF_FEW) for share in (self.eval_share, self.test_share))
        return dataclasses.replace(self, **dict(zip(("eval_share", "test_share"), shares, strict=True)))

    def split(self, text: str) -> str:
        """Returns the split of a row whose key column contains `text`."""
        digest = self._digest(text)
        point = int.from_bytes(digest, "big") / 2**64
        if point >= self.eval_share + self.test_share or (self.train_keys and digest.hex() in self.train_keys):
            return "train"
        return "eval" if point < self.eval_share else "test"

    def assign(self, cells: Cells) -> str:
        """Returns the split of a row."""
        return self.split(self._key_text(cells))

    def at(self, position: float) -> str:
        """Returns the split of a part of a document that begins at a share of it; the end is for eval and then test."""
        if position < 1 - self.eval_share - self.test_share:
            return "train"
        return "eval" if position < 1 - self.test_share else "test"

    def split_of(self, split: str, row: Row) -> str:
        """Returns the split of a row; `split` is that of its file, or empty."""
        return split or (self.assign(row.cells) if row.position is None else self.at(row.position))

    def key_hash(self, cells: Cells) -> str:
        """Returns the hash of a row's key."""
        return self._digest(self._key_text(cells)).hex()

    def _key_text(self, cells: Cells) -> str:
        return next(iter(cells.values())) if self.key in ("loose", "exact") else cells[self.key]

    def _digest(self, text: str) -> bytes:
        keyed = _keyed_hash(self.seed).copy()
        keyed.update((normalize if self.key == "loose" else exact_key)(text).encode())
        return keyed.digest()


@functools.cache
def _keyed_hash(seed: int) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, key=str(seed).encode())


def row_hash(cells: Cells, columns: tuple[str, ...]) -> str:
    """Returns a hash that is equal for rows whose columns are equal except for white space around them and NFC."""
    return hashlib.blake2b("\0".join(exact_key(cells[c]) for c in columns).encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True)
class HeldOutRows:
    """Selects the rows of eval and test, by the hash of the row.

    Args:
        splitter: assigns the rows of files without a split.
        columns: the columns that make rows equal.
    """

    splitter: Splitter
    columns: tuple[str, ...]

    def __call__(self, split: str, row: Row) -> str:
        """Returns the hash of a held-out row; empty for other rows. `split` is that of its file, or empty."""
        is_held_out = self.splitter.split_of(split, row) != "train"
        return row_hash(row.cells, self.columns) if is_held_out else ""


@dataclasses.dataclass(frozen=True)
class KeysOfLabels:
    """Selects the rows of some labels that the splitter has put into eval or test, by the hash of their key.

    Args:
        splitter: see HeldOutRows.
        labels: label column -> labels.
    """

    splitter: Splitter
    labels: Mapping[str, frozenset[str]]

    def __call__(self, split: str, row: Row) -> str:
        """Returns the hash of a selected row's key; empty for other rows. `split` is that of its file, or empty."""
        cells = row.cells
        has_label = not split and any(cells[column] in labels for column, labels in self.labels.items())
        return self.splitter.key_hash(cells) if has_label and self.splitter.assign(cells) != "train" else ""
