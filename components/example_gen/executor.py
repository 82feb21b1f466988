"""The executor of ExampleGen."""

import collections
import dataclasses
import functools
import hashlib

from seq2serve.components.base.artifact import CORPUS, SPLITS, Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import split_checks, text_files
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.example_gen.encodings import check_encoding
from seq2serve.components.example_gen.file_checks import (
    check_damage,
    check_encodings,
    empty_notes,
    file_notes,
    merged_counts,
    too_many_rejects,
    without_empty_files,
)
from seq2serve.components.example_gen.file_errors import for_each_file
from seq2serve.components.example_gen.shard_job import ShardJob
from seq2serve.components.example_gen.splitting import KeysOfLabels, Splitter
from seq2serve.components.example_gen.tables import Table, group_files, make_table, text_unit
from seq2serve.components.storage.data_records import source_files


def generate_examples(
    files: RawFiles,
    examples: Examples,
    columns: dict[str, str],
    input_config: InputConfig,
    split_config: SplitConfig,
    max_reject_share: float,
    context: Context,
    slice_columns: tuple[str, ...] = (),
) -> None:
    """Executes ExampleGen; see component.py for the arguments."""
    check_encoding(input_config.encoding)
    assigned_splits = {file.get("split", "") for file in files.properties["files"]}
    stored = columns | {name: name for name in slice_columns}
    key, read_columns = _split_key(split_config.split_key, stored)
    splitter = _make_splitter(split_config, key, assigned_splits)
    tables, empty = _make_tables(files, read_columns, dataclasses.replace(input_config, optional=slice_columns))
    extra_columns = tuple(name for name in slice_columns if name not in columns)
    job = ShardJob(tables, examples.uri, tuple(columns), extra_columns, split_config.drop_overlap, context)
    examples.properties.update(splits=list(SPLITS), columns=list(columns), source=files.uri)
    examples.properties["files_read"] = source_files(files.properties["files"])
    examples.properties.update({"slice_columns": list(slice_columns)} if slice_columns else {})
    summaries = _write(job, splitter, examples, max_reject_share)
    _set_corpora(examples, files, summaries)
    if notes := [*file_notes(tables, merged_counts(summaries)), *empty_notes(empty)]:
        examples.properties["notes"] = notes


def generate_test_examples(
    files: RawFiles,
    examples: Examples,
    columns: dict[str, str],
    input_config: InputConfig,
    max_reject_share: float,
    slice_columns: tuple[str, ...] = (),
) -> None:
    """Writes all rows of some files as the test split, to evaluate a finished model on them, and the rejects.

    Args:
        files, examples, columns, input_config, max_reject_share, slice_columns: as for ExampleGen.
    Raises:
        UserError: a column is missing, a file is damaged, there are no rows, or too many rows are rejected.
    """
    check_encoding(input_config.encoding)
    test_files = [file | {"split": "test"} for file in files.properties["files"]]
    files = RawFiles(files.uri, {"files": test_files}, files.fingerprint)
    stored = columns | {name: name for name in slice_columns}
    tables, empty = _make_tables(files, stored, dataclasses.replace(input_config, optional=slice_columns))
    job = ShardJob(tables, examples.uri, tuple(columns), slice_columns, drop_overlap=False, context=Context())
    examples.properties.update(splits=["test"], columns=list(columns), source=files.uri)
    job.make_folders()
    summaries = job.write(Splitter(0.0, 0.0, seed=0))
    _set_counts(examples, summaries)
    _check_rows(examples, summaries, max_reject_share)
    if not examples.properties["num_examples"]["test"]:
        raise UserError(f"{files.uri}: every row is rejected; fix the rows", code="rows-missing", path=files.uri)
    _set_corpora(examples, files, summaries)
    examples.properties["notes"] = [*file_notes(tables, merged_counts(summaries)), *empty_notes(empty)]


def _make_tables(files: RawFiles, columns: dict[str, str], input_config: InputConfig) -> tuple[list[Table], list[str]]:
    """Returns (the tables of the user's files, the paths of the empty ones)."""
    if CORPUS in columns and _corpora(files):
        raise UserError(
            f"with several corpora, the column {CORPUS!r} has the name of a row's corpus, so your own column of this "
            "name cannot be used; rename it in the files",
            code="column-reserved",
            column=CORPUS,
        )
    groups, empty = without_empty_files(group_files(files.properties["files"], list(columns), input_config))
    unit = text_unit([group[0] for group in groups], input_config.unit)
    input_config = dataclasses.replace(input_config, unit=unit)
    make = functools.partial(make_table, columns=columns, input_config=input_config, shard_bytes=text_files.SHARD_BYTES)
    return for_each_file(make, groups), empty


def _corpora(files: RawFiles) -> list[str]:
    """Returns the names of the corpora in the order of their files; none if there is only one."""
    return list(dict.fromkeys(file["corpus"] for file in files.properties["files"] if "corpus" in file))


def _set_corpora(examples: Examples, files: RawFiles, summaries: list[dict]) -> None:
    """Sets the rows of each corpus as a property, if there are several."""
    counts = {name: collections.Counter(dict.fromkeys(examples.properties["splits"], 0)) for name in _corpora(files)}
    for summary in summaries:
        for name, numbers in summary["corpora"].items():
            counts[name].update(numbers)
    if counts:
        examples.properties["corpora"] = {name: dict(numbers) for name, numbers in counts.items()}


