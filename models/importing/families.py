"""The families of pretrained models, by the `model_type` of their config.json; Marian's own files have another one."""

import glob
import json
import os
from collections.abc import Mapping
from typing import Any

from seq2serve.models.importing.bert import Bert
from seq2serve.models.importing.family import Family
from seq2serve.models.importing.marian import Marian
from seq2serve.models.importing.marian_files import find_marian_model, read_marian_config
from seq2serve.models.importing.opus_mt import OpusMt

CONFIG = "config.json"
_POOLING = "1_Pooling"
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
FAMILIES: tuple[Family, ...] = (Bert(), Marian(), OpusMt())


def read_config(folder: str) -> dict[str, Any]:
    """Reads config.json, or in a folder without it the configuration in a model file of Marian.

    Raises:
        ValueError: it is missing, or not a JSON object.
    """
    path = os.path.join(folder, CONFIG)
    if not os.path.exists(path) and (model := find_marian_model(folder)):
        return {**read_marian_config(model), "model_type": Marian.model_type}
    if not os.path.exists(path):
        packed = glob.glob(os.path.join(glob.escape(folder), "*.bin.gz"))
        how = "; decompress its files (*.gz)" if packed else ""
        raise ValueError(f"{folder} has no {CONFIG}, as in Hugging Face's layout, and no model file of Marian{how}")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object")
    return config


def family_of(config: Mapping[str, Any]) -> Family:
    """Returns the family of a model.

    Raises:
        ValueError: it is unknown.
    """
    kind = config.get("model_type")
    for family in FAMILIES:
        if family.model_type == kind:
            return family
    known = ", ".join(family.model_type for family in FAMILIES if family.config_name == CONFIG)
    raise ValueError(f"{CONFIG} has the model_type {kind!r}, which is not supported; supported: {known}")


def parts_of(folder: str) -> tuple[str, ...]:
    """Returns those of "encoder" and "decoder" that the model in a folder has; errors as `settings_of`."""
    return family_of(read_config(folder)).parts


def settings_of(folder: str) -> dict[str, Any]:
    """Returns the fields of ModelConfig that the weights in a folder need.

    Raises:
        ValueError: the configuration is missing or damaged, or the architecture is not supported.
    """
    config = read_config(folder)
    family = family_of(config)
    try:
        settings = family.settings(config)
    except KeyError as error:
        raise ValueError(f"{os.path.join(folder, family.config_name)} lacks {error}") from error
    except TypeError as error:
        path = os.path.join(folder, family.config_name)
        raise ValueError(f"{path} has a value of the wrong type: {error}") from error
    has_head = bool(family.labels(config))
    return settings if has_head else {**settings, **_sentence_pooling(folder)}


def _sentence_pooling(folder: str) -> dict[str, str]:
    """Returns the pooling of a model of sentence-transformers, which is in a folder of its own; empty for others."""
    if os.path.exists(path := os.path.join(folder, "modules.json")):
        try:
            with open(path, encoding="utf-8") as file:
                kinds = [module["type"].rpartition(".")[2] for module in json.load(file)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a list of modules with their types") from error
        if unknown := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
            raise ValueError(f"{path} has the module {unknown[0]}, which is not supported")
    if not os.path.exists(os.path.join(folder, _POOLING, CONFIG)):
        return {}
    modes = [name for name, value in read_config(os.path.join(folder, _POOLING)).items() if value is True]
    chosen = [name for name in modes if name.startswith("pooling_mode_")]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise ValueError(f"{_POOLING}/{CONFIG} has {' and '.join(chosen) or 'no pooling'}, which is not supported")
    return {"pooling": _POOLINGS[chosen[0]]}
