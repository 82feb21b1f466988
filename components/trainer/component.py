"""Trainer: token ids to a trained and exported model (TFX: Trainer)."""

from seq2serve.components.base.artifact import (
    BaseModel,
    HyperParameters,
    Model,
    ModelRun,
    Tokenizer,
    TransformedExamples,
)
from seq2serve.components.base.component import Input, MachinesContext, Output, component
from seq2serve.components.tasks.task import Task
from seq2serve.models.config import Recipe


@component
def Trainer(
    transformed_examples: Input[TransformedExamples],
    tokenizer: Input[Tokenizer],
    model: Output[Model],
    model_run: Output[ModelRun],
    task: Task,
    recipe: Recipe,
    context: MachinesContext,
    hyperparameters: Input[HyperParameters] | None = None,
    base_model: Input[BaseModel] | None = None,
    corpus_weights: dict[str, float] | None = None,
) -> None:
    """Trains with Keras `fit`, averages the last or the best checkpoints, and exports the model.

    All visible GPUs share each batch. If TF_CONFIG names several machines, all of theirs do, and only this machine, the
    chief, evaluates, saves and exports; see pipeline/README.md.

    A killed execution resumes from its last checkpoint and ends with the same weights: model, optimizer, averages,
    random states and history are restored, and the order of batches is a function of seed and step. Ctrl-C saves a
    checkpoint before it ends the run.

    Args:
        transformed_examples: splits `train` and `eval`.
        tokenizer: the tokenizer of the ids.
        model: see artifact.Model.
        model_run: see artifact.ModelRun.
        task: the application.
        recipe: settings of model, training and decoding.
        hyperparameters: settings that count instead of those in `recipe`.
        context: `scratch` holds checkpoints and logs during training.
        base_model: an earlier model with the same vocabulary, of any task, whose weights training starts from (TFX:
            `base_model`).
        corpus_weights: corpus -> how often its rows are drawn, in proportion to the others; None to draw each row once
            per epoch.
    Raises:
        UserError: the loss is NaN or diverges, with the step; this machine does not support the precision; or training
            cannot start from `base_model`.
    Source: https://www.tensorflow.org/tfx/guide/trainer
    """
    from seq2serve.components.trainer.executor import train

    values = hyperparameters.properties["settings"] if hyperparameters else {}
    recipe = recipe.with_values(values)
    train(transformed_examples, tokenizer, model, model_run, task, recipe, context, base_model, corpus_weights)
