"""Corpora are mixed by weight; a corpus comes completely before one of its examples comes again; training resumes."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.training import pools as pools_module
from seq2serve.models.training.batches import BatchSpec, class_batches, packed_batches, pair_batches
from seq2serve.models.training.mixture import mixed_epochs

SIZES = (60, 540)  # of two corpora, "own" and "general"
WEIGHTS = (3.0, 1.0)
SMALL = {"POOL_EXAMPLES": 128, "READ_EXAMPLES": 64}  # several pools and blocks


def write_examples(path, rows) -> str:
    """Writes rows of {column: ids} as a TFRecord file and returns its path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            ids = {f"{c}_ids": tf.train.Feature(int64_list=tf.train.Int64List(value=row[c])) for c in row}
            writer.write(tf.train.Example(features=tf.train.Features(feature=ids)).SerializeToString())
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Shards in which the corpora follow each other; the first token of a text is 100 + the number of the row."""
    rng = np.random.default_rng(3)
    corpora = [0] * SIZES[0] + [1] * SIZES[1]
    rows = [
        {
            "corpus": [corpus],
            "label": [corpus],
            **{column: [100 + number, *rng.integers(10, 50, rng.integers(0, 20))] for column in ("source", "text")},
            "target": [*rng.integers(10, 50, rng.integers(1, 20))],
        }
        for number, corpus in enumerate(corpora)
    ]
    folder = tmp_path_factory.mktemp("corpora")
    return [write_examples(folder / f"{shard}.tfrecord", rows[shard * 200 : (shard + 1) * 200]) for shard in range(3)]


@pytest.fixture(params=[{}, SMALL], ids=["in memory", "several pools"])
def pool_sizes(request, monkeypatch):
    for name, value in request.param.items():
        monkeypatch.setattr(pools_module, name, value)


def drawn(files, epochs, weights=WEIGHTS, seed=1) -> list[list[int]]:
    """Returns the numbers of the rows that each epoch draws."""
    return [
        [int(row[0]) - 100 for pool in pools for row in pool.rows("text", np.arange(pool.num_examples))]
        for pools in itertools.islice(mixed_epochs(files, ["text"], weights, seed), epochs)
    ]


def test_every_epoch_has_the_shares_of_the_weights(files, pool_sizes):
    for rows in drawn(files, 3):
        assert len(rows) == sum(SIZES)
        assert sum(row < SIZES[0] for row in rows) == 450


def test_a_corpus_comes_completely_before_a_row_comes_again(files, pool_sizes):
    rows = list(itertools.chain(*drawn(files, 9)))
    for first, size in ((0, 60), (60, 540)):
        own = [row for row in rows if first <= row < first + size]
        passes = [own[start : start + size] for start in range(0, len(own) - size + 1, size)]
        assert len(passes) >= 2
        assert all(sorted(one) == list(range(first, first + size)) for one in passes)
        assert passes[0] != passes[1]


def test_pools_stay_small(files, monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(pools_module, name, value)
    sizes = [
        [pool.num_examples for pool in pools]
        for pools in itertools.islice(mixed_epochs(files, ["text"], WEIGHTS, 1), 2)
    ]
    assert sizes == [[128, 128, 128, 128, 88]] * 2


def test_a_small_share_is_not_rounded_to_nothing(files):
    counts = [sum(row < SIZES[0] for row in rows) for rows in drawn(files, 8, weights=(1, 2399))]
    assert sum(counts) == 2
    assert max(counts) == 1


def test_a_corpus_without_weight_is_not_drawn(files):
    (rows,) = drawn(files, 1, weights=(0.0, 2.0))
    assert min(rows) >= SIZES[0]


def test_a_corpus_without_examples_is_an_error(files):
    with pytest.raises(ValueError, match=r"no examples of corpus 2 in .*0\.tfrecord"):
        drawn(files, 1, weights=(1, 1, 1))


def test_the_order_depends_on_the_seed_only(files, pool_sizes):
    first, again, other = (drawn(files, 2, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[0] != first[1]


MAKERS = {
    "pairs": lambda files, **options: pair_batches(BatchSpec(files, 256, 1, weights=WEIGHTS, **options)),
    "classes": lambda files, **options: class_batches(BatchSpec(files, 256, 1, weights=WEIGHTS, **options), 0.1),
    "packed": lambda files, **options: packed_batches(BatchSpec(files, 256, 1, weights=WEIGHTS, **options), 32),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("start", [7, 80])
def test_training_resumes_at_the_exact_batch(files, pool_sizes, kind, start):
    def take(count, start=0):
        return list(itertools.islice(MAKERS[kind](files, start=start).as_numpy_iterator(), count))

    for left, right in zip(take(start + 3)[start:], take(3, start), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, left, right)


def test_batches_mix_the_corpora(files):
    """Texts of the corpora have similar lengths here, so that nearly every batch has the shares of the weights."""
    batches = [labels for _, labels in MAKERS["classes"](files, epochs=2).as_numpy_iterator()]
    counts = collections.Counter(np.concatenate(batches).tolist())
    assert counts == {0: 900, 1: 300}
    large = [np.mean(labels == 0) for labels in batches if len(labels) >= 16]
    assert abs(np.mean(large) - 0.75) < 0.05
    assert np.std(large) < 0.2
