"""Trainer: token ids -> a trained model, exported (TFX: Trainer).

Comes in: TransformedExamples, the Tokenizer, and where training starts from an earlier model, that. Goes out: a Model
(SavedModel and Keras weights) and a ModelRun (logs).
Read next: trainer_callbacks.py for checkpoints and logs, models/training.py for the optimizer, task.py for the rest.
"""

import os
import shutil
from typing import Any

from components import interrupt
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
    """Trains with Keras `fit` on every GPU there is, averages the last or the best checkpoints and exports.

    A killed execution goes on from its last checkpoint and ends with the weights it would have had: model, optimizer,
    averages, random states and history are restored, and the order of the batches is a function of seed and step.
    Ctrl-C saves first.

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
        UserError: the loss is no longer a number or diverges, says at which step; this machine cannot compute in the
            precision; or training cannot start from `base_model`.
    Source: https://www.tensorflow.org/tfx/guide/trainer
    """
    import keras

    from models.literal_path import literal_path
    from models.tokenizer import load_tokenizers
    from models.warm_start import save_model

    spec = get_task(task)
    keras.utils.set_random_seed(recipe.training.seed)
    data = _Data(spec, recipe, transformed_examples, load_tokenizers(tokenizer.uri, spec.text_columns))
    total_steps = data.total_steps()
    network = _compiled_model(data, total_steps)
    if base_model:
        model.properties["warm_start"] = _warm_start(network, base_model, tokenizer)
    with literal_path(context.scratch) as scratch:
        quality = _fit(network, data, total_steps, scratch)
    _copy_files(tokenizer.uri, model.path("Format-Keras", "tokenizer"))
    save_model(network, model.path("Format-Keras"))
    served = spec.make_model(recipe.model, data.features)  # computes in float32, whatever it was trained in
    served.set_weights(network.get_weights())
    samples = _samples([row[spec.text_columns[0]] for row in data.rows])
    spec.export(served, data.tokenizers, data.features, recipe, model.path("Format-Serving"), samples)
    # A copy: killed before all is published, the next execution needs them once more.
    shutil.copytree(f"{context.scratch}/logs", model_run.path("logs"))
    model.properties.update(num_parameters=network.count_params(), **quality)


class _Data:
    """What training is made of: a task, a recipe, and what the data decides.

    Args:
        spec: the task.
        recipe: how to train.
        examples: splits `train` and `eval`.
        tokenizers: of their ids, by text column.
    """

    def __init__(self, spec: Task, recipe: Recipe, examples: TransformedExamples, tokenizers: dict[str, Any]):
        self.spec, self.recipe, self.tokenizers = spec, recipe, tokenizers
        self.train, self.eval = (_files(examples, split) for split in ("train", "eval"))
        self.features = self._features(examples.properties.get("label_counts", {}))
        self.rows = self._eval_rows()

    def total_steps(self) -> Any:
        """Returns a number, or where the budget is in minutes a variable: a guess that gets better."""
        import tensorflow as tf

        config = self.recipe.training
        if config.minutes:
            return tf.Variable(config.steps, trainable=False, dtype=tf.float32)
        if config.epochs:
            in_epoch = sum(1 for _ in self.spec.make_batches(self.train, self.recipe, 0, 1))
            return max(1, round(config.epochs * in_epoch))
        return config.steps

    def evaluation(self, network: Any) -> Any:
        """Returns what evaluates the network on the eval split."""
        batches = tuple(self.spec.make_batches(self.eval, self.recipe, 0, 1))
        return self.spec.make_evaluation(network, self.tokenizers, self.features, self.recipe, batches, self.rows)

    def _features(self, counts: dict[str, dict[str, int]]) -> Features:
        first, last = (self.tokenizers[self.spec.text_columns[place]] for place in (0, -1))
        labels = [counts[column] for column in self.spec.label_columns]
        return Features(last.vocab_size, *labels, source_vocab_size=None if first is last else first.vocab_size)

    def _eval_rows(self) -> list[dict[str, str]]:
        """Returns the texts, as the tokenizer writes them, and the labels of the eval split."""
        import tensorflow as tf

        from models.dataset import read_pools

        rows = []
        for pool in read_pools(self.eval, self.spec.columns):
            columns = {}
            for column in self.spec.text_columns:
                ids = tf.RaggedTensor.from_row_splits(pool.ids[column], pool.starts[column])
                columns[column] = [text.decode() for text in self.tokenizers[column].detokenize(ids).numpy()]
            for column in self.spec.label_columns:
                columns[column] = [list(self.features.label_counts)[i] for i in pool.ids[column]]
            rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return rows


