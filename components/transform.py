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
) -> None:
    """Learns a tokenizer from the train split and turns the text of all splits into ids (TFX: Transform).

    Args:
        examples: text columns, split.
        schema: what the columns are.
        transformed_examples: is filled; a shard for each shard of `examples`.
        tokenizer: is filled.
        columns: the text columns; they share one vocabulary.
        tokenizer_config: kind and size of the tokenizer.
        max_length: tokens a text may have; the rest is cut off, and such texts are counted in `num_truncated`.
        context: Beam options.
    Raises:
        UserError: a column is not text, or the vocabulary cannot be learned.
    """
    _check_columns(schema, columns)
    words = _count_words(examples, columns, tokenizer.path("word_counts.jsonl"), context)
    _learn(words, tokenizer_config, tokenizer)
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
    for split in splits:
        FileSystems.mkdirs(transformed_examples.path(f"Split-{split}"))
    shards = [(split, path, transformed_path(uri, path)) for split in splits for path in shard_paths(examples, split)]
    counts_path = transformed_examples.path("counts.jsonl")
    with beam_pipeline(context) as pipeline:
        (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()
            | beam.ParDo(WriteIds(list(columns), max_length, tokenizer.uri))
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
