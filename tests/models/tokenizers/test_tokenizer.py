"""Tokenizers are deterministic, work the same in a SavedModel, and always produce valid UTF-8."""

import dataclasses
import itertools
import json
import pathlib

import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.base import CONTROL_PIECES, Tokenizer
from seq2serve.models.tokenizers.tokenizer import (
    adopt_tokenizer,
    is_lowercase,
    learn_tokenizer,
    load_tokenizer,
    same_vocabulary,
)

SYLLABLES = ["ka", "lo", "mi", "ne", "su", "rö", "ß", "θα", "m²"]
WORD_COUNTS = [("".join(word), 1 + len(word[0])) for word in itertools.product(SYLLABLES, repeat=3)]
HOSTILE = [
    b"",
    b"   ",
    b"x" * 100_000,
    b"kalo mine " * 10_000,
    "ro\u0308 a\u0323\u0302".encode(),
    "שלום عليكم".encode(),
    "\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308".encode(),
    b"nul\0l",
    b"surrogate \xed\xa0\x80",
    b"bad \xff\xfe \xc3",
    "\ufeffbom".encode(),
    b"cr\r\nlf",
    "line\u2028separator".encode(),
    b"<s> </s> <pad> <unk> <0x41>",
    "▁ kalo ▅".encode(),
]
# Text and its normalised form.
NORMAL = [
    ("  kalo \t mine\u3000su\u2028x\r\n", "kalo mine su x"),
    ("ro\u0308 a\u0323\u0302 a\u0302\u0323 \u1112\u1161\u11ab", "rö ậ ậ 한"),
    ("5 m² ½ … ™ ﬁ \uff38", "5 m² ½ … ™ ﬁ \uff38"),
    ("\ufeffka\x01lo", "kalo"),
    ("\U0001f469\u200d\U0001f467 \u06f1 שלום", "\U0001f469\u200d\U0001f467 \u06f1 שלום"),
    ("<s> <0x41> <unk> ##lo", "<s> <0x41> <unk> ##lo"),
    (b"\xff\xed\xa0\x80", "\ufffd" * 4),
    ("k" * 100_000, "k" * 100_000),
    ("", ""),
]
KINDS = {
    "unigram": TokenizerConfig(vocab_size=400),
    "bpe": TokenizerConfig(vocab_size=400, model_type="bpe"),
    "wordpiece": TokenizerConfig(vocab_size=400, kind="wordpiece"),
    "characters": TokenizerConfig(vocab_size=400, kind="characters"),
    "bytes": TokenizerConfig(kind="bytes"),
}


def learn(path: pathlib.Path, kind: str) -> pathlib.Path:
    """Trains a tokenizer. WordPiece has no byte fallback, so its corpus contains all characters of the tests."""
    characters = [*"".join(CONTROL_PIECES), *(word for _, text in NORMAL for word in text[:40].split())]
    words = [(word, 1) for word in characters] if kind == "wordpiece" else []
    learn_tokenizer([*WORD_COUNTS, *words], KINDS[kind], str(path))
    return path


@pytest.fixture(scope="module", params=KINDS)
def directory(request, tmp_path_factory) -> pathlib.Path:
    return learn(tmp_path_factory.mktemp("tokenizer"), request.param)


@pytest.fixture(scope="module")
def tokenizer(directory) -> Tokenizer:
    return load_tokenizer(str(directory))


def round_trip(tokenizer: Tokenizer, *texts: str | bytes) -> list[str]:
    return [text.decode() for text in tokenizer.detokenize(tokenizer.tokenize(tf.constant(texts))).numpy()]


