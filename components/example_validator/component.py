"""ExampleValidator: compares statistics with a schema, and stops the run before training if the data has errors."""

from typing import Literal

from seq2serve.components.base.artifact import ExampleAnomalies, ExampleStatistics, Schema
from seq2serve.components.base.component import History, Input, Output, component


@component
def ExampleValidator(
    statistics: Input[ExampleStatistics],
    schema: Input[Schema],
    anomalies: Output[ExampleAnomalies],
    earlier_statistics: History[ExampleStatistics] = (),
    overlap: Literal["error", "drop_from_train", "warn"] = "error",
) -> None:
    """Compares the statistics of all splits with the schema, and with those of the last run (TFX: ExampleValidator).

    The last run is the last one before these statistics whose statistics are of the same files.

    Args:
        statistics: statistics of all splits.
        schema: the expected columns, types and values.
        anomalies: the deviations, by split.
        earlier_statistics: those of earlier runs.
        overlap: `warn` if rows of eval and test that are also in train are never an error. ExampleGen has dropped them
            with `drop_from_train`.
    Raises:
        UserError: at least one anomaly is an error; the message has one line for each error.
    """
    from seq2serve.components.example_validator.executor import validate_examples

    validate_examples(statistics, schema, anomalies, earlier_statistics, overlap)
