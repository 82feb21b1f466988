"""Fixtures that import a folder of weights."""

import pytest

from seq2serve.models.importing.importer import import_model
from seq2serve.models.tokenizers.tokenizer import load_tokenizer
from seq2serve.models.training.saving import load_model


@pytest.fixture
def import_files(tmp_path):
    """Returns a function that imports a folder, and returns the result, the model and the folder of its Tokenizer."""

    def run(folder):
        folders = [tmp_path / name for name in ("model", "tokenizer")]
        for path in folders:
            path.mkdir(exist_ok=True)
        result = import_model(str(folder), *map(str, folders))
        return result, load_model(str(folders[0])), str(folders[1])

    return run


@pytest.fixture
def run_import(import_files):
    """Returns a function that imports a folder, and returns the result, the model and its tokenizer."""

    def run(folder):
        result, model, tokenizer = import_files(folder)
        return result, model, load_tokenizer(tokenizer)

    return run
