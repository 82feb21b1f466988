"""ExampleGen: the user's files -> Examples, split by a hash, rejects kept with their reason.

Comes in: RawFiles, tab-separated with a header, UTF-8, plain or .gz. Goes out: Examples; rows in = examples + rejects.
Read next: example_gen_beam.py for what happens to each row, then statistics_gen.py.
"""

import collections
import difflib
import typing

from components.artifact import SPLITS, Examples, RawFiles
from components.component import Context, Input, Output, component
from components.errors import UserError

if typing.TYPE_CHECKING:
    from components.example_gen_beam import Layout, Splitter
    from components.text_files import TextFile


@component
def ExampleGen(
    files: Input[RawFiles],
    examples: Output[Examples],
    columns: dict[str, str],
    eval_share: float,
    test_share: float,
    seed: int,
    max_reject_share: float,
    context: Context,
) -> None:
    """Reads files of text and writes every row as a tf.Example or as a reject (TFX: ExampleGen).

    Args:
        files: as the runner found them; every file has a header line.
        examples: is filled.
        columns: example column -> the file's column. The first is what the model reads, and decides the split.
        eval_share, test_share: shares of the rows that go there; the rest is for training.
        seed: of the hash that splits.
        max_reject_share: the largest share of rejected rows that is put up with.
        context: Beam options.
    Raises:
        UserError: a column is missing or a file damaged, there are no rows or too many rejects, or a split stays empty.
    """
    from components.example_gen_beam import Splitter
    from components.text_files import TextFile

    if not (eval_share > 0 and test_share > 0 and eval_share + test_share < 1):
        raise UserError(
            f"eval_share {eval_share} and test_share {test_share} leave a split without rows; "
            "give each more than 0 and both together less than 1"
        )
    # In the order of their content: whatever files are called, the same text gives the same bytes.
    ordered = sorted(files.properties["files"], key=lambda file: file["sha256"])
    found = [TextFile(file["path"], file["bytes"]) for file in ordered]
    layouts = {file.path: _layout(file.path, columns) for file in found}
    summaries = _write_shards(found, layouts, Splitter(eval_share, test_share, seed), examples.uri, context)
    _describe(examples, summaries, list(columns))
    _check(examples, summaries, files.uri, max_reject_share)


def _layout(path: str, columns: dict[str, str]) -> "Layout":
    from components.example_gen_beam import Layout
    from components.text_files import read_first_line

    try:
        header = read_first_line(path).decode("utf-8-sig").split("\t")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line 1: not valid UTF-8; save the file as UTF-8") from error
    if header == [""]:
        raise UserError(f"{path}: empty; its first line must name the columns, separated by tabs")
    for column, name in columns.items():
        if header.count(name) != 1:
            nearest = difflib.get_close_matches(name, header, n=1)
            hint = f", did you mean {nearest[0]!r}?" if nearest and name not in header else "."
            how = "several columns" if name in header else "no column"
            raise UserError(
                f"{path}, line 1: {how} {name!r}{hint} It has: {', '.join(map(repr, header))}. Name the right one with "
                f"--{column}"
            )
    return Layout({column: header.index(name) for column, name in columns.items()}, len(header))


def _write_shards(
    found: list["TextFile"], layouts: dict[str, "Layout"], splitter: "Splitter", uri: str, context: Context
) -> list[dict]:
    """Returns the summaries of the shards, in order."""
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems

    from components import text_files
    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.example_gen_beam import CountLines, WriteShard

    shards = list(enumerate(text_files.plan_shards(found, text_files.SHARD_BYTES)))
    cut = [segment for _, segments in shards for segment in segments if segment.end is not None]
    for folder in (*(f"Split-{split}" for split in SPLITS), "rejects"):
        FileSystems.mkdirs(FileSystems.join(uri, folder))
    summaries_path = FileSystems.join(uri, "summaries.jsonl")
    with beam_pipeline(context) as pipeline:
        segments = pipeline | "Segments" >> beam.Create(cut) | "ShareSegments" >> beam.Reshuffle()
        line_counts = segments | beam.ParDo(CountLines())
        (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "ShareShards" >> beam.Reshuffle()
            | beam.ParDo(WriteShard(uri, len(shards), layouts, splitter), beam.pvalue.AsDict(line_counts))
            | WriteJsonLines(summaries_path)
        )
    return sorted(read_json_lines(summaries_path), key=lambda summary: summary["index"])


def _describe(examples: Examples, summaries: list[dict], columns: list[str]) -> None:
    num_examples, reasons = collections.Counter(dict.fromkeys(SPLITS, 0)), collections.Counter()
    for summary in summaries:
        num_examples.update(summary["num_examples"])
        reasons.update(summary["reasons"])
    examples.properties.update(
        splits=list(SPLITS),
        columns=columns,
        num_rows=num_examples.total() + reasons.total(),
        num_examples=dict(num_examples),
        num_rejected=reasons.total(),
        num_rejected_by_reason=dict(sorted(reasons.items())),
    )


def _check(examples: Examples, summaries: list[dict], uri: str, max_reject_share: float) -> None:
    found = examples.properties
    for summary in summaries:
        if summary["damage"]:
            raise UserError(f"{summary['damage']}; fetch or make the file again")
    if not found["num_rows"]:
        raise UserError(f"{uri}: only a header and no rows; add the text, one row a line")
    if found["num_rejected"] > max_reject_share * found["num_rows"]:
        first = next(summary["first_reject"] for summary in summaries if summary["first_reject"])
        reasons = ", ".join(f"{n} {reason}" for reason, n in found["num_rejected_by_reason"].items())
        raise UserError(
            f"{first['file']}, line {first['line']}: {first['reason']}: {first['text'][:80]!r}. It is the first of "
            f"{found['num_rejected']} rejected rows out of {found['num_rows']} ({reasons}), more than "
            f"max_reject_share {max_reject_share:g} allows; mend the rows, or allow a larger share"
        )
    for split, n in found["num_examples"].items():
        if not n:
            raise UserError(
                f"{uri}: no row of {found['num_rows']} falls into the {split} split; "
                "add rows, or give the split a larger share"
            )
