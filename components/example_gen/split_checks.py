"""Splits that ExampleGen can't leave as the hash made them: empty ones, wrong shares, labels without training rows."""

import collections
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from seq2serve.components.base.artifact import SPLITS, Examples
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.splitting import MAX_LABELS, Splitter
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.storage.text_keys import exact_key, normalize

_MAX_DIAGNOSED_EXAMPLES = 10_000  # examples that are read to explain an empty split
_NUM_SHOWN = 5
_SHARED = {
    "loose": (
        "rows that differ only in case, digits and spaces share a split; to separate them, set data.split_key=exact"
    ),
    "exact": "equal texts share a split; remove duplicates",
}


def empty_splits(examples: Examples) -> list[str]:
    """Returns the splits without rows."""
    return [split for split, count in examples.properties["num_examples"].items() if not count]


def near_duplicates_fill_splits(examples: Examples) -> bool:
    """Returns whether most texts differ from others only in case, digits and spaces."""
    _, num_loose, num_exact = _count_distinct(examples)
    return 2 * num_loose <= num_exact


def empty_split_error(examples: Examples, split: str, uri: str, splitter: Splitter) -> UserError:
    """Returns the error of an empty split. The fix depends on whether most rows share their split with others."""
    num_rows = examples.properties["num_rows"]
    num_read, num_loose, num_exact = _count_distinct(examples)
    num_distinct = num_loose if splitter.key == "loose" else num_exact
    larger = f"set a larger share with --set data.{split}_share="
    if split == "train":
        larger = "set smaller shares with --set data.eval_share= and --set data.test_share="
    if splitter.key not in _SHARED:
        fix = f"rows with the same {splitter.key!r} share a split; add rows with other values, or {larger}"
    elif 2 * num_distinct > num_read:
        fix = f"add rows, or {larger} ({_SHARED[splitter.key]})"
    else:
        differ = "differ by more than case, digits and spaces" if splitter.key == "loose" else "differ"
        fix = (
            f"of the first {num_read} examples only {num_distinct} {differ}, and the others share a split with them; "
            f"add rows that differ, or {larger}"
        )
    return UserError(
        f"{uri}: none of {num_rows} rows falls into the {split} split; {fix}",
        code="split-empty",
        path=uri,
        split=split,
        num_rows=num_rows,
        num_distinct=num_distinct,
    )


def rare_labels_error(examples: Examples, split: str, labels: Mapping[str, frozenset[str]]) -> UserError:
    """Returns the error of a split without rows because all of them have a label that train lacks.

    Args:
        examples: with their counts.
        split: the split without rows.
        labels: label column -> its labels without a row in train before their rows were moved.
    """
    uri, num_rows = examples.properties["source"], examples.properties["num_rows"]
    column = max(labels, key=lambda name: len(labels[name]))
    listed = ", ".join(map(repr, sorted(labels[column])[:_NUM_SHOWN]))
    return UserError(
        f"{uri}: none of {num_rows} rows is left for the {split} split: {len(labels[column]):,} labels in the column "
        f"{column!r} are so rare that their rows are needed for training, such as {listed}. Name another column with "
        f"--{column} if these are no labels; otherwise merge rare labels, or add rows of each",
        code="labels-too-rare",
        path=uri,
        split=split,
        column=column,
        num_labels=len(labels[column]),
    )


def short_document_error(examples: Examples, split: str) -> UserError:
    """Returns the error of a split without rows because a document has too few parts."""
    uri, num_rows = examples.properties["source"], examples.properties["num_rows"]
    return UserError(
        f"{uri}: none of the {num_rows} parts of the document begins in the share that is held out for {split}. A part "
        "ends at the end of a line: if the lines are long, break them, for example after sentences with "
        f"sed 's/[.!?] /&\\n/g' OLD > NEW; otherwise add text, or set a larger share with --set data.{split}_share=",
        code="split-empty",
        path=uri,
        split=split,
        num_rows=num_rows,
    )


