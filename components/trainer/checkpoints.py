"""The state of a training on disk: what a checkpoint contains, and which earlier training a new one continues.

A longer training continues an earlier one only if its weights are those of an uninterrupted training.
"""

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seq2serve.components.base.artifact import ModelRun
from seq2serve.components.base.component import EarlierExecution
from seq2serve.components.base.progress import note
from seq2serve.models.config import Recipe, TrainingConfig
from seq2serve.models.training.optimizer import moments

CHECKPOINTS, KEPT = "checkpoints", "kept"  # folders of a scratch folder; in a ModelRun, the second is in the first
_LENGTH = ("steps", "epochs", "minutes", "patience")  # settings that decide only when training ends
_MOMENTS, _ITERATIONS, _OPTIMIZER = "moments", "iterations", "optimizer"
_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"  # TensorFlow's suffix of a variable's name in a checkpoint


def state_of(model: keras.Model) -> dict[str, Any]:
    """Returns the objects that a tf.train.Checkpoint of a compiled model contains.

    They are variables, not the model: its checkpoint would lack the states of random generators.
    """
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    statistics = moments(optimizer)
    separate = {id(variable) for variable in (inner.iterations, *statistics)}
    others = [v.value for v in (*model.variables, *optimizer.variables) if id(v) not in separate]
    return {
        "state": others,
        _MOMENTS: [variable.value for variable in statistics],
        _ITERATIONS: inner.iterations.value,
        _OPTIMIZER: tf.Variable(type(inner).__name__),
    }


def read_moments(prefix: str, model: keras.Model) -> tuple[list[np.ndarray], int]:
    """Reads the moments of an earlier training's optimizer, and the number of its steps, from a checkpoint.

    Args:
        prefix: path of the checkpoint, without the extensions of its files.
        model: compiled, with an optimizer that will continue with the moments.
    Raises:
        ValueError: the files are not such a checkpoint, or the earlier optimizer was another one.
    """
    name = type(getattr(model.optimizer, "inner_optimizer", model.optimizer)).__name__
    try:
        reader = tf.train.load_checkpoint(prefix)
        earlier = reader.get_tensor(f"{_OPTIMIZER}/{_VALUE}").decode()
        number = sum(key.startswith(f"{_MOMENTS}/") for key in reader.get_variable_to_shape_map())
        values = [reader.get_tensor(f"{_MOMENTS}/{index}/{_VALUE}") for index in range(number)]
        steps = int(reader.get_tensor(f"{_ITERATIONS}/{_VALUE}"))
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(f"{prefix} is not the checkpoint of a training: {error}") from error
    if earlier != name:
        raise ValueError(f"its optimizer is {earlier.lower()} and the new one {name.lower()}; set training.optimizer")
    return values, steps


def publish_state(scratch: str, model_run: ModelRun) -> None:
    """Copies logs, last checkpoint and kept weights of a training that has ended to its ModelRun.

    They are copied, not moved: if the execution is killed before it is published, the next one needs them.
    """
    shutil.copytree(f"{scratch}/logs", model_run.path("logs"))
    source, target = Path(scratch, CHECKPOINTS), Path(model_run.path(CHECKPOINTS))
    shutil.copytree(Path(scratch, KEPT), target / KEPT)
    for path in source.glob(f"ckpt-{_last_step(source)}.*"):
        shutil.copy(path, target)


def continue_earlier(recipe: Recipe, total_steps: int, earlier: Sequence[EarlierExecution], to: str) -> str:
    """Copies the state of the longest earlier training that a new one continues; says why if it continues none.

    Args:
        recipe: of the new training.
        total_steps: its number of steps; not used if `minutes` limits it.
        earlier: executions of Trainer with the same inputs, code and libraries.
        to: an empty scratch folder, in which the new training then resumes.
    Returns:
        The folder of the ModelRun that it continues; empty for none.
    """
    wanted = _without_length(dataclasses.asdict(recipe))
    similar = [execution for execution in earlier if _without_length(_recipe(execution)) == wanted]
    obstacles = []
    for execution in sorted(similar, key=lambda execution: -execution.outputs["model"].properties["steps"]):
        steps, before = execution.outputs["model"].properties["steps"], _recipe(execution)["training"]
        obstacle = _obstacle(before, recipe.training, steps, total_steps)
        model_run = None if obstacle else execution.read(execution.outputs["model_run"])
        if model_run:
            _copy_state(model_run, to)
            return execution.outputs["model_run"].uri
        uri = execution.outputs["model_run"].uri
        obstacles.append(f"does not continue the {steps:,} steps of {uri}: {obstacle or 'the folder was deleted'}")
    if obstacles:
        note(f"Trainer starts at step 0 and {obstacles[0]}")
    return ""


def _recipe(execution: EarlierExecution) -> Mapping[str, Any]:
    return execution.outputs["model"].properties["recipe"]


def _without_length(recipe: Mapping[str, Any]) -> dict[str, Any]:
    training = {key: value for key, value in recipe["training"].items() if key not in _LENGTH}
    return {**recipe, "training": training}


def _obstacle(before: Mapping[str, Any], config: TrainingConfig, steps: int, total_steps: int) -> str:
    """Returns why a training cannot continue an earlier one of `steps` steps; empty if it can."""
    limits = {name: (before[name], getattr(config, name)) for name in ("minutes", "epochs", "steps")}
    limit, (old, new) = next((item for item in limits.items() if any(item[1])), ("steps", (0, 0)))
    if old != new and config.schedule == "cosine":
        return (
            f"training.schedule=cosine falls to its end at the last step, so every step depends on training.{limit}; "
            "train with training.schedule=inverse_sqrt to be able to continue"
        )
    if config.minutes and not 0 < old <= new:
        return f"training.minutes={new:g} is less than its {old:g}" if old else "its length was not set in minutes"
    if not config.minutes and steps > total_steps:
        return f"it has more than the {total_steps:,} steps of this training; only a longer training can continue"
    if config.patience and not 0 < before["patience"] <= config.patience:
        return f"with training.patience={config.patience} it might have stopped earlier; increase it, or set it to 0"
    return ""


def _copy_state(model_run: ModelRun, to: str) -> None:
    """Copies the state so that a training resumes from it; if the process is killed, it is copied again."""
    source, target = Path(model_run.path(CHECKPOINTS)), Path(to, CHECKPOINTS)
    shutil.copytree(model_run.path("logs"), os.path.join(to, "logs"), dirs_exist_ok=True)
    shutil.copytree(source / KEPT, Path(to, KEPT), dirs_exist_ok=True)
    name = f"ckpt-{_last_step(source)}"
    target.mkdir(exist_ok=True)
    for path in source.glob(f"{name}.*"):
        shutil.copy(path, target)
    # Last, because with this file the checkpoint counts. A path relative to the file.
    tf.compat.v1.train.update_checkpoint_state(str(target), name)


def _last_step(folder: Path) -> int:
    return max(int(path.stem.removeprefix("ckpt-")) for path in folder.glob("ckpt-*.index"))
