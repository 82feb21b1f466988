"""The tokenizer: the same ids in and out of a SavedModel, valid UTF-8 whatever comes, learned the same every time."""

import dataclasses
import itertools
import json
import pathlib

import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import TokenizerConfig
from models.tokenizer import adopt_tokenizer, learn_tokenizer, load_tokenizer, same_vocabulary
from models.tokenizer_base import CONTROL_PIECES, Tokenizer

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
FILES = {"unigram": "spm.model", "bpe": "spm.model", "characters": "spm.model", "bytes": "spm.model"}


def learn(path: pathlib.Path, kind: str) -> pathlib.Path:
    """Learns a tokenizer; of WordPiece, which has no bytes to fall back on, with every character that tests use."""
    known = [*"".join(CONTROL_PIECES), *(word for _, text in NORMAL for word in text[:40].split())]
    words = [(word, 1) for word in known] if kind == "wordpiece" else []
    learn_tokenizer([*WORD_COUNTS, *words], KINDS[kind], str(path))
    return path


@pytest.fixture(scope="module", params=KINDS)
def directory(request, tmp_path_factory) -> pathlib.Path:
    return learn(tmp_path_factory.mktemp("tokenizer"), request.param)


@pytest.fixture(scope="module")
def tokenizer(directory) -> Tokenizer:
    return load_tokenizer(str(directory))


def round_trip(tokenizer, *texts: str | bytes) -> list[str]:
    return [text.decode() for text in tokenizer.detokenize(tokenizer.tokenize(tf.constant(texts))).numpy()]


def test_control_pieces_have_the_first_ids_and_never_come_from_text(tokenizer):
    assert [piece.decode() for piece in tokenizer.id_to_piece(tf.range(4)).numpy()] == list(CONTROL_PIECES)
    ids = tokenizer.tokenize(tf.constant([" ".join(CONTROL_PIECES)]))
    assert ids.dtype == tf.int32
    assert min(ids.flat_values.numpy()) > tokenizer.eos_id


@pytest.mark.parametrize("kind", KINDS)
def test_same_counts_in_any_order_give_the_same_bytes(tmp_path, kind):
    for name, counts in (("a", WORD_COUNTS), ("b", WORD_COUNTS[::-1])):
        (tmp_path / name).mkdir()
        learn_tokenizer(counts, KINDS[kind], str(tmp_path / name))
    for file in (FILES.get(kind, "wordpieces.json"), "tokenizer.json", "vocabulary.tsv"):
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


def test_text_comes_back_composed_and_single_spaced_and_otherwise_as_it_was(tokenizer):
    texts, normal = zip(*NORMAL, strict=True)
    assert round_trip(tokenizer, *texts) == list(normal)


def test_only_wordpiece_has_words_that_it_cannot_write(directory, tokenizer):
    is_wordpiece = (directory / "wordpieces.json").exists()
    assert round_trip(tokenizer, "ka\0lo Щ ka") == ["<unk> <unk> ka" if is_wordpiece else "ka\0lo Щ ka"]


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.text(), st.binary(), st.text(alphabet="ka lo\u0308\u0323m²▁<s>")))
def test_any_bytes_can_be_tokenized_and_normal_text_stays_as_it_is(tokenizer, text):
    (normal,) = round_trip(tokenizer, text)
    (again,) = round_trip(tokenizer, normal)
    # Marks that stand in another order than Unicode's take two goes at most.
    assert round_trip(tokenizer, again) == [again]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(-10, 500), min_size=7, max_size=7), min_size=1, max_size=4))
def test_any_ids_become_valid_utf8_with_control_pieces_left_out(tokenizer, ids):
    texts = tokenizer.detokenize(tf.constant(ids, tf.int32)).numpy()
    plain = [[i for i in row if i == tokenizer.unk_id or 3 < i < tokenizer.vocab_size] for row in ids]
    assert texts.tolist() == tokenizer.detokenize(tf.ragged.constant(plain, tf.int32, ragged_rank=1)).numpy().tolist()
    for text in texts:
        text.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_corpus_gives_a_smaller_vocabulary_than_asked_for(tmp_path, kind):
    config = dataclasses.replace(KINDS[kind], vocab_size=50_000)
    size = learn_tokenizer([("kalo", 3), ("mi", 2)], config, str(tmp_path))
    assert size < 300
    assert load_tokenizer(str(tmp_path)).vocab_size == size == len((tmp_path / "vocabulary.tsv").open().readlines())
    assert f'"vocab_size": {size}' in (tmp_path / "tokenizer.json").read_text()


def test_characters_are_pieces_and_bytes_are_bytes(tmp_path):
    for kind in ("characters", "bytes"):
        (tmp_path / kind).mkdir()
        learn(tmp_path / kind, kind)
    characters, units = (load_tokenizer(str(tmp_path / kind)) for kind in ("characters", "bytes"))
    text = tf.constant(["kalo rö"])
    assert [p.decode() for p in characters.id_to_piece(characters.tokenize(text))[0].numpy()] == list("▁kalo▁rö")
    assert units.vocab_size == 4 + 256 + 1
    assert units.tokenize(text).shape[0] == 1
    assert len(units.tokenize(text)[0]) == len("kalorö".encode()) + 2


