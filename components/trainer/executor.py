"""The executor of Trainer: data, model and Keras `fit`.

See also: callbacks.py for checkpoints, evaluation and early stopping.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from seq2serve.components.base import interrupt
from seq2serve.components.base.artifact import BaseModel, Model, ModelRun, Tokenizer, TransformedExamples
from seq2serve.components.base.component import Context
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import note, progress
from seq2serve.components.storage.data_records import PRETRAINED, read_record, write_record
from seq2serve.components.tasks.data import DataSpec
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.task import Task
from seq2serve.components.trainer import callbacks
from seq2serve.components.trainer.checkpoints import CHECKPOINTS, continue_earlier, publish_state, read_moments
from seq2serve.components.trainer.history import CheckpointRanking, History, describe_choice
from seq2serve.components.trainer.tensorboard import Profile, TensorBoardLog
from seq2serve.models.config import Recipe, TrainingConfig
from seq2serve.models.runtime.literal_path import literal_path
from seq2serve.models.tokenizers.tokenizer import is_lowercase, load_tokenizers, same_vocabulary
from seq2serve.models.training.optimizer import continue_moments, make_optimizer, precision
from seq2serve.models.training.pools import read_pools
from seq2serve.models.training.replicas import shared_batches
from seq2serve.models.training.saving import save_model
from seq2serve.models.training.warm_start import WarmStart, start_from

NUM_WARMUP_TEXTS = 3  # texts of the eval split that become warm-up requests: short, medium, long


def train(
    transformed_examples: TransformedExamples,
    tokenizer: Tokenizer,
    model: Model,
    model_run: ModelRun,
    task: Task,
    recipe: Recipe,
    context: Context,
    base_model: BaseModel | None = None,
    corpus_weights: dict[str, float] | None = None,
) -> None:
    """Executes Trainer; see component.py for the arguments."""
    training = prepare(transformed_examples, tokenizer, task, recipe, base_model, corpus_weights)
    data, network, total_steps = training.data, training.network, training.total_steps
    if training.warm_start:
        model.properties["warm_start"] = training.warm_start
    if pretrained := _pretrained(base_model):
        model.properties["pretrained"] = pretrained
    with literal_path(context.scratch) as scratch:
        continued = ""
        if not tf.train.latest_checkpoint(f"{scratch}/{CHECKPOINTS}"):
            earlier = [run for run in context.earlier if run.parameters.get("corpus_weights") == corpus_weights]
            continued = continue_earlier(recipe, int(total_steps), earlier, scratch)
        results = fit(training, scratch, continued)
    _copy_files(tokenizer.uri, model.path("Format-Keras", "tokenizer"))
    save_model(network, model.path("Format-Keras"))
    write_record(model.path("Format-Keras"), _data_record(transformed_examples, base_model))
    # A model in float32, whatever the precision of training.
    served = data.implementation.make_model(recipe.model, data.spec)
    served.set_weights(network.get_weights())
    warmup_texts = _warmup_texts([row[task.text_columns[0]] for row in data.rows])
    data.implementation.export(served, data.tokenizers, data.spec, recipe, model.path("Format-Serving"), warmup_texts)
    publish_state(context.scratch, model_run)
    lowercase = is_lowercase(data.tokenizers[task.text_columns[-1]])
    model.properties.update(
        recipe=dataclasses.asdict(recipe),
        num_parameters=network.count_params(),
        lowercase=lowercase,
        headline=dataclasses.asdict(task.headline(data.spec.label_counts)),
        longer_training=longer_training(recipe.training),
        **results,
    )


def longer_training(config: TrainingConfig) -> str:
    """Returns the setting with which training takes twice as long, in the syntax of `--set`; empty without training."""
    name = next((name for name in ("minutes", "epochs", "steps") if getattr(config, name)), "")
    if not name:
        return ""
    return f"training.{name}={2 * getattr(config, name)}"


class Training(NamedTuple):
    """A training before its first step.

    Args:
        data: what it learns from.
        network: compiled, with the weights to start from.
        total_steps: see _TrainingData.total_steps.
        warm_start: the fields of WarmStart; empty without an earlier model.
    """

    data: "_TrainingData"
    network: keras.Model
    total_steps: int | tf.Variable
    warm_start: dict[str, list[str]]


def prepare(
    examples: TransformedExamples,
    tokenizer: Tokenizer,
    task: Task,
    recipe: Recipe,
    base_model: BaseModel | None = None,
    corpus_weights: dict[str, float] | None = None,
) -> Training:
    """Reads the data and builds the model; see component.py for the arguments and errors."""
    keras.utils.set_random_seed(recipe.training.seed)
    tokenizers = load_tokenizers(tokenizer.uri, task.text_columns)
    data = _TrainingData(task, recipe, examples, tokenizers, corpus_weights or {})
    total_steps = data.total_steps()
    network = _compiled_model(data, total_steps)
    started = {}
    if base_model:
        labels = base_model.properties.get("labels", list(data.spec.label_counts))
        excluded = () if labels == list(data.spec.label_counts) else ("head",)
        if excluded and labels:
            ours = ", ".join(data.spec.label_counts)
            note(f"Trainer: the pretrained head is not used: its labels are {', '.join(labels)}; here they are {ours}")
        started = _warm_start(network, base_model, tokenizer, recipe.training.warm_start_optimizer, excluded)
    return Training(data, network, total_steps, started)


class _TrainingData:
    """The data of a training: shards, tokenizers, the DataSpec and the rows of the eval split.

    Args:
        task: the application.
        recipe: settings of model, training and decoding.
        examples: splits `train` and `eval`.
        tokenizers: text column -> its tokenizer.
        corpus_weights: corpus -> its weight; empty to train on each row once per epoch.
    Raises:
        UserError: a corpus with a weight has no rows in train.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        examples: TransformedExamples,
        tokenizers: dict[str, Any],
        corpus_weights: dict[str, float],
    ):
        self.task, self.recipe, self.tokenizers = task, recipe, tokenizers
        self.implementation = task.implementation()
        self.train, self.eval = (_shards(examples, split) for split in ("train", "eval"))
        self.spec = self._spec(examples.properties)
        self._weights = _numbered_weights(corpus_weights, examples.properties)
        self.rows = self._eval_rows()

    def total_steps(self) -> int | tf.Variable:
        """Returns the number of steps; if time is limited, a variable with an estimate, which Budget updates."""
        config = self.recipe.training
        if config.minutes:
            return tf.Variable(max(1, config.steps), trainable=False, dtype=tf.float32)
        if config.epochs:
            steps_per_epoch = sum(1 for _ in self.train_batches(0, 1))
            return max(1, round(config.epochs * steps_per_epoch))
        return config.steps

    def train_batches(self, start: int, epochs: int | None = None) -> tf.data.Dataset:
        """Returns the batches of the train split from number `start` on, endless by default."""
        return self.implementation.make_batches(self.train, self.recipe, start, epochs, self._weights)

    def evaluation(self, network: keras.Model) -> Evaluation:
        """Returns the evaluation of the network on the eval split."""
        batches = tuple(self.implementation.make_batches(self.eval, self.recipe, 0, 1))
        return self.implementation.make_evaluation(network, self.tokenizers, self.spec, self.recipe, batches, self.rows)

    def _spec(self, properties: dict[str, Any]) -> DataSpec:
        first, last = (self.tokenizers[self.task.text_columns[index]] for index in (0, -1))
        labels = [properties["label_counts"][column] for column in self.task.label_columns]
        source_size = None if first is last else first.vocab_size
        return DataSpec(last.vocab_size, *labels, source_vocab_size=source_size, max_length=properties["max_length"])

    def _eval_rows(self) -> list[dict[str, str]]:
        """Returns the rows of the eval split: detokenized texts, and labels."""
        rows = []
        for pool in read_pools(self.eval, self.task.columns):
            columns = {}
            for column in self.task.text_columns:
                ids = tf.RaggedTensor.from_row_splits(pool.ids[column], pool.starts[column])
                columns[column] = [text.decode() for text in self.tokenizers[column].detokenize(ids).numpy()]
            for column in self.task.label_columns:
                columns[column] = [list(self.spec.label_counts)[i] for i in pool.ids[column]]
            rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return rows


