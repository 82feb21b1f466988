"""ExampleValidator: ExampleStatistics + Schema -> ExampleAnomalies, and a stop before training if they are errors.

Comes in: the statistics of every split, the schema. Goes out: what does not fit, split by split.
Read next: anomalies.py for what is looked for; transform.py, which only runs if nothing here was an error.
"""

import os
import typing

from components.artifact import ExampleAnomalies, ExampleStatistics, Schema
from components.component import Input, Output, component
from components.errors import UserError

if typing.TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from components.anomalies import Anomaly


@component
def ExampleValidator(
    statistics: Input[ExampleStatistics], schema: Input[Schema], anomalies: Output[ExampleAnomalies]
) -> None:
    """Holds the statistics of every split against the schema, and against the last run's (TFX: ExampleValidator).

    The last run's statistics are those of the same files published beside these, under the next lower number: published
    artifacts never change, so which those are is settled once these are there.

    Args:
        statistics: of every split.
        schema: what is expected.
        anomalies: is filled.
    Raises:
        UserError: an anomaly is an error; the message has a line for each such.
    """
    from components.anomalies import find_anomalies, find_drift
    from components.schema_gen import read_schema
    from components.statistics_protos import read_statistics

    expected = read_schema(schema)
    previous = _previous(statistics)
    found: dict[str, list[Anomaly]] = {}
    for split in statistics.properties["splits"]:
        dataset = read_statistics(statistics, split)
        found[split] = find_anomalies(expected, dataset)
        if previous:
            found[split] += find_drift(expected, dataset, read_statistics(previous, split))
        _write(anomalies.path(f"Split-{split}"), expected, found[split])
    lines = {"ERROR": [], "WARNING": []}
    for split, split_anomalies in found.items():
        for a in split_anomalies:
            lines[a.severity].append(f"{split} {a.column or 'split'}: {a.description}")
    anomalies.properties["num_anomalies"] = {split: len(split_anomalies) for split, split_anomalies in found.items()}
    anomalies.properties["warnings"] = lines["WARNING"]
    if lines["ERROR"]:
        raise UserError("\n  ".join(["the examples do not fit their schema:", *lines["ERROR"]]))


def _previous(statistics: ExampleStatistics) -> ExampleStatistics | None:
    """Returns the statistics of the same files that were published last before these, if of the same splits."""
    from components.statistics_protos import read_source

    folder, name = os.path.split(statistics.uri)
    if not name.isdecimal() or not os.path.isdir(folder):
        return None
    numbers = sorted((int(other) for other in os.listdir(folder) if other.isdecimal()), reverse=True)
    earlier = (ExampleStatistics(os.path.join(folder, str(number))) for number in numbers if number < int(name))
    previous = next((other for other in earlier if read_source(other) == read_source(statistics)), None)
    if previous is None:
        return None
    splits = statistics.properties["splits"]
    whole = all(os.path.isfile(previous.path(f"Split-{split}", "FeatureStats.pb")) for split in splits)
    return previous if whole else None


def _write(folder: str, schema: "schema_pb2.Schema", found: list["Anomaly"]) -> None:
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
