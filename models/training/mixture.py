"""A mixture of corpora: epochs in which each corpus has the share of its weight.

An epoch has as many examples as the files. A corpus with a small share is read in part, and the next epoch continues
there; one that is smaller than its share is drawn several times.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from seq2serve.models.training import pools
from seq2serve.models.training.pools import Pool, count_examples, joined, read_pools


def mixed_epochs(
    files: Sequence[str], columns: Sequence[str], weights: Sequence[float], seed: int
) -> Iterator[Iterator[Pool]]:
    """Yields the pools of each epoch, endlessly. Their order depends only on the files, the weights and the seed.

    Memory is bounded: at most POOL_EXAMPLES examples of all corpora are held, and a pool of as many is drawn from them.

    Args:
        files: TFRecords of tf.Example with `corpus_ids`, the number of the example's corpus.
        columns: see `read_pools`.
        weights: of each corpus, by its number; 0 for one that is not drawn.
        seed: of the order in which the examples of a corpus are drawn.
    Yields:
        The pools of an epoch, to be used before the next epoch.
    Raises:
        ValueError: there are no examples of a corpus with a weight.
    """
    size = count_examples(files)
    shares = np.array(weights, np.float64) / np.sum(weights)
    corpora = np.flatnonzero(shares).tolist()
    block = max(1, pools.POOL_EXAMPLES // len(corpora))
    streams = {corpus: CorpusStream(files, columns, corpus, seed, block) for corpus in corpora}

    def draw(start: int, end: int) -> Iterator[Pool]:
        for first in range(start, end, pools.POOL_EXAMPLES):
            last = min(first + pools.POOL_EXAMPLES, end)
            # Counted from the first epoch on, so that a small share is not rounded to nothing each time.
            numbers = {corpus: _quota(last * shares[corpus]) - _quota(first * shares[corpus]) for corpus in corpora}
            if any(numbers.values()):
                yield joined([streams[corpus].take(number) for corpus, number in numbers.items() if number])

    for epoch in itertools.count():
        yield draw(epoch * size, (epoch + 1) * size)


def _quota(examples: float) -> int:
    return int(examples + 0.5)


class CorpusStream:
    """Draws the examples of a corpus: all of them, before one is drawn again.

    The order is a permutation, drawn again for each pass, if the corpus fits into a block. A larger corpus is read
    block by block, each permuted.

    Args:
        files, columns: see `mixed_epochs`.
        corpus: its number.
        seed: of the permutations.
        block: examples of a block.
    """

    def __init__(self, files: Sequence[str], columns: Sequence[str], corpus: int, seed: int, block: int):
        self._files, self._columns, self._corpus, self._seed, self._block = files, columns, corpus, seed, block
        self._permuted = self._permute()
        self._pool: Pool | None = None
        self._left = np.zeros(0, np.int64)  # the examples of the block that are still to be drawn

    def take(self, number: int) -> Pool:
        """Returns the next examples, at least one."""
        parts = []
        while number:
            if self._pool is None or not len(self._left):
                self._pool, self._left = next(self._permuted)
            chosen, self._left = self._left[:number], self._left[number:]
            parts.append(self._pool.take(chosen))
            number -= len(chosen)
        return joined(parts)

    def _permute(self) -> Iterator[tuple[Pool, np.ndarray]]:
        """Yields a block and the order of its examples, pass after pass. A corpus of one block is read once."""
        first_blocks = list(itertools.islice(self._read(), 2))
        if not first_blocks:
            raise ValueError(f"there are no examples of corpus {self._corpus} in {', '.join(self._files)}")
        is_small = len(first_blocks) == 1
        if not is_small:
            first_blocks.clear()  # they are read again, one at a time
        for number in itertools.count():
            for index, block in enumerate(first_blocks if is_small else self._read()):
                rng = np.random.default_rng([self._seed, self._corpus, number, index])
                yield block, rng.permutation(block.num_examples)

    def _read(self) -> Iterator[Pool]:
        return read_pools(self._files, self._columns, self._block, self._corpus)
