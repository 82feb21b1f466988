"""Texts of many languages are split into sentences, and the sentences joined are the text again, byte for byte."""

# ruff: noqa: RUF001 (letters of many scripts look alike)

import time

import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seq2serve.models.export.segments import split_sentences

SENTENCES = {
    "en": ["Mr. Smith paid $3.14 for it.", "“Really?”", "He met J. R. R. Tolkien, i.e. the author!", "They left."],
    "de": ["Am 3. Mai kam Dr. Weiß, z. B. mit Nr. 105.", "„Komm mit!“", "Er ging…", "»Gut so.«", "Über 2,5 Mio."],
    "fr": ["M. Dupont est là.", "« Allez-vous bien ? »", "Oui !", "Élise a vu Mme Roux et J.-P. Petit.", "À demain."],
    "es": ["¿Qué quiere la Sra. López?", "¡Nada!", "Creo que no.", "Hay cafés.", "—Dr. Gil, venga —dijo Ana."],
    "pt": ["O Sr. João não está.", "Você viu a pág. 12?", "Às 10:30.", "É isso… até já!", "Custa R$ 5,00."],
    "ru": ["Мы живём в г. Москва на ул. Мира.", "Вы здесь?", "«Да!»", "И. С. Тургенев родился в 1818 г. в Орле.", "Э!"],
    "zh": ["你好！", "你吃了吗？", "他说：“我走了。”", "“为什么？”她问。", "圆周率是3.14。", "好的。"],
    "ja": ["灯をつけて。", "「行こう！」と言った。", "本当ですか？！", "はい。", "（笑）"],
    "ar": ["هل أنت هنا؟", "نعم، أنا هنا.", "قال د. أحمد: «مرحبا!»", "الساعة 10:30 الآن."],
    "hi": ["यह घर है।", "क्या आप डॉ. शर्मा हैं?", "हाँ!", "कीमत 3.50 है॥", "“ठीक है।”", "चलो।"],
    "ur": ["یہ گھر ہے۔", "کیا آپ یہاں ہیں؟", "جی ہاں۔"],
    "hy": ["Սա տուն է։", "Այո։"],
    "ko": ["안녕하세요.", "어디 가세요?", "집에 갑니다!"],
    "el": ["Καλημέρα.", "Όλα καλά!", "Ναι."],
    "my": ["မင်္ဂလာပါ။", "နေကောင်းလား။"],
    "am": ["ሰላም ነው።", "ደህና ነህ፧", "አዎ።"],
    "interface": ["Open it.", "{name} is on.", "<b>Stop</b>.", "😀 is new.", "2026 was good.", "Yes!?", "- No."],
}
ONE_SENTENCE = {
    "titles": "Prof. Dr. Smith, J. Doe, Ph.D. and Mrs. Lee and St. Peter met 'Mr. X' at Fig. 3.",
    "initials": "J.R.R. Tolkien and U.S. Grant",
    "Latin abbreviations": "e.g. Home Assistant, i.e. ABC vs. Others (cf. No. 5, pp. 3)",
    "German abbreviations": "z. B. Lampen bzw. Türen, d. h. Nr. 5, ca. 3, max. 10 und ggf. Hauptstr. 5",
    "Portuguese titles": "A Sra. Ana e o sr. José",
    "ordinal number": "am 3. Oktober",
    "numbered list": "1. Open the app",
    "decimals": "3.14 is more than 2.71 or .5 in version 2.0",
    "URL": "https://a.example/b.C?D=e!F",
    "e-mail address": "Write to first.Last@mail.example or B.C@D.example",
    "ellipsis": "Hello... world… and so on",
    "no white space": "no.Space",
    "lower case": "Yahoo! is a company, and “Why?” a question",
    "only punctuation": "?!… .) ... 。",
    "only a mark": "\x1e.\x1f",
    "": "",
}
WITH_GAPS = "Hi.  You!\t\u00a0Ok?\r\n\r\n  Line\u2028\u3000two\x85\x0b\x0cEnd. \n"


def split(text: str | bytes) -> list[str]:
    return [sentence.decode() for sentence in split_sentences(tf.constant([text])).sentences.flat_values.numpy()]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def split_and_join(texts):
    segments = split_sentences(texts)
    return segments.join(segments.sentences.flat_values[:, tf.newaxis]), segments.sentences.row_lengths()