def _split_key(split_key: str, columns: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Returns the Splitter's key, and the columns to read: those that are stored and, if needed, the key's."""
    if split_key in ("loose", "exact"):
        return split_key, columns
    column = next((column for column, name in columns.items() if name == split_key), split_key)
    return column, columns | {column: split_key}


def _write(job: ShardJob, splitter: Splitter, examples: Examples, max_reject_share: float) -> list[dict]:
    """Writes the examples, again if a split or a label lacks rows. Returns the summaries of the shards."""
    job.make_folders()
    summaries = job.write(splitter)
    _set_counts(examples, summaries)
    _check_rows(examples, summaries, max_reject_share)
    by_position = any(table.reader.splits_by_position for table in job.tables)
    splitter, warnings = _splitter_of_few(splitter, examples, by_position)
    summaries = job.write(splitter) if warnings else summaries
    labels, hashed = split_checks.untrained_labels(summaries), summaries
    if labels and (keys := job.hashes(KeysOfLabels(splitter, labels))):
        splitter = dataclasses.replace(splitter, train_keys=keys)
        summaries = job.write(splitter)
        still_untrained = split_checks.untrained_labels(summaries)
        moved = {column: names - still_untrained.get(column, frozenset()) for column, names in labels.items()}
        warnings += [split_checks.moved_labels_warning(column, names) for column, names in moved.items() if names]
    _set_counts(examples, summaries)
    for split in split_checks.empty_splits(examples):
        if by_position:
            raise split_checks.short_document_error(examples, split)
        if any(summary["num_examples"].get(split) for summary in hashed):
            raise split_checks.rare_labels_error(examples, split, labels)
        raise split_checks.empty_split_error(examples, split, examples.properties["source"], splitter)
    examples.properties["split_fingerprints"] = _split_fingerprints(summaries)
    warnings += split_checks.share_warnings(summaries, splitter)
    examples.properties.update({"warnings": warnings} if warnings else {})
    return summaries


def _splitter_of_few(splitter: Splitter, examples: Examples, by_position: bool) -> tuple[Splitter, list[str]]:
    """Returns the splitter for rows that are too few or too similar for `splitter`, and the warning that says so."""
    empty = split_checks.empty_splits(examples)
    if not empty:
        return splitter, []
    if not by_position and splitter.key == "loose" and split_checks.near_duplicates_fill_splits(examples):
        return dataclasses.replace(splitter, key="exact"), [split_checks.exact_key_warning(empty)]
    if "train" not in empty and splitter != splitter.widened():
        return splitter.widened(), [split_checks.widened_warning(splitter, examples.properties["num_rows"], empty)]
    return splitter, []


def _split_fingerprints(summaries: list[dict]) -> dict[str, str]:
    """Returns split -> a hash of its records: their content, order and shards, on which training depends."""
    digests: dict[str, list[str]] = {split: [] for split in SPLITS}
    for summary in summaries:
        for split, digest in summary["digests"].items():
            digests[split].append(digest)
    return {split: hashlib.sha256("\n".join(shards).encode()).hexdigest() for split, shards in digests.items()}


def _make_splitter(split_config: SplitConfig, key: str, assigned_splits: set[str]) -> Splitter:
    """Returns the splitter of the rows whose files have no split; "" in `assigned_splits` stands for such files."""
    if not assigned_splits & {"", "train"}:
        raise UserError(
            f"there are files for {' and '.join(sorted(assigned_splits))} but none for train; add train=FILE",
            code="train-files-missing",
            splits=sorted(assigned_splits),
        )
    shares = {"eval": split_config.eval_share, "test": split_config.test_share}
    shares = {split: 0.0 if split in assigned_splits else share for split, share in shares.items()}
    if not (all(share > 0 or split in assigned_splits for split, share in shares.items()) and sum(shares.values()) < 1):
        raise UserError(
            f"data.eval_share={split_config.eval_share} and data.test_share={split_config.test_share} leave a split "
            "without rows; set each above 0 and their sum below 1",
            code="split-shares-invalid",
            eval_share=split_config.eval_share,
            test_share=split_config.test_share,
        )
    return Splitter(shares["eval"], shares["test"], split_config.seed, key)


def _set_counts(examples: Examples, summaries: list[dict]) -> None:
    num_examples, reasons = collections.Counter(dict.fromkeys(SPLITS, 0)), collections.Counter()
    for summary in summaries:
        num_examples.update(summary["num_examples"])
        reasons.update(summary["reasons"])
    num_dropped = sum(summary["num_dropped"] for summary in summaries)
    examples.properties.update(
        num_rows=num_examples.total() + reasons.total() + num_dropped,
        num_examples=dict(num_examples),
        num_rejected=reasons.total(),
        num_rejected_by_reason=dict(sorted(reasons.items())),
        **({"num_dropped_by_rule": {"data.overlap=drop_from_train": num_dropped}} if num_dropped else {}),
    )


def _check_rows(examples: Examples, summaries: list[dict], max_reject_share: float) -> None:
    properties = examples.properties
    check_damage(summaries)
    if not properties["num_rows"]:
        uri = properties["source"]
        raise UserError(f"{uri}: there is a header but no rows; add one row per line", code="rows-missing", path=uri)
    if properties["num_rejected"] > max_reject_share * properties["num_rows"]:
        raise too_many_rejects(properties, merged_counts(summaries), max_reject_share)
    check_encodings(merged_counts(summaries))
