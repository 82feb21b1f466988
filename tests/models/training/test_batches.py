"""Batches stay within their budget, contain every example once per epoch, and depend only on seed and position."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.training import pools as pools_module
from seq2serve.models.training.batches import (
    BOS_ID,
    EOS_ID,
    BatchSpec,
    class_batches,
    packed_batches,
    pad,
    pair_batches,
    plan_batches,
)
from seq2serve.models.training.pools import read_pools

BUDGET = 256


def write_examples(path: pathlib.Path, rows: Iterable[Mapping[str, Iterable[int]]]) -> str:
    """Writes rows of {column: ids} as a TFRecord file and returns its path."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            example = tf.train.Example()
            for column, ids in row.items():
                example.features.feature[f"{column}_ids"].int64_list.value.extend(ids)
            writer.write(example.SerializeToString())
    return str(path)


def draw_pairs(count: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Draws pairs with lengths like those of sentences; the first source token identifies the pair."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(2, 0.6, count), 1, 60).astype(int)
    return [
        {
            "source": [4 + number, *rng.integers(4, 50, length)],
            "target": [*rng.integers(4, 50, max(1, round(length * rng.uniform(0.7, 1.4))))],
        }
        for number, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("pairs")
    pairs = draw_pairs(600)
    return [write_examples(folder / f"{shard}.tfrecord", pairs[shard * 200 : (shard + 1) * 200]) for shard in range(3)]


def take(files, count, seed=1, start=0):
    return list(itertools.islice(pair_batches(BatchSpec(files, BUDGET, seed, start)).as_numpy_iterator(), count))


def numbers(batch) -> list[int]:
    """Returns the numbers of the pairs in a batch."""
    return (batch[0]["source"][:, 0] - 4).tolist()


def epoch(files, seed=1, start=0):
    """Returns the batches of one epoch, that is of 600 examples."""
    batches, num_examples = [], 0
    for batch in pair_batches(BatchSpec(files, BUDGET, seed, start)).as_numpy_iterator():
        batches.append(batch)
        num_examples += len(batch[1])
        if num_examples >= 600:
            return batches


LENGTHS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 200), st.integers(0, 9))
def test_plans_contain_every_example_once_within_the_budget(lengths, budget, seed):
    source, target = np.array(lengths).T
    batches = plan_batches(source, target, budget, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = np.zeros(max(source[batch].max(), target[batch].max()))
        assert len(batch) == 1 or len(batch) * pad([longest], after=[EOS_ID]).shape[1] <= budget


def test_an_epoch_contains_every_example_once(files):
    batches = epoch(files)
    assert sorted(itertools.chain(*map(numbers, batches))) == list(range(600))


def test_no_batch_exceeds_its_budget(files):
    for inputs, labels in epoch(files):
        assert max(inputs["source"].size, labels.size) <= BUDGET


def test_batches_have_little_padding():
    """With lengths like those of a corpus, random batches would be more than half padding."""
    pairs = draw_pairs(20_000)
    source, target = (np.array([len(pair[column]) for pair in pairs]) for column in ("source", "target"))
    batches = plan_batches(source, target, 4096, np.random.default_rng(0))

    def padding(lengths):
        widths = [pad([np.zeros(lengths[batch].max())], after=[EOS_ID]).shape[1] for batch in batches]
        return 1 - (lengths + 1).sum() / sum(len(batch) * width for batch, width in zip(batches, widths, strict=True))

    assert padding(target) < 0.1
    assert padding(source) < 0.3


def test_markers_are_where_the_model_expects_them(files):
    inputs, labels = take(files, 1)[0]
    for source, target, label in zip(inputs["source"], inputs["target"], labels, strict=True):
        source, target, label = (row[row != 0] for row in (source, target, label))
        assert source[-1] == EOS_ID
        assert target[0] == BOS_ID
        assert label[-1] == EOS_ID
        np.testing.assert_array_equal(target[1:], label[:-1])
    assert inputs["source"].dtype == inputs["target"].dtype == labels.dtype == np.int32


@pytest.mark.parametrize("start", [1, 17, 100])
def test_training_resumes_at_the_exact_batch(files, start):
    assert 20 < len(epoch(files)) < 50  # so that batch 100 is in a later epoch
    uninterrupted, resumed = take(files, start + 3)[start:], take(files, 3, start=start)
    for left, right in zip(uninterrupted, resumed, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, left, right)


def test_each_epoch_and_each_seed_has_its_own_order(files):
    first = epoch(files)
    second = epoch(files, start=len(first))
    other_seed = epoch(files, seed=2)
    again = epoch(files)
    orders = [list(itertools.chain(*map(numbers, batches))) for batches in (first, second, other_seed, again)]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [batch[1].shape for batch in first] != [batch[1].shape for batch in second]


def test_a_corpus_of_several_pools_has_the_same_properties(files, monkeypatch):
    """Memory is bounded; every example still comes once per epoch, and training resumes at the exact batch."""
    monkeypatch.setattr(pools_module, "POOL_EXAMPLES", 128)
    monkeypatch.setattr(pools_module, "READ_EXAMPLES", 64)
    assert [len(pool.lengths("source")) for pool in read_pools(files, ["source"])] == [128, 128, 128, 128, 88]
    batches = epoch(files)
    assert sorted(itertools.chain(*map(numbers, batches))) == list(range(600))
    second = epoch(files, start=len(batches))
    assert sorted(itertools.chain(*map(numbers, second))) == list(range(600))
    tf.nest.map_structure(np.testing.assert_array_equal, take(files, 9)[-1], take(files, 1, start=8)[0])


def test_a_corpus_without_examples_is_an_error(tmp_path):
    empty = write_examples(tmp_path / "empty.tfrecord", [])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"no examples in .*empty\.tfrecord"):
        take([empty], 1)


