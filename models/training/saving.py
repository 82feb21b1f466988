"""Saves and loads a Keras model as a folder with config.json and model.weights.h5."""

import json

import keras

from seq2serve.models.transformer import models

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def save_model(model: keras.Model, directory: str) -> None:
    """Writes a model's class, sizes and weights to an existing folder."""
    with open(f"{directory}/{CONFIG}", "w", encoding="utf-8") as file:
        json.dump({"class": type(model).__name__, **model.get_config()}, file, indent=2)
    model.save_weights(f"{directory}/{WEIGHTS}")


def load_model(directory: str) -> keras.Model:
    """Loads a model that `save_model` wrote.

    Raises:
        ValueError: the folder does not contain a model that `save_model` wrote.
    """
    try:
        with open(f"{directory}/{CONFIG}", encoding="utf-8") as file:
            config = json.load(file)
        model = getattr(models, config.pop("class")).from_config(config)
        model.build()
        model.load_weights(f"{directory}/{WEIGHTS}")
    except (OSError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{directory} does not contain a seq2serve model: {error}") from error
    return model
