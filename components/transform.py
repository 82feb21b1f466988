"""Transform: Examples -> word counts -> tokenizer -> token ids.

Comes in: Examples and their Schema. Goes out: a Tokenizer learned from the train split, TransformedExamples of all.
Read next: transform_beam.py for the work itself, models/tokenizer.py, then trainer.py.
"""

import collections
import contextlib
import dataclasses
from typing import Literal

from components.artifact import Examples, Schema, Tokenizer, TokenizerFiles, TransformedExamples
from components.component import BeamContext, Context, Input, Output, component
from components.errors import UserError
from models.config import TokenizerConfig


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What becomes of each column (TFX: Transform's preprocessing_fn).

    Args:
        columns: of text.
        max_length: tokens a text may have.
        label_columns: each value becomes its place among the column's values: those of the schema's domain, or where
            it has none those of the train split, sorted.
        too_long: whether a longer text is cut, and counted in `num_truncated`, or its row dropped, and counted in
            `num_dropped`.
    """

    columns: tuple[str, ...]
    max_length: int
    label_columns: tuple[str, ...] = ()
    too_long: Literal["cut", "drop"] = "cut"


@component
def Transform(
    examples: Input[Examples],
    schema: Input[Schema],
    transformed_examples: Output[TransformedExamples],
    tokenizer: Output[Tokenizer],
    preprocessing: Preprocessing,
    tokenizer_config: TokenizerConfig,
    context: BeamContext,
) -> None:
    """Learns a tokenizer from the train split and turns the text and labels of all splits into ids (TFX: Transform).

    Args:
        examples: text columns, split.
        schema: what the columns are.
        transformed_examples: is filled; a shard for each shard of `examples`.
        tokenizer: is filled.
        preprocessing: which columns become ids, and how long a text may be.
        tokenizer_config: kind and size of the tokenizer.
        context: Beam options.
    Raises:
        UserError: a column is not text, the vocabulary cannot be learned, or a label is missing or new.
    """
    _check_columns(schema, preprocessing)
    labels = _label_counts(examples, schema, preprocessing.label_columns, transformed_examples, context)
    _write_ids(examples, transformed_examples, tokenizer, preprocessing, labels, context, tokenizer_config)


@component
def TransformByTokenizer(
    examples: Input[Examples],
    schema: Input[Schema],
    files: Input[TokenizerFiles],
    transformed_examples: Output[TransformedExamples],
    tokenizer: Output[Tokenizer],
    preprocessing: Preprocessing,
    context: BeamContext,
) -> None:
    """Does what Transform does with a tokenizer that the user brings.

    Args:
        examples, schema, transformed_examples, tokenizer, preprocessing, context: as for Transform.
        files: those of a Tokenizer artifact, or a SentencePiece model; or such for each column.
    Raises:
        UserError: a column is not text, the files are no tokenizer, or a label is missing or new.
    """
    _check_columns(schema, preprocessing)
    _adopt(files, preprocessing.columns, tokenizer)
    labels = _label_counts(examples, schema, preprocessing.label_columns, transformed_examples, context)
    _write_ids(examples, transformed_examples, tokenizer, preprocessing, labels, context)


def _check_columns(schema: Schema, preprocessing: Preprocessing) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from components.schema_gen import read_schema

    text = [feature.name for feature in read_schema(schema).feature if feature.type == schema_pb2.BYTES]
    for column in preprocessing.columns + preprocessing.label_columns:
        if column not in text:
            raise UserError(f"{schema.path('schema.pbtxt')}: no text column {column!r}; it has: {', '.join(text)}")


def _label_counts(
    examples: Examples,
    schema: Schema,
    columns: tuple[str, ...],
    transformed_examples: TransformedExamples,
    context: Context,
) -> dict[str, list[str]]:
    """Counts the labels, notes the counts, and returns column -> labels in the order of their ids."""
    path = transformed_examples.path("label_counts.jsonl")
    counts = {column: _count_labels(examples, schema, column, path, context) for column in columns}
    transformed_examples.properties.update({"label_counts": counts} if counts else {})
    return {column: list(found) for column, found in counts.items()}


def _count_labels(examples: Examples, schema: Schema, column: str, path: str, context: Context) -> dict[str, int]:
    """Returns label -> how often it is in the train split, in the order of the labels' ids."""
    import apache_beam as beam

    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.schema_gen import label_domain, read_schema
    from components.shards import shard_paths
    from components.transform_beam import CountLabels

    shards = [(split, path) for split in examples.properties["splits"] for path in shard_paths(examples, split)]
    with beam_pipeline(context) as pipeline:
        pipeline | beam.Create(shards) | beam.Reshuffle() | beam.ParDo(CountLabels(column)) | WriteJsonLines(path)
    counts = {split: collections.Counter() for split in examples.properties["splits"]}
    for split, found in read_json_lines(path):
        counts[split].update(found)
    domain = label_domain(read_schema(schema), column) or sorted(counts["train"])
    for split, found in counts.items():
        for label in sorted(found.keys() - set(domain)):
            raise UserError(
                f"column {column!r} has the label {label!r} {found[label]} times in the {split} split, and it is not "
                f"among those it knows: {', '.join(map(repr, domain))}. Mend the rows, or add it to the schema's domain"
            )
    if len(domain) < 2:
        raise UserError(f"column {column!r} has one label only, {domain[0]!r}: there is nothing to tell apart")
    return {label: counts["train"][label] for label in domain}


def _adopt(files: TokenizerFiles, columns: tuple[str, ...], tokenizer: Tokenizer) -> None:
    """Takes over the tokenizer of all columns, or where files were given for columns that of each."""
    from components.remote_files import fetched_file, filled_folder
    from models.tokenizer import adopt_tokenizer

    paths: dict[str, list[str]] = {}
    for file in files.properties["files"]:
        paths.setdefault(file.get("column", ""), []).append(file["path"])
    if paths.keys() not in ({""}, set(columns)):
        wanted = ",".join(f"{column}=DIR" for column in columns)
        raise UserError(f"{files.uri}: tokenizers for {', '.join(paths)}; give one for all, or {wanted}")
    adopted = {}
    for name, mine in paths.items():
        folder = tokenizer.path(name) if name else tokenizer.uri
        try:
            with contextlib.ExitStack() as stack:
                here = [stack.enter_context(fetched_file(path)) for path in mine]
                adopted[name] = adopt_tokenizer(here, stack.enter_context(filled_folder(folder)))
        except ValueError as error:
            raise UserError(f"{files.uri}: {error}; give a tokenizer's folder or a SentencePiece .model") from error
    kinds = dict.fromkeys(settings["kind"] for settings in adopted.values())
    sizes = {name: settings["vocab_size"] for name, settings in adopted.items()}
    tokenizer.properties.update(kind=" and ".join(kinds), vocab_size=sizes.get("", sizes))


def _write_ids(
    examples: Examples,
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    labels: dict[str, list[str]],
    context: Context,
    tokenizer_config: TokenizerConfig | None = None,
) -> None:
    """Writes the ids, by a tokenizer that is there or, given a config, by one that is learned first."""
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems

    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.shards import shard_paths
    from components.transform_beam import LearnTokenizers, WriteIds, transformed_path

    uri, splits = transformed_examples.uri, examples.properties["splits"]
    for split in splits:
        FileSystems.mkdirs(transformed_examples.path(f"Split-{split}"))
    shards = [(split, path, transformed_path(uri, path)) for split in splits for path in shard_paths(examples, split)]
    counts_path, learned_path = (transformed_examples.path(name) for name in ("counts.jsonl", "learned.jsonl"))
    # One pipeline for both: each that is started has its workers import TensorFlow anew.
    with beam_pipeline(context) as pipeline:
        learned = ()
        if tokenizer_config:
            columns = preprocessing.columns
            groups = {"": columns} if tokenizer_config.shared else {column: (column,) for column in columns}
            train = pipeline | "Train" >> beam.Create(shard_paths(examples, "train"))
            tokenizers = train | LearnTokenizers(groups, tokenizer_config, tokenizer.uri)
            tokenizers | "Learned" >> WriteJsonLines(learned_path)
            learned = (beam.pvalue.AsList(tokenizers),)
        (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()
            | beam.ParDo(WriteIds(preprocessing, labels, tokenizer.uri), *learned)
            | WriteJsonLines(counts_path)
        )
    if tokenizer_config:
        _describe_learned(tokenizer, read_json_lines(learned_path), tokenizer_config)
    transformed_examples.properties.update(splits=splits, max_length=preprocessing.max_length)
    _describe(transformed_examples, read_json_lines(counts_path), preprocessing)


def _describe_learned(tokenizer: Tokenizer, learned: list[dict], config: TokenizerConfig) -> None:
    for found in sorted(learned, key=lambda found: found["name"]):
        if found["error"]:
            column = f" of {found['name']}" if found["name"] else ""
            raise UserError(
                f"no tokenizer{column} can be learned from the train split: {found['error']}; change tokenizer settings"
            )
    sizes = {found["name"]: found["vocab_size"] for found in learned}
    tokenizer.properties.update(kind=config.kind, vocab_size=sizes.get("", sizes))


def _describe(transformed_examples: TransformedExamples, shards: list[dict], preprocessing: Preprocessing) -> None:
    columns, max_length = preprocessing.columns, preprocessing.max_length
    num_examples, num_truncated = collections.Counter(), collections.Counter(dict.fromkeys(columns, 0))
    lengths = {column: collections.Counter() for column in columns}
    for counts in shards:
        num_examples[counts["split"]] += counts["num_examples"]
        num_truncated.update(counts["num_truncated"])
        for column, found in counts["lengths"].items():
            lengths[column].update({int(length): number for length, number in found.items()})
    num_dropped = sum(counts["num_dropped"] for counts in shards)
    splits = transformed_examples.properties["splits"]
    if empty := next((split for split in splits if not num_examples[split] and num_dropped), None):
        raise UserError(
            f"every row of the {empty} split has more than data.max_length={max_length} tokens and was "
            "dropped; allow longer ones, or set data.too_long=cut"
        )
    transformed_examples.properties.update(
        num_examples={split: num_examples[split] for split in splits},
        num_truncated=dict(num_truncated),
        num_dropped=num_dropped,
        token_lengths={column: _quantiles(found) for column, found in lengths.items()},
    )


def _quantiles(lengths: collections.Counter) -> dict[str, int]:
    """Returns the length that half, 99 % and all of the texts have at most, and the sum of all."""
    found, seen = {}, 0
    for length, number in sorted(lengths.items()):
        seen += number
        for name, share in (("median", 0.5), ("p99", 0.99), ("max", 1)):
            if seen >= share * lengths.total():
                found.setdefault(name, length)
    return {**found, "total": sum(length * number for length, number in lengths.items())}
