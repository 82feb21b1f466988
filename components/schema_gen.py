"""SchemaGen: ExampleStatistics -> Schema, what data of this kind should look like.

Comes in: the statistics of the train split. Goes out: schema.pbtxt, to be read, edited and kept.
Read next: example_validator.py, which holds every split against it.
"""

import typing

from components.artifact import ExampleStatistics, Schema
from components.component import Input, Output, component
from components.errors import UserError

if typing.TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2


@component
def SchemaGen(statistics: Input[ExampleStatistics], schema: Output[Schema]) -> None:
    """Infers a schema from the train split (TFX: SchemaGen).

    Every column is bytes, one value a row, present in as large a share of the rows as it is in training (all, as a
    rule), and as long in words as what was seen in training.

    Args:
        statistics: of every split; only train's are read.
        schema: is filled.
    """
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    from components.statistics_protos import ROW, features_by_name, natural_language, read_statistics

    result = schema_pb2.Schema()
    result.dataset_constraints.min_examples_count = 1
    for name, found in features_by_name(read_statistics(statistics, "train")).items():
        if name == ROW:
            continue
        common = found.string_stats.common_stats
        feature = result.feature.add(name=name, type=schema_pb2.BYTES)
        feature.presence.min_fraction = common.num_non_missing / (common.num_non_missing + common.num_missing)
        feature.presence.min_count = 1
        feature.value_count.min = feature.value_count.max = 1
        lengths = feature.natural_language_domain.sequence_length_constraints
        lengths.min_sequence_length = natural_language(found).min_sequence_length
        lengths.max_sequence_length = natural_language(found).max_sequence_length
    with tf.io.gfile.GFile(schema.path("schema.pbtxt"), "w") as file:
        file.write(text_format.MessageToString(result))


def read_schema(artifact: Schema) -> "schema_pb2.Schema":
    """Reads a schema, be it inferred or edited by hand.

    Raises:
        UserError: it is no schema; says at which line.
    """
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    path = artifact.path("schema.pbtxt")
    with tf.io.gfile.GFile(path) as file:
        try:
            return text_format.Parse(file.read(), schema_pb2.Schema())
        except text_format.ParseError as error:
            raise UserError(f"{path}: not a schema (line:column reason): {error}") from error
