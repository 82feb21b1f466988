"""The tokenizer: the same ids in and out of a SavedModel, valid UTF-8 whatever comes, learned the same every time."""

import itertools
import pathlib

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import TokenizerConfig
from models.tokenizer import CONTROL_PIECES, SentencePieceTokenizer, learn_sentencepiece, load_tokenizer

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


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("tokenizer")
    learn_sentencepiece(WORD_COUNTS, TokenizerConfig(vocab_size=400), str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(directory) -> SentencePieceTokenizer:
    return load_tokenizer(str(directory))


def round_trip(tokenizer, *texts: str | bytes) -> list[str]:
    return [text.decode() for text in tokenizer.detokenize(tokenizer.tokenize(tf.constant(texts))).numpy()]


def test_control_pieces_have_the_first_ids_and_never_come_from_text(tokenizer):
    assert [piece.decode() for piece in tokenizer.id_to_piece(tf.range(4)).numpy()] == list(CONTROL_PIECES)
    ids = tokenizer.tokenize(tf.constant([" ".join(CONTROL_PIECES)]))
    assert ids.dtype == tf.int32
    assert min(ids.flat_values.numpy()) > tokenizer.eos_id


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_same_counts_in_any_order_give_the_same_bytes(tmp_path, model_type):
    config = TokenizerConfig(model_type=model_type, vocab_size=400)
    for name, counts in (("a", WORD_COUNTS), ("b", WORD_COUNTS[::-1])):
        (tmp_path / name).mkdir()
        learn_sentencepiece(counts, config, str(tmp_path / name))
    for file in ("spm.model", "tokenizer.json", "vocabulary.tsv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_saved_model_gives_the_same_ids_and_texts(tokenizer, tmp_path):
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


def test_text_does_not_depend_on_its_batch_mates(tokenizer):
    together = tokenizer.tokenize(tf.constant(HOSTILE)).to_list()
    assert together == [tokenizer.tokenize(tf.constant([text])).to_list()[0] for text in HOSTILE]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  kalo \t mine\u3000su\u2028x\r\n", "kalo mine su x"),
        ("ro\u0308 a\u0323\u0302 a\u0302\u0323 \u1112\u1161\u11ab", "rö ậ ậ 한"),
        ("5 m² ½ … ™ ﬁ \uff38", "5 m² ½ … ™ ﬁ \uff38"),
        ("\ufeffka\x01lo", "kalo"),
        ("\U0001f469\u200d\U0001f467 \u06f1 שלום", "\U0001f469\u200d\U0001f467 \u06f1 שלום"),
        ("ka\0lo", "ka\0lo"),
        ("<s> <0x41> <unk>", "<s> <0x41> <unk>"),
        (b"\xff\xed\xa0\x80", "\ufffd" * 4),
        ("k" * 100_000, "k" * 100_000),
    ],
)
def test_text_comes_back_composed_and_single_spaced_and_otherwise_as_it_was(tokenizer, text, normal):
    assert round_trip(tokenizer, text) == [normal]


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(), st.binary(), st.text(alphabet="ka lo\u0308\u0323m²▁<s>")))
def test_any_bytes_can_be_tokenized_and_normal_text_stays_as_it_is(tokenizer, text):
    (normal,) = round_trip(tokenizer, text)
    (again,) = round_trip(tokenizer, normal)
    # Marks that stand in another order than Unicode's take two goes at most.
    assert round_trip(tokenizer, again) == [again]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-10, 500), min_size=7, max_size=7), min_size=1, max_size=4))
def test_any_ids_become_valid_utf8_with_control_pieces_left_out(tokenizer, ids):
    texts = tokenizer.detokenize(tf.constant(ids, tf.int32)).numpy()
    plain = [[i for i in row if i == tokenizer.unk_id or 3 < i < tokenizer.vocab_size] for row in ids]
    assert texts.tolist() == tokenizer.detokenize(tf.ragged.constant(plain, tf.int32, ragged_rank=1)).numpy().tolist()
    for text in texts:
        text.decode()


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_small_corpus_gives_a_smaller_vocabulary_than_asked_for(tmp_path, model_type):
    config = TokenizerConfig(model_type=model_type, vocab_size=50_000)
    size = learn_sentencepiece([("kalo", 3), ("mi", 2)], config, str(tmp_path))
    assert size < 300
    assert load_tokenizer(str(tmp_path)).vocab_size == size == len((tmp_path / "vocabulary.tsv").open().readlines())
    assert f'"vocab_size": {size}' in (tmp_path / "tokenizer.json").read_text()


def test_words_that_sentencepiece_would_leave_out_are_learned_from(tmp_path):
    learn_sentencepiece([("長い" * 3000, 1), ("z\0q", 5)], TokenizerConfig(), str(tmp_path))
    pieces = {line.split("\t")[0] for line in (tmp_path / "vocabulary.tsv").open()}
    assert {"長", "い", "z", "q"} <= pieces


def test_what_cannot_be_learned_is_said(tmp_path):
    with pytest.raises(ValueError, match="no words"):
        learn_sentencepiece([], TokenizerConfig(), str(tmp_path))
    with pytest.raises(ValueError, match="could not learn 262 pieces"):
        learn_sentencepiece(WORD_COUNTS, TokenizerConfig(vocab_size=262), str(tmp_path))
