"""Hugging Face's BERT tokenizer makes the same pieces; runs where tokenizers and transformers are installed.

Install them with `make test-peers`.
"""

import json
import random

import pytest
import tensorflow as tf

from seq2serve.models.tokenizers.bert import BertTokenizer, vocabulary_order
from seq2serve.models.tokenizers.bert_characters import BertNormalizer
from seq2serve.models.tokenizers.bert_import import import_bert_tokenizer
from seq2serve.models.tokenizers.tokenizer import load_tokenizer
from tests.models.conftest import HOSTILE

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: make test-peers")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make test-peers")

CONTROL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Combining marks, scripts with and without spaces, letters with special lower cases, format and control characters,
# punctuation of two planes, Chinese of three, a mark and a letter that came after Unicode 8, "#", "[" and spaces.
ALPHABET = (
    "abABeiİ\u0131ß\u017fΣ\u03c3ς\u0301\u0307\u0323\u1df6éÅKĐǅﬁ가한\u1112\u1161日㐀\U00020000\U0002b820豈กำא\u05b0ب\u064eकि्"
    "\0\x07\x0b\x85\u200b\u200d\ufeff\ufffd\ue000\U0001f469\U0001f3fd\ufe0f\U00010100\U000111c9\u166d\u1734"
    "#[]!?.,'-\u2013。、¿«+<$^`~€ \t\n\r\u00a0\u2028\u3000\u1680"
)
TEXTS = [
    *HOSTILE,
    "a" * 100,
    "a" * 101,
    "é" * 101,
    "e\u0301" * 100,
    "\U0001f469" * 101,
    b"a\xed\xa0\x80b \xf4\x90\x80\x80 \xc0\x80 e\xcc",
    "[CLS] ##ab [MASK] [UNK] [unused1] ###",
    "İSTANBUL ΣΑΣ ὈΔΥΣΣΕΎΣ STRASSE straße",
]
NORMALIZERS = [
    BertNormalizer(lowercase, strip, chinese, clean)
    for lowercase, strip, chinese, clean in (
        (True, True, True, True),
        (False, False, True, True),
        (True, False, True, True),
        (False, True, False, False),
    )
]


def hugging_face(vocabulary: list[str], normalizer: BertNormalizer):
    rows = {piece: row for row, piece in enumerate(vocabulary)}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(rows, unk_token="[UNK]"))
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=normalizer.clean_text,
        handle_chinese_chars=normalizer.handle_chinese_chars,
        strip_accents=normalizer.strip_accents,
        lowercase=normalizer.lowercase,
    )
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return theirs


def random_texts(number: int) -> list[str]:
    generator = random.Random(1)
    every = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(generator.choices(ALPHABET, k=generator.randrange(40))) for _ in range(number)]
    return texts + ["".join(generator.choices(every, k=20)) for _ in range(number)]


def python_text(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
def test_every_character_becomes_the_same_words(normalizer):
    vocabulary = [*CONTROL, "a"]
    ours, theirs = BertTokenizer(vocabulary, normalizer), hugging_face(vocabulary, normalizer)
    texts = []
    for first in range(0, 0x110000, 256):
        codes = [code for code in range(first, first + 256) if not 0xD800 <= code < 0xE000]
        texts.append(" ".join(f"a{chr(code)}b" for code in codes))
    normal = tf.strings.split(ours.normalize(tf.constant(texts))).to_list()
    for text, words in zip(texts, normal, strict=True):
        expected = theirs.pre_tokenizer.pre_tokenize_str(theirs.normalizer.normalize_str(text))
        assert [word.decode() for word in words] == [word for word, _ in expected]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
def test_hostile_and_random_texts_have_the_same_pieces(normalizer):
    characters = sorted({part for character in ALPHABET for part in normalizer.expand(character)} - {" ", "\0"})
    pairs = random.Random(2).choices([f"{a}{b}" for a in characters for b in characters], k=500)
    words = dict.fromkeys([*characters, *pairs])
    vocabulary = [*CONTROL, *words, *(f"##{word}" for word in words)]
    ours, theirs = BertTokenizer(vocabulary, normalizer), hugging_face(vocabulary, normalizer)
    texts = [*TEXTS, *random_texts(3000)]
    ids = ours.tokenize(tf.constant(texts)).to_list()
    assert max(map(max, filter(None, ids))) > len(CONTROL)
    for text, row in zip(texts, ids, strict=True):
        assert row == theirs.encode(python_text(text), add_special_tokens=False).ids, text


@pytest.mark.parametrize("fast", [False, True])
def test_transformers_reads_the_same_tokenizer_from_the_same_files(fast, tmp_path):
    vocabulary = ["x", "[PAD]", "y", *CONTROL[1:], "x", "", "é", "e", "##e", "i", "##y"]
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": True}
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "from" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "from"))
    if fast:
        theirs.save_pretrained(str(tmp_path / "from"))
        (tmp_path / "from" / "vocab.txt").unlink()
        theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "from"))
    import_bert_tokenizer(str(tmp_path / "from"), str(tmp_path / "to"))
    ours = load_tokenizer(str(tmp_path / "to"))
    names = {"": f"[row {vocabulary.index('')}]"}
    rows = [*(names.get(piece, piece) for piece in vocabulary)]
    rows[0] = "[row 0]"
    order = vocabulary_order(rows)
    for text in ("x y é ée I xy yy e", "éé ẽy x!"):
        ids = ours.tokenize(tf.constant([text])).to_list()[0]
        assert [order[i] for i in ids] == theirs(text, add_special_tokens=False)["input_ids"]
