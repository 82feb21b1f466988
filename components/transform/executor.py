"""The executors of Transform and TransformByTokenizer: count labels, learn or copy tokenizers, and write ids."""

import collections
import contextlib
import dataclasses
import os

import apache_beam as beam
from tensorflow_metadata.proto.v0 import schema_pb2

from seq2serve.components.base.artifact import CORPUS, Examples, Schema, Tokenizer, TokenizerSource, TransformedExamples
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import note
from seq2serve.components.schema_gen.schema_file import MAX_UNKNOWN_LABEL_SHARE, label_domain, read_schema
from seq2serve.components.storage.beam_runner import WriteJsonLines, beam_pipeline, read_json_lines
from seq2serve.components.storage.data_records import describe_data, read_record, write_record
from seq2serve.components.storage.files import filled_folder, list_files, local_file, make_folder
from seq2serve.components.storage.shards import shard_paths
from seq2serve.components.tasks.sizing import LONGEST_LIMIT, MAX_LENGTH, VOCABULARY, choose_max_length
from seq2serve.components.transform.lengths import length_warnings
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.components.transform.workers import CountLabels, LearnTokenizers, WriteIds, transformed_path
from seq2serve.models.config import TokenizerConfig


def transform(
    examples: Examples,
    schema: Schema,
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    tokenizer_config: TokenizerConfig,
    context: Context,
) -> None:
    """Executes Transform; see component.py for the arguments."""
    _check_columns(schema, preprocessing)
    labels = _label_counts(examples, schema, preprocessing.label_columns, transformed_examples, context)
    _write_ids(examples, transformed_examples, tokenizer, preprocessing, labels, context, tokenizer_config)
    write_record(tokenizer.uri, transformed_examples.properties["data"])


def transform_by_tokenizer(
    examples: Examples,
    schema: Schema,
    files: TokenizerSource,
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    context: Context,
) -> None:
    """Executes TransformByTokenizer; see component.py for the arguments."""
    _check_columns(schema, preprocessing)
    _adopt(files, preprocessing, tokenizer)
    labels = _label_counts(examples, schema, preprocessing.label_columns, transformed_examples, context)
    _write_ids(examples, transformed_examples, tokenizer, preprocessing, labels, context)


def _check_columns(schema: Schema, preprocessing: Preprocessing) -> None:
    text = [feature.name for feature in read_schema(schema).feature if feature.type == schema_pb2.BYTES]
    for column in preprocessing.columns + preprocessing.label_columns:
        if column not in text:
            path = schema.path("schema.pbtxt")
            raise UserError(
                f"{path}: no text column {column!r}; the text columns are {', '.join(text)}",
                code="column-missing",
                path=path,
                column=column,
            )


def _label_counts(
    examples: Examples,
    schema: Schema,
    columns: tuple[str, ...],
    transformed_examples: TransformedExamples,
    context: Context,
) -> dict[str, list[str]]:
    """Counts labels, stores the counts as a property, and returns column -> labels in the order of their ids."""
    path = transformed_examples.path("label_counts.jsonl")
    counts = {column: _count_labels(examples, schema, column, path, context) for column in columns}
    transformed_examples.properties.update({"label_counts": counts} if counts else {})
    return {column: list(column_counts) for column, column_counts in counts.items()}


