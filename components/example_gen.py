"""ExampleGen: the user's files -> Examples, split by a hash or as given, rejects kept with their reason.

Comes in: RawFiles of any format in file_formats.py, UTF-8. Goes out: Examples; rows in = examples + rejects.
Read next: row_readers.py for what a row is, example_gen_beam.py for what happens to each, then statistics_gen.py.
"""

import collections
import dataclasses
import itertools
import typing

from components.artifact import SPLITS, Examples, RawFiles
from components.component import BeamContext, Context, Input, Output, component
from components.errors import UserError
from components.file_formats import Reading, group_files

if typing.TYPE_CHECKING:
    from components.example_gen_beam import Splitter
    from components.layouts import Table

_LOOKED_AT = 10_000  # examples, to see how many differ where a split stays empty


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How rows are dealt out to the splits that no files were given for.

    Args:
        eval_share, test_share: shares of the rows that go there; the rest is for training.
        seed: of the hash that splits.
    """

    eval_share: float = 0.05
    test_share: float = 0.05
    seed: int = 1


@component
def ExampleGen(
    files: Input[RawFiles],
    examples: Output[Examples],
    columns: dict[str, str],
    reading: Reading,
    splitting: Splitting,
    max_reject_share: float,
    context: BeamContext,
    slice_columns: tuple[str, ...] = (),
) -> None:
    """Reads the user's files and writes every row as a tf.Example or as a reject (TFX: ExampleGen).

    Args:
        files: as the runner found them, with the split or the column that each was given for, if any.
        examples: is filled.
        columns: example column -> the file's column: a name; a number from 1 where there is no header; for JSON a field
            or a path of fields. The first is what the model reads, and decides the split.
        reading: formats, and what a row of plain text is.
        splitting: shares; eval and test are taken from the rows for training unless they were given files.
        max_reject_share: the largest share of rejected rows that is put up with.
        context: Beam options.
        slice_columns: columns of the file that are kept beside the others, under their own names, for the Evaluator to
            tell its metrics apart by; no other component sees them.
    Raises:
        UserError: a column is missing or a file damaged, there are no rows or too many rejects, or a split stays empty.
    """
    from components import text_files
    from components.layouts import make_table

    given = {file.get("split", "") for file in files.properties["files"]}
    splitter = _splitter(splitting, given)
    written = columns | {name: name for name in slice_columns}
    groups = group_files(files.properties["files"], list(written), reading)
    tables = [make_table(group, written, reading, text_files.SHARD_BYTES) for group in groups]
    summaries = _write_shards(tables, splitter, examples.uri, tuple(written), context)
    _describe(examples, summaries, list(columns), files.uri)
    examples.properties.update({"slice_columns": list(slice_columns)} if slice_columns else {})
    _check(examples, summaries, files.uri, max_reject_share)


def _splitter(splitting: Splitting, given: set[str]) -> "Splitter":
    """Returns what deals out the rows whose split was not given."""
    from components.example_gen_beam import Splitter

    if not given & {"", "train"}:
        raise UserError(f"there are files for {' and '.join(sorted(given))} and none for train; add train=FILE")
    shares = {"eval": splitting.eval_share, "test": splitting.test_share}
    shares = {split: 0.0 if split in given else share for split, share in shares.items()}
    if not (all(share > 0 or split in given for split, share in shares.items()) and sum(shares.values()) < 1):
        raise UserError(
            f"data.eval_share {splitting.eval_share} and data.test_share {splitting.test_share} leave a split without "
            "rows; give each more than 0 and both together less than 1"
        )
    return Splitter(shares["eval"], shares["test"], splitting.seed)


def _write_shards(
    tables: list["Table"], splitter: "Splitter", uri: str, columns: tuple[str, ...], context: Context
) -> list[dict]:
    """Returns the summaries of the shards, in order."""
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems

    from components import text_files
    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.example_gen_beam import ScanSegment, ShardFolder, WriteShard

    shards = list(enumerate(text_files.plan_shards([table.file for table in tables], text_files.SHARD_BYTES)))
    to_scan = [
        (table.file.path, segment)
        for table in tables
        for segment in table.reader.to_scan([s for _, shard in shards for s in shard if s.path == table.file.path])
    ]
    readers = {table.file.path: table for table in tables}
    shard_folder = ShardFolder(uri, columns, len(shards))
    for folder in (*(f"Split-{split}" for split in SPLITS), "rejects"):
        FileSystems.mkdirs(FileSystems.join(uri, folder))
    summaries_path = FileSystems.join(uri, "summaries.jsonl")
    with beam_pipeline(context) as pipeline:
        segments = pipeline | "Segments" >> beam.Create(to_scan) | "ShareSegments" >> beam.Reshuffle()
        scans = segments | beam.ParDo(ScanSegment(readers))
        (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "ShareShards" >> beam.Reshuffle()
            | beam.ParDo(WriteShard(shard_folder, readers, splitter), beam.pvalue.AsDict(scans))
            | WriteJsonLines(summaries_path)
        )
    return sorted(read_json_lines(summaries_path), key=lambda summary: summary["index"])


def _describe(examples: Examples, summaries: list[dict], columns: list[str], source: str) -> None:
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
    found = examples.properties
    for summary in summaries:
        if summary["damage"]:
            raise UserError(summary["damage"])
    if not found["num_rows"]:
        raise UserError(f"{uri}: only a header and no rows; add the text, one row a line")
    if found["num_rejected"] > max_reject_share * found["num_rows"]:
        first = next(summary["first_reject"] for summary in summaries if summary["first_reject"])
        reasons = ", ".join(f"{n} {reason}" for reason, n in found["num_rejected_by_reason"].items())
        detail = f" ({first['detail']})" * bool(first["detail"])
        raise UserError(
            f"{first['file']}, line {first['line']}: {first['reason']}{detail}: {first['text'][:80]!r}. It is the "
            f"first of {found['num_rejected']} rejected rows out of {found['num_rows']} ({reasons}), more than "
            f"data.max_reject_share={max_reject_share:g} allows; mend the rows, or allow a larger share"
        )
    for split, n in found["num_examples"].items():
        if not n:
            raise UserError(
                f"{uri}: no row of {found['num_rows']} falls into the {split} split; {_mended(examples, split)}"
            )


def _mended(examples: Examples, split: str) -> str:
    """Says how a split gets rows: what has too few different texts needs others, for equal ones go to one split."""
    from components.example_gen_beam import normalize
    from components.examples_io import read_batches
    from components.shards import shard_paths

    column = examples.properties["columns"][0]
    different, rows = set(), 0
    for path in itertools.chain.from_iterable(shard_paths(examples, split) for split in SPLITS):
        for batch in read_batches(path, [column]):
            different.update(normalize(values[0].decode()) for values in batch[column])
            rows += len(batch[column])
        if rows >= _LOOKED_AT:
            break
    larger = f"give the split a larger share with --set data.{split}_share="
    if 2 * len(different) > rows:
        return f"add rows, or {larger} (rows that are equal but for case, digits and spaces go together)"
    return (
        f"of the first {rows} examples only {len(different)} differ by more than case, digits and spaces, and others "
        f"go where their twins go; add rows that differ, or {larger}"
    )
