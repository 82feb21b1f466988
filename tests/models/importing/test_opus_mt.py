"""OPUS-MT in Hugging Face's layout is imported as transformers computes it, and what cannot be imported is refused."""

import json

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from seq2serve.models.config import DecodingConfig
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.importing.families import parts_of, settings_of
from seq2serve.models.tokenizers.tokenizer import adopt_tokenizer, load_tokenizers, same_vocabulary
from tests.models.importing.small_opus_mt import (
    MODELS,
    OPUS_MT,
    VOCABULARY,
    OpusMtReference,
    opus_mt_tensors,
    write_opus_mt,
)

PAD, UNK, BOS, EOS = range(4)
SOURCES, TARGET = ["turn on the light now", "door"], "öffne das Fenster"
THEIR_PAD, THEIR_EOS = VOCABULARY["<pad>"], VOCABULARY["</s>"]
# Our ids in the order of theirs, without control pieces.
TEXT_ROWS = [row for piece, row in VOCABULARY.items() if piece not in ("<pad>", "<unk>", "</s>")]


@pytest.fixture
def run_import(import_files):
    """Returns a function that imports a folder, and returns the result, the model and its two tokenizers."""

    def run(folder):
        result, model, tokenizer = import_files(folder)
        return result, model, load_tokenizers(tokenizer, ("source", "target"))

    return run


def their_ids(text: str, side: int) -> list[int]:
    """Returns the ids of a text in vocab.json, as MarianTokenizer looks them up."""
    tag = []
    if text.startswith(">>") and "<<" in text:
        end = text.index("<<") + 2
        tag, text = [text[:end]], text[end:]
    pieces = sentencepiece.SentencePieceProcessor(model_proto=MODELS[side]).encode(text, out_type=str)
    return [VOCABULARY.get(piece, VOCABULARY["<unk>"]) for piece in tag + pieces]


def our_ids(tokenizer, text: str) -> list[int]:
    """Returns the ids of a text in vocab.json, as our tokenizer finds them."""
    rows = {EOS + 1 + index: row for index, row in enumerate(TEXT_ROWS)} | {UNK: VOCABULARY["<unk>"]}
    return [rows[index] for index in tokenizer.tokenize([text])[0].numpy()]


def our_logits(model, tokenizers) -> np.ndarray:
    """Returns our logits of TARGET after each of SOURCES, [B, T + 1, V]."""
    source = tf.concat([tokenizers["source"].tokenize(SOURCES), [[EOS]] * len(SOURCES)], 1).to_tensor()
    target = [[BOS, *tokenizers["target"].tokenize([TARGET])[0].numpy()]] * len(SOURCES)
    return model({"source": source, "target": tf.constant(target)}).numpy()


@pytest.mark.parametrize(
    "config",
    [{}, {"activation_function": "relu"}, {"scale_embedding": False}],
    ids=["swish", "relu", "unscaled"],
)
def test_an_imported_translator_computes_what_transformers_does(tmp_path, run_import, config):
    result, model, tokenizers = run_import(write_opus_mt(tmp_path / "opus", config))
    reference = OpusMtReference(OPUS_MT | config, opus_mt_tensors(OPUS_MT))
    rows = [reference.logits([*their_ids(text, 0), THEIR_EOS], their_ids(TARGET, 1)) for text in SOURCES]
    expected = np.array(rows)[..., [VOCABULARY["<unk>"], THEIR_EOS, *TEXT_ROWS]]
    ours = our_logits(model, tokenizers)[..., [UNK, *range(EOS, len(VOCABULARY) + 1)]]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    assert result.initialised == result.ignored == []
    assert (result.family, result.tokenizer_kind) == ("marian", "opus-mt")
    assert result.vocab_size == len(VOCABULARY) + 1


def test_padding_and_begin_marker_are_never_generated(tmp_path, run_import):
    _, model, tokenizers = run_import(write_opus_mt(tmp_path / "opus"))
    probabilities = tf.nn.softmax(our_logits(model, tokenizers)).numpy()
    assert probabilities[..., [PAD, BOS]].max() < 1e-4


def test_the_decoder_begins_with_the_embedding_of_its_start_token(tmp_path, run_import):
    tensors = opus_mt_tensors(OPUS_MT)
    tensors["model.shared.weight"][THEIR_PAD] = 0.5  # fine-tuned
    _, model, _ = run_import(write_opus_mt(tmp_path / "opus", tensors=tensors))
    np.testing.assert_array_equal(model.target_embedding.matrix[BOS], np.full(OPUS_MT["d_model"], 0.5))
    _, model, _ = run_import(write_opus_mt(tmp_path / "opus", {"decoder_start_token_id": 7}, tensors))
    np.testing.assert_array_equal(model.target_embedding.matrix[BOS], tensors["model.shared.weight"][7])


