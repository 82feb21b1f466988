"""ModelImporter: the weights and the tokenizer of a pretrained model, as a Model and a Tokenizer (TFX: Importer)."""

from seq2serve.components.base.artifact import Model, PretrainedFiles, Tokenizer
from seq2serve.components.base.component import Input, Output, component


@component
def ModelImporter(
    files: Input[PretrainedFiles], model: Output[Model], tokenizer: Output[Tokenizer], source: str, licence: str
) -> None:
    """Imports a pretrained model: Transform uses its tokenizer, and Trainer starts from its weights (TFX: Importer).

    Args:
        files: config.json, *.safetensors and the files of its tokenizer, in Hugging Face's layout; or a model.*.bin or
            .npz of Marian and its *.spm. Pickles are refused, because they run code when they are read.
        model: its weights as a Keras model, without a SavedModel.
        tokenizer: its tokenizer.
        source: where the files are from, for lineage and model card.
        licence: of the weights.
    Raises:
        UserError: the architecture is unknown, tensors are missing, or the tokenizer is of another kind.
    Source: https://www.tensorflow.org/tfx/api_docs/python/tfx/v1/dsl/Importer
    """
    from seq2serve.components.model_importer.executor import import_pretrained

    import_pretrained(files, model, tokenizer, source, licence)