def _count_labels(examples: Examples, schema: Schema, column: str, path: str, context: Context) -> dict[str, int]:
    """Returns label -> number of rows in the train split, in the order of the label ids.

    Raises:
        UserError: a label is not among the schema's domain or the train split's labels, or there is only one.
    """
    shards = [(split, path) for split in examples.properties["splits"] for path in shard_paths(examples, split)]
    with beam_pipeline(context) as pipeline:
        pipeline | beam.Create(shards) | beam.Reshuffle() | beam.ParDo(CountLabels(column)) | WriteJsonLines(path)
    counts = {split: collections.Counter() for split in examples.properties["splits"]}
    for split, shard_counts in read_json_lines(path):
        counts[split].update(shard_counts)
    domain = label_domain(read_schema(schema), column) or sorted(counts["train"])
    for split, split_counts in counts.items():
        unknown = sorted(split_counts.keys() - set(domain))
        num_unknown = sum(split_counts[label] for label in unknown)
        if split != "train" and num_unknown <= MAX_UNKNOWN_LABEL_SHARE * split_counts.total():
            continue  # ExampleValidator has warned of them; they have no id, so IdWriter drops them
        for label in unknown:
            raise UserError(
                f"column {column!r}: unknown label {label!r} in {split_counts[label]} rows of the {split} split; "
                f"known labels are {', '.join(map(repr, domain))}. Fix the rows, or add it to the schema's domain",
                code="label-unknown",
                column=column,
                label=label,
                split=split,
                rows=split_counts[label],
            )
    if len(domain) < 2:
        raise UserError(
            f"column {column!r} has only the label {domain[0]!r}; classification needs at least two. Add rows with "
            "other labels",
            code="labels-too-few",
            column=column,
        )
    return {label: counts["train"][label] for label in domain}


def _adopt(files: TokenizerSource, preprocessing: Preprocessing, tokenizer: Tokenizer) -> None:
    """Copies the user's tokenizer for all columns, or those for each column.

    Raises:
        UserError: a column has no tokenizer, or the files are not a tokenizer.
    """
    # Imports TensorFlow; see workers.py.
    from seq2serve.models.tokenizers.tokenizer import adopt_tokenizer

    columns, paths = preprocessing.columns, {}
    for file in _source_files(files):
        paths.setdefault(file.get("column", ""), []).append(file["path"])
    if paths.keys() not in ({""}, set(columns)):
        expected = ",".join(f"{column}=DIR" for column in columns)
        raise UserError(
            f"{files.uri}: tokenizers for {', '.join(paths)}; pass one for all columns, or {expected}",
            code="tokenizer-columns",
            path=files.uri,
            columns=list(paths),
        )
    adopted = {}
    for name, column_paths in paths.items():
        folder = tokenizer.path(name) if name else tokenizer.uri
        try:
            with contextlib.ExitStack() as stack:
                local_paths = [stack.enter_context(local_file(path)) for path in column_paths]
                directory = stack.enter_context(filled_folder(folder))
                adopted[name] = adopt_tokenizer(local_paths, directory, preprocessing.placeholders)
        except ValueError as error:
            raise UserError(
                f"{files.uri}: {error}; pass the folder of a tokenizer or a SentencePiece .model file",
                code="tokenizer-invalid",
                path=files.uri,
            ) from error
    folders = {os.path.dirname(path) for column_paths in paths.values() for path in column_paths}
    if set(paths) != {""}:  # the record of a tokenizer for each column is in the folder around them
        folders = {os.path.dirname(folder) for folder in folders}
    if len(folders) == 1:
        write_record(tokenizer.uri, read_record(folders.pop()) or {})
    kinds = dict.fromkeys(settings["kind"] for settings in adopted.values())
    sizes = {name: settings["vocab_size"] for name, settings in adopted.items()}
    tokenizer.properties.update(kind=" and ".join(kinds), vocab_size=sizes.get("", sizes))


def _source_files(source: TokenizerSource) -> list[dict[str, str]]:
    """Returns {"path", "column"} of each file; without "column", the tokenizer is for all columns."""
    if not isinstance(source, Tokenizer):
        return source.properties["files"]
    if isinstance(columns := source.properties["vocab_size"], dict):
        return [{"path": path, "column": column} for column in columns for path in list_files(source.path(column))]
    return [{"path": path} for path in list_files(source.uri)]