def _numbered_weights(weights: dict[str, float], properties: dict[str, Any]) -> tuple[float, ...]:
    """Returns the weight of each corpus by its number, 0 for those of other splits; empty without weights."""
    corpora = properties.get("corpora", {})
    if empty := next((name for name in weights if not corpora.get(name)), None):
        raise UserError(
            f"the corpus {empty} has a weight and no rows in train: they are all in eval or test, or were dropped; add "
            "rows to it, or leave it out",
            code="corpus-empty",
            corpus=empty,
        )
    return tuple(weights.get(name, 0.0) for name in corpora) if weights else ()


def _compiled_model(data: _TrainingData, total_steps: int | tf.Variable) -> keras.Model:
    """Returns a compiled model with initialised weights and a built optimizer."""
    config = data.recipe.training
    with _strategy().scope():
        network, loss = _make_model(data), data.implementation.make_loss(config, data.spec)
        network.batch_parts, network.gradient_dtype = config.batch_parts, config.gradient_dtype
        # No XLA: it compiles for every batch shape, and training on a CPU is no faster.
        network.compile(make_optimizer(config, total_steps), loss=loss, jit_compile=False)
        # Not the optimizer passed to compile: for float16, Keras wraps it in one that scales the loss.
        network.optimizer.build(network.trainable_variables)
    return network


