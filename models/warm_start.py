"""Warm start: training that begins with the weights of an earlier model, of the same task or of another.

Comes in: a built model and the Format-Keras folder of an earlier one. Goes out: the model with the weights both have.
Read next: components/trainer.py, which calls it; transformer.py for what the models are made of.

A weight is taken from the one of the same name and shape. Where the earlier model has none of that name, an encoder
takes a decoder's and the other way round, and an embedding another embedding, so that a language model starts both
sides of a translator (Rothe et al. 2020, https://arxiv.org/abs/1907.12461).
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf

from models import transformer

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# Weights of the same shape mean something else under another of these, or there are none of the same shape.
SHAPING = ("d_model", "num_heads", "norm_first", "positions", "activation")
_STACKS = ("encoder", "decoder")
_EMBEDDINGS = ("embedding", "target_embedding", "source_embedding", "output_embedding")


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What became of the weights, by the names of layers, or of weights where a layer is not of one kind.

    Args:
        taken: of the new model, started from the earlier one.
        fresh: of the new model, left as they were drawn.
        unused: of the earlier model.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def save_model(model: keras.Model, directory: str) -> None:
    """Writes a model's class, sizes and weights to an existing folder."""
    with tf.io.gfile.GFile(f"{directory}/{CONFIG}", "w") as file:
        json.dump({"class": type(model).__name__, **model.get_config()}, file, indent=2)
    model.save_weights(f"{directory}/{WEIGHTS}")


def load_model(directory: str) -> keras.Model:
    """Makes the model again that `save_model` wrote.

    Raises:
        ValueError: the folder holds no model of ours.
    """
    try:
        with tf.io.gfile.GFile(f"{directory}/{CONFIG}") as file:
            config = json.load(file)
        model = getattr(transformer, config.pop("class")).from_config(config)
        model.build()
        model.load_weights(f"{directory}/{WEIGHTS}")
    except (tf.errors.OpError, OSError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{directory} holds no model of ours: {error}") from error
    return model


def start_from(model: keras.Model, directory: str) -> WarmStart:
    """Gives a model the weights that an earlier one has as well.

    Args:
        model: built; its other weights stay as they are.
        directory: as `save_model` wrote it, of a model with the same vocabulary.
    Returns:
        What was taken and what was not.
    Raises:
        ValueError: the folder holds no model, one of other sizes, or one that has nothing in common.
    """
    earlier = load_model(directory)
    for key in SHAPING:
        mine, theirs = getattr(model.config, key), getattr(earlier.config, key)
        if mine != theirs:
            raise ValueError(f"it has model.{key}={theirs}, this one {mine}; set model.{key}={theirs}")
    weights, known = named_weights(model), named_weights(earlier)
    sources = {name: _source(name, weight.shape, known) for name, weight in weights.items()}
    for name, source in sources.items():
        if source:
            weights[name].assign(known[source].value)
    taken, fresh = ([name for name in weights if bool(sources[name]) == found] for found in (True, False))
    if not taken:
        raise ValueError("it has no weight in common with this one")
    unused = [name for name in known if name not in sources.values()]
    used = [name for name in known if name in sources.values()]
    return WarmStart(_layers(taken, fresh), _layers(fresh, taken), _layers(unused, used))


def named_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the trainable weights by the attributes that lead to them, such as `encoder.layers.0.self_residual.norm`.

    A weight that several layers share has the name of the first. Keras's own names are numbered by how many layers a
    process has made.
    """
    first: dict[int, tuple[str, keras.Variable]] = {}
    for name, weight in _walk(model):
        first.setdefault(id(weight), (name, weight))
    return dict(first.values())


def _walk(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Variable]]:
    """Yields each weight with its name, first by the layer that owns it."""
    for name, child in _children(layer):
        yield from _walk(child, f"{prefix}{name}.")
    yield from ((f"{prefix}{weight.name}", weight) for weight in layer.trainable_weights)


def _children(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    for name, value in vars(layer).items():
        if name.startswith("_"):  # Keras's own books
            continue
        if isinstance(value, keras.Layer):
            yield name, value
        elif isinstance(value, list):
            yield from ((f"{name}.{i}", child) for i, child in enumerate(value) if isinstance(child, keras.Layer))


def _source(name: str, shape: tuple, known: dict[str, keras.Variable]) -> str:
    """Returns the earlier model's weight for one of the new model; empty for none."""
    first, _, rest = name.partition(".")
    others = next((group for group in (_STACKS, _EMBEDDINGS) if first in group), ())
    candidates = (name, *(f"{other}.{rest}" for other in others))
    return next((candidate for candidate in candidates if candidate in known and known[candidate].shape == shape), "")


def _layers(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Returns the largest layers that hold of two lists of weights only the first's."""
    taken_apart = {prefix for name in others for prefix in _prefixes(name)}
    return tuple(
        dict.fromkeys(next(prefix for prefix in _prefixes(name) if prefix not in taken_apart) for name in names)
    )


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