@pytest.mark.parametrize(
    "text",
    [
        "turn on the light",
        ">>deu<< turn on the light",
        ">>deu<<turn on the light",
        ">>deu<<  turn\u3000on ",
        ">>deu<<",
        ">>deu<<>>nld<< door",
        " >>deu<< door",
        "door >>deu<< window",
        ">>xyz<< door",
        ">>not a tag",
        ">> a << b << c",
        ">><<door",
        "öffne ß the öß ö",
        "ü",
        "",
    ],
)
def test_a_text_has_the_ids_of_its_pieces_in_vocab_json(tmp_path, run_import, text):
    _, _, tokenizers = run_import(write_opus_mt(tmp_path / "opus"))
    for side, tokenizer in enumerate(tokenizers.values()):
        assert our_ids(tokenizer, text) == their_ids(text, side)


def test_a_piece_of_the_other_language_is_found_only_if_it_stands_alone(tmp_path, run_import):
    _, _, tokenizers = run_import(write_opus_mt(tmp_path / "opus"))
    assert [VOCABULARY["ü"]] == our_ids(tokenizers["source"], "the ü")[-1:]
    assert [VOCABULARY["<unk>"]] == our_ids(tokenizers["source"], "the üü")[-1:]


def test_a_control_piece_that_is_spelled_out_is_text(tmp_path, run_import):
    _, _, tokenizers = run_import(write_opus_mt(tmp_path / "opus"))
    for piece in ("<pad>", "</s>", "<s>"):
        ids = tokenizers["source"].tokenize([piece])[0].numpy()
        assert not {PAD, BOS, EOS} & set(ids)


def test_pieces_of_both_languages_are_decoded_without_unknown_ones(tmp_path, run_import):
    _, _, tokenizers = run_import(write_opus_mt(tmp_path / "opus"))
    source, target = tokenizers.values()
    assert source.pieces() == target.pieces()
    ids = [source.tokenize(["the light"]), [[UNK]], target.tokenize(["öffne das Fenster"]), [[UNK, EOS, PAD]]]
    for tokenizer in (source, target):
        assert tokenizer.detokenize(tf.concat(ids, 1)).numpy()[0].decode() == "the light öffne das Fenster"


def test_every_sentence_of_a_text_has_its_tag(tmp_path, run_import):
    _, model, tokenizers = run_import(write_opus_mt(tmp_path / "opus"))
    module = TranslationServingModule(model, tokenizers["target"], DecodingConfig(), 50, tokenizers["source"])

    def translate(*texts):
        return [text.decode() for text in module.serving_default(tf.constant(texts))["translation"].numpy()]

    alone = translate(">>nld<< The door. ", ">>nld<<Turn on.", "The door.")
    assert translate(">>nld<< The door. Turn on.") == ["".join([alone[0], alone[1]])]
    assert alone[0].strip() != alone[2]


def test_a_tokenizer_is_copied_with_both_of_its_models(tmp_path, run_import):
    run_import(write_opus_mt(tmp_path / "opus"))
    (tmp_path / "copy").mkdir()
    settings = adopt_tokenizer([str(path) for path in (tmp_path / "tokenizer").iterdir()], str(tmp_path / "copy"))
    assert settings == {"kind": "opus-mt", "vocab_size": len(VOCABULARY) + 1}
    assert same_vocabulary(str(tmp_path / "tokenizer"), str(tmp_path / "copy"))
    (tmp_path / "copy" / "source.spm").write_bytes(MODELS[1])
    assert not same_vocabulary(str(tmp_path / "tokenizer"), str(tmp_path / "copy"))


def test_a_begin_marker_in_their_vocabulary_is_a_piece_without_text(tmp_path, run_import):
    vocabulary = {**VOCABULARY, "<s>": len(VOCABULARY)}
    _, _, tokenizers = run_import(write_opus_mt(tmp_path / "opus", {"vocab_size": len(vocabulary)}, {}, vocabulary))
    ids = [[len(vocabulary), *tokenizers["target"].tokenize(["das"])[0].numpy()]]
    assert tokenizers["target"].detokenize(tf.constant(ids)).numpy()[0] == b"das"


