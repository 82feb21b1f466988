"""StatisticsGen: Examples to ExampleStatistics (TFX: StatisticsGen)."""

from seq2serve.components.base.artifact import Examples, ExampleStatistics
from seq2serve.components.base.component import BeamContext, Input, Output, component


@component
def StatisticsGen(
    examples: Input[Examples],
    statistics: Output[ExampleStatistics],
    context: BeamContext,
    label_columns: tuple[str, ...] = (),
) -> None:
    """Computes statistics of each split: rows, lengths, words, labels, duplicates, and overlap with other splits.

    Args:
        examples: the output of ExampleGen.
        statistics: the statistics of each split; see protos.py for their names.
        context: Beam options.
        label_columns: columns of labels, whose values are counted.
    Source: https://www.tensorflow.org/tfx/guide/statsgen
    """
    from seq2serve.components.statistics_gen.executor import compute_statistics

    compute_statistics(examples, statistics, context, label_columns)
