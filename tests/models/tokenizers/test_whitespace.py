"""A tokenizer that keeps white space reproduces lines, tabs and indentation, and reads a prompt's last space as part of
the next word."""

import collections
import json
import re
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer, same_vocabulary

CODE = """\
def total(values):
\tresult = 0
    for value in values:
        if value > 0:
            result += value  # ä ñ 日本

    return result
"""
WORDS = collections.Counter(CODE.split() * 5) + collections.Counter(re.findall(" {2,}", CODE))
KINDS = {
    "unigram": {"vocab_size": 400},
    "bpe": {"vocab_size": 400, "model_type": "bpe"},
    "wordpiece": {"vocab_size": 400, "kind": "wordpiece"},
    "characters": {"vocab_size": 400, "kind": "characters"},
    "bytes": {"kind": "bytes"},
    "unigram without bytes": {"vocab_size": 90, "byte_fallback": False},
    "characters without bytes": {"vocab_size": 90, "kind": "characters", "byte_fallback": False},
}
# All in the vocabulary of every kind, and everything that becomes a line end or a space, or is dropped.
TEXTS = st.text("".join(set(CODE)) + "\r\v\f\x85\u2028\u2029\u00a0\u3000\x1c\x01\ufeff▁", max_size=30)


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    """Returns a function that trains a tokenizer and returns its folder."""

    def learn(whitespace="keep", **config) -> str:
        folder = str(tmp_path_factory.mktemp("tokenizer"))
        learn_tokenizer(WORDS.items(), TokenizerConfig(whitespace=whitespace, **config), folder)
        return folder

    return learn


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, learn):
    return load_tokenizer(learn(**KINDS[request.param]))


@pytest.fixture(scope="module", params=["unigram", "bpe", "wordpiece"])
def word_tokenizer(request, learn):
    return load_tokenizer(learn(**KINDS[request.param]))


def normal(text: str) -> str:
    """Returns a text as it should be after a round trip."""
    text = re.sub("\r\n|[\r\v\f\x85\u2028\u2029]", "\n", text)
    text = "".join(" " if character.isspace() and character not in "\n\t" else character for character in text)
    return unicodedata.normalize("NFC", re.sub("[\x01\ufeff]", "", text.replace("▁", " ")))


def round_trip(tokenizer, text: str) -> str:
    return tokenizer.detokenize(tokenizer.tokenize(tf.constant([text]))).numpy()[0].decode()


def pieces(tokenizer, text: str) -> list[str]:
    return [piece.decode() for piece in tokenizer.id_to_piece(tokenizer.tokenize(tf.constant([text]))[0]).numpy()]


@settings(max_examples=60, deadline=None)
@given(TEXTS)
@example(CODE)
@example("\n\n\n")
@example("   ")
@example("\r\n \r\n\t \n ")
def test_a_round_trip_keeps_all_white_space(tokenizer, text):
    assert round_trip(tokenizer, text) == normal(text)


@pytest.mark.parametrize("text", [b"\xff a\n\xff  b", b"\n\xc3", b"\xe2\x80 \n"])
def test_invalid_bytes_do_not_move_white_space(learn, text):
    tokenizer = load_tokenizer(learn(kind="bytes"))
    # How many bytes one replacement character stands for differs between programs.
    assert re.sub("\ufffd+", "\ufffd", round_trip(tokenizer, text)) == text.decode(errors="replace")


def test_lines_and_tabs_are_single_pieces(tokenizer):
    for text, piece in (("\n", "<0x0A>"), ("\t", "<0x09>")):
        assert pieces(tokenizer, text)[0] in (text, piece)
        assert len(pieces(tokenizer, text)) == 1


def test_a_word_is_the_same_piece_in_a_line_and_at_its_beginning(word_tokenizer):
    word = pieces(word_tokenizer, "result")
    for before in ("", "value ", "value\n", "value\n\n", "value\t", "\n"):
        assert pieces(word_tokenizer, f"{before}result")[-len(word) :] == word


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_indentation_takes_few_pieces_and_leaves_the_word_alone(learn, kind):
    tokenizer = load_tokenizer(learn(**KINDS[kind]))
    for text in ("    return", "        if", "            result"):
        assert len(pieces(tokenizer, text)) <= len(pieces(tokenizer, text.strip())) + 2
        assert pieces(tokenizer, text)[-1] == pieces(tokenizer, text.strip())[-1]