def _strategy() -> tf.distribute.Strategy:
    """Returns a strategy that splits each batch among all visible GPUs or, without GPUs, the CPU's logical devices.

    A CPU is one logical device unless TensorFlow is configured otherwise.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def fit(
    training: Training,
    scratch: str,
    continued: str = "",
    observer: Callable[[CheckpointRanking], keras.callbacks.Callback] | None = None,
) -> dict[str, Any]:
    """Trains, from the last checkpoint if there is one, and sets the weights to export.

    Args:
        continued: the ModelRun whose state is in `scratch`; empty if its state is that of this training.
        observer: (ranking with the evaluations so far) -> a callback that runs after each evaluation, before the
            checkpoint is saved.
    Returns:
        `steps`: number of training steps; `exported_steps`: the checkpoints whose mean is exported; `checkpoints`: see
        CheckpointRanking.last_and_best; `eval_<metric>` of
        the exported weights.
    """
    data, network, total_steps, _ = training
    config, evaluation = data.recipe.training, data.evaluation(network)
    ranking = CheckpointRanking(History(), evaluation.metric)
    snapshots = callbacks.WeightSnapshots(network, scratch)
    checkpoint = callbacks.Checkpoint(network, ranking, snapshots, scratch, config)
    start = checkpoint.restore()
    if start:
        note(
            f"Trainer continues from step {start} of {continued}" if continued else f"Trainer resumes from step {start}"
        )
    observers = [observer(ranking)] if observer else []
    budget = callbacks.Budget(ranking.history, total_steps, config.minutes)
    if not budget.is_exhausted(start):
        ranking.history.evaluations = ranking.history.for_more_steps(config.checkpoint_steps).evaluations
    evaluate = callbacks.Evaluate(evaluation, ranking, snapshots, config)
    if not (budget.is_exhausted(start) or evaluate.should_stop_early()):
        guard = callbacks.DivergenceGuard(ranking.history, config, total_steps, data.spec.num_choices)
        log, profile = TensorBoardLog(scratch, guard, evaluate, data.recipe), Profile(scratch, config.profile_step)
        with interrupt.put_off(), progress("Trainer", int(total_steps), "steps", start) as reporter:
            estimate = callbacks.TimeEstimate(total_steps, config)
            bar = callbacks.ProgressBar(reporter, ranking, total_steps)
            order = [budget, guard, evaluate, *observers, log, profile, checkpoint, estimate, bar]
            batches = shared_batches(data.train_batches(start), network.distribute_strategy)
            network.fit(batches, callbacks=order, verbose=0)
    if not ranking.history.evaluations:  # training.steps=0: the model that training would start from
        os.makedirs(f"{scratch}/logs", exist_ok=True)
        evaluate.evaluate(0)
        checkpoint.save(0)
    exported = ranking.exported(config)
    snapshots.restore_mean(exported)
    evaluation.prepare()
    metrics = evaluation.run().metrics if len(exported) > 1 else ranking.at(exported[0])
    callbacks.check_finite(metrics["loss"], network.optimizer)
    eval_metrics = {f"eval_{name}": value for name, value in metrics.items()}
    choice = {**ranking.last_and_best(), "export": config.export}
    results = {"steps": callbacks.steps_done(network.optimizer), "exported_steps": exported, "checkpoints": choice}
    note(f"Trainer: {describe_choice(results)}")
    return {**results, **eval_metrics}


def _warm_start(
    network: keras.Model,
    base_model: BaseModel,
    tokenizer: Tokenizer,
    continues_optimizer: bool,
    excluded: tuple[str, ...],
) -> dict[str, list[str]]:
    """Loads the weights of an earlier model; reports and returns the fields of WarmStart.

    Args:
        continues_optimizer: whether to load the state of its optimizer, too.
        excluded: layers that keep their initial weights, such as a head for other labels.
    Raises:
        UserError: the vocabulary or the architecture differs, or with `continues_optimizer` the optimizer.
    """
    folder = base_model.keras_folder
    earlier_tokenizer = f"{folder}/tokenizer"
    if not same_vocabulary(earlier_tokenizer, tokenizer.uri):
        raise UserError(
            f"cannot start from {folder}: its vocabulary differs from the vocabulary of this run; use the tokenizer of "
            f"that model: --tokenizer {earlier_tokenizer}",
            code="vocabulary-differs",
            path=folder,
            tokenizer=earlier_tokenizer,
        )
    try:
        started = start_from(network, folder, excluded)
        if continues_optimizer:
            paths = [file["path"] for file in base_model.properties["files"]]
            _take_moments(network, next(path for path in paths if path.endswith(".index")), started)
    except ValueError as error:
        raise UserError(f"cannot start from {folder}: {error}", code="warm-start-impossible", path=folder) from error
    layers_by_outcome = {outcome: list(layers) for outcome, layers in vars(started).items()}
    summary = "; ".join(f"{outcome}: {', '.join(layers) or 'none'}" for outcome, layers in layers_by_outcome.items())
    optimizer = "; with the state of its optimizer" if continues_optimizer else ""
    note(f"Trainer starts from {folder}{optimizer}; {summary}")
    return layers_by_outcome


def _data_record(transformed_examples: TransformedExamples, base_model: BaseModel | None) -> dict[str, Any]:
    """Returns the record of the data that the model was trained on, and of those behind its base model."""
    record = transformed_examples.properties.get("data", {})
    if not base_model:
        return record
    if not isinstance(base_model, Model):
        record = {**record, "base_model": read_record(base_model.keras_folder)}
    pretrained = _pretrained(base_model)
    return {**record, PRETRAINED: pretrained} if pretrained else record


def _pretrained(base_model: BaseModel | None) -> dict[str, Any]:
    """Returns the properties of the imported model that training started from, now or in an earlier run; or none."""
    if base_model is None or isinstance(base_model, Model):
        return base_model.properties if base_model else {}
    return (read_record(base_model.keras_folder) or {}).get(PRETRAINED, {})


def _take_moments(network: keras.Model, index: str, started: WarmStart) -> None:
    """Continues with the moments of the earlier model's optimizer.

    Args:
        index: path of the index of its checkpoint.
        started: the weights that have been taken.
    Raises:
        ValueError: the weights or the optimizers differ.
    """
    if others := [*started.fresh, *started.unused]:
        raise ValueError(
            f"training.warm_start_optimizer needs a model with the same weights, not these: {', '.join(others)}; "
            "set it to false"
        )
    with literal_path(os.path.dirname(index)) as directory:
        values, steps = read_moments(f"{directory}/{os.path.basename(index).removesuffix('.index')}", network)
    continue_moments(network.optimizer, values, steps)


def _make_model(data: _TrainingData) -> keras.Model:
    name = data.recipe.training.precision
    if name == "float16" and not tf.config.list_physical_devices("GPU"):
        raise UserError(
            "setting training.precision=float16 needs a GPU, and none is visible; use bfloat16",
            code="precision-unsupported",
            setting="training.precision",
        )
    with precision(name):
        return data.implementation.make_model(data.recipe.model, data.spec)


def _shards(examples: TransformedExamples, split: str) -> list[str]:
    folder = examples.path(f"Split-{split}")
    return [os.path.join(folder, name) for name in sorted(tf.io.gfile.listdir(folder))]


def _warmup_texts(texts: list[str]) -> list[str]:
    """Returns a short, a medium and a long text."""
    ranked = sorted(texts, key=lambda text: (len(text), text))
    return [ranked[round(i * (len(ranked) - 1) / (NUM_WARMUP_TEXTS - 1))] for i in range(NUM_WARMUP_TEXTS)]


def _copy_files(source: str, destination: str) -> None:
    for folder, _, names in tf.io.gfile.walk(source):
        target = os.path.join(destination, os.path.relpath(folder, source))
        tf.io.gfile.makedirs(target)
        for name in names:
            tf.io.gfile.copy(os.path.join(folder, name), os.path.join(target, name))