def test_wordpieces_are_the_longest_that_fit(tmp_path):
    pieces = {"words": ["k", "a", "kal"], "suffixes": ["l", "o", "lo"]}
    (tmp_path / "wordpieces.json").write_text(json.dumps(pieces))
    (tmp_path / "tokenizer.json").write_text('{"kind": "wordpiece", "lowercase": true, "vocab_size": 10}')
    tokenizer = load_tokenizer(str(tmp_path))
    ids = tokenizer.tokenize(tf.constant(["KALO k kx"]))
    assert [p.decode() for p in tokenizer.id_to_piece(ids)[0].numpy()] == ["kal", "##o", "k", "<unk>"]
    assert round_trip(tokenizer, "KALO k kx") == ["kalo k <unk>"]


def test_a_large_corpus_gives_the_vocabulary_of_one_in_its_proportions(tmp_path, monkeypatch):
    monkeypatch.setattr("models.tokenizer._MAX_WORDS", sum(count for _, count in WORD_COUNTS))
    for name, scale in (("small", 1), ("large", 1000)):
        (tmp_path / name).mkdir()
        learn_tokenizer([(word, count * scale) for word, count in WORD_COUNTS], KINDS["unigram"], str(tmp_path / name))
    assert (tmp_path / "small" / "spm.model").read_bytes() == (tmp_path / "large" / "spm.model").read_bytes()


def test_words_that_sentencepiece_would_leave_out_are_learned_from(tmp_path):
    learn_tokenizer([("長い" * 3000, 1), ("z\0q", 5)], TokenizerConfig(), str(tmp_path))
    pieces = {line.split("\t")[0] for line in (tmp_path / "vocabulary.tsv").open()}
    assert {"長", "い", "z", "q"} <= pieces


def test_what_cannot_be_learned_is_said(tmp_path):
    with pytest.raises(ValueError, match="no words"):
        learn_tokenizer([], TokenizerConfig(), str(tmp_path))
    with pytest.raises(ValueError, match="could not learn 262 pieces"):
        learn_tokenizer(WORD_COUNTS, TokenizerConfig(vocab_size=262), str(tmp_path))
    with pytest.raises(ValueError, match=r"30 pieces cannot hold \d+ characters twice"):
        learn_tokenizer(WORD_COUNTS, TokenizerConfig(kind="wordpiece", vocab_size=30), str(tmp_path))


def test_a_sentencepiece_model_brought_along_keeps_its_pieces_and_gets_our_control_pieces(tmp_path):
    file = tmp_path / "theirs.model"
    with file.open("wb") as writer:
        words = iter(" ".join([word] * count) for word, count in WORD_COUNTS)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=words, model_writer=writer, vocab_size=300, byte_fallback=True, minloglevel=2
        )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(file))
    assert (theirs.unk_id(), theirs.bos_id(), theirs.eos_id(), theirs.pad_id()) == (0, 1, 2, -1)
    (tmp_path / "ours").mkdir()
    settings = adopt_tokenizer([str(file)], str(tmp_path / "ours"))
    ours = load_tokenizer(str(tmp_path / "ours"))
    assert settings == {"kind": "sentencepiece", "vocab_size": 301}
    assert ours.vocab_size == 301
    assert [piece.decode() for piece in ours.id_to_piece(tf.range(4)).numpy()] == list(CONTROL_PIECES)
    for text in ("kalo miß", "m² θα", "Щ <s> <pad>"):
        pieces = [piece.decode() for piece in ours.id_to_piece(ours.tokenize(tf.constant([text])))[0].numpy()]
        assert pieces == theirs.encode(text, out_type=str)
        assert round_trip(ours, text) == [theirs.decode(theirs.encode(text))]


def test_a_tokenizer_of_ours_brought_along_is_the_same(directory, tmp_path):
    settings = adopt_tokenizer([str(path) for path in directory.iterdir()], str(tmp_path))
    assert settings == json.loads((directory / "tokenizer.json").read_text())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in directory.iterdir()
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, "neither a tokenizer's folder nor a SentencePiece model: a.txt"),
        ({"a.model": b"x" * 99}, "not a SentencePiece model"),
        ({"a.model": b""}, "not a SentencePiece model"),
        ({"a.model": b"", "b.model": b""}, "neither a tokenizer's folder"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        adopt_tokenizer([str(tmp_path / name) for name in files], str(tmp_path))


def test_a_copy_has_the_same_vocabulary_and_one_that_reads_in_lower_case_has_not(directory, tmp_path):
    adopt_tokenizer([str(path) for path in directory.iterdir()], str(tmp_path))
    assert same_vocabulary(str(directory), str(tmp_path))
    config = json.loads((directory / "tokenizer.json").read_text())
    lower = dataclasses.replace(TokenizerConfig(**config), lowercase=True, vocab_size=400)
    (tmp_path / "lower").mkdir()
    learn_tokenizer(WORD_COUNTS, lower, str(tmp_path / "lower"))
    assert not same_vocabulary(str(directory), str(tmp_path / "lower"))
