"""Transform: Examples -> word counts -> tokenizer -> token ids.

Comes in: Examples and their Schema. Goes out: a Tokenizer learned from the train split, TransformedExamples of all.
Read next: transform_beam.py for the work itself, models/tokenizer.py, then trainer.py.
"""

import collections

from components.artifact import Examples, Schema, Tokenizer, TransformedExamples
from components.component import Context, Input, Output, component
from components.errors import UserError
from models.config import TokenizerConfig


@component
def Transform(
    examples: Input[Examples],
    schema: Input[Schema],
    transformed_examples: Output[TransformedExamples],
    tokenizer: Output[Tokenizer],
    columns: tuple[str, ...],
    tokenizer_config: TokenizerConfig,
    max_length: int,
    context: Context,
    label_columns: tuple[str, ...] = (),
) -> None:
    """Learns a tokenizer from the train split and turns the text and labels of all splits into ids (TFX: Transform).

    Args:
        examples: text columns, split.
        schema: what the columns are.
        transformed_examples: is filled; a shard for each shard of `examples`.
        tokenizer: is filled.
        columns: the text columns; they share one vocabulary.
        tokenizer_config: kind and size of the tokenizer.
        max_length: tokens a text may have; the rest is cut off, and such texts are counted in `num_truncated`.
        context: Beam options.
        label_columns: each value becomes its place among the column's values: those of the schema's domain, or where
            it has none those of the train split, sorted.
    Raises:
        UserError: a column is not text, the vocabulary cannot be learned, or a label is missing or new.
    """
    _check_columns(schema, columns + label_columns)
    words = _count_words(examples, columns, tokenizer.path("word_counts.jsonl"), context)
    _learn(words, tokenizer_config, tokenizer)
    labels = {}
    for column in label_columns:
        labels[column] = _count_labels(examples, schema, column, tokenizer.path("label_counts.jsonl"), context)
    transformed_examples.properties.update({"label_counts": labels} if labels else {})
    _write_ids(examples, transformed_examples, columns, max_length, tokenizer, context)


def _check_columns(schema: Schema, columns: tuple[str, ...]) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from components.schema_gen import read_schema

    text = [feature.name for feature in read_schema(schema).feature if feature.type == schema_pb2.BYTES]
    for column in columns:
        if column not in text:
            raise UserError(f"{schema.path('schema.pbtxt')}: no text column {column!r}; it has: {', '.join(text)}")


def _count_words(examples: Examples, columns: tuple[str, ...], path: str, context: Context) -> dict[str, int]:
    """Returns word -> how often it is in the train split. `path`: of a file that is there for as long as this runs."""
    import apache_beam as beam

    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.examples_io import shard_paths
    from components.transform_beam import AddCounters, CountWords

    with beam_pipeline(context) as pipeline:
        (
            pipeline
            | beam.Create(shard_paths(examples, "train"))
            | beam.Reshuffle()
            | beam.ParDo(CountWords(list(columns)))
            | beam.CombineGlobally(AddCounters())
            | WriteJsonLines(path)
        )
    (words,) = read_json_lines(path)
    return words


def _count_labels(examples: Examples, schema: Schema, column: str, path: str, context: Context) -> dict[str, int]:
    """Returns label -> how often it is in the train split, in the order of the labels' ids."""
    import apache_beam as beam

    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.examples_io import shard_paths
    from components.transform_beam import CountLabels

    shards = [(split, path) for split in examples.properties["splits"] for path in shard_paths(examples, split)]
    with beam_pipeline(context) as pipeline:
        pipeline | beam.Create(shards) | beam.Reshuffle() | beam.ParDo(CountLabels(column)) | WriteJsonLines(path)
    counts = {split: collections.Counter() for split in examples.properties["splits"]}
    for split, found in read_json_lines(path):
        counts[split].update(found)
    domain = _domain(schema, column) or sorted(counts["train"])
    for split, found in counts.items():
        for label in sorted(found.keys() - set(domain)):
            raise UserError(
                f"column {column!r} has the label {label!r} {found[label]} times in the {split} split, and it is not "
                f"among those it knows: {', '.join(map(repr, domain))}. Mend the rows, or add it to the schema's domain"
            )
    if len(domain) < 2:
        raise UserError(f"column {column!r} has one label only, {domain[0]!r}: there is nothing to tell apart")
    return {label: counts["train"][label] for label in domain}


def _domain(schema: Schema, column: str) -> list[str]:
    from components.schema_gen import read_schema

    found = read_schema(schema)
    feature = next(feature for feature in found.feature if feature.name == column)
    domains = {domain.name: domain for domain in found.string_domain}
    return list(domains.get(feature.domain, feature.string_domain).value)


def _learn(words: dict[str, int], config: TokenizerConfig, tokenizer: Tokenizer) -> None:
    from models.tokenizer import learn_sentencepiece

    try:
        vocab_size = learn_sentencepiece(words.items(), config, tokenizer.uri)
    except ValueError as error:
        raise UserError(
            f"no tokenizer can be learned from the train split: {error}; change tokenizer settings"
        ) from error
    tokenizer.properties.update(kind=config.kind, vocab_size=vocab_size)


def _write_ids(
    examples: Examples,
    transformed_examples: TransformedExamples,
    columns: tuple[str, ...],
    max_length: int,
    tokenizer: Tokenizer,
    context: Context,
) -> None:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems

    from components.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
    from components.examples_io import shard_paths
    from components.transform_beam import WriteIds, transformed_path

    uri, splits = transformed_examples.uri, examples.properties["splits"]
    labels = {column: list(c) for column, c in transformed_examples.properties.get("label_counts", {}).items()}
    for split in splits:
        FileSystems.mkdirs(transformed_examples.path(f"Split-{split}"))
    shards = [(split, path, transformed_path(uri, path)) for split in splits for path in shard_paths(examples, split)]
    counts_path = transformed_examples.path("counts.jsonl")
    with beam_pipeline(context) as pipeline:
        (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()
            | beam.ParDo(WriteIds(list(columns), max_length, tokenizer.uri, labels))
            | WriteJsonLines(counts_path)
        )
    num_examples, num_truncated = collections.Counter(), collections.Counter(dict.fromkeys(columns, 0))
    for counts in read_json_lines(counts_path):
        num_examples[counts["split"]] += counts["num_examples"]
        num_truncated.update(counts["num_truncated"])
    transformed_examples.properties.update(
        splits=splits,
        num_examples={split: num_examples[split] for split in splits},
        num_truncated=dict(num_truncated),
        max_length=max_length,
    )
