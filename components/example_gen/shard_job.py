"""ExampleGen's Beam pipelines: one writes the shards, one collects hashes of rows."""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import json
from typing import Any

import apache_beam as beam

from seq2serve.components.base.artifact import CORPUS, SPLITS
from seq2serve.components.base.component import Context
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.splitting import HeldOutRows, KeysOfLabels, Splitter
from seq2serve.components.example_gen.tables import Table
from seq2serve.components.example_gen.text_files import Segment, TextFile
from seq2serve.components.example_gen.workers import HashRows, ScanSegment, ShardFolder, WriteShard, reject_line
from seq2serve.components.storage.beam_files import open_file, write_file
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from seq2serve.components.storage.files import make_folder


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """The rows of some tables, and the folder of Examples that they are written to.

    Args:
        tables: the user's files.
        uri: of the Examples.
        columns: of the task; they make rows equal.
        slice_columns: to store as well, with the test split.
        drop_overlap: whether rows of the train split that are equal to a row of another split are dropped.
        context: Beam options.
    """

    tables: list[Table]
    uri: str
    columns: tuple[str, ...]
    slice_columns: tuple[str, ...]
    drop_overlap: bool
    context: Context

    def make_folders(self) -> None:
        """Creates the folders that `write` fills."""
        for folder in (*(f"Split-{split}" for split in SPLITS), "rejects"):
            make_folder(f"{self.uri}/{folder}")

    def write(self, splitter: Splitter) -> list[dict]:
        """Writes the shards, over those of an earlier call, and returns their summaries in order."""
        path = f"{self.uri}/summaries.jsonl"
        num_shards = {split: len(shards) for split, shards in self._plan.items()}
        corpus_columns = (CORPUS,) if any(table.corpus for table in self.tables) else ()
        folder = ShardFolder(self.uri, self.columns + corpus_columns, self.slice_columns, num_shards)
        # Equal texts share a split, so without groups the rows of files without a split cannot overlap each other.
        by_text = splitter.key in ("loose", "exact")
        held_out_tables = [
            table
            for table in self.tables
            if self.drop_overlap and (table.split or table.reader.splits_by_position or not by_text)
        ]
        with beam_pipeline(self.context) as pipeline:
            shards, scans = self._inputs(pipeline)
            hash_rows = HashRows(_by_path(held_out_tables), HeldOutRows(splitter, self.columns))
            held_out = shards | "HashHeldOut" >> beam.ParDo(hash_rows, scans)
            writer = WriteShard(folder, _by_path(self.tables), splitter, self.columns)
            (shards | "WriteShards" >> beam.ParDo(writer, scans, beam.pvalue.AsList(held_out)) | WriteJsonLines(path))
        summaries = sorted(read_json_lines(path), key=lambda summary: summary["index"])
        _number_rejects(folder, summaries)
        return summaries

    def hashes(self, select: KeysOfLabels) -> frozenset[str]:
        """Returns the few hashes that `select` returns for the rows of all tables."""
        path = f"{self.uri}/hashes.jsonl"
        with beam_pipeline(self.context) as pipeline:
            shards, scans = self._inputs(pipeline)
            shards | beam.ParDo(HashRows(_by_path(self.tables), select), scans) | WriteJsonLines(path)
        return frozenset().union(*read_json_lines(path))

    @functools.cached_property
    def _plan(self) -> dict[str, list[list[Segment]]]:
        """Returns split of some files, or "" -> their shards. Other files would change the shards of a split."""
        files: dict[str, list[TextFile]] = {split: [] for split in sorted({table.split for table in self.tables})}
        for table in self.tables:
            files[table.split].append(table.file)
        return {split: text_files.plan_shards(files[split], text_files.SHARD_BYTES) for split in files}

    def _inputs(self, pipeline: beam.Pipeline) -> tuple[beam.PCollection, Any]:
        """Returns (index, segments) of the shards, and a side input with the scans of the segments that need one."""
        plan = list(enumerate(itertools.chain.from_iterable(self._plan.values())))
        shards = pipeline | "Shards" >> beam.Create(plan) | "ShareShards" >> beam.Reshuffle()
        tables = _by_path(self.tables)
        to_scan = [
            (path, segment)
            for path, segments in itertools.groupby((s for _, shard in plan for s in shard), key=lambda s: s.path)
            for segment in tables[path].reader.to_scan(list(segments))
        ]
        if not to_scan:
            return shards, {}
        shared = pipeline | "Segments" >> beam.Create(to_scan) | "ShareSegments" >> beam.Reshuffle()
        return shards, beam.pvalue.AsDict(shared | beam.ParDo(ScanSegment(tables)))


def _number_rejects(folder: ShardFolder, summaries: list[dict]) -> None:
    """Numbers rejects through their file if readers have numbered them from the beginning of their segment."""
    lines_before: collections.Counter = collections.Counter()
    shifts: dict[str, dict[str, int]] = {}
    for summary in summaries:
        for path, counts in summary["files"].items():
            if counts["first_reject"] and lines_before[path]:
                counts["first_reject"]["line"] += lines_before[path]
                shifts.setdefault(folder.rejects(summary["index"]), {})[path] = lines_before[path]
            lines_before[path] += counts["lines"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(_shift_lines, shifts, shifts.values()))


def _shift_lines(path: str, shift: dict[str, int]) -> None:
    """Adds to the numbers of the rejects of a shard; `shift`: file -> the number of its lines in earlier shards."""
    with open_file(path) as file:
        rejects = [json.loads(line) for line in file.read().splitlines()]
    moved = (reject | {"line": reject["line"] + shift.get(reject["file"], 0)} for reject in rejects)
    write_file(path, b"".join(map(reject_line, moved)))


def _by_path(tables: list[Table]) -> dict[str, Table]:
    return {table.file.path: table for table in tables}
