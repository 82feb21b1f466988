"""An exported translator copies the spans of its source, whatever its weights."""

import collections

import pytest
import tensorflow as tf

from seq2serve.models.config import DecodingConfig, TokenizerConfig
from seq2serve.models.export.export import export
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.tokenizers.placeholders import placeholder_characters
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer

WORDS = ["turn", "on", "lamp", "open", "close", "a", "e"]
# Text -> its spans.
SPANS = {
    "turn 12:30 on {name} https://a.example/x, lamp": ["12:30", "{name}", "https://a.example/x"],
    "open": [],
    "<b>close</b> 7 😀 7": ["<b>", "</b>", "7", "😀", "7"],
}


@pytest.fixture(scope="module", params=[("sentencepiece", 1), ("sentencepiece", 3), ("wordpiece", 3)])
def serving_module(request, make_transformer, tmp_path_factory):
    kind, beam_size = request.param
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    config = TokenizerConfig(kind=kind, vocab_size=330, placeholders=5)
    size = learn_tokenizer([(word, 10) for word in WORDS], config, folder)
    model = make_transformer(vocab_size=size, seed=5)
    return TranslationServingModule(model, load_tokenizer(folder), DecodingConfig(beam_size=beam_size), 256)


def test_a_translation_has_every_span_of_its_source_once(serving_module, tmp_path):
    """Random weights mostly do not end before the maximum length; then the missing spans come last."""
    export(serving_module, str(tmp_path), list(SPANS))
    answer = SavedModelRuntime(str(tmp_path)).run("n_best", {"text": list(SPANS)})
    for spans, translations, scores in zip(SPANS.values(), answer["translations"], answer["scores"], strict=True):
        for translation in translations[scores > -1e8]:
            assert {span: translation.decode().count(span) for span in spans} == collections.Counter(spans)
            assert not any(character in translation.decode() for character in placeholder_characters(5))


def test_attention_shows_the_spans(serving_module):
    answer = serving_module.attention(tf.constant(["open 12:30"]), tf.constant(["12:30 {x}"]))
    assert b"12:30" in [piece.lstrip("\u2581".encode()) for piece in answer["source_tokens"].numpy()[0]]
    assert b"12:30" in [piece.lstrip("\u2581".encode()) for piece in answer["target_tokens"].numpy()[0]]
