"""Spans become placeholders and come back unchanged, for every kind of tokenizer."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.placeholders import MaskedTexts, Placeholders, placeholder_characters
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer

NUMBER = 4
WORDS = ["turn", "on", "the", "light", "grün", "ON", "X", "(", ")", ",", ".", "!", ":", "'", "“", "”"]
KINDS = {
    "unigram": {},
    "bpe": {"model_type": "bpe"},
    "wordpiece": {"kind": "wordpiece"},
    "characters": {"kind": "characters"},
    "bytes": {"kind": "bytes"},
}
SPANS = [
    "7",
    "-40.5",
    "1,234.56",
    "10:30",
    "2026-11-27",
    "10 000",
    "+49 170 1234567",
    "٣٤",
    "192.168.1.10:8123",
    "fe80::1ff:fe23:4567:890a",
    "00:1A:2B:3C:4D:5E",
    "123e4567-e89b-12d3-a456-426614174000",
    "https://example.com/a_b?q=1&x=%20#top",
    "www.example.com",
    "first.last+tag@mail.example.com",
    "{name}",
    "{{ states('sensor.a') }}",
    "{% if x %}",
    "${HOME}",
    "{0:.2f}",
    "%s",
    "%1$s",
    "%(count)d",
    "%%",
    "<b>",
    "</b>",
    '<a href="x">',
    "&nbsp;",
    "😀",
    "👩‍👧",
    "🏳️‍🌈",
    "5️⃣",
    "→",
    "ESP32",
    "sensor.living_room",
    "configuration.yaml",
    "/config/www/a.txt",
    "\ue001",
]
UNSEEN = ["Привет", "日本語", "שלום", "ขอบคุณ", "naïve", "quiz", "§", "€", "$", "`", "[", "/\\"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp(request.param))
    config = TokenizerConfig(vocab_size=400, placeholders=NUMBER, **KINDS[request.param])
    learn_tokenizer([(word, 5) for word in WORDS], config, folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def placeholders(tokenizer):
    return Placeholders(tokenizer)


def spans_of(placeholders: Placeholders, text: str) -> list[str]:
    return [span.decode() for span in placeholders.mask(tf.constant([text])).spans.numpy()[0] if span]


@pytest.mark.parametrize("span", SPANS)
def test_a_span_is_recognised_inside_a_text(placeholders, span):
    for text in (span, f"turn {span} on", f"({span})", f"{span}, {span}."):
        assert set(spans_of(placeholders, text)) == {span}


@pytest.mark.parametrize("span", UNSEEN)
def test_words_and_symbols_that_are_in_no_piece_are_spans(tokenizer, placeholders, span):
    knows_no_characters = tokenizer.pieces()[-2:] == ["<0xFF>", "\u2581"]  # the tokenizer of bytes
    assert spans_of(placeholders, f"turn {span} on") == ([] if knows_no_characters else [span])


@pytest.mark.parametrize(
    "text", ["turn on the light.", "and/or", "e.g. this", "GRÜN", "gru\u0308n", "“X”", "turn\u00a0on"]
)
def test_ordinary_text_has_no_spans(text, tmp_path):
    learn_tokenizer(
        [(word, 5) for word in [*WORDS, "and/or", "e.g.", "this"]], TokenizerConfig(vocab_size=400), tmp_path
    )
    assert spans_of(with_placeholders(tmp_path), text) == []


def with_placeholders(folder) -> Placeholders:
    """Returns the placeholders of a tokenizer that was learned without any."""
    tokenizer = load_tokenizer(str(folder))
    tokenizer.num_placeholders = NUMBER
    return Placeholders(tokenizer)


def test_a_rare_character_of_a_large_script_is_ordinary_text(tmp_path):
    """It may have become bytes for want of room. It must be translated, not copied."""
    learn_tokenizer([("灯をつけて", 5)], TokenizerConfig(vocab_size=400), str(tmp_path))
    assert spans_of(with_placeholders(tmp_path), "消して 한국어 灯") == ["한국어"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text() | st.sampled_from([*SPANS, *UNSEEN]), max_size=12).map(" ".join))
def test_masked_text_is_restored(placeholders, text):
    """Up to control characters that tokenizers drop, and private-use characters after the last placeholder."""
    text = "".join(c for c in text if c not in "\x1e\r\0" and c not in placeholder_characters(NUMBER))
    masked = placeholders.mask(tf.constant([text.encode("utf-8", "replace")]))
    assert placeholders.restore(masked.text, masked).numpy()[0] == text.encode("utf-8", "replace")


def test_placeholders_survive_tokenization(tokenizer, placeholders):
    masked = placeholders.mask(tf.constant(["turn 5 on, (light {x}) on 7.", "the light"]))
    ids = tokenizer.tokenize(masked.text)
    index = tokenizer.placeholder_index(ids.to_tensor())
    for row, is_used in zip(index.numpy(), masked.is_used().numpy(), strict=True):
        assert sorted(row[row >= 0]) == np.flatnonzero(is_used).tolist()
    texts = placeholders.restore(tokenizer.detokenize(ids), masked)
    assert texts.numpy().tolist() == [b"turn 5 on, (light {x}) on 7.", b"the light"]


def test_spans_after_the_last_placeholder_stay(placeholders):
    masked = placeholders.mask(tf.constant(["1 on 2 on 3 on 4 on 5 on 6"]))
    assert masked.text.numpy()[0].endswith(b" on 5 on 6")
    assert masked.spans.numpy()[0].tolist() == [b"1", b"2", b"3", b"4"]


def test_a_target_has_the_placeholders_of_its_source(placeholders):
    source = placeholders.mask(tf.constant(["{x} on 5, {x} the 6"]))
    target = placeholders.mask_target(tf.constant(["8 {x} 6 {x} {x} 5"]), source)
    assert placeholders.restore(target, source).numpy()[0].decode() == "8 {x} 6 {x} {x} 5"
    characters = placeholder_characters(NUMBER)
    order = [characters.index(character) for character in target.numpy()[0].decode() if character in characters]
    assert order == [0, 3, 2, 1]  # the first {x}, 6, the second {x}, 5


def test_a_private_use_character_of_a_target_is_no_placeholder(placeholders):
    """Otherwise the model would learn a placeholder that the source does not have."""
    source = placeholders.mask(tf.constant(["turn"]))
    assert placeholders.mask_target(tf.constant(["on \ue001 off"]), source).numpy()[0] == b"on  off"


def test_spans_of_placeholders(placeholders):
    masked = MaskedTexts(tf.constant(["x"]), tf.constant([["a", "b", "", ""]]))
    assert masked.spans_of(tf.constant([[1, 0, 3]])).numpy().tolist() == [[b"b", b"a", b""]]
    assert masked.is_used().numpy().tolist() == [[True, True, False, False]]
    assert len(masked.repeat(3).text) == 3
