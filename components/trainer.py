"""Trainer: token ids -> a trained model, exported (TFX: Trainer).

Comes in: TransformedExamples and the Tokenizer. Goes out: a Model (SavedModel and Keras weights) and a ModelRun (logs).
Read next: trainer_callbacks.py for checkpoints and logs, models/training.py for the optimizer, task.py for the rest.
"""

import json
import shutil

from components.artifact import Model, ModelRun, Tokenizer, TransformedExamples
from components.component import Context, Input, Output, component
from components.progress import progress
from components.task import Features, Recipe, Task
from components.tasks import get_task

NUM_SAMPLES = 3  # texts of the eval split that become warm-up requests: short, middle, long


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
    features = _features(spec, text_tokenizer, transformed_examples)
    network = spec.make_model(recipe.model, features)
    optimizer, loss = make_optimizer(config), spec.make_loss(config, features)
    # No XLA: it would compile anew for every shape of a batch, and gains nothing on a CPU.
    network.compile(optimizer, loss=loss, metrics=[MaskedAccuracy(loss.pad_id)], jit_compile=False)
    optimizer.build(network.trainable_variables)
    checkpoint = callbacks.Checkpoint(network, context.scratch, config.checkpoint_steps)
    start = checkpoint.restore()
    eval_files = _files(transformed_examples, "eval")
    evaluation = callbacks.Evaluation(network, tuple(spec.make_batches(eval_files, recipe, 0, 1)))
    log = callbacks.TensorBoardLog(context.scratch, evaluation, config.checkpoint_steps)
    if start < config.steps:
        batches = spec.make_batches(_files(transformed_examples, "train"), recipe, start, None)
        with progress("Trainer", config.steps, "steps", start) as reporter:
            watch = [callbacks.StopAtNaN(), log, checkpoint, callbacks.ProgressBar(reporter, start)]
            network.fit(batches, steps_per_epoch=config.steps - start, callbacks=watch, verbose=0)
    optimizer.finalize_variable_values(network.trainable_variables)
    quality = evaluation.run()
    callbacks.check_finite(quality["loss"], optimizer)
    _write_weights(network, model)
    samples = _samples(eval_files, spec.text_columns[0], text_tokenizer)
    spec.export(network, text_tokenizer, features, recipe, model.path("Format-Serving"), samples)
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


def _features(spec: Task, tokenizer, examples: TransformedExamples) -> Features:
    counts = examples.properties.get("label_counts", {})
    return Features(tokenizer.vocab_size, *(counts[column] for column in spec.label_columns))


def _samples(files: list[str], column: str, tokenizer) -> list[str]:
    """Returns a short, a middle and a long text of a split."""
    import tensorflow as tf

    from models.dataset import read_pools

    texts = []
    for pool in read_pools(files, [column]):
        rows = tf.RaggedTensor.from_row_splits(pool.ids[column], pool.starts[column])
        texts += [text.decode() for text in tokenizer.detokenize(rows).numpy()]
    texts.sort(key=lambda text: (len(text), text))
    return [texts[round(i * (len(texts) - 1) / (NUM_SAMPLES - 1))] for i in range(NUM_SAMPLES)]


def _write_weights(network, model: Model) -> None:
    import tensorflow as tf

    keras_dir = model.path("Format-Keras")
    tf.io.gfile.makedirs(keras_dir)
    with tf.io.gfile.GFile(f"{keras_dir}/config.json", "w") as file:
        json.dump({"class": type(network).__name__, **network.get_config()}, file, indent=2)
    network.save_weights(f"{keras_dir}/model.weights.h5")