def exact_key_warning(splits: Sequence[str]) -> str:
    """Returns the warning that rows are split by their exact text because `splits` would be empty otherwise."""
    return (
        "rows that differ only in case, digits and spaces share a split by default, but that leaves no rows for "
        f"{' and '.join(splits)}, so rows are split by their exact text; set data.split_key=exact to keep this as the "
        "data grows, or data.split_key=COLUMN to split by the values of a column"
    )


def widened_warning(splitter: Splitter, num_rows: int, splits: Sequence[str]) -> str:
    """Returns the warning that larger shares are held out, because `splits` would be empty otherwise.

    Args:
        splitter: the one that left them empty.
        num_rows: of all splits.
        splits: their names.
    """
    shares = {"eval": splitter.eval_share, "test": splitter.test_share}
    wide = splitter.widened()
    changes = [
        f"data.{split}_share={wide_share:g} instead of {shares[split]:g}"
        for split, wide_share in (("eval", wide.eval_share), ("test", wide.test_share))
        if wide_share != shares[split]
    ]
    return (
        f"{num_rows} rows leave none for {' and '.join(splits)}, so the run used {' and '.join(changes)}; with this "
        "little text, metrics say little: add rows"
    )


def share_warnings(summaries: Sequence[Mapping], splitter: Splitter) -> Iterator[str]:
    """Yields a warning for each split with less than half or more than double of its share, beyond chance."""
    num_hashed: collections.Counter = collections.Counter()
    for summary in summaries:
        num_hashed.update(summary["num_hashed"])
    shares = {"eval": splitter.eval_share, "test": splitter.test_share}
    shares["train"] = 1 - sum(shares.values())
    for split in (split for split in SPLITS if shares[split]):
        count, expected = num_hashed[split], shares[split] * num_hashed.total()
        # The standard deviation of a count of independent rows is at most the root of the expected count.
        if not expected / 2 <= count <= 2 * expected and abs(count - expected) > 4 * math.sqrt(expected):
            reason = (
                _SHARED.get(splitter.key) or f"rows with the same {splitter.key!r} share a split; use smaller groups"
            )
            yield (
                f"{split} has {count / num_hashed.total():.1%} of the rows that are split by hash instead of "
                f"{shares[split]:.1%}, because {reason}"
            )


def untrained_labels(summaries: Sequence[Mapping]) -> dict[str, frozenset[str]]:
    """Returns label column -> labels of eval and test without a row in train; only columns that have some."""
    labels: dict[str, dict[str, set[str]]] = {}
    for summary in summaries:
        for column, splits in summary["labels"].items():
            for split, counts in splits.items():
                labels.setdefault(column, {}).setdefault(split, set()).update(counts)
    untrained = {
        column: frozenset().union(*splits.values()) - splits.get("train", set()) for column, splits in labels.items()
    }
    is_label = {column: len(set().union(*splits.values())) <= MAX_LABELS for column, splits in labels.items()}
    return {column: names for column, names in untrained.items() if names and is_label[column]}


def moved_labels_warning(column: str, labels: frozenset[str]) -> str:
    """Returns the warning that the rows of rare labels were moved to train."""
    listed = ", ".join(map(repr, sorted(labels)[:_NUM_SHOWN])) + (", ..." if len(labels) > _NUM_SHOWN else "")
    noun = "label" if len(labels) == 1 else "labels"
    return (
        f"{column}: the hash put no row of {len(labels):,} rare {noun} into train: "
        f"{listed}; their rows, and rows that share a split with them, are for training, so no metric covers them"
    )


def _count_distinct(examples: Examples) -> tuple[int, int, int]:
    """Returns how many examples it has read, and the number of distinct texts in their first column.

    The first number counts texts that differ by more than case, digits and spaces, the second all that differ.
    """
    column = examples.properties["columns"][0]
    loose, exact, num_read = set(), set(), 0
    for path in itertools.chain.from_iterable(shard_paths(examples, split) for split in SPLITS):
        for batch in read_batches(path, [column]):
            texts = [values[0].decode() for values in batch[column]]
            loose.update(map(normalize, texts))
            exact.update(map(exact_key, texts))
            num_read += len(texts)
        if num_read >= _MAX_DIAGNOSED_EXAMPLES:
            break
    return num_read, len(loose), len(exact)
