"""ExampleGen: the user's files to Examples (TFX: ExampleGen)."""

from seq2serve.components.base.artifact import Examples, RawFiles
from seq2serve.components.base.component import BeamContext, Input, Output, component
from seq2serve.components.example_gen.config import InputConfig, SplitConfig


@component
def ExampleGen(
    files: Input[RawFiles],
    examples: Output[Examples],
    columns: dict[str, str],
    input_config: InputConfig,
    split_config: SplitConfig,
    max_reject_share: float,
    context: BeamContext,
    slice_columns: tuple[str, ...] = (),
) -> None:
    """Reads the user's files and writes every row either as a tf.Example or as a reject with its reason.

    Args:
        files: the resolved files, each with the split or the column that the user assigned to it, if any.
        examples: the examples of all splits, and the rejects.
        columns: example column -> column of the file: a name, or a number from 1 if there is no header, or for JSON a
            field or a dotted path of fields. The first column is the model's input.
        input_config: formats, and the unit of a row in plain text.
        split_config: shares of eval and test, which are taken from the training rows unless they have their own files,
            and which rows share a split. If all rows of a label would be in eval and test, they are moved to train.
        max_reject_share: the largest share of rows that may be rejected.
        context: Beam options.
        slice_columns: further columns to keep under their own names in the test split. Only the Evaluator reads them,
            to compute metrics per slice.
    Raises:
        UserError: a column is missing, a file is damaged, there are no rows, too many rows are rejected, or a split is
            empty.
    Source: https://www.tensorflow.org/tfx/guide/examplegen
    """
    from seq2serve.components.example_gen.executor import generate_examples

    generate_examples(files, examples, columns, input_config, split_config, max_reject_share, context, slice_columns)
