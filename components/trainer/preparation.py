"""What a training needs before its first step: the data, the model with the weights to start from, the strategy."""

import os
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from seq2serve.components.base.artifact import BaseModel, Tokenizer, TransformedExamples
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import note
from seq2serve.components.storage.files import list_files
from seq2serve.components.tasks.data import DataSpec
from seq2serve.components.tasks.evaluation import Evaluation
from seq2serve.components.tasks.task import Task
from seq2serve.components.trainer.checkpoints import read_moments
from seq2serve.models.config import Recipe
from seq2serve.models.runtime.literal_path import literal_path
from seq2serve.models.tokenizers.tokenizer import load_tokenizers, same_vocabulary
from seq2serve.models.training.optimizer import continue_moments, make_optimizer, precision
from seq2serve.models.training.pools import read_pools
from seq2serve.models.training.warm_start import WarmStart, start_from


class Training(NamedTuple):
    """A training before its first step.

    Args:
        data: what it learns from.
        network: compiled, with the weights to start from.
        total_steps: see TrainingData.total_steps.
        warm_start: the fields of WarmStart; empty without an earlier model.
    """

    data: "TrainingData"
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
    strategy: tf.distribute.Strategy | None = None,
) -> Training:
    """Reads the data and builds the model; see component.py for the other arguments and the errors.

    Args:
        strategy: whose replicas share each batch; by default all devices of this machine.
    """
    keras.utils.set_random_seed(recipe.training.seed)
    tokenizers = load_tokenizers(tokenizer.uri, task.text_columns)
    data = TrainingData(task, recipe, examples, tokenizers, corpus_weights or {})
    total_steps = data.total_steps()
    network = _compiled_model(data, total_steps, strategy or _local_strategy())
    started = {}
    if base_model:
        labels = base_model.properties.get("labels", list(data.spec.label_counts))
        excluded = () if labels == list(data.spec.label_counts) else ("head",)
        if excluded and labels:
            ours = ", ".join(data.spec.label_counts)
            note(f"Trainer: the pretrained head is not used: its labels are {', '.join(labels)}; here they are {ours}")
        started = _warm_start(network, base_model, tokenizer, recipe.training.warm_start_optimizer, excluded)
    return Training(data, network, total_steps, started)


class TrainingData:
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
        self.train, self.eval = (list_files(examples.path(f"Split-{split}")) for split in ("train", "eval"))
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
        is_shared = first is last or first.pieces() == last.pieces()
        source_size = None if is_shared else first.vocab_size
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


def _compiled_model(
    data: TrainingData, total_steps: int | tf.Variable, strategy: tf.distribute.Strategy
) -> keras.Model:
    """Returns a compiled model with initialised weights and a built optimizer."""
    config = data.recipe.training
    with strategy.scope():
        network, loss = _make_model(data), data.implementation.make_loss(config, data.spec)
        network.batch_parts, network.gradient_dtype = config.batch_parts, config.gradient_dtype
        # No XLA: it compiles for every batch shape, and training on a CPU is no faster.
        network.compile(make_optimizer(config, total_steps), loss=loss, jit_compile=False)
        # Not the optimizer passed to compile: for float16, Keras wraps it in one that scales the loss.
        network.optimizer.build(network.trainable_variables)
    return network


def _local_strategy() -> tf.distribute.Strategy:
    """Returns a strategy that splits each batch among all visible GPUs or, without GPUs, the CPU's logical devices.

    A CPU is one logical device unless TensorFlow is configured otherwise.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


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


def _make_model(data: TrainingData) -> keras.Model:
    name = data.recipe.training.precision
    if name == "float16" and not tf.config.list_physical_devices("GPU"):
        raise UserError(
            "setting training.precision=float16 needs a GPU, and none is visible; use bfloat16",
            code="precision-unsupported",
            setting="training.precision",
        )
    with precision(name):
        return data.implementation.make_model(data.recipe.model, data.spec)
