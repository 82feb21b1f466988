"""The executor of ExampleGen."""

import collections
import dataclasses

from seq2serve.components.base.artifact import SPLITS, Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import split_checks, text_files
from seq2serve.components.example_gen.formats import InputConfig, SplitConfig, group_files
from seq2serve.components.example_gen.shard_job import ShardJob
from seq2serve.components.example_gen.splitting import KeysOfLabels, Splitter
from seq2serve.components.example_gen.tables import make_table


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
    assigned_splits = {file.get("split", "") for file in files.properties["files"]}
    stored = columns | {name: name for name in slice_columns}
    key, read_columns = _split_key(split_config.split_key, stored)
    splitter = _make_splitter(split_config, key, assigned_splits)
    groups = group_files(files.properties["files"], list(read_columns), input_config)
    tables = [make_table(group, read_columns, input_config, text_files.SHARD_BYTES) for group in groups]
    extra_columns = tuple(name for name in slice_columns if name not in columns)
    job = ShardJob(tables, examples.uri, tuple(columns), extra_columns, split_config.drop_overlap, context)
    examples.properties.update(splits=list(SPLITS), columns=list(columns), source=files.uri)
    examples.properties.update({"slice_columns": list(slice_columns)} if slice_columns else {})
    _write(job, splitter, examples, max_reject_share)


def _split_key(split_key: str, columns: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Returns the Splitter's key, and the columns to read: those that are stored and, if needed, the key's."""
    if split_key in ("loose", "exact"):
        return split_key, columns
    column = next((column for column, name in columns.items() if name == split_key), split_key)
    return column, columns | {column: split_key}


def _write(job: ShardJob, splitter: Splitter, examples: Examples, max_reject_share: float) -> None:
    """Writes the examples; again if the hash leaves a split without rows, or train without a label's rows."""
    job.make_folders()
    summaries, warnings = job.write(splitter), []
    _set_counts(examples, summaries)
    _check_rows(examples, summaries, max_reject_share)
    empty = split_checks.empty_splits(examples)
    if empty and splitter.key == "loose" and split_checks.near_duplicates_fill_splits(examples):
        warnings.append(split_checks.exact_key_warning(empty))
        splitter = dataclasses.replace(splitter, key="exact")
        summaries = job.write(splitter)
    labels = split_checks.untrained_labels(summaries)
    if labels and (keys := job.hashes(KeysOfLabels(splitter, labels))):
        splitter = dataclasses.replace(splitter, train_keys=keys)
        summaries = job.write(splitter)
        still_untrained = split_checks.untrained_labels(summaries)
        moved = {column: names - still_untrained.get(column, frozenset()) for column, names in labels.items()}
        warnings += [split_checks.moved_labels_warning(column, names) for column, names in moved.items() if names]
    _set_counts(examples, summaries)
    for split in split_checks.empty_splits(examples):
        raise split_checks.empty_split_error(examples, split, examples.properties["source"], splitter)
    warnings += split_checks.share_warnings(summaries, splitter)
    examples.properties.update({"warnings": warnings} if warnings else {})


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
    for summary in summaries:
        if damage := summary["damage"]:
            raise UserError(damage["message"], code=damage["code"], **damage["fields"])
    if not properties["num_rows"]:
        uri = properties["source"]
        raise UserError(f"{uri}: there is a header but no rows; add one row per line", code="rows-missing", path=uri)
    if properties["num_rejected"] > max_reject_share * properties["num_rows"]:
        first = next(summary["first_reject"] for summary in summaries if summary["first_reject"])
        raise _too_many_rejects(properties, first, max_reject_share)


def _too_many_rejects(properties: dict, first: dict, max_reject_share: float) -> UserError:
    num_rejected, num_rows = properties["num_rejected"], properties["num_rows"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in properties["num_rejected_by_reason"].items())
    detail = f" ({first['detail']})" if first["detail"] else ""
    return UserError(
        f"{first['file']}, line {first['line']}: {first['reason']}{detail}: {first['text'][:80]!r}. This is the first "
        f"of {num_rejected} rejected rows out of {num_rows} ({reasons}), more than "
        f"data.max_reject_share={max_reject_share:g} allows; fix the rows or allow a larger share",
        code="too-many-rejects",
        path=first["file"],
        line=first["line"],
        reason=first["reason"],
        detail=first["detail"],
        num_rejected=num_rejected,
        num_rows=num_rows,
    )