def test_control_pieces_have_the_first_ids_and_never_come_from_text(tokenizer):
    assert [piece.decode() for piece in tokenizer.id_to_piece(tf.range(4)).numpy()] == list(CONTROL_PIECES)
    ids = tokenizer.tokenize(tf.constant([" ".join(CONTROL_PIECES)]))
    assert ids.dtype == tf.int32
    assert min(ids.flat_values.numpy()) > tokenizer.eos_id


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_character_and_byte_tokenizers_have_one_character(tmp_path, kind):
    tokenizer = load_tokenizer(str(learn(tmp_path, kind)))
    assert tokenizer.is_character_level == (kind in ("characters", "bytes"))
    assert tf.function(lambda: tf.constant(tokenizer.is_character_level))().numpy() == tokenizer.is_character_level


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_counts_in_any_order_give_the_same_bytes(tmp_path, kind):
    for name, counts in (("a", WORD_COUNTS), ("b", WORD_COUNTS[::-1])):
        (tmp_path / name).mkdir()
        learn_tokenizer(counts, KINDS[kind], str(tmp_path / name))
    for file in ("wordpieces.json" if kind == "wordpiece" else "spm.model", "tokenizer.json", "vocabulary.tsv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_saved_model_produces_the_same_ids_and_texts(tokenizer, tmp_path):
    class Translator(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = tokenizer

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def __call__(self, text):
            ids = self.tokenizer.tokenize(text)
            return {"ids": ids.to_tensor(), "text": self.tokenizer.detokenize(ids.to_tensor())}

    module = Translator()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](tf.constant(HOSTILE))
    ids = tokenizer.tokenize(tf.constant(HOSTILE))
    assert served["ids"].numpy().tolist() == ids.to_tensor().numpy().tolist()
    assert served["text"].numpy().tolist() == tokenizer.detokenize(ids).numpy().tolist()


def test_ids_do_not_depend_on_the_rest_of_the_batch(tokenizer):
    together = tokenizer.tokenize(tf.constant(HOSTILE)).to_list()
    assert together == [tokenizer.tokenize(tf.constant([text])).to_list()[0] for text in HOSTILE]


def test_a_round_trip_normalises_text_and_changes_nothing_else(tokenizer):
    texts, normal = zip(*NORMAL, strict=True)
    assert round_trip(tokenizer, *texts) == list(normal)


def test_only_wordpiece_has_unknown_words(directory, tokenizer):
    is_wordpiece = (directory / "wordpieces.json").exists()
    assert round_trip(tokenizer, "ka\0lo Щ ka") == ["<unk> <unk> ka" if is_wordpiece else "ka\0lo Щ ka"]


TEXT = st.one_of(st.text(), st.binary(), st.text(alphabet="ka lo\u0308\u0323m²▁<s>"))


@settings(max_examples=10, deadline=None)
@given(st.lists(TEXT, min_size=4, max_size=8))
def test_any_bytes_can_be_tokenized_and_round_trips_reach_a_fixed_point(tokenizer, texts):
    normal = round_trip(tokenizer, *texts)
    again = round_trip(tokenizer, *normal)
    # If marks are not in Unicode's canonical order, a second round trip may be needed.
    assert round_trip(tokenizer, *again) == again


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(-10, 500), min_size=7, max_size=7), min_size=2, max_size=8))
def test_any_ids_become_valid_utf8_without_control_pieces(tokenizer, ids):
    texts = tokenizer.detokenize(tf.constant(ids, tf.int32)).numpy()
    plain = [[i for i in row if i == tokenizer.unk_id or 3 < i < tokenizer.vocab_size] for row in ids]
    assert texts.tolist() == tokenizer.detokenize(tf.ragged.constant(plain, tf.int32, ragged_rank=1)).numpy().tolist()
    for text in texts:
        text.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_corpus_yields_a_smaller_vocabulary_than_requested(tmp_path, kind):
    config = dataclasses.replace(KINDS[kind], vocab_size=50_000)
    size = learn_tokenizer([("kalo", 3), ("mi", 2)], config, str(tmp_path))
    assert size < 300
    assert load_tokenizer(str(tmp_path)).vocab_size == size == len((tmp_path / "vocabulary.tsv").open().readlines())
    assert f'"vocab_size": {size}' in (tmp_path / "tokenizer.json").read_text()


def test_the_pieces_of_a_character_tokenizer_are_characters_and_those_of_a_byte_tokenizer_bytes(tmp_path):
    for kind in ("characters", "bytes"):
        (tmp_path / kind).mkdir()
        learn(tmp_path / kind, kind)
    of_characters, of_bytes = (load_tokenizer(str(tmp_path / kind)) for kind in ("characters", "bytes"))
    text = tf.constant(["kalo rö"])
    pieces = of_characters.id_to_piece(of_characters.tokenize(text))[0].numpy()
    assert [piece.decode() for piece in pieces] == list("▁kalo▁rö")
    assert of_bytes.vocab_size == 4 + 256 + 1
    assert of_bytes.tokenize(text).shape[0] == 1
    assert len(of_bytes.tokenize(text)[0]) == len("kalorö".encode()) + 2


def test_wordpiece_takes_the_longest_match(tmp_path):
    pieces = {"words": ["k", "a", "kal"], "suffixes": ["l", "o", "lo"]}
    (tmp_path / "wordpieces.json").write_text(json.dumps(pieces))
    (tmp_path / "tokenizer.json").write_text('{"kind": "wordpiece", "lowercase": true, "vocab_size": 10}')
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.tokenize(tf.constant(["KALO k kx"]))
    assert [p.decode() for p in tokenizer.id_to_piece(ids)[0].numpy()] == ["kal", "##o", "k", "<unk>"]
    assert round_trip(tokenizer, "KALO k kx") == ["kalo k <unk>"]


def test_only_relative_counts_matter_in_a_large_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr("seq2serve.models.tokenizers.tokenizer._MAX_WORDS", sum(count for _, count in WORD_COUNTS))
    for name, scale in (("small", 1), ("large", 1000)):
        (tmp_path / name).mkdir()
        learn_tokenizer([(word, count * scale) for word, count in WORD_COUNTS], KINDS["unigram"], str(tmp_path / name))
    assert (tmp_path / "small" / "spm.model").read_bytes() == (tmp_path / "large" / "spm.model").read_bytes()


def test_words_that_sentencepiece_would_ignore_are_used_for_training(tmp_path):
    learn_tokenizer([("長い" * 3000, 1), ("z\0q", 5)], TokenizerConfig(), str(tmp_path))
    pieces = {line.split("\t")[0] for line in (tmp_path / "vocabulary.tsv").open()}
    assert {"長", "い", "z", "q"} <= pieces