def _compiled_model(data: _Data, total_steps: Any) -> Any:
    """Returns a keras.Model with its weights drawn, its optimizer built."""
    from models.training import make_optimizer

    config = data.recipe.training
    with _devices().scope():
        network, loss = _make_model(data), data.spec.make_loss(config, data.features)
        network.batch_parts = config.batch_parts
        # No XLA: it would compile anew for every shape of a batch, and gains nothing on a CPU.
        network.compile(make_optimizer(config, total_steps), loss=loss, jit_compile=False)
        # For float16 Keras has wrapped ours in an optimizer that scales the loss.
        network.optimizer.build(network.trainable_variables)
    return network


def _devices() -> Any:
    """Returns the strategy that shares each batch among all GPUs that are visible, or the processor's logical devices.

    Of these there are several only where somebody has asked TensorFlow for them.
    """
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in found])


def _fit(network: Any, data: _Data, total_steps: Any, scratch: str) -> dict[str, Any]:
    """Trains, or goes on from the last checkpoint, and leaves the weights to export.

    Returns:
        `steps` taken; `exported_steps`, whose weights were averaged; eval_<metric> of what is exported.
    """
    from components import trainer_callbacks as callbacks
    from components.trainer_history import History, Judge
    from components.trainer_tensorboard import Profile, TensorBoardLog

    config, every, evaluation = data.recipe.training, data.recipe.training.checkpoint_steps, data.evaluation(network)
    judge = Judge(History(), evaluation.metric, evaluation.higher_is_better)
    kept = callbacks.KeptWeights(network, scratch)
    checkpoint = callbacks.Checkpoint(network, judge, kept, scratch, config)
    start = checkpoint.restore()
    if start:
        note(f"Trainer goes on from step {start}")
    budget = callbacks.Budget(judge.history, total_steps, config.minutes)
    evaluate = callbacks.Evaluate(evaluation, judge, kept, config)
    if not (budget.is_used_up(start) or evaluate.gives_up()):
        watch = callbacks.Watch(judge.history, every)
        log, profile = TensorBoardLog(scratch, watch, evaluate, data.recipe), Profile(scratch, config.profile_step)
        with interrupt.put_off(), progress("Trainer", int(total_steps), "steps", start) as reporter:
            bar = callbacks.ProgressBar(reporter, judge, total_steps)
            batches = data.spec.make_batches(data.train, data.recipe, start, None)
            network.fit(batches, callbacks=[budget, watch, evaluate, log, profile, checkpoint, bar], verbose=0)
    exported = judge.exported(config)
    kept.restore_mean(exported)
    quality = evaluation.run().metrics if len(exported) > 1 else judge.at(exported[0])
    callbacks.check_finite(quality["loss"], network.optimizer)
    metrics = {f"eval_{name}": value for name, value in quality.items()}
    return {"steps": callbacks.steps_done(network.optimizer), "exported_steps": exported, **metrics}


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


def _make_model(data: _Data):
    import tensorflow as tf

    from models.training import precision

    name = data.recipe.training.precision
    if name == "float16" and not tf.config.list_physical_devices("GPU"):
        raise UserError("setting training.precision=float16 needs a GPU, and there is none here; bfloat16 does not")
    with precision(name):
        return data.spec.make_model(data.recipe.model, data.features)


def _files(examples: TransformedExamples, split: str) -> list[str]:
    import tensorflow as tf

    folder = examples.path(f"Split-{split}")
    return [os.path.join(folder, name) for name in sorted(tf.io.gfile.listdir(folder))]


def _samples(texts: list[str]) -> list[str]:
    """Returns a short, a middle and a long text."""
    ranked = sorted(texts, key=lambda text: (len(text), text))
    return [ranked[round(i * (len(ranked) - 1) / (NUM_SAMPLES - 1))] for i in range(NUM_SAMPLES)]


def _copy_files(source: str, destination: str) -> None:
    import tensorflow as tf

    for folder, _, names in tf.io.gfile.walk(source):
        target = os.path.join(destination, os.path.relpath(folder, source))
        tf.io.gfile.makedirs(target)
        for name in names:
            tf.io.gfile.copy(os.path.join(folder, name), os.path.join(target, name))
