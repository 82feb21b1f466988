"""Warm start: initialises a model with the weights of an earlier model of the same task or of another.

Weights are matched by name and shape. If the earlier model has no weight of that name, an encoder can take a decoder's
weights and vice versa, and an embedding those of another embedding. A language model can thus initialise both sides of
a translation model (Rothe et al. 2020, https://arxiv.org/abs/1907.12461).
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator

import keras

from seq2serve.models.config import ModelConfig
from seq2serve.models.training.saving import load_model

# Models may differ in these options. With the others, weights change their shape, or keep it but not their meaning.
_FREE = {
    *("num_encoder_layers", "num_decoder_layers", "dff", "dropout", "attention_dropout", "activation_dropout"),
    *("tie_embeddings", "output_bias", "max_positions", "begin_marker", "pooling", "ngram_buckets", "decoder"),
}
SHAPING = tuple(field.name for field in dataclasses.fields(ModelConfig) if field.name not in _FREE)
_STACKS = ("encoder", "decoder")
_EMBEDDINGS = ("embedding", "target_embedding", "source_embedding", "output_embedding")


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The result of a warm start, as names of layers, or of weights if only some of a layer's weights are meant.

    Args:
        taken: in the new model, initialised with the earlier model's weights.
        fresh: in the new model, unchanged.
        unused: in the earlier model, not taken.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def start_from(model: keras.Model, directory: str, excluded: Collection[str] = ()) -> WarmStart:
    """Copies all matching weights of an earlier model into a model.

    Args:
        model: a built model; weights without a match stay unchanged.
        directory: a folder that `save_model` wrote, with a model of the same vocabulary.
        excluded: names of layers of the model that stay unchanged.
    Returns:
        The layers that were taken and those that were not.
    Raises:
        ValueError: the folder does not contain a model, the options of the two models differ, or no weight matches.
    """
    earlier = load_model(directory)
    for key in (*SHAPING, *(("max_positions",) if model.config.positions == "learned" else ())):
        value, earlier_value = getattr(model.config, key), getattr(earlier.config, key)
        if value != earlier_value:
            raise ValueError(
                f"the earlier model has model.{key}={earlier_value} and the new one {value}; "
                f"set model.{key}={earlier_value}"
            )
    weights, earlier_weights = named_weights(model), named_weights(earlier)
    sources = {name: _source(name, weight.shape, earlier_weights) for name, weight in weights.items()}
    sources |= {name: "" for name in weights if name.partition(".")[0] in excluded}
    for name, source in sources.items():
        if source:
            weights[name].assign(earlier_weights[source].value)
    taken = [name for name, source in sources.items() if source]
    fresh = [name for name, source in sources.items() if not source]
    if not taken:
        raise ValueError("the earlier model has no weights in common with the new one")
    unused = [name for name in earlier_weights if name not in sources.values()]
    used = [name for name in earlier_weights if name in sources.values()]
    return WarmStart(
        taken=largest_layers(taken, excluded=fresh),
        fresh=largest_layers(fresh, excluded=taken),
        unused=largest_layers(unused, excluded=used),
    )


def named_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the trainable weights by attribute path, such as `encoder.layers.0.self_residual.norm.gamma`.

    A weight that several layers share has the name of the first. Keras's own names are unsuitable, because they contain
    the number of layers that the process has created.
    """
    first: dict[int, tuple[str, keras.Variable]] = {}
    for name, weight in _walk(model):
        first.setdefault(id(weight), (name, weight))
    return dict(first.values())


def _walk(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Variable]]:
    """Yields each weight with its name. The layer that owns a weight comes before the layers around it."""
    for name, child in _children(layer):
        yield from _walk(child, f"{prefix}{name}.")
    yield from ((f"{prefix}{weight.name}", weight) for weight in layer.trainable_weights)


def _children(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    for name, value in vars(layer).items():
        if name.startswith("_"):  # attributes that Keras adds
            continue
        if isinstance(value, keras.Layer):
            yield name, value
        elif isinstance(value, list):
            yield from ((f"{name}.{i}", child) for i, child in enumerate(value) if isinstance(child, keras.Layer))


def _source(name: str, shape: tuple[int, ...], earlier: dict[str, keras.Variable]) -> str:
    """Returns the name of the earlier model's weight that matches a weight of the new model; empty if none does."""
    root, _, path = name.partition(".")
    roots = next((group for group in (_STACKS, _EMBEDDINGS) if root in group), ())
    candidates = (name, *(f"{other}.{path}" for other in roots))
    return next((c for c in candidates if c in earlier and earlier[c].shape == shape), "")


def largest_layers(names: Iterable[str], excluded: Iterable[str]) -> tuple[str, ...]:
    """Summarises weights as the largest layers that contain none of the excluded weights."""
    mixed = {prefix for name in excluded for prefix in _prefixes(name)}
    return tuple(dict.fromkeys(next(prefix for prefix in _prefixes(name) if prefix not in mixed) for name in names))


def _prefixes(name: str) -> list[str]:
    """Returns a weight's name preceded by those of the layers around it, outermost first."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
