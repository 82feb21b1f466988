"""Trainer: token ids -> a trained model, exported (TFX: Trainer).

Comes in: TransformedExamples, the Tokenizer, and where training starts from an earlier model, that. Goes out: a Model
(SavedModel and Keras weights) and a ModelRun (logs).
Read next: trainer_callbacks.py for checkpoints and logs, models/training.py for the optimizer, task.py for the rest.
"""

import os
import shutil
from typing import Any

from components.artifact import Model, ModelFiles, ModelRun, Tokenizer, TransformedExamples
from components.component import Context, Input, Output, component
from components.errors import UserError
from components.progress import note, progress
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
    base_model: Input[ModelFiles] | None = None,
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
        base_model: an earlier model with the same vocabulary, of any task, to take weights from (TFX: `base_model`).
    Raises:
        UserError: the loss is no longer a number, says at which step; this machine cannot compute in the precision; or
            training cannot start from `base_model`.
    Source: https://www.tensorflow.org/tfx/guide/trainer
    """
    import keras

    from models.tokenizer import load_tokenizers
    from models.warm_start import save_model

    spec = get_task(task)
    keras.utils.set_random_seed(recipe.training.seed)
    tokenizers = load_tokenizers(tokenizer.uri, spec.text_columns)
    features = _features(spec, tokenizers, transformed_examples)
    network = _compiled_model(spec, recipe, features)
    if base_model:
        model.properties["warm_start"] = _warm_start(network, base_model, tokenizer)
    quality = _fit(network, spec, recipe, transformed_examples, context.scratch)
    _copy_files(tokenizer.uri, model.path("Format-Keras", "tokenizer"))
    save_model(network, model.path("Format-Keras"))
    samples = _samples(_files(transformed_examples, "eval"), spec.text_columns[0], tokenizers[spec.text_columns[0]])
    served = spec.make_model(recipe.model, features)  # computes in float32, whatever it was trained in
    served.set_weights(network.get_weights())
    spec.export(served, tokenizers, features, recipe, model.path("Format-Serving"), samples)
    # A copy: killed before all is published, the next execution needs them once more.
    shutil.copytree(f"{context.scratch}/logs", model_run.path("logs"))
    model.properties.update(
        num_parameters=network.count_params(),
        steps=recipe.training.steps,
        eval_loss=quality["loss"],
        eval_accuracy=quality["accuracy"],
    )


def _compiled_model(spec: Task, recipe: Recipe, features: Features) -> Any:
    """Returns a keras.Model with its weights drawn, its optimizer built."""
    from models.training import MaskedAccuracy, make_optimizer

    network, loss = _make_model(spec, recipe, features), spec.make_loss(recipe.training, features)
    # No XLA: it would compile anew for every shape of a batch, and gains nothing on a CPU.
    metrics = [MaskedAccuracy(loss.pad_id)]
    network.compile(make_optimizer(recipe.training), loss=loss, metrics=metrics, jit_compile=False)
    # For float16 Keras has wrapped ours in an optimizer that scales the loss.
    network.optimizer.build(network.trainable_variables)
    return network


def _fit(network: Any, spec: Task, recipe: Recipe, examples: TransformedExamples, scratch: str) -> dict[str, float]:
    """Trains, or goes on from the last checkpoint, and leaves the averaged weights; returns their loss and accuracy."""
    from components import trainer_callbacks as callbacks

    config, optimizer = recipe.training, network.optimizer
    checkpoint = callbacks.Checkpoint(network, scratch, config.checkpoint_steps)
    start = checkpoint.restore()
    evaluation = callbacks.Evaluation(network, tuple(spec.make_batches(_files(examples, "eval"), recipe, 0, 1)))
    log = callbacks.TensorBoardLog(scratch, evaluation, config.checkpoint_steps)
    if start < config.steps:
        batches = spec.make_batches(_files(examples, "train"), recipe, start, None)
        with progress("Trainer", config.steps, "steps", start) as reporter:
            watch = [callbacks.StopAtNaN(), log, checkpoint, callbacks.ProgressBar(reporter, start)]
            network.fit(batches, steps_per_epoch=config.steps - start, callbacks=watch, verbose=0)
    optimizer.finalize_variable_values(network.trainable_variables)
    quality = evaluation.run()
    callbacks.check_finite(quality["loss"], optimizer)
    return quality


def _warm_start(network: Any, base_model: ModelFiles, tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Starts a network from an earlier model; says, and returns, what was taken and what was not."""
    from models.tokenizer import same_vocabulary
    from models.warm_start import WEIGHTS, start_from

    paths = [file["path"] for file in base_model.properties["files"]]
    folder = next(os.path.dirname(path) for path in paths if os.path.basename(path) == WEIGHTS)
    theirs = f"{folder}/tokenizer"
    if not same_vocabulary(theirs, tokenizer.uri):
        raise UserError(
            f"cannot start from {folder}: its vocabulary is not this run's, so its embeddings would stand for other "
            f"pieces; give both runs one tokenizer, here by --tokenizer {theirs}"
        )
    try:
        started = start_from(network, folder)
    except ValueError as error:
        raise UserError(f"cannot start from {folder}: {error}") from error
    parts = {name: list(layers) for name, layers in vars(started).items()}
    said = "; ".join(f"{name} {', '.join(layers) or 'nothing'}" for name, layers in parts.items())
    note(f"Trainer starts from {folder}: {said}")
    return parts


def _make_model(spec: Task, recipe: Recipe, features: Features):
    import tensorflow as tf

    from models.training import precision

    name = recipe.training.precision
    if name == "float16" and not tf.config.list_physical_devices("GPU"):
        raise UserError("setting training.precision=float16 needs a GPU, and there is none here; bfloat16 does not")
    with precision(name):
        return spec.make_model(recipe.model, features)


def _files(examples: TransformedExamples, split: str) -> list[str]:
    import tensorflow as tf

    return sorted(tf.io.gfile.glob(examples.path(f"Split-{split}", "*")))


def _features(spec: Task, tokenizers: dict[str, Any], examples: TransformedExamples) -> Features:
    counts = examples.properties.get("label_counts", {})
    first, last = (tokenizers[spec.text_columns[place]] for place in (0, -1))
    labels = [counts[column] for column in spec.label_columns]
    return Features(last.vocab_size, *labels, source_vocab_size=None if first is last else first.vocab_size)


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


def _copy_files(source: str, destination: str) -> None:
    import tensorflow as tf

    for folder, _, names in tf.io.gfile.walk(source):
        target = os.path.join(destination, os.path.relpath(folder, source))
        tf.io.gfile.makedirs(target)
        for name in names:
            tf.io.gfile.copy(os.path.join(folder, name), os.path.join(target, name))
