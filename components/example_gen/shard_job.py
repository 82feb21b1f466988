"""ExampleGen's Beam pipelines: one writes the shards, one collects hashes of rows."""

import dataclasses
import functools
import itertools
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from seq2serve.components.base.artifact import CORPUS, SPLITS
from seq2serve.components.base.component import Context
from seq2serve.components.example_gen import text_files
from seq2serve.components.example_gen.splitting import HeldOutRows, KeysOfLabels, Splitter
from seq2serve.components.example_gen.tables import Table
from seq2serve.components.example_gen.text_files import Segment, TextFile
from seq2serve.components.example_gen.workers import HashRows, ScanSegment, ShardFolder, WriteShard
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines


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
            FileSystems.mkdirs(FileSystems.join(self.uri, folder))

    def write(self, splitter: Splitter) -> list[dict]:
        """Writes the shards, over those of an earlier call, and returns their summaries in order."""
        path = FileSystems.join(self.uri, "summaries.jsonl")
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
            scans = beam.pvalue.AsDict(self._scan(pipeline))
            shards = pipeline | "Shards" >> beam.Create(self._shards) | "ShareShards" >> beam.Reshuffle()
            hash_rows = HashRows(_by_path(held_out_tables), HeldOutRows(splitter, self.columns))
            held_out = shards | "HashHeldOut" >> beam.ParDo(hash_rows, scans)
            writer = WriteShard(folder, _by_path(self.tables), splitter, self.columns)
            (shards | "WriteShards" >> beam.ParDo(writer, scans, beam.pvalue.AsList(held_out)) | WriteJsonLines(path))
        return sorted(read_json_lines(path), key=lambda summary: summary["index"])

    def hashes(self, select: KeysOfLabels) -> frozenset[str]:
        """Returns the few hashes that `select` returns for the rows of all tables."""
        path = FileSystems.join(self.uri, "hashes.jsonl")
        with beam_pipeline(self.context) as pipeline:
            scans = beam.pvalue.AsDict(self._scan(pipeline))
            shards = pipeline | "Shards" >> beam.Create(self._shards) | "ShareShards" >> beam.Reshuffle()
            shards | beam.ParDo(HashRows(_by_path(self.tables), select), scans) | WriteJsonLines(path)
        return frozenset().union(*read_json_lines(path))

    @functools.cached_property
    def _plan(self) -> dict[str, list[list[Segment]]]:
        """Returns split of some files, or "" -> their shards. Other files would change the shards of a split."""
        files: dict[str, list[TextFile]] = {split: [] for split in sorted({table.split for table in self.tables})}
        for table in self.tables:
            files[table.split].append(table.file)
        return {split: text_files.plan_shards(files[split], text_files.SHARD_BYTES) for split in files}

    @property
    def _shards(self) -> list[tuple[int, list[Segment]]]:
        return list(enumerate(itertools.chain.from_iterable(self._plan.values())))

    def _scan(self, pipeline: beam.Pipeline) -> Any:
        """Returns the PCollection of (segment, its Scan)."""
        to_scan = [
            (table.file.path, segment)
            for table in self.tables
            for segment in table.reader.to_scan(
                [s for _, shard in self._shards for s in shard if s.path == table.file.path]
            )
        ]
        segments = pipeline | "Segments" >> beam.Create(to_scan) | "ShareSegments" >> beam.Reshuffle()
        return segments | beam.ParDo(ScanSegment(_by_path(self.tables)))


def _by_path(tables: list[Table]) -> dict[str, Table]:
    return {table.file.path: table for table in tables}
