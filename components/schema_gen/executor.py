"""The executors of SchemaGen and ImportSchemaGen."""

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from seq2serve.components.base.artifact import ExampleStatistics, Schema, SchemaFile
from seq2serve.components.base.errors import UserError
from seq2serve.components.schema_gen.schema_file import parse_schema, write_schema
from seq2serve.components.statistics_gen.statistics_file import (
    MAX_LABELS,
    ROW,
    features_by_name,
    label_counts,
    natural_language,
    read_statistics,
)

# Larger changes in the share of a word or label between two runs are warnings. Users can edit the limits in the schema.
_WORD_DRIFT, _LABEL_DRIFT = 0.02, 0.1
_LENGTH_SLACK = 2  # texts may be this many times shorter or longer than the extremes of the train split


def infer_schema(statistics: ExampleStatistics, schema: Schema, label_columns: tuple[str, ...] = ()) -> None:
    """Executes SchemaGen; see component.py for the arguments."""
    result = schema_pb2.Schema()
    result.dataset_constraints.min_examples_count = 1
    for name, feature in features_by_name(read_statistics(statistics, "train")).items():
        if name != ROW:
            _add_feature(result, name, feature, name in label_columns)
    write_schema(result, schema)


def import_schema(file: SchemaFile, schema: Schema) -> None:
    """Executes ImportSchemaGen; see component.py for the arguments."""
    paths = [properties["path"] for properties in file.properties["files"]]
    if len(paths) > 1:
        raise UserError(
            f"{file.uri}: {len(paths)} files, but a schema is a single file; pass one with --schema",
            code="schema-ambiguous",
            path=file.uri,
        )
    write_schema(parse_schema(paths[0]), schema)


def _add_feature(
    schema: schema_pb2.Schema, name: str, statistics: statistics_pb2.FeatureNameStatistics, is_label: bool
) -> None:
    common = statistics.string_stats.common_stats
    feature = schema.feature.add(name=name, type=schema_pb2.BYTES)
    feature.presence.min_fraction = common.num_non_missing / max(common.num_non_missing + common.num_missing, 1)
    feature.presence.min_count = 1
    feature.value_count.min = feature.value_count.max = 1
    if is_label:
        labels = label_counts(statistics)
        if not labels:
            raise UserError(
                f"the column of --{name} has more than {MAX_LABELS:,} distinct values, the maximum for labels; name "
                f"another column with --{name}, or merge labels",
                code="labels-too-many",
                column=name,
            )
        feature.domain = name
        schema.string_domain.add(name=name, value=sorted(labels))
        feature.drift_comparator.infinity_norm.threshold = _LABEL_DRIFT
        return
    lengths = feature.natural_language_domain.sequence_length_constraints
    lengths.min_sequence_length = natural_language(statistics).min_sequence_length // _LENGTH_SLACK
    lengths.max_sequence_length = natural_language(statistics).max_sequence_length * _LENGTH_SLACK
    feature.drift_comparator.infinity_norm.threshold = _WORD_DRIFT
