"""SchemaGen: ExampleStatistics -> Schema, what data of this kind should look like; ImportSchemaGen: one kept by hand.

Comes in: the statistics of the train split, or a file. Goes out: schema.pbtxt, to be read, edited and kept.
Read next: example_validator.py, which holds every split against it.
"""

import typing

from components.artifact import ExampleStatistics, Schema, SchemaFile
from components.component import Input, Output, component
from components.errors import UserError

if typing.TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

# Changes of the share of one word or label between two runs that are worth a word; edit them in the schema.
_WORD_DRIFT, _LABEL_DRIFT = 0.02, 0.1
_LENGTH_SLACK = 2  # how many times as long as the longest text in training, or as short as the shortest, is no news


@component
def SchemaGen(
    statistics: Input[ExampleStatistics], schema: Output[Schema], label_columns: tuple[str, ...] = ()
) -> None:
    """Infers a schema from the train split (TFX: SchemaGen).

    Every column is bytes, one value a row, present in as large a share of the rows as it is in training (all, as a
    rule), and about as long in words as what was seen in training: some text of another split of the same data is
    always a little longer or shorter, so the bounds have slack. A label is one of those seen in training.

    Args:
        statistics: of every split; only train's are read.
        schema: is filled.
        label_columns: columns that hold labels.
    Raises:
        UserError: a column of labels has more different values than labels have.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2

    from components.statistics_protos import ROW, features_by_name, read_statistics

    result = schema_pb2.Schema()
    result.dataset_constraints.min_examples_count = 1
    for name, found in features_by_name(read_statistics(statistics, "train")).items():
        if name != ROW:
            _add_feature(result, name, found, name in label_columns)
    _write(result, schema)


@component
def ImportSchemaGen(file: Input[SchemaFile], schema: Output[Schema]) -> None:
    """Takes a schema that is kept by hand, most likely one that SchemaGen once inferred (TFX: ImportSchemaGen).

    Args:
        file: one schema.pbtxt.
        schema: is filled with the same.
    Raises:
        UserError: there are several files, or the file is no schema.
    """
    paths = [found["path"] for found in file.properties["files"]]
    if len(paths) > 1:
        raise UserError(f"{file.uri}: {len(paths)} files; a schema is one")
    _write(_parse(paths[0]), schema)


def _add_feature(
    schema: "schema_pb2.Schema", name: str, found: "statistics_pb2.FeatureNameStatistics", is_label: bool
) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from components.statistics_protos import label_counts, natural_language
    from components.text_counts import MAX_LABELS

    common = found.string_stats.common_stats
    feature = schema.feature.add(name=name, type=schema_pb2.BYTES)
    feature.presence.min_fraction = common.num_non_missing / max(common.num_non_missing + common.num_missing, 1)
    feature.presence.min_count = 1
    feature.value_count.min = feature.value_count.max = 1
    if is_label:
        labels = label_counts(found)
        if not labels:
            raise UserError(
                f"the column named with --{name} has more than {MAX_LABELS:,} different values, and a column of "
                f"labels has no more; name another with --{name}, or group the values into fewer labels"
            )
        feature.domain = name
        schema.string_domain.add(name=name, value=sorted(labels))
        feature.drift_comparator.infinity_norm.threshold = _LABEL_DRIFT
        return
    lengths = feature.natural_language_domain.sequence_length_constraints
    lengths.min_sequence_length = natural_language(found).min_sequence_length // _LENGTH_SLACK
    lengths.max_sequence_length = natural_language(found).max_sequence_length * _LENGTH_SLACK
    feature.drift_comparator.infinity_norm.threshold = _WORD_DRIFT


def label_domain(schema: "schema_pb2.Schema", column: str) -> list[str]:
    """Returns the labels that a schema allows in a column; empty where it does not say."""
    feature = next((feature for feature in schema.feature if feature.name == column), None)
    if feature is None:
        return []
    shared = next((domain for domain in schema.string_domain if domain.name == feature.domain), feature.string_domain)
    return list(shared.value)


def read_schema(artifact: Schema) -> "schema_pb2.Schema":
    """Reads a schema.

    Raises:
        UserError: it is no schema; says at which line.
    """
    return _parse(artifact.path("schema.pbtxt"))


def _parse(path: str) -> "schema_pb2.Schema":
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        try:
            return text_format.Parse(file.read().decode(), schema_pb2.Schema())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a schema (line:column reason): {error}") from error


def _write(found: "schema_pb2.Schema", schema: Schema) -> None:
    import tensorflow as tf
    from google.protobuf import text_format

    with tf.io.gfile.GFile(schema.path("schema.pbtxt"), "w") as file:
        file.write(text_format.MessageToString(found, as_utf8=True))
