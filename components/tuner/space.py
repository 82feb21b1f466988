"""The search space of Tuner: a table. Each setting has a few values around the one by rule, or of the preset.

A setting that the user set is never searched.
"""

import functools
import math
import typing
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from seq2serve.models.config import ModelConfig, Range, Recipe, TrainingConfig

Space = Mapping[str, tuple[Any, ...]]  # setting -> its values, from the smallest to the largest


class _Row(NamedTuple):
    setting: str
    factors: tuple[float, ...] = ()  # of the value to start from
    offsets: tuple[float, ...] = ()  # instead: added to it
    part: str = ""  # of models with this part only
    only_labels: bool = False  # of classifiers only


_TABLE = (
    _Row("training.learning_rate", factors=(0.3, 0.5, 0.7, 1, 1.4, 2, 3)),
    _Row("training.steps", factors=(0.5, 0.7, 1, 1.4, 2)),
    _Row("training.batch_tokens", factors=(0.5, 1, 2)),
    _Row("training.token_dropout", offsets=(-0.2, -0.1, 0, 0.1, 0.2), only_labels=True),
    # Not where the loss may rank checkpoints: smoothing changes the loss itself.
    _Row("training.label_smoothing", offsets=(-0.1, -0.05, 0, 0.05, 0.1), only_labels=True),
    _Row("model.dropout", offsets=(-0.2, -0.1, 0, 0.1, 0.2)),
    _Row("model.d_model", factors=(0.5, 1, 2)),
    _Row("model.num_encoder_layers", offsets=(-1, 0, 1), part="encoder"),
    _Row("model.num_decoder_layers", offsets=(-1, 0, 1), part="decoder"),
)
# Setting of the table -> others that grow by the same factor, unless the user set them.
_DEPENDENTS = {
    "model.d_model": ("model.dff",),
    "training.steps": ("training.warmup_steps", "training.checkpoint_steps"),
}
_SHAPES = ("model.d_model", "model.num_encoder_layers", "model.num_decoder_layers", "model.dff")


def searchable(
    parts: tuple[str, ...], made: Collection[str], training: TrainingConfig, warm_start: bool = False
) -> tuple[str, ...]:
    """Returns the settings that a search may change: those of the table, and those that depend on them.

    Args:
        parts: those of "encoder" and "decoder" that the model has.
        made: the settings that the user set.
        training: if its `epochs` or `minutes` limits training, `steps` has no effect.
        warm_start: whether training starts from an earlier model, whose weights fix the shapes.
    """
    fixed = {*made, *(_SHAPES if warm_start else ())}
    if training.epochs or training.minutes:
        fixed.add("training.steps")
    rows = [
        row.setting
        for row in _TABLE
        if row.setting not in fixed
        and (not row.part or row.part in parts)
        and (not row.only_labels or parts == ("encoder",))
    ]
    dependents = (name for row in rows for name in _DEPENDENTS.get(row, ()) if name not in fixed)
    return (*rows, *dependents)


def make_space(names: Collection[str], recipe: Recipe) -> Space:
    """Returns the values of each setting that is searched.

    Args:
        names: see `searchable`.
        recipe: the settings to start from; each value is among those of its setting.
    """
    return {row.setting: _values(row, recipe) for row in _TABLE if row.setting in names}


def starting_point(space: Space, recipe: Recipe) -> dict[str, Any]:
    """Returns the settings of the space as they are in a recipe."""
    return {name: recipe.value(name) for name in space}


def all_changes(point: Mapping[str, Any], names: Collection[str], recipe: Recipe) -> dict[str, Any]:
    """Returns the settings of a point of the space, and those that depend on them.

    Args:
        point: setting -> value.
        names: see `searchable`.
        recipe: the settings to start from.
    """
    changes = dict(point)
    for setting, dependents in _DEPENDENTS.items():
        for name in dependents if setting in point else ():
            if name in names:
                factor = point[setting] / recipe.value(setting)
                changes[name] = _clipped(name, round(recipe.value(name) * factor))
    return changes


def size(space: Space) -> int:
    """Returns the number of points."""
    return math.prod(len(values) for values in space.values())


def _values(row: _Row, recipe: Recipe) -> tuple[Any, ...]:
    start = recipe.value(row.setting)
    if row.factors:
        values = [start if factor == 1 else _scaled(row.setting, start, factor, recipe) for factor in row.factors]
    else:
        values = [start if offset == 0 else round(start + offset, 3) for offset in row.offsets]
    return tuple(sorted({_clipped(row.setting, value) for value in values}))


def _scaled(setting: str, start: float, factor: float, recipe: Recipe) -> float:
    if isinstance(start, float):
        return float(f"{start * factor:.2g}")
    # Each head needs as many channels as any other; rotary positions need an even number.
    multiple = 2 * recipe.model.num_heads if setting == "model.d_model" else 1
    return max(1, round(start * factor / multiple)) * multiple


def _clipped(setting: str, value: Any) -> Any:
    """Returns the value in the range of its setting that is closest to a value."""
    low, high = _ranges()[setting]
    return type(value)(min(max(value, low), high))


@functools.cache
def _ranges() -> dict[str, Range]:
    """Returns setting -> Range, of all numbers."""
    ranges = {}
    for section, kind in (("model", ModelConfig), ("training", TrainingConfig)):
        for key, hint in typing.get_type_hints(kind, include_extras=True).items():
            if typing.get_origin(hint) is typing.Annotated:
                ranges[f"{section}.{key}"] = typing.get_args(hint)[1]
    return ranges
