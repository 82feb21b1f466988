"""The families of pretrained models, by the `model_type` of their config.json."""

import json
import os
from collections.abc import Mapping
from typing import Any

from seq2serve.models.importing.bert import Bert
from seq2serve.models.importing.family import Family

CONFIG = "config.json"
FAMILIES: tuple[Family, ...] = (Bert(),)


def read_config(folder: str) -> dict[str, Any]:
    """Reads config.json.

    Raises:
        ValueError: it is missing, or not a JSON object.
    """
    path = os.path.join(folder, CONFIG)
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
    known = ", ".join(family.model_type for family in FAMILIES)
    raise ValueError(f"{CONFIG} has the model_type {kind!r}, which is not supported; supported: {known}")


def parts_of(folder: str) -> tuple[str, ...]:
    """Returns those of "encoder" and "decoder" that the model in a folder has; errors as `settings_of`."""
    return family_of(read_config(folder)).parts


def settings_of(folder: str) -> dict[str, Any]:
    """Returns the fields of ModelConfig that the weights in a folder need.

    Raises:
        ValueError: config.json is missing or damaged, or the architecture is not supported.
    """
    config = read_config(folder)
    try:
        return family_of(config).settings(config)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{os.path.join(folder, CONFIG)} lacks {error}") from error
