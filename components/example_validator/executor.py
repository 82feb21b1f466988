"""The executor of ExampleValidator."""

from collections.abc import Sequence

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from seq2serve.components.base.artifact import ExampleAnomalies, ExampleStatistics, Schema
from seq2serve.components.base.component import Earlier
from seq2serve.components.base.errors import UserError
from seq2serve.components.example_validator.anomalies import Anomaly, find_anomalies, find_drift, find_label_anomalies
from seq2serve.components.example_validator.traces import find_traces
from seq2serve.components.schema_gen.schema_file import read_schema
from seq2serve.components.statistics_gen.statistics_file import read_statistics
from seq2serve.components.storage.files import write_file


def validate_examples(
    statistics: ExampleStatistics,
    schema: Schema,
    anomalies: ExampleAnomalies,
    earlier_statistics: Sequence[Earlier[ExampleStatistics]],
    overlap: str,
) -> None:
    """Executes ExampleValidator; see component.py for the arguments."""
    expected = read_schema(schema)
    previous = _previous(statistics, earlier_statistics)
    datasets = {split: read_statistics(statistics, split) for split in statistics.properties["splits"]}
    labels = find_label_anomalies(expected, datasets, statistics.properties.get("label_conflicts", {}))
    by_split: dict[str, list[Anomaly]] = {}
    lines: dict[str, list[str]] = {"ERROR": [], "WARNING": [f"{found.column}: {found.description}" for found in labels]}
    for split, dataset in datasets.items():
        by_split[split] = [*find_anomalies(expected, dataset, overlap), *find_traces(expected, dataset)]
        if previous:
            by_split[split] += find_drift(expected, dataset, read_statistics(previous, split))
        for anomaly in by_split[split]:
            lines[anomaly.severity].append(f"{split} {anomaly.column or 'split'}: {anomaly.description}")
        # The file format has one file per split, so findings about all splits are in that of the train split.
        by_split[split] += labels if split == "train" else []
        _write(anomalies.path(f"Split-{split}"), expected, by_split[split])
    anomalies.properties["num_anomalies"] = {split: len(split_anomalies) for split, split_anomalies in by_split.items()}
    anomalies.properties["warnings"] = lines["WARNING"]
    if lines["ERROR"]:
        message = "\n  ".join(["the examples do not match the schema:", *lines["ERROR"]])
        raise UserError(message, code="examples-anomalous", errors=lines["ERROR"])


def _previous(
    statistics: ExampleStatistics, earlier_statistics: Sequence[Earlier[ExampleStatistics]]
) -> ExampleStatistics | None:
    """Returns the statistics of the last earlier run on the same files, if they have all splits; otherwise None."""
    source, splits = statistics.properties["source"], set(statistics.properties["splits"])
    for earlier in earlier_statistics:
        properties = earlier.artifact.properties
        if earlier.artifact.id < statistics.id and properties.get("source") == source:
            return earlier.read() if splits <= set(properties["splits"]) else None
    return None


def _write(folder: str, schema: schema_pb2.Schema, anomalies: list[Anomaly]) -> None:
    result = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in anomalies:
        info = result.anomaly_info[anomaly.column] if anomaly.column else result.dataset_anomaly_info
        info.severity = max(info.severity, anomalies_pb2.AnomalyInfo.Severity.Value(anomaly.severity))
        kind = anomalies_pb2.AnomalyInfo.Type.Value(anomaly.type)
        info.reason.add(type=kind, short_description=anomaly.type, description=anomaly.description)
        info.description = "; ".join(reason.description for reason in info.reason)
        if anomaly.column:
            info.path.step[:] = [anomaly.column]
    write_file(f"{folder}/SchemaDiff.pb", result.SerializeToString(deterministic=True))