# Labelled texts.


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> list[str]:
    rng = np.random.default_rng(5)
    rows = [{"text": [10 + i, *rng.integers(200, 300, rng.integers(0, 9))], "label": [i % 3]} for i in range(90)]
    return [write_examples(tmp_path_factory.mktemp("labelled") / "0.tfrecord", rows)]


def test_a_label_stays_with_its_text(labelled):
    label_of = {}
    for text, labels in class_batches(BatchSpec(labelled, 64, seed=1, epochs=1)).as_numpy_iterator():
        assert text.size <= 64
        label_of.update(zip((text[:, 0] - 10).tolist(), labels.tolist(), strict=True))
        assert ((text == EOS_ID).sum(1) == 1).all()
    assert label_of == {i: i % 3 for i in range(90)}


def test_dropped_tokens_become_unknown_and_differ_between_epochs(labelled):
    def two_epochs(share, start=0):
        batches = class_batches(BatchSpec(labelled, 10_000, seed=1, start=start), share).as_numpy_iterator()
        return [text for text, _ in itertools.islice(batches, 2)]

    first, second = two_epochs(0.5)
    assert 0.4 < (first == 1).sum() / ((first != 0) & (first != EOS_ID)).sum() < 0.6
    assert (first == 1).sum(1).tolist() != (second == 1).sum(1).tolist()
    np.testing.assert_array_equal(two_epochs(0.5, start=1)[0], second)
    assert not (two_epochs(0.0)[0] == 1).any()
    assert ((first == EOS_ID).sum(1) == 1).all()


# Packed documents.

DOCUMENT_LENGTHS = (3, 40, 0, 7, 100)


def document(number: int) -> range:
    """Returns consecutive ids that identify the document and the position."""
    return range(1000 * number + 10, 1000 * number + 10 + DOCUMENT_LENGTHS[number])


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> list[str]:
    rows = [{"text": document(number)} for number in range(len(DOCUMENT_LENGTHS))]
    return [write_examples(tmp_path_factory.mktemp("documents") / "0.tfrecord", rows)]


def test_packed_rows_are_full_and_contain_every_token_once(documents):
    text, labels = (
        np.concatenate(part) for part in zip(*packed_batches(BatchSpec(documents, 48, 1, epochs=1), 16), strict=True)
    )
    assert (text[:-1] != 0).all() or (text != 0).sum() >= text.size - 15
    tokens = np.sort(labels[labels > EOS_ID])
    assert tokens.tolist() == list(itertools.chain(*map(document, range(len(DOCUMENT_LENGTHS)))))
    assert (labels == EOS_ID).sum() == 5
    assert not (labels == BOS_ID).any()


def test_a_label_is_the_next_token_of_the_same_document(documents):
    for text, labels in packed_batches(BatchSpec(documents, 48, 1, epochs=1), 16).as_numpy_iterator():
        inside = (text > EOS_ID) & (labels > EOS_ID)
        assert (labels[inside] == text[inside] + 1).all()
        assert (labels[text == EOS_ID] == 0).all()
        assert (labels[text == 0] == 0).all()


def test_packed_rows_are_cut_differently_in_each_epoch_and_training_resumes_at_the_exact_batch(documents):
    batches = list(itertools.islice(packed_batches(BatchSpec(documents, 16, 1), 16).as_numpy_iterator(), 40))
    resumed = list(itertools.islice(packed_batches(BatchSpec(documents, 16, 1, start=25), 16).as_numpy_iterator(), 15))
    for left, right in zip(batches[25:], resumed, strict=True):
        np.testing.assert_array_equal(left, right)
    first_rows = {tuple(text[0]) for text, _ in batches}
    assert len(first_rows) > 20
