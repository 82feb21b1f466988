"""Trainer: token ids -> a trained model, exported (TFX: Trainer).

Comes in: TransformedExamples and the Tokenizer. Goes out: a Model (SavedModel and Keras weights) and a ModelRun (logs).
Read next: trainer_callbacks.py for checkpoints and logs, models/training.py for the optimizer, tasks.py for the rest.
"""

import dataclasses
import json
import shutil

from components.artifact import Model, ModelRun, Tokenizer, TransformedExamples
from components.component import Context, Input, Output, component
from components.progress import progress
from components.tasks import get_task
from models.config import DecodingConfig, ModelConfig, TrainingConfig

NUM_SAMPLES = 3  # sentences of the eval split that become warm-up requests: short, middle, long


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that makes one trained model differ from another, but for its data."""

    model: ModelConfig
    training: TrainingConfig
    decoding: DecodingConfig


@component
def Trainer(
    transformed_examples: Input[TransformedExamples],
    tokenizer: Input[Tokenizer],
    model: Output[Model],
    model_run: Output[ModelRun],
    task: str,
    recipe: Recipe,
    context: Context,
) -> None:
    """Trains with Keras `fit`, averages the weights and exports.

    A killed execution goes on from its last checkpoint and ends with the weights it would have had: model, optimizer,
    averages and random states are restored, and the order of the batches is a function of seed and step.

    Args:
        transformed_examples: splits `train` and `eval`.
        tokenizer: what made the ids.
        model: see artifact.Model.
        model_run: see artifact.ModelRun.
        task: name of a Task.
        recipe: sizes, schedule, decoding.
        context: `scratch` holds checkpoints and logs while training runs.
    Raises:
        UserError: the loss is no longer a number; says at which step.
    Source: https://www.tensorflow.org/tfx/guide/trainer
    """
    import keras

    from components import trainer_callbacks as callbacks
    from models.tokenizer import load_tokenizer
    from models.training import MaskedAccuracy, make_optimizer

    config, spec = recipe.training, get_task(task)
    keras.utils.set_random_seed(config.seed)
    text_tokenizer = load_tokenizer(tokenizer.uri)
    network = spec.make_model(recipe.model, text_tokenizer.vocab_size)
    optimizer = make_optimizer(config)
    # No XLA: it would compile anew for every shape of a batch, and gains nothing on a CPU.
    loss = spec.make_loss(config.label_smoothing)
    network.compile(optimizer, loss=loss, metrics=[MaskedAccuracy()], jit_compile=False)
    optimizer.build(network.trainable_variables)
    checkpoint = callbacks.Checkpoint(network, context.scratch, config.checkpoint_steps)
    start = checkpoint.restore()
    eval_batches = tuple(_eval_batches(spec, transformed_examples, config))
    evaluation = callbacks.Evaluation(network, eval_batches)
    log = callbacks.TensorBoardLog(context.scratch, evaluation, config.checkpoint_steps)
    if start < config.steps:
        files = _files(transformed_examples, "train")
        batches = spec.make_batches(files, config.batch_tokens, config.seed, start)
        with progress("Trainer", config.steps, "steps", start) as reporter:
            watch = [callbacks.StopAtNaN(), log, checkpoint, callbacks.ProgressBar(reporter, start)]
            network.fit(batches, steps_per_epoch=config.steps - start, callbacks=watch, verbose=0)
    optimizer.finalize_variable_values(network.trainable_variables)
    quality = evaluation.run()
    callbacks.check_finite(quality["loss"], optimizer)
    _write(network, text_tokenizer, spec, recipe, model, _samples(eval_batches, text_tokenizer))
    # A copy: killed before all is published, the next execution needs them once more.
    shutil.copytree(f"{context.scratch}/logs", model_run.path("logs"))
    model.properties.update(
        num_parameters=network.count_params(),
        steps=config.steps,
        eval_loss=quality["loss"],
        eval_accuracy=quality["accuracy"],
    )


def _files(examples: TransformedExamples, split: str) -> list[str]:
    import tensorflow as tf

    return sorted(tf.io.gfile.glob(examples.path(f"Split-{split}", "*")))


def _eval_batches(spec, examples: TransformedExamples, config: TrainingConfig):
    """Makes every batch of the eval split once."""
    batches, seen = spec.make_batches(_files(examples, "eval"), config.batch_tokens, config.seed, 0), 0
    for inputs, labels in batches:
        yield inputs, labels
        seen += int(labels.shape[0])
        if seen >= examples.properties["num_examples"]["eval"]:
            return


def _samples(eval_batches, tokenizer) -> list[str]:
    """Returns a short, a middle and a long text of the eval split."""
    sources = [text.decode() for inputs, _ in eval_batches for text in tokenizer.detokenize(inputs["source"]).numpy()]
    sources.sort(key=lambda text: (len(text), text))
    return [sources[round(i * (len(sources) - 1) / (NUM_SAMPLES - 1))] for i in range(NUM_SAMPLES)]


def _write(network, tokenizer, spec, recipe: Recipe, model: Model, samples: list[str]) -> None:
    import tensorflow as tf

    keras_dir = model.path("Format-Keras")
    tf.io.gfile.makedirs(keras_dir)
    with tf.io.gfile.GFile(f"{keras_dir}/config.json", "w") as file:
        json.dump({"class": type(network).__name__, **network.get_config()}, file, indent=2)
    network.save_weights(f"{keras_dir}/model.weights.h5")
    spec.export(network, tokenizer, recipe.decoding, model.path("Format-Serving"), samples)