def _write_ids(
    examples: Examples,
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    labels: dict[str, list[str]],
    context: Context,
    tokenizer_config: TokenizerConfig | None = None,
) -> None:
    """Writes ids and counts.

    Args:
        labels: label column -> its labels, in the order of their ids; several corpora become ids in the same way.
        tokenizer_config: of the tokenizer that is learned first; None if `tokenizer` is complete.
    """
    splits, corpora = examples.properties["splits"], list(examples.properties.get("corpora", {}))
    if corpora:
        labels = labels | {CORPUS: corpora}
    learned, counts = _run_beam(
        examples, transformed_examples, tokenizer, preprocessing, labels, context, tokenizer_config
    )
    if tokenizer_config:
        _describe_learned(tokenizer, learned, tokenizer_config)
    transformed_examples.properties.update(splits=splits, data=describe_data(examples))
    chosen = _choose(learned, counts, preprocessing, tokenizer_config)
    if chosen:
        listed = ", ".join(f"{name}={value:,}" for name, value in chosen.items())
        bound = ""
        if chosen.get(MAX_LENGTH) == preprocessing.longest_limit < LONGEST_LIMIT:
            bound = f", at most model.max_positions={preprocessing.longest_limit}"
        transformed_examples.properties.update(settings=chosen, reason=f"{listed} from the texts{bound}")
        note(f"Transform chose {transformed_examples.properties['reason']}")
    preprocessing = dataclasses.replace(preprocessing, max_length=chosen.get(MAX_LENGTH, preprocessing.max_length))
    _describe(transformed_examples, counts, preprocessing)
    if corpora:
        transformed_examples.properties["corpora"] = _count_corpora(counts, corpora)


def _run_beam(
    examples: Examples,
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    labels: dict[str, list[str]],
    context: Context,
    tokenizer_config: TokenizerConfig | None,
) -> tuple[list[dict], list[dict]]:
    """Learns tokenizers and writes ids; see `_write_ids` for the arguments.

    Returns:
        The results of LearnTokenizers, none if `tokenizer` is complete, and the counts of each shard.
    """
    uri, splits = transformed_examples.uri, examples.properties["splits"]
    for split in splits:
        make_folder(transformed_examples.path(f"Split-{split}"))
    shards = [(split, path, transformed_path(uri, path)) for split in splits for path in shard_paths(examples, split)]
    counts_path, learned_path = (transformed_examples.path(name) for name in ("counts.jsonl", "learned.jsonl"))
    # One pipeline for learning and writing: for each pipeline the workers would import TensorFlow again.
    with beam_pipeline(context) as pipeline:
        learned = ()
        if tokenizer_config:
            columns = preprocessing.columns
            groups = {"": columns} if tokenizer_config.shared else {column: (column,) for column in columns}
            train = pipeline | "Train" >> beam.Create(shard_paths(examples, "train"))
            for_labels = bool(preprocessing.label_columns)
            tokenizers = train | LearnTokenizers(groups, tokenizer_config, tokenizer.uri, for_labels)
            tokenizers | "Learned" >> WriteJsonLines(learned_path)
            learned = (beam.pvalue.AsList(tokenizers),)
        (
            pipeline
            | beam.Create(shards)
            | beam.Reshuffle()
            | beam.ParDo(WriteIds(preprocessing, labels, tokenizer.uri), *learned)
            | WriteJsonLines(counts_path)
        )
    return read_json_lines(learned_path) if tokenizer_config else [], read_json_lines(counts_path)


def _choose(
    learned: list[dict], shards: list[dict], preprocessing: Preprocessing, tokenizer_config: TokenizerConfig | None
) -> dict[str, int]:
    """Returns the settings that follow from the texts: the size of the vocabulary, and the length limit."""
    chosen = {}
    sizes = {result["wanted"] for result in learned}
    # If two vocabularies differ, there is no setting for them: one is for both.
    if tokenizer_config and not tokenizer_config.vocab_size and len(sizes) == 1:
        chosen[VOCABULARY] = sizes.pop()
    if not preprocessing.max_length:
        lengths = [int(length) for shard in shards for lengths in shard["lengths"].values() for length in lengths]
        chosen[MAX_LENGTH] = choose_max_length(max(lengths, default=0), preprocessing.longest_limit)
    return chosen


