"""Texts are split into lines and sentences, and joined again."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.export.segments import split_sentences


def sentences(text: str) -> list[str]:
    return [sentence.decode() for sentence in split_sentences(tf.constant([text])).sentences.numpy()]


@pytest.mark.parametrize(
    "parts",
    [
        ["Turn it on.", "Then wait!", "Ready?", "Yes…", "Good."],
        ["He said: “Go!”", "(They went.)", "“Really?”", "¿Qué?", "Sí."],
        ["Open it.", "{name} is on.", "<b>Stop</b>.", "😀 is new.", "2026 was good."],
        ["灯をつけて。", "消して\uff01", "はい"],
        ["Включи свет.", "Потом жди."],
    ],
)
def test_sentences_are_split(parts):
    separator = "" if parts[0].endswith("。") else " "
    assert sentences(separator.join(parts)) == parts


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith met J. R. R. Tolkien.",
        "e.g. Home Assistant, i.e. ABC.",
        "am 3. Oktober",
        "1. Open the app",
        "z. B. Lampen, Nr. 5",
        "version 2.0 is out",
        "Hello... world",
        "https://a.example/b.C?D=e",
        "no.Space",
        "",
    ],
)
def test_a_full_stop_inside_a_sentence_does_not_split_it(text):
    assert sentences(text) == [text]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_lines_are_split(line_break):
    segments = split_sentences(tf.constant([f"one{line_break}{line_break}two{line_break}"]))
    assert segments.sentences.numpy().tolist() == [b"one", b"", b"two", b""]
    assert segments.join(segments.sentences[:, tf.newaxis]).numpy().tolist() == [[b"one\n\ntwo\n"]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet='aB.!?。 \n\u00e9("'), max_size=4))
def test_joined_sentences_are_the_text_up_to_spaces_between_them(texts):
    segments = split_sentences(tf.constant(texts, tf.string))
    joined = segments.join(segments.sentences[:, tf.newaxis])
    assert joined.shape == (len(texts), 1)
    for text, (result,) in zip(texts, joined.numpy().tolist(), strict=True):
        assert result.decode().replace(" ", "") == text.replace(" ", "")
        assert result.count(b"\n") == text.count("\n")
    assert segments.rows().numpy().tolist() == sorted(segments.rows().numpy().tolist())
