"""The executor of ExampleGen."""

import collections
import dataclasses
import functools
import itertools

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from seq2serve.components.base.artifact import SPLITS, Examples, RawFiles
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen import text_files
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
from seq2serve.components.example_gen.formats import InputConfig, SplitConfig, group_files
from seq2serve.components.example_gen.tables import Table, make_table
from seq2serve.components.example_gen.workers import ScanSegment, ShardFolder, Splitter, WriteShard
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from seq2serve.components.storage.examples_io import read_batches
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.storage.text_keys import normalize

_MAX_DIAGNOSED_EXAMPLES = 10_000  # examples that are read to explain an empty split


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
    splitter = _make_splitter(split_config, assigned_splits)
    all_columns = columns | {name: name for name in slice_columns}
    input_config = dataclasses.replace(input_config, optional=slice_columns)
    groups = group_files(files.properties["files"], list(all_columns), input_config)
    groups, empty = without_empty_files(groups)
    make = functools.partial(
        make_table, columns=all_columns, input_config=input_config, shard_bytes=text_files.SHARD_BYTES
    )
    tables = for_each_file(make, groups)
    summaries = _write_shards(tables, splitter, examples.uri, tuple(all_columns), context)
    _set_properties(examples, summaries, list(columns), files.uri)
    examples.properties.update({"slice_columns": list(slice_columns)} if slice_columns else {})
    _check(examples, summaries, files.uri, max_reject_share)
    if notes := [*file_notes(tables, merged_counts(summaries)), *empty_notes(empty)]:
        examples.properties["notes"] = notes


def _make_splitter(split_config: SplitConfig, assigned_splits: set[str]) -> Splitter:
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
    return Splitter(shares["eval"], shares["test"], split_config.seed)


def _write_shards(
    tables: list[Table], splitter: Splitter, uri: str, columns: tuple[str, ...], context: Context
) -> list[dict]:
    """Writes the shards and returns their summaries, in order."""
    shards = list(enumerate(text_files.plan_shards([table.file for table in tables], text_files.SHARD_BYTES)))
    to_scan = [
        (table.file.path, segment)
        for table in tables
        for segment in table.reader.to_scan([s for _, shard in shards for s in shard if s.path == table.file.path])
    ]
    tables_by_path = {table.file.path: table for table in tables}
    shard_folder = ShardFolder(uri, columns, len(shards))
    for folder in (*(f"Split-{split}" for split in SPLITS), "rejects"):
        FileSystems.mkdirs(FileSystems.join(uri, folder))
    summaries_path = FileSystems.join(uri, "summaries.jsonl")
    with beam_pipeline(context) as pipeline:
        segments = pipeline | "Segments" >> beam.Create(to_scan) | "ShareSegments" >> beam.Reshuffle()
        scans = segments | beam.ParDo(ScanSegment(tables_by_path))
        (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "ShareShards" >> beam.Reshuffle()
            | beam.ParDo(WriteShard(shard_folder, tables_by_path, splitter), beam.pvalue.AsDict(scans))
            | WriteJsonLines(summaries_path)
        )
    return sorted(read_json_lines(summaries_path), key=lambda summary: summary["index"])


def _set_properties(examples: Examples, summaries: list[dict], columns: list[str], source: str) -> None:
    num_examples, reasons = collections.Counter(dict.fromkeys(SPLITS, 0)), collections.Counter()
    for summary in summaries:
        num_examples.update(summary["num_examples"])
        reasons.update(summary["reasons"])
    examples.properties.update(
        splits=list(SPLITS),
        columns=columns,
        source=source,
        num_rows=num_examples.total() + reasons.total(),
        num_examples=dict(num_examples),
        num_rejected=reasons.total(),
        num_rejected_by_reason=dict(sorted(reasons.items())),
    )


def _check(examples: Examples, summaries: list[dict], uri: str, max_reject_share: float) -> None:
    properties = examples.properties
    check_damage(summaries)
    if not properties["num_rows"]:
        raise UserError(f"{uri}: there is a header but no rows; add one row per line", code="rows-missing", path=uri)
    if properties["num_rejected"] > max_reject_share * properties["num_rows"]:
        raise too_many_rejects(properties, merged_counts(summaries), max_reject_share)
    check_encodings(merged_counts(summaries))
    for split, count in properties["num_examples"].items():
        if not count:
            raise _empty_split(examples, split, uri)


def _empty_split(examples: Examples, split: str, uri: str) -> UserError:
    """Returns the error of an empty split. The fix depends on whether most rows are near-duplicates."""
    num_rows = examples.properties["num_rows"]
    num_read, num_distinct = _count_distinct(examples)
    larger = f"set a larger share with --set data.{split}_share="
    if 2 * num_distinct > num_read:
        fix = f"add rows, or {larger} (rows that differ only in case, digits and spaces share a split)"
    else:
        fix = (
            f"of the first {num_read} examples only {num_distinct} differ by more than case, digits and spaces, and "
            f"near-duplicates share a split; add rows that differ, or {larger}"
        )
    return UserError(
        f"{uri}: none of {num_rows} rows falls into the {split} split; {fix}",
        code="split-empty",
        path=uri,
        split=split,
        num_rows=num_rows,
        num_distinct=num_distinct,
    )


def _count_distinct(examples: Examples) -> tuple[int, int]:
    """Returns how many examples it has read, and how many distinct normalised texts their first column has."""
    column = examples.properties["columns"][0]
    distinct, num_read = set(), 0
    for path in itertools.chain.from_iterable(shard_paths(examples, split) for split in SPLITS):
        for batch in read_batches(path, [column]):
            distinct.update(normalize(values[0].decode()) for values in batch[column])
            num_read += len(batch[column])
        if num_read >= _MAX_DIAGNOSED_EXAMPLES:
            break
    return num_read, len(distinct)
