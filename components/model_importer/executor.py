"""The executor of ModelImporter."""

import dataclasses
import os
import shutil

from seq2serve.components.base.artifact import Model, PretrainedFiles, Tokenizer
from seq2serve.components.base.errors import UserError
from seq2serve.components.base.progress import note
from seq2serve.models.importing.importer import Imported, import_model
from seq2serve.models.training.warm_start import largest_layers


def import_pretrained(files: PretrainedFiles, model: Model, tokenizer: Tokenizer, source: str, licence: str) -> None:
    """Executes ModelImporter; see component.py for the arguments."""
    folder = os.path.dirname(files.properties["files"][0]["path"])
    keras_folder = model.path("Format-Keras")
    os.makedirs(keras_folder)
    try:
        imported = import_model(folder, keras_folder, tokenizer.uri)
    except ValueError as error:
        raise UserError(f"cannot import {folder}: {error}", code="import-impossible", path=folder) from error
    shutil.copytree(tokenizer.uri, os.path.join(keras_folder, "tokenizer"))
    model.properties.update(
        source=source,
        licence=licence,
        hashes={os.path.basename(file["path"]): file["sha256"] for file in files.properties["files"]},
        **dataclasses.asdict(imported),
    )
    tokenizer.properties.update(kind=imported.tokenizer_kind, vocab_size=imported.vocab_size)
    note(f"ModelImporter: {_summary(imported)}; source: {source}; licence: {licence}")


def _summary(imported: Imported) -> str:
    layers = largest_layers(imported.loaded, excluded=imported.initialised)
    fresh = largest_layers(imported.initialised, excluded=imported.loaded)
    parts = [
        f"{imported.family}, {imported.num_parameters:,} parameters",
        f"loaded: {', '.join(layers)}",
        f"initialised: {', '.join(fresh) or 'none'}",
        f"ignored: {', '.join(imported.ignored) or 'none'}",
    ]
    return "; ".join(parts)