def test_other_names_of_the_embeddings_and_tables_of_positions_are_known(tmp_path, run_import):
    tensors = opus_mt_tensors(OPUS_MT)
    matrix = tensors.pop("model.shared.weight")
    tensors |= {"model.encoder.embed_positions.weight": np.ones((512, 8), np.float32)}
    tensors |= {name: matrix.copy() for name in ("model.encoder.embed_tokens.weight", "lm_head.weight")}
    result, model, _ = run_import(write_opus_mt(tmp_path / "opus", tensors=tensors))
    assert result.ignored == ["model.encoder.embed_positions.weight"]
    np.testing.assert_array_equal(model.target_embedding.matrix[EOS], matrix[THEIR_EOS])
    tensors["lm_head.weight"][0] += 1
    with pytest.raises(ValueError, match=r"differs? from the other embeddings, but the configuration has one matrix"):
        run_import(write_opus_mt(tmp_path / "opus", tensors=tensors))


def test_the_settings_are_known_without_weights_and_left_out_options_are_those_of_transformers(tmp_path):
    folder = write_opus_mt(tmp_path / "opus", {"attention_dropout": 0.2})
    assert parts_of(str(folder)) == ("encoder", "decoder")
    settings = settings_of(str(folder))
    assert settings["activation"] == "silu"
    assert (settings["sinusoids"], settings["scale_embeddings"], settings["attention_dropout"]) == ("halves", True, 0.2)
    assert (settings["num_encoder_layers"], settings["num_decoder_layers"], settings["dff"]) == (2, 1, 16)
    (folder / "config.json").write_text(json.dumps({"model_type": "marian"}))
    settings = settings_of(str(folder))
    assert (settings["d_model"], settings["num_heads"], settings["dff"]) == (1024, 16, 4096)
    assert (settings["activation"], settings["scale_embeddings"]) == ("gelu", False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation_function": "gelu_new"}, r"^config.json has activation_function='gelu_new', which is not support"),
        ({"share_encoder_decoder_embeddings": False}, "has share_encoder_decoder_embeddings=False, .* only True$"),
        ({"tie_word_embeddings": False}, "has tie_word_embeddings=False"),
        ({"decoder_ffn_dim": 24}, "has encoder_ffn_dim=16 and decoder_ffn_dim=24; only equal values are supported"),
        ({"decoder_attention_heads": 4}, "has encoder_attention_heads=2 and decoder_attention_heads=4"),
        ({"encoder_layers": 3}, "16 tensors are missing: model.encoder.layers.2.self_attn.q_proj.weight"),
        ({"decoder_layers": 0}, "26 tensors are not part of the architecture config.json names: model.decoder.layers"),
        ({"encoder_ffn_dim": 24, "decoder_ffn_dim": 24}, r"fc1.weight have the shape \(8, 16\); config.json needs"),
        ({"vocab_size": 99}, rf"config.json has vocab_size=99, but that of vocab.json is {len(VOCABULARY)}$"),
        ({"pad_token_id": 5}, rf"has pad_token_id=5, but that of vocab.json is {THEIR_PAD}$"),
        ({"eos_token_id": 5}, "has eos_token_id=5, but that of vocab.json is 0$"),
    ],
)
def test_another_architecture_is_refused(tmp_path, run_import, config, message):
    folder = write_opus_mt(tmp_path / "opus", config, opus_mt_tensors(OPUS_MT))
    with pytest.raises(ValueError, match=message):
        run_import(folder)


def test_a_missing_tensor_is_refused(tmp_path, run_import):
    tensors = opus_mt_tensors(OPUS_MT)
    del tensors["final_logits_bias"]
    with pytest.raises(ValueError, match=r"^1 tensors are missing: final_logits_bias$"):
        run_import(write_opus_mt(tmp_path / "opus", tensors=tensors))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", None, r"file not found: .*/vocab.json$"),
        ("vocab.json", "{", r"^vocab.json is not JSON"),
        ("vocab.json", json.dumps({"</s>": 0, "<unk>": 1}), r"^vocab.json lacks the control piece <pad>$"),
        ("vocab.json", json.dumps({**VOCABULARY, "new": 9999}), r"^the ids in vocab.json are not 0 to \d+$"),
        ("source.spm", None, r"file not found: .*/source.spm$"),
        ("target.spm", "x", r"^target.spm is not a SentencePiece model"),
        ("tokenizer_config.json", '{"separate_vocabs": true}', "has separate_vocabs=True, which is not supported"),
        ("tokenizer_config.json", '{"eos_token": "<eop>"}', "eos_token is '<eop>', not '</s>'"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"9": {"content": "<x>"}}}', "adds the token '<x>'"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path, run_import, name, content, message):
    folder = write_opus_mt(tmp_path / "opus")
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        run_import(folder)