@pytest.mark.parametrize("text", ["result =", "if value > 0:\n   ", "value\n", "value\t", ""])
def test_a_space_at_the_end_of_a_prompt_belongs_to_the_next_word(word_tokenizer, text):
    (ids,), (begins_word,) = word_tokenizer.tokenize_prompt(tf.constant([f"{text} "]))
    following = word_tokenizer.tokenize(tf.constant([f"{text} value"]))[0].numpy().tolist()
    assert ids.numpy().tolist() == following[: len(ids)]
    assert begins_word
    assert word_tokenizer.word_starts[following[len(ids)]]


@pytest.mark.parametrize("text", ["", "value", "value\n", "value\t", "\n", "x = 0\n    y"])
def test_a_prompt_without_a_space_at_its_end_has_the_ids_of_a_text(tokenizer, text):
    ids, begins_word = tokenizer.tokenize_prompt(tf.constant([text]))
    assert ids.to_list() == tokenizer.tokenize(tf.constant([text])).to_list()
    assert begins_word.numpy().tolist() == [False]


@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_space_is_a_piece_like_others_if_pieces_are_characters(learn, kind):
    tokenizer = load_tokenizer(learn(**KINDS[kind]))
    ids, begins_word = tokenizer.tokenize_prompt(tf.constant(["value "]))
    assert ids.to_list() == tokenizer.tokenize(tf.constant(["value "])).to_list()
    assert len(ids[0]) == 6
    assert begins_word.numpy().tolist() == [False]


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "characters"])
def test_a_folded_prompt_that_ends_with_white_space_is_continued_with_a_word(learn, kind):
    tokenizer = load_tokenizer(learn("fold", **KINDS[kind]))
    texts = ["value", "value ", "value \n", "value\u3000", "", " \n"]
    ids, begins_word = tokenizer.tokenize_prompt(tf.constant(texts))
    assert ids.to_list() == tokenizer.tokenize(tf.constant(["value"] * 4 + [""] * 2)).to_list()
    assert begins_word.numpy().tolist() == [False, True, True, True, False, False]


def test_word_starts_are_the_pieces_that_begin_with_a_space(tokenizer):
    starts = tokenizer.word_starts.numpy()
    assert starts.dtype == bool
    assert starts.shape == (tokenizer.vocab_size,)
    assert not starts[:4].any()
    values = tf.range(4, tokenizer.vocab_size)
    after_a_word = tf.stack([tf.fill(tf.shape(values), tokenizer.tokenize(tf.constant(["0"]))[0, -1]), values], 1)
    texts = tokenizer.detokenize(after_a_word).numpy()
    space_byte = tokenizer.id_to_piece(values).numpy() == b"<0x20>"  # no text has this piece
    assert (starts[4:] | space_byte).tolist() == [text.startswith(b"0 ") for text in texts]


def test_vocabularies_differ_if_only_one_keeps_white_space(learn):
    for kind in ("unigram", "wordpiece", "bytes"):
        assert not same_vocabulary(learn(**KINDS[kind]), learn("fold", **KINDS[kind]))


def test_a_tokenizer_without_the_setting_folds(learn, tmp_path):
    folder = tmp_path / "earlier"
    folder.mkdir()
    learn_tokenizer(WORDS.items(), TokenizerConfig(vocab_size=400), str(folder))
    config = json.loads((folder / "tokenizer.json").read_text())
    assert config.pop("whitespace") == "fold"
    (folder / "tokenizer.json").write_text(json.dumps(config))
    assert round_trip(load_tokenizer(str(folder)), " a\n\tb ") == "a b"


def test_a_saved_graph_has_the_same_ids_and_texts(word_tokenizer, tmp_path):
    module = tf.Module()
    module.tokenizer = word_tokenizer

    def convert(text):
        ids = module.tokenizer.tokenize(text)
        return {"ids": ids.to_tensor(), "text": module.tokenizer.detokenize(ids)}

    module.convert = tf.function(convert, [tf.TensorSpec([None], tf.string, "text")])
    tf.saved_model.save(module, str(tmp_path), signatures=module.convert)
    texts = tf.constant([CODE, "a\r\nb ", ""])
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](texts)
    for name, values in convert(texts).items():
        assert served[name].numpy().tolist() == values.numpy().tolist()