@pytest.mark.parametrize(
    ("words", "config", "message"),
    [
        ([], TokenizerConfig(), "the text has no words"),
        (WORD_COUNTS, TokenizerConfig(vocab_size=262), "SentencePiece cannot learn 262 pieces from these words"),
        (
            WORD_COUNTS,
            TokenizerConfig(kind="wordpiece", vocab_size=30),
            r"a vocabulary of 30 pieces is too small: .* characters and placeholders, each as x and ##x, need \d+",
        ),
    ],
    ids=["no words", "small sentencepiece", "small wordpiece"],
)
def test_a_vocabulary_that_cannot_be_learned_is_an_error(tmp_path, words, config, message):
    with pytest.raises(ValueError, match=message):
        learn_tokenizer(words, config, str(tmp_path))


def test_an_imported_sentencepiece_model_keeps_its_pieces_and_gets_our_control_pieces(tmp_path):
    file = tmp_path / "original.model"
    with file.open("wb") as writer:
        words = iter(" ".join([word] * count) for word, count in WORD_COUNTS)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=words, model_writer=writer, vocab_size=300, byte_fallback=True, minloglevel=2
        )
    original = sentencepiece.SentencePieceProcessor(model_file=str(file))
    assert (original.unk_id(), original.bos_id(), original.eos_id(), original.pad_id()) == (0, 1, 2, -1)
    (tmp_path / "imported").mkdir()
    settings = adopt_tokenizer([str(file)], str(tmp_path / "imported"))
    imported = load_tokenizer(str(tmp_path / "imported"))
    assert settings == {"kind": "sentencepiece", "vocab_size": 301}
    assert imported.vocab_size == 301
    assert [piece.decode() for piece in imported.id_to_piece(tf.range(4)).numpy()] == list(CONTROL_PIECES)
    for text in ("kalo miß", "m² θα", "Щ <s> <pad>"):
        ids = imported.tokenize(tf.constant([text]))
        assert [piece.decode() for piece in imported.id_to_piece(ids)[0].numpy()] == original.encode(text, out_type=str)
        assert round_trip(imported, text) == [original.decode(original.encode(text))]


def test_an_imported_tokenizer_folder_is_an_exact_copy(directory, tmp_path):
    settings = adopt_tokenizer([str(path) for path in directory.iterdir()], str(tmp_path))
    assert settings == json.loads((directory / "tokenizer.json").read_text())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in directory.iterdir()
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, "neither a tokenizer folder nor one SentencePiece model: a.txt"),
        ({"a.model": b"", "b.model": b""}, "neither a tokenizer folder nor one SentencePiece model: a.model, b.model"),
        ({"a.model": b"x" * 99}, "not a SentencePiece model: it cannot be parsed"),
        ({"a.model": b""}, "not a SentencePiece model: it has no pieces"),
    ],
)
def test_files_that_are_not_a_tokenizer_are_an_error(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        adopt_tokenizer([str(tmp_path / name) for name in files], str(tmp_path))


def test_settings_and_model_of_different_tokenizers_are_an_error(directory, tmp_path):
    (tmp_path / "mixed").mkdir()
    (tmp_path / "imported").mkdir()
    for path in directory.iterdir():
        (tmp_path / "mixed" / path.name).write_bytes(path.read_bytes())
    settings = json.loads((directory / "tokenizer.json").read_text())
    size = settings["vocab_size"]
    (tmp_path / "mixed" / "tokenizer.json").write_text(json.dumps({**settings, "vocab_size": size + 1}))
    message = f"tokenizer.json has vocab_size {size + 1}, but its model has {size} pieces"
    with pytest.raises(ValueError, match=message):
        adopt_tokenizer([str(path) for path in (tmp_path / "mixed").iterdir()], str(tmp_path / "imported"))


def test_a_copy_has_the_same_vocabulary_and_a_lowercase_tokenizer_has_not(directory, tmp_path):
    (tmp_path / "copy").mkdir()
    adopt_tokenizer([str(path) for path in directory.iterdir()], str(tmp_path / "copy"))
    assert same_vocabulary(str(directory), str(tmp_path / "copy"))
    config = json.loads((directory / "tokenizer.json").read_text())
    lower = dataclasses.replace(TokenizerConfig(**config), lowercase=True, vocab_size=400)
    (tmp_path / "lower").mkdir()
    learn_tokenizer(WORD_COUNTS, lower, str(tmp_path / "lower"))
    assert not same_vocabulary(str(directory), str(tmp_path / "lower"))


@pytest.mark.parametrize("kind", ["sentencepiece", "wordpiece", "bytes"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_tokenizer_that_lowercases_is_recognised(kind, lowercase, tmp_path):
    learn_tokenizer(
        [("Auf", 9), ("ab", 9), ("A", 3)], TokenizerConfig(kind, vocab_size=300, lowercase=lowercase), str(tmp_path)
    )
    assert is_lowercase(load_tokenizer(str(tmp_path))) == lowercase
