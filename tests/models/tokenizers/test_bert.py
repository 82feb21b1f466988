"""BERT's tokenizer splits texts as BERT does, works in the server's runtime, and reads Hugging Face's files or refuses.

tests/peers/test_bert.py compares it with Hugging Face's library.
"""

import json

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.models.runtime import runtime
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.tokenizers.bert import BERT_CONTROL_PIECES, vocabulary_order
from seq2serve.models.tokenizers.bert_import import import_bert_tokenizer, read_bert_vocabulary
from seq2serve.models.tokenizers.tokenizer import adopt_tokenizer, is_lowercase, load_tokenizer, same_vocabulary

LETTERS = "aeinstu\u03c3日本\u1112\u1161\u11ab\U0001f600𐐨"
VOCABULARY = [
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("#", "##", "###", "[", "]", "!", ",", "=", "\u3002", "\U00010100", "cls", "mask"),
    *(*LETTERS, *(f"##{letter}" for letter in LETTERS), "un", "##ing", "test", "##est"),
]
CASED = [*VOCABULARY, "T", "é", "e\u0301", "İ"]
NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}


def fast_file(vocabulary=VOCABULARY, **changes) -> dict:
    """Returns the content of a tokenizer.json."""
    added = [{"content": piece, "id": vocabulary.index(piece), "special": True} for piece in BERT_CONTROL_PIECES]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    vocab = {piece: row for row, piece in enumerate(vocabulary)}
    single = [{"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "[SEP]"}}]
    return {
        "added_tokens": added,
        "normalizer": NORMALIZER,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single},
        "model": {**model, "max_input_chars_per_word": 100, "vocab": vocab},
        **changes,
    }


@pytest.fixture
def imported(tmp_path):
    """Returns a function that imports files, file name -> content, and returns the folder of the artifact."""

    def imported(**files) -> str:
        folder, directory = tmp_path / f"from-{len(files)}", tmp_path / f"to-{len(list(tmp_path.iterdir()))}"
        folder.mkdir(exist_ok=True)
        directory.mkdir()
        for name, content in files.items():
            if not isinstance(content, bytes):
                lines = isinstance(content, list)
                content = "".join(f"{line}\n" for line in content) if lines else json.dumps(content)
                content = content.encode()
            (folder / {"vocab": "vocab.txt"}.get(name, f"{name}.json")).write_bytes(content)
        import_bert_tokenizer(str(folder), str(directory))
        return str(directory)

    return imported


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a Tokenizer artifact."""
    path = tmp_path_factory.mktemp("bert")
    (path / "from").mkdir()
    (path / "to").mkdir()
    (path / "from" / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    import_bert_tokenizer(str(path / "from"), str(path / "to"))
    return str(path / "to")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def pieces(tokenizer, text: str | bytes) -> str:
    """Returns the pieces of a text, with spaces between them."""
    return b" ".join(tokenizer.id_to_piece(tokenizer.tokenize(tf.constant([text]))[0]).numpy()).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Testing, UN-testing!", "test ##ing , un [UNK] test ##ing !"),
        ("  test \t\r\n\u3000\u2003test ", "test test"),
        ("te\0s\x07t t\ufeffe\u200ds\ue000t t\ufffdest", "test test test"),
        (b"te\xffst \xed\xa0\x80test \xc3", "test test"),
        ("te\u0301\u0327st ÉN İn", "test e ##n i ##n"),
        ("ΣΑΣ \u03c3ς", "[UNK] [UNK]"),
        ("ΣΣ Σ", "\u03c3 ##\u03c3 \u03c3"),
        ("test日本a。a", "test 日 本 a 。 a"),
        ("한", "\u1112 ##\u1161 ##\u11ab"),
        ("a\U0001f600 \U0001f600\u200d\U0001f600", "a ##\U0001f600 \U0001f600 ##\U0001f600"),
        ("a\U00010100a", "a \U00010100 a"),
        ("≠ a=b", "= a = [UNK]"),
        ("ß", "[UNK]"),
        ("[CLS] [MASK]", "[ cls ] [ mask ]"),
        ("##ing ### a##ing", "# # [UNK] # # # a # # [UNK]"),
        ("unused0 [unused0]", "[UNK] [ [UNK] ]"),
        ("tesx", "[UNK]"),
        ("a" * 100 + " " + "a" * 101, " ".join(["a", *["##a"] * 99, "[UNK]"])),
        ("𐐀" * 100 + " " + "𐐀" * 101, " ".join(["𐐨", *["##𐐨"] * 99, "[UNK]"])),
        ("é" * 100, " ".join(["e", *["##e"] * 99])),
        ("", ""),
        ("\u0301\u200b", ""),
    ],
)
def test_texts_are_split_as_by_bert(tokenizer, text, expected):
    assert pieces(tokenizer, text) == expected


def test_control_pieces_have_the_first_ids_and_the_others_keep_the_order_of_the_file(tokenizer):
    others = [piece for piece in VOCABULARY if piece not in BERT_CONTROL_PIECES]
    assert tokenizer.pieces() == [*BERT_CONTROL_PIECES, *others]
    assert tokenizer.pieces() == [VOCABULARY[row] for row in vocabulary_order(VOCABULARY)]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2, 3)


def test_words_start_where_no_piece_continues_them(tokenizer):
    starts = dict(zip(tokenizer.pieces(), tokenizer.word_starts.numpy().tolist(), strict=True))
    assert {piece for piece, start in starts.items() if not start} == {
        *BERT_CONTROL_PIECES,
        *(piece for piece in VOCABULARY if piece.startswith("##") and piece != "##"),
    }
    assert not tokenizer.is_character_level


def test_ids_become_words_with_spaces_between_them(tokenizer):
    ids = tokenizer.tokenize(tf.constant(["Testing,日本 xyz", ""]))
    assert [text.decode() for text in tokenizer.detokenize(ids).numpy()] == ["testing , 日 本 [UNK]", ""]


def test_the_server_runtime_makes_the_same_ids_and_texts(tokenizer, hostile_texts, tmp_path):
    module = tf.Module()
    module.tokenizer = tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text):
        ids = tokenizer.tokenize(text)
        return {"ids": ids.to_tensor(), "text": tokenizer.detokenize(ids)}

    tf.saved_model.save(module, str(tmp_path), signatures=serve)
    with SavedModelRuntime(str(tmp_path)) as loaded:
        served = loaded.run("serving_default", {"text": hostile_texts})
    runtime._load_library()._ZN10tensorflow20EnableXlaCompilationEv()  # the runtime has disabled XLA
    ids = tokenizer.tokenize(tf.constant(hostile_texts))
    assert served["ids"].tolist() == ids.to_tensor().numpy().tolist()
    assert served["text"].tolist() == tokenizer.detokenize(ids).numpy().tolist()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(st.text(), st.binary(), st.text(alphabet="teSİ日\u0301!#[ ")), min_size=2, max_size=6))
def test_any_bytes_have_ids_that_do_not_depend_on_the_batch_and_text_that_is_stable(tokenizer, texts):
    ids = tokenizer.tokenize(tf.constant(texts))
    assert ids.to_list() == [tokenizer.tokenize(tf.constant([text])).to_list()[0] for text in texts]
    assert not {0, 2, 3} & set(ids.flat_values.numpy().tolist())
    for text in tokenizer.detokenize(ids).numpy():
        text.decode()


def test_normalizer_settings_are_read_from_the_config_or_the_fast_file(imported):
    cased = {"do_lower_case": False}
    assert pieces(load_tokenizer(imported(vocab=CASED, tokenizer_config=cased)), "Té e\u0301 İ") == "[UNK] e\u0301 İ"
    stripped = load_tokenizer(imported(vocab=CASED, tokenizer_config={**cased, "strip_accents": True}))
    assert pieces(stripped, "T e\u0301İ") == "T [UNK]"
    joined = load_tokenizer(imported(vocab=VOCABULARY, tokenizer_config={"tokenize_chinese_chars": False}))
    assert pieces(joined, "日本") == "日 ##本"
    fast = {**NORMALIZER, "lowercase": False, "strip_accents": True}
    files = {"tokenizer": fast_file(CASED, normalizer=fast), "tokenizer_config": {"strip_accents": None}}
    assert pieces(load_tokenizer(imported(vocab=CASED, **files)), "T E é") == "T [UNK] e"
    kept = fast_file(normalizer={**NORMALIZER, "clean_text": False})
    assert pieces(load_tokenizer(imported(tokenizer=kept)), "te\0st te\x0bst te\x01") == "[UNK] t ##e s ##t [UNK]"


def test_vocab_txt_and_tokenizer_json_give_the_same_tokenizer(imported, folder):
    assert same_vocabulary(folder, imported(tokenizer=fast_file()))
    crlf = "\r\n".join([*VOCABULARY, ""]).encode()
    assert same_vocabulary(folder, imported(vocab=crlf, tokenizer=fast_file()))
    older = fast_file()
    del older["model"]["type"]
    assert same_vocabulary(folder, imported(tokenizer=older))


def test_of_equal_lines_the_last_is_the_piece_and_every_row_keeps_its_place(imported, tmp_path):
    lines = ["test", *VOCABULARY, ""]
    tokenizer = load_tokenizer(imported(vocab=lines))
    rows = read_bert_vocabulary(str(tmp_path / "from-1"))
    assert len(rows) == tokenizer.vocab_size == len(lines)
    assert (rows[0], rows[-1]) == ("[row 0]", f"[row {len(lines) - 1}]")
    assert vocabulary_order(rows)[tokenizer.tokenize(tf.constant(["test"])).to_list()[0][0]] == lines.index("test", 1)


def test_a_copy_has_the_same_vocabulary_and_another_normalizer_has_not(imported, folder, tmp_path):
    (tmp_path / "copy").mkdir()
    names = ("tokenizer.json", "vocab.txt", "vocabulary.tsv")
    adopted = adopt_tokenizer([f"{folder}/{name}" for name in names], str(tmp_path / "copy"))
    expected = {"kind": "bert", "vocab_size": len(VOCABULARY), "lowercase": True, "strip_accents": True}
    assert adopted == {**expected, "handle_chinese_chars": True, "clean_text": True}
    assert same_vocabulary(folder, str(tmp_path / "copy"))
    other = imported(vocab=VOCABULARY, tokenizer_config={"strip_accents": False})
    assert not same_vocabulary(folder, other)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(fast_file()))
    with pytest.raises(ValueError, match="it is a file of another library"):
        adopt_tokenizer([f"{tmp_path}/hf/tokenizer.json", f"{folder}/vocab.txt"], str(tmp_path / "copy"))


def test_pieces_with_nul_never_match_and_are_refused_if_texts_keep_nul(imported):
    with_nul = [*VOCABULARY, "\0", "t\0", "##\0e"]
    assert pieces(load_tokenizer(imported(vocab=with_nul)), "t t\0 te\0") == "t t t ##e"
    kept = fast_file(with_nul, normalizer={**NORMALIZER, "clean_text": False})
    with pytest.raises(ValueError, match="a piece contains NUL"):
        load_tokenizer(imported(tokenizer=kept))


def test_lowercasing_is_recognised(imported, tokenizer):
    assert is_lowercase(tokenizer)
    assert not is_lowercase(load_tokenizer(imported(vocab=CASED, tokenizer_config={"do_lower_case": False})))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has neither vocab.txt nor tokenizer.json"),
        ({"vocab": VOCABULARY[3:]}, r"the vocabulary lacks \[PAD\], \[UNK\]$"),
        ({"vocab": b"\xff"}, "vocab.txt is not UTF-8: byte 0"),
        ({"vocab": CASED}, "pieces with capitals, such as 'T', and no tokenizer_config.json"),
        ({"tokenizer": b"{"}, "tokenizer.json is not JSON"),
        ({"tokenizer": fast_file(model={"type": "BPE"})}, "model.type is 'BPE', not 'WordPiece'"),
        ({"tokenizer": fast_file(model={"vocab": []})}, "model.vocab is missing"),
        (
            {"tokenizer": fast_file(model={"max_input_chars_per_word": 200, "vocab": {}})},
            "model.max_input_chars_per_word is 200, not 100",
        ),
        ({"tokenizer": fast_file(model=[1])}, "not a tokenizer in Hugging Face's format"),
        ({"tokenizer": fast_file(model={"vocab": {"a": -1}})}, "an id is -1"),
        ({"tokenizer": fast_file(normalizer={"type": "NFKC"})}, "normalizer is NFKC, not BertNormalizer"),
        ({"tokenizer": fast_file(normalizer=None)}, "normalizer is None, not BertNormalizer"),
        ({"tokenizer": fast_file(normalizer={"type": "BertNormalizer"})}, "are not true or false"),
        ({"tokenizer": fast_file(normalizer={**NORMALIZER, "lowercase": "yes"})}, "are not true or false"),
        (
            {"tokenizer": fast_file(), "tokenizer_config": {"do_lower_case": False}},
            "do_lower_case is False, but the normalizer of tokenizer.json has True",
        ),
        ({"tokenizer": fast_file(pre_tokenizer={"type": "Whitespace"})}, "pre_tokenizer is Whitespace"),
        (
            {"tokenizer": fast_file(post_processor={"type": "TemplateProcessing", "single": []})},
            r"post_processor is TemplateProcessing with \[\], not \[CLS\] A \[SEP\]",
        ),
        ({"tokenizer": fast_file(added_tokens=[{"content": "Ω", "id": 9}])}, "tokenizer.json adds the token 'Ω'"),
        (
            {"vocab": ["x", *VOCABULARY], "tokenizer": fast_file()},
            "vocab.txt has 'x' in row 0, tokenizer.json has it in row None",
        ),
        ({"tokenizer": fast_file(model={"vocab": {"a": 0, "b": 0}}, added_tokens=[])}, "ids of the vocabulary are not"),
        ({"tokenizer": fast_file(model={"vocab": {"a": 10**12}}, added_tokens=[])}, "ids of the vocabulary are not"),
        (
            {"vocab": VOCABULARY, "tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}},
            "tokenizer_class is BertJapaneseTokenizer",
        ),
        ({"vocab": VOCABULARY, "tokenizer_config": {"cls_token": {"content": "<s>"}}}, r"cls_token is '<s>'"),
        ({"vocab": VOCABULARY, "added_tokens": {"Ω": 99}}, "added_tokens.json adds the token 'Ω'"),
        (
            {"vocab": VOCABULARY, "tokenizer_config": {"added_tokens_decoder": {"99": {"content": "Ω"}}}},
            "tokenizer_config.json adds the token 'Ω'",
        ),
    ],
)
def test_files_of_another_tokenizer_are_an_error(imported, files, message):
    with pytest.raises(ValueError, match=message):
        imported(**files)
