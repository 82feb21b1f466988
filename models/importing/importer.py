"""Imports a folder with a pretrained model as a model and a tokenizer of ours."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from seq2serve.models.config import ModelConfig
from seq2serve.models.importing.families import family_of, read_config, settings_of
from seq2serve.models.importing.family import Family, Source
from seq2serve.models.training.saving import save_model
from seq2serve.models.training.warm_start import named_weights
from seq2serve.models.transformer import models


@dataclasses.dataclass(frozen=True)
class Imported:
    """The result of an import.

    Args:
        family: the kind of model, as `model_type` of the configuration.
        labels: of a classifier, in alphabetical order; empty without a head.
        loaded: our weights that have their values.
        initialised: our weights that have none in the folder, and random values.
        ignored: their tensors that are not used.
        num_parameters: of our model.
        tokenizer_kind: as in its tokenizer.json.
        vocab_size: number of its pieces; of separate vocabularies, column -> number.
    """

    family: str
    labels: list[str]
    loaded: list[str]
    initialised: list[str]
    ignored: list[str]
    num_parameters: int
    tokenizer_kind: str
    vocab_size: int | dict[str, int]


def import_model(folder: str, model_folder: str, tokenizer_folder: str) -> Imported:
    """Imports a pretrained model.

    Args:
        folder: config.json, *.safetensors and the files of a tokenizer, in Hugging Face's layout; or a model file of
            Marian and its vocabulary.
        model_folder: an existing folder, receives what `save_model` writes.
        tokenizer_folder: an existing folder, receives a Tokenizer.
    Raises:
        ValueError: the architecture is unknown or has an option that ours lacks, tensors are missing or have other
            shapes, or the tokenizer is of another kind. The message names them.
    """
    config = read_config(folder)
    family = family_of(config)
    orders = family.import_tokenizer(folder, tokenizer_folder)
    tensors = read_tensors(folder, family)
    sizes = ModelConfig(**settings_of(folder))
    sources = family.sources(config, orders)
    *separate, vocab_size = (len(order) for order in orders)
    labels = [len(family.labels(config))] if family.parts == ("encoder",) else []
    model = getattr(models, family.model_class)(sizes, vocab_size, *labels, *separate)
    model.build()
    _load(model, family, sources, tensors)
    used = {name for source in sources.values() for name in source.names}
    save_model(model, model_folder)
    return Imported(
        family=family.model_type,
        labels=sorted(family.labels(config)),
        loaded=list(sources),
        initialised=[name for name in named_weights(model) if name not in sources],
        ignored=sorted(tensors.keys() - used),
        num_parameters=model.count_params(),
        tokenizer_kind=family.tokenizer_kind,
        vocab_size={"source": separate[0], "target": vocab_size} if separate else vocab_size,
    )


def read_tensors(folder: str, family: Family) -> dict[str, np.ndarray]:
    """Reads all tensors of a folder.

    Returns:
        canonical name -> float32 array.
    Raises:
        ValueError: there are none, or a file is damaged.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in family.tensors(folder):
        if (canonical := family.canonical_name(name)) in tensors:
            raise ValueError(f"the tensor {name} is twice in {folder}; leave only one of them there")
        tensors[canonical] = tensor
    return tensors


def _load(model: keras.Model, family: Family, sources: Mapping[str, Source], tensors: Mapping[str, np.ndarray]) -> None:
    """Assigns the tensors to our weights."""
    weights, where = named_weights(model), family.config_name
    names = [name for source in sources.values() for name in source.names]
    if missing := [name for name in names if name not in tensors]:
        raise ValueError(f"{len(missing)} tensors are missing: {_listed(missing)}")
    unknown = [name for name in sorted(tensors.keys() - set(names)) if not family.ignored(name)]
    if unknown:
        raise ValueError(f"{len(unknown)} tensors are not part of the architecture {where} names: {_listed(unknown)}")
    for name, source in sources.items():
        try:
            value = source.convert(*(tensors[theirs] for theirs in source.names))
        except (IndexError, ValueError) as error:
            raise ValueError(f"{' and '.join(source.names)} do not fit {where}: {error}") from error
        if value.shape != tuple(weights[name].shape):
            shape = tuple(weights[name].shape)
            raise ValueError(f"{' and '.join(source.names)} have the shape {value.shape}; {where} needs {shape}")
        weights[name].assign(value)


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