@pytest.mark.parametrize("language", SENTENCES)
def test_the_sentences_of_a_language_are_found(language):
    separator = "" if language in ("zh", "ja") else " "
    assert split(separator.join(SENTENCES[language])) == SENTENCES[language]
    assert split("\n".join(SENTENCES[language])) == SENTENCES[language]


@pytest.mark.parametrize("text", ONE_SENTENCE.values(), ids=ONE_SENTENCE)
def test_a_full_stop_inside_a_sentence_does_not_end_it(text):
    assert split(text) == [text]


def test_texts_of_many_languages_are_split_apart_and_together():
    texts = ["\n\n".join(sentences) for sentences in SENTENCES.values()]
    joined, numbers = split_and_join(tf.constant(texts))
    assert [text.decode() for (text,) in joined.numpy()] == texts
    assert numbers.numpy().tolist() == [len(sentences) for sentences in SENTENCES.values()]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_lines_are_split_and_blank_lines_are_no_sentences(line_break):
    assert split(f" {line_break}one{line_break}{line_break} two{line_break}") == ["one", "two"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(max_size=20) | st.text(alphabet='aB1.!?。！”」« \t\n\r\u3000é("-\x1e\x1f\ufeffनα', max_size=20),
        max_size=4,
    )
)
@example([WITH_GAPS, "", " \n", "。 A。B", "A.。 ? 。"])
def test_joined_sentences_are_the_text_byte_for_byte(texts):
    joined, numbers = split_and_join(tf.constant(texts, tf.string))
    assert joined.shape == (len(texts), 1)
    assert [text.decode() for (text,) in joined.numpy()] == texts
    assert (numbers.numpy() >= 1).all()


def test_sentences_have_no_white_space_around_them():
    assert split(WITH_GAPS) == ["Hi.", "You!", "Ok?", "Line", "two", "End."]


def test_translations_have_the_white_space_of_their_text():
    segments = split_sentences(tf.constant(["\tOne.  Two!\n\nThree. ", "Four."]))
    translations = tf.constant([["a", "A"], ["b", ""], ["c", "C"], ["d", "D"]])
    expected = [[b"\ta  b\n\nc ", b"\tA  \n\nC "], [b"d", b"D"]]
    assert segments.join(translations).numpy().tolist() == expected


@pytest.mark.parametrize(
    ("text", "translations", "expected"),
    [
        ("Good. Yes.\nNo. ", ["好。", "“是。”", "不。"], "好。“是。”\n不。 "),
        ("好。“是。”\n不。", ["Good.", "“Yes.”", "No."], "Good. “Yes.”\nNo."),
        ("好。 是。", ["はい。", "はい。"], "はい。 はい。"),
    ],
)
def test_between_sentences_is_a_space_if_the_script_of_the_translation_has_one(text, translations, expected):
    segments = split_sentences(tf.constant([text]))
    assert segments.join(tf.constant(translations)[:, tf.newaxis]).numpy()[0, 0].decode() == expected


@pytest.mark.parametrize("text", [b"\xff\xfe. A", b"A.\xff B. \xc3", b"Dr.\xfe\xff Who", b"\xed\xa0\x80!\nB"])
def test_bytes_that_are_not_utf8_become_replacement_characters(text):
    joined, _ = split_and_join(tf.constant([text]))
    assert joined.numpy()[0, 0] == tf.strings.unicode_transcode(text, "UTF-8", "UTF-8").numpy()
    assert "\ufffd" in joined.numpy()[0, 0].decode()


@pytest.mark.parametrize("part", ["One two. ", "word ", " ", "\n", ".", "“", "一。", "a.", "Dr. "])
def test_a_text_of_a_hundred_thousand_characters_is_split_within_seconds(part):
    text = part * (100_000 // len(part))
    start = time.perf_counter()
    joined, _ = split_and_join(tf.constant([text]))
    assert time.perf_counter() - start < 5
    assert joined.numpy()[0, 0].decode() == text


def test_an_exported_function_splits_and_joins(tmp_path):
    module = tf.Module()
    module.split = split_and_join
    tf.saved_model.save(module, str(tmp_path))
    joined, numbers = tf.saved_model.load(str(tmp_path)).split(tf.constant([WITH_GAPS, ""]))
    assert [text.decode() for (text,) in joined.numpy()] == [WITH_GAPS, ""]
    assert numbers.numpy().tolist() == [6, 1]
