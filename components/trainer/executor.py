"""The executor of Trainer: prepares a training, trains on this machine or on several, and exports the model.

See also: preparation.py for data and model, session.py for the steps, member.py for several machines.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from seq2serve.components.base.artifact import (
    PRETRAINED_SERVING,
    Artifact,
    BaseModel,
    Model,
    ModelRun,
    Tokenizer,
    TransformedExamples,
)
from seq2serve.components.base.component import Context
from seq2serve.components.storage.data_records import PRETRAINED, read_record, write_record
from seq2serve.components.tasks.task import Task
from seq2serve.components.trainer import member
from seq2serve.components.trainer.checkpoints import CHECKPOINTS, continue_earlier, publish_state
from seq2serve.components.trainer.job import TrainingJob
from seq2serve.components.trainer.preparation import prepare
from seq2serve.components.trainer.session import fit
from seq2serve.models.config import Recipe, TrainingConfig
from seq2serve.models.runtime.literal_path import literal_path
from seq2serve.models.tokenizers.tokenizer import is_lowercase
from seq2serve.models.training.saving import save_model
from seq2serve.models.training.warm_start import start_from

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
    data, network = training.data, training.network
    if training.warm_start:
        model.properties["warm_start"] = training.warm_start
    if pretrained := _pretrained(base_model):
        model.properties["pretrained"] = pretrained
    with literal_path(context.scratch) as scratch:
        earlier = [run for run in context.earlier if run.parameters.get("corpus_weights") == corpus_weights]
        is_new = not tf.train.latest_checkpoint(f"{scratch}/{CHECKPOINTS}")
        continued = continue_earlier(recipe, int(training.total_steps), earlier, scratch) if is_new else ""
        job = TrainingJob(task, recipe, base_model, corpus_weights, scratch, continued)
        inputs = {"transformed_examples": transformed_examples, "tokenizer": tokenizer}
        results = fit(training, scratch, continued, None, _elsewhere(context, inputs, job))
    shutil.copytree(tokenizer.uri, model.path("Format-Keras", "tokenizer"))
    save_model(network, model.path("Format-Keras"))
    write_record(model.path("Format-Keras"), _data_record(transformed_examples, base_model))
    # A model in float32, whatever the precision of training.
    served = data.implementation.make_model(recipe.model, data.spec)
    served.set_weights(network.get_weights())
    warmup_texts = _warmup_texts([row[task.text_columns[0]] for row in data.rows])
    export = functools.partial(data.implementation.export, served, data.tokenizers, data.spec, recipe)
    export(model.path("Format-Serving"), warmup_texts)
    if isinstance(base_model, Model) and results["steps"] and not training.warm_start["fresh"]:
        start_from(served, base_model.keras_folder)
        export(model.path(PRETRAINED_SERVING), warmup_texts)
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


def _elsewhere(context: Context, inputs: Mapping[str, Artifact], job: TrainingJob) -> Callable[[], None] | None:
    """Returns a function that trains on the machines of the context; None if there are none."""
    return (
        functools.partial(context.machines.run, member.__name__, inputs, job.arguments()) if context.machines else None
    )


def longer_training(config: TrainingConfig) -> str:
    """Returns the setting with which training takes twice as long, in the syntax of `--set`; empty without training."""
    name = next((name for name in ("minutes", "epochs", "steps") if getattr(config, name)), "")
    if not name:
        return ""
    return f"training.{name}={2 * getattr(config, name)}"


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


def _warmup_texts(texts: list[str]) -> list[str]:
    """Returns a short, a medium and a long text."""
    ranked = sorted(texts, key=lambda text: (len(text), text))
    return [ranked[round(i * (len(ranked) - 1) / (NUM_WARMUP_TEXTS - 1))] for i in range(NUM_WARMUP_TEXTS)]
