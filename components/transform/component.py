"""Transform: Examples to a Tokenizer and token ids; TransformByTokenizer: the same with a tokenizer of the user."""

from typing import Annotated

from seq2serve.components.base.artifact import Examples, Schema, Tokenizer, TokenizerSource, TransformedExamples
from seq2serve.components.base.component import BeamContext, Input, Output, Splits, component
from seq2serve.components.transform.preprocessing import Preprocessing
from seq2serve.models.config import TokenizerConfig


@component
def Transform(
    examples: Annotated[Input[Examples], Splits(("train", "eval"))],
    schema: Input[Schema],
    transformed_examples: Output[TransformedExamples],
    tokenizer: Output[Tokenizer],
    preprocessing: Preprocessing,
    tokenizer_config: TokenizerConfig,
    context: BeamContext,
) -> None:
    """Learns a tokenizer from the train split, and turns text and labels of train and eval into ids (TFX: Transform).

    The test split isn't needed as ids: Evaluator sends its texts to the exported model.

    Args:
        examples: text columns; splits `train` and `eval`.
        schema: the types of the columns, and the labels.
        transformed_examples: a shard for each shard of `examples`.
        tokenizer: the learned tokenizer, or one per column.
        preprocessing: the columns that become ids, and the length limit of a text.
        tokenizer_config: kind and size of the tokenizer.
        context: Beam options.
    Raises:
        UserError: a column is not text, the vocabulary cannot be learned, a label is unknown, or there is only one.
    """
    from seq2serve.components.transform.executor import transform

    transform(examples, schema, transformed_examples, tokenizer, preprocessing, tokenizer_config, context)


@component
def TransformByTokenizer(
    examples: Annotated[Input[Examples], Splits(("train", "eval"))],
    schema: Input[Schema],
    files: Input[TokenizerSource],
    transformed_examples: Output[TransformedExamples],
    tokenizer: Output[Tokenizer],
    preprocessing: Preprocessing,
    context: BeamContext,
) -> None:
    """Transforms with a tokenizer that the user provides instead of learning one.

    Args:
        examples, schema, transformed_examples, tokenizer, preprocessing, context: as for Transform.
        files: those of a Tokenizer artifact, or a SentencePiece model; or one of these for each column. Or the
            Tokenizer of ModelImporter.
    Raises:
        UserError: a column is not text, the files are not a tokenizer, a label is unknown, or there is only one.
    """
    from seq2serve.components.transform.executor import transform_by_tokenizer

    transform_by_tokenizer(examples, schema, files, transformed_examples, tokenizer, preprocessing, context)