def _describe_learned(tokenizer: Tokenizer, learned: list[dict], config: TokenizerConfig) -> None:
    """Sets the properties of learned tokenizers from the results of LearnTokenizers; raises UserError if one failed."""
    notices = []
    for result in sorted(learned, key=lambda result: result["name"]):
        column = f" of {result['name']}" if result["name"] else ""
        if result["notice"]:
            notices.append(f"tokenizer{column}: {result['notice']}")
            note(f"Transform: warning: {notices[-1]}")
        if result["error"]:
            raise UserError(
                f"cannot learn a tokenizer{column} from the train split: {result['error']}; change the settings in "
                "[tokenizer]",
                code="tokenizer-unlearnable",
                column=result["name"],
            )
    sizes = {result["name"]: result["vocab_size"] for result in learned}
    tokenizer.properties.update(kind=config.kind, vocab_size=sizes.get("", sizes))
    if notices:
        tokenizer.properties["notices"] = notices


def _describe(transformed_examples: TransformedExamples, shards: list[dict], preprocessing: Preprocessing) -> None:
    """Sets the counts as properties; raises UserError if a split has lost all its rows."""
    columns, max_length = preprocessing.columns, preprocessing.max_length
    num_examples: collections.Counter = collections.Counter()
    num_truncated, num_long = (collections.Counter(dict.fromkeys(columns, 0)) for _ in range(2))
    lengths = {column: collections.Counter() for column in columns}
    num_tokens = {split: dict.fromkeys(columns, 0) for split in transformed_examples.properties["splits"]}
    for counts in shards:
        num_examples[counts["split"]] += counts["num_examples"]
        num_truncated.update(counts["num_truncated"])
        num_long.update(counts["num_long"])
        for column, column_lengths in counts["lengths"].items():
            numbers = {int(length): number for length, number in column_lengths.items()}
            lengths[column].update(numbers)
            num_tokens[counts["split"]][column] += sum(length * number for length, number in numbers.items())
    num_dropped = sum(counts["num_dropped"] for counts in shards)
    splits = transformed_examples.properties["splits"]
    if empty := next((split for split in splits if not num_examples[split] and num_dropped), None):
        raise UserError(
            f"every row of the {empty} split has more than data.max_length={max_length} tokens and was dropped; "
            "increase data.max_length, or set data.too_long=cut",
            code="rows-too-long",
            setting="data.max_length",
            split=empty,
        )
    transformed_examples.properties.update(
        max_length=max_length,
        num_examples={split: num_examples[split] for split in splits},
        num_truncated=dict(num_truncated),
        num_long=dict(num_long),
        num_dropped=num_dropped,
        num_tokens=num_tokens,
        token_lengths={column: _quantiles(column_lengths) for column, column_lengths in lengths.items()},
    )
    for warning in length_warnings(transformed_examples.properties):
        note(f"Transform: {'WARNING' if warning.is_large else 'warning'}: {warning.text}")


def _count_corpora(shards: list[dict], corpora: list[str]) -> dict[str, int]:
    """Returns corpus -> number of its rows in the train split, in the order of the corpora's numbers."""
    counts: collections.Counter = collections.Counter(dict.fromkeys(corpora, 0))
    for shard in shards:
        if shard["split"] == "train":
            counts.update({corpora[int(number)]: rows for number, rows in shard["corpora"].items()})
    return dict(counts)


def _quantiles(lengths: collections.Counter) -> dict[str, int]:
    """Returns the median, the 99th percentile, the maximum and the sum of the lengths."""
    quantiles, cumulative = {}, 0
    for length, number in sorted(lengths.items()):
        cumulative += number
        for name, share in (("median", 0.5), ("p99", 0.99), ("max", 1)):
            if cumulative >= share * lengths.total():
                quantiles.setdefault(name, length)
    return {**quantiles, "total": sum(length * number for length, number in lengths.items())}
