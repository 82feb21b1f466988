"""ExampleValidator: ExampleStatistics + Schema -> ExampleAnomalies, and a stop before training if they are errors.

Comes in: the statistics of every split, the schema. Goes out: what does not fit, split by split.
Read next: transform.py, which only runs if nothing here was an error.
"""

import typing
from collections.abc import Iterator

from components.artifact import ExampleAnomalies, ExampleStatistics, Schema
from components.component import Input, Output, component
from components.errors import UserError

if typing.TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

MAX_EMPTY_SHARE = 0.01
# A few sentences that everybody writes are in every split that was not made by a hash.
MAX_SHARE_IN_TRAIN = 0.01
MAX_UNTRANSLATED_SHARE = 0.1


class Anomaly(typing.NamedTuple):
    """One thing that does not fit.

    Args:
        column: the column's name, "row" for whole rows, "" for the split.
        type: a name of AnomalyInfo.Type.
        severity: "ERROR" or "WARNING".
        description: what, how much, and how to mend it.
    """

    column: str
    type: str
    severity: str
    description: str


@component
def ExampleValidator(
    statistics: Input[ExampleStatistics], schema: Input[Schema], anomalies: Output[ExampleAnomalies]
) -> None:
    """Holds the statistics of every split against the schema (TFX: ExampleValidator).

    Args:
        statistics: of every split.
        schema: what is expected.
        anomalies: is filled.
    Raises:
        UserError: an anomaly is an error; the message has a line for each such.
    """
    from components.schema_gen import read_schema
    from components.statistics_protos import read_statistics

    expected = read_schema(schema)
    found = {
        split: find_anomalies(expected, read_statistics(statistics, split)) for split in statistics.properties["splits"]
    }
    for split, split_anomalies in found.items():
        _write(anomalies.path(f"Split-{split}"), expected, split_anomalies)
    anomalies.properties["num_anomalies"] = {split: len(split_anomalies) for split, split_anomalies in found.items()}
    errors = [(split, a) for split, split_anomalies in found.items() for a in split_anomalies if a.severity == "ERROR"]
    if errors:
        lines = [f"  {split} {a.column or 'split'}: {a.description}" for split, a in errors]
        raise UserError("\n".join(["the examples do not fit their schema:", *lines]))


def find_anomalies(schema: "schema_pb2.Schema", dataset: "statistics_pb2.DatasetFeatureStatistics") -> list[Anomaly]:
    """Finds what does not fit.

    Args:
        schema: what is expected.
        dataset: the statistics of one split.
    Returns:
        The anomalies: of the split, then column by column in the schema's order, then of rows.
    """
    from components.statistics_protos import ROW, features_by_name

    features = features_by_name(dataset)
    result = []
    if dataset.num_examples < schema.dataset_constraints.min_examples_count:
        wanted = schema.dataset_constraints.min_examples_count
        text = f"{dataset.num_examples} examples, fewer than the {wanted} the schema asks for; add rows"
        result.append(Anomaly("", "DATASET_LOW_NUM_EXAMPLES", "ERROR", text))
    for expected in schema.feature:
        if expected.name in features:
            result += _column_anomalies(expected, features[expected.name], dataset.num_examples)
        else:
            text = "the column is in the schema and not in the data; add it, or take it out of the schema"
            result.append(Anomaly(expected.name, "SCHEMA_MISSING_COLUMN", "ERROR", text))
    for name in sorted(features.keys() - {expected.name for expected in schema.feature} - {ROW}):
        text = "the column is in the data and not in the schema; add it there, or do not read it"
        result.append(Anomaly(name, "SCHEMA_NEW_COLUMN", "ERROR", text))
    return result + list(_row_anomalies(features[ROW]))


def _column_anomalies(
    expected: "schema_pb2.Feature", found: "statistics_pb2.FeatureNameStatistics", num_examples: int
) -> Iterator[Anomaly]:
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

    from components.statistics_protos import custom_numbers, natural_language

    if found.type != statistics_pb2.FeatureNameStatistics.STRING or expected.type != schema_pb2.BYTES:
        names = schema_pb2.FeatureType.Name(expected.type), statistics_pb2.FeatureNameStatistics.Type.Name(found.type)
        text = "the schema says {} and the data holds {}; text is BYTES in one and STRING in the other".format(*names)
        yield Anomaly(expected.name, "UNEXPECTED_DATA_TYPE", "ERROR", text)
        return
    present = found.string_stats.common_stats.num_non_missing
    if present < expected.presence.min_fraction * num_examples or present < expected.presence.min_count:
        text = f"present in {present} of {num_examples} rows, the schema asks for {expected.presence.min_fraction:.1%}"
        yield Anomaly(expected.name, "FEATURE_TYPE_LOW_FRACTION_PRESENT", "ERROR", f"{text}; fill the gaps")
    empty = custom_numbers(found)["num_empty"]
    if empty > MAX_EMPTY_SHARE * num_examples:
        text = f"empty in {empty:.0f} of {num_examples} rows, more than {MAX_EMPTY_SHARE:.0%}; fill or drop those rows"
        yield Anomaly(expected.name, "FEATURE_TYPE_NO_VALUES", "ERROR", text)
    words = natural_language(found)
    limits = expected.natural_language_domain.sequence_length_constraints
    if words.min_sequence_length < limits.min_sequence_length:
        text = f"a text has {words.min_sequence_length} words, the schema's shortest {limits.min_sequence_length}"
        yield Anomaly(expected.name, "SEQUENCE_VALUE_TOO_FEW_OCCURRENCES", "WARNING", text)
    if 0 < limits.max_sequence_length < words.max_sequence_length:
        text = f"a text has {words.max_sequence_length} words, the schema's longest {limits.max_sequence_length}"
        yield Anomaly(expected.name, "SEQUENCE_VALUE_TOO_MANY_OCCURRENCES", "WARNING", text)


def _row_anomalies(found: "statistics_pb2.FeatureNameStatistics") -> Iterator[Anomaly]:
    from components.statistics_protos import ROW, custom_numbers

    numbers = custom_numbers(found)
    leaked = numbers.get("share_in_train", 0)  # train itself has no such number
    if leaked > 0:
        severity = "ERROR" if leaked > MAX_SHARE_IN_TRAIN else "WARNING"
        text = f"{leaked:.1%} of the rows are in the train split, too, so scores would flatter; drop them from one"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", severity, text)
    if numbers["share_untranslated"] > MAX_UNTRANSLATED_SHARE:
        text = f"{numbers['share_untranslated']:.1%} of the rows have the same text in every column: not translated?"
        yield Anomaly(ROW, "CUSTOM_VALIDATION", "WARNING", text)


def _write(folder: str, schema: "schema_pb2.Schema", found: list[Anomaly]) -> None:
    import tensorflow as tf
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    result = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in found:
        info = result.anomaly_info[anomaly.column] if anomaly.column else result.dataset_anomaly_info
        info.severity = max(info.severity, anomalies_pb2.AnomalyInfo.Severity.Value(anomaly.severity))
        kind = anomalies_pb2.AnomalyInfo.Type.Value(anomaly.type)
        info.reason.add(type=kind, short_description=anomaly.type, description=anomaly.description)
        info.description = "; ".join(reason.description for reason in info.reason)
        if anomaly.column:
            info.path.step[:] = [anomaly.column]
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(f"{folder}/SchemaDiff.pb", "wb") as file:
        file.write(result.SerializeToString(deterministic=True))
