"""A translator in Marian's files is imported as Marian computes it, and what cannot be imported is refused."""

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from seq2serve.models.importing.families import parts_of, settings_of
from seq2serve.models.tokenizers.tokenizer import load_tokenizers
from tests.models.importing.small_marian import (
    MARIAN,
    SEPARATE,
    SEPARATE_CONFIG,
    VOCABULARY,
    MarianReference,
    binary_file,
    marian_tensors,
    quantise,
    vocabulary,
    write_marian,
)

PAD, UNK, BOS, EOS = range(4)
SOURCES, TARGET = ["turn on the light now", "door"], "open the kitchen window"
SELF_ATTENTION = {"transformer-decoder-autoreg": "self-attention", "transformer-ffn-activation": "swish"}


def our_logits(model, tokenizer, target_tokenizer=None) -> np.ndarray:
    """Returns our logits of TARGET after each of SOURCES, [B, T + 1, V]."""
    source = tf.concat([tokenizer.tokenize(SOURCES), [[EOS]] * len(SOURCES)], 1).to_tensor()
    target = [[BOS, *(target_tokenizer or tokenizer).tokenize([TARGET])[0].numpy()]] * len(SOURCES)
    return model({"source": source, "target": tf.constant(target)}).numpy()


def their_logits(config: dict, tensors: dict, vocabularies=(VOCABULARY,)) -> np.ndarray:
    """Returns the logits of the reference with the pieces in the order of our ids, without those of their own."""
    models = [sentencepiece.SentencePieceProcessor(model_proto=model) for model in vocabularies]
    reference = MarianReference(config, tensors)
    rows = [reference.logits([*models[0].encode(source), 0], models[-1].encode(TARGET)) for source in SOURCES]
    return np.array(rows)[..., [0, *range(2, len(models[-1]))]]


@pytest.mark.parametrize("file", ["model.enpt.bin", "model.npz"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        SELF_ATTENTION,
        {"tied-embeddings-all": False, "tied-embeddings": True},
        {"tied-embeddings-all": False},
    ],
    ids=["student", "self-attention", "two_embeddings", "untied"],
)
def test_an_imported_translator_computes_what_marian_does(tmp_path, run_import, config, file):
    result, model, tokenizer = run_import(write_marian(tmp_path / "marian", config, file))
    expected = their_logits(config, marian_tensors(MARIAN | config))
    np.testing.assert_allclose(our_logits(model, tokenizer)[..., EOS:], expected, rtol=1e-4, atol=1e-4)
    assert result.initialised == result.ignored == []
    assert (result.family, result.tokenizer_kind) == ("marian-nmt", "sentencepiece")


def test_each_language_may_have_a_vocabulary_of_its_own(tmp_path, import_files):
    """As in Firefox's models of Chinese, Japanese and Korean."""
    folder = write_marian(tmp_path / "marian", SEPARATE_CONFIG, vocabularies=SEPARATE)
    result, model, directory = import_files(folder)
    source, target = load_tokenizers(directory, ("source", "target")).values()
    assert result.vocab_size == {"source": source.vocab_size, "target": target.vocab_size}
    assert source.vocab_size != target.vocab_size
    tensors = marian_tensors(MARIAN | SEPARATE_CONFIG, SEPARATE)
    expected = their_logits(SEPARATE_CONFIG, tensors, SEPARATE)
    np.testing.assert_allclose(our_logits(model, source, target)[..., EOS:], expected, rtol=1e-4, atol=1e-4)


def test_vocabularies_in_the_wrong_order_are_refused(tmp_path, run_import):
    tensors = marian_tensors(MARIAN | SEPARATE_CONFIG, SEPARATE)
    folder = write_marian(tmp_path / "marian", SEPARATE_CONFIG, tensors=tensors, vocabularies=SEPARATE[::-1])
    with pytest.raises(ValueError, match=r"_Wemb do not fit .*: a matrix of \d+ rows, but a vocabulary of \d+ pieces$"):
        run_import(folder)


def test_two_vocabularies_do_not_fit_one_matrix_of_embeddings(tmp_path, run_import):
    folder = write_marian(tmp_path / "marian", tensors=marian_tensors(MARIAN), vocabularies=SEPARATE)
    with pytest.raises(ValueError, match="has tied-embeddings-all, which needs one vocabulary, not one for each"):
        run_import(folder)


def test_quantised_matrices_are_what_their_multipliers_say(tmp_path, run_import):
    tensors = marian_tensors(MARIAN)
    _, model, tokenizer = run_import(write_marian(tmp_path / "marian", quantised=True))
    for name, tensor in tensors.items():
        if "_W" in f"_{name}":
            values, multiplier = quantise(tensor)
            tensors[name] = np.float32(values) / multiplier
    np.testing.assert_allclose(our_logits(model, tokenizer)[..., EOS:], their_logits({}, tensors), rtol=1e-4, atol=1e-4)


def test_padding_markers_and_the_unknown_piece_are_never_generated(tmp_path, run_import):
    _, model, tokenizer = run_import(write_marian(tmp_path / "marian"))
    probabilities = tf.nn.softmax(our_logits(model, tokenizer)).numpy()
    assert probabilities[..., [PAD, UNK, BOS]].max() < 1e-4
    assert not model.target_embedding.matrix.numpy()[[PAD, BOS]].any()


def test_the_multipliers_of_activations_are_left_out(tmp_path, run_import):
    extra = {"Wemb_QuantMultA": np.ones((1, 1), np.float32), "none_QuantMultA": np.ones((1, 1), np.float32)}
    result, *_ = run_import(write_marian(tmp_path / "marian", tensors=marian_tensors(MARIAN) | extra))
    assert result.ignored == result.initialised == []


def test_the_settings_of_a_student_are_known_without_its_weights(tmp_path):
    folder = str(write_marian(tmp_path / "marian"))
    assert parts_of(folder) == ("encoder", "decoder")
    settings = settings_of(folder)
    assert {name: settings[name] for name in ("decoder", "num_decoder_layers", "dff", "norm_first")} == {
        "decoder": "ssru",
        "num_decoder_layers": 2,
        "dff": 16,
        "norm_first": False,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "s2s"}, r"special:model.yml has type='s2s', which is not supported, only 'transformer'$"),
        ({"transformer-preprocess": "n"}, "has transformer-preprocess='n'"),
        ({"transformer-postprocess": "da"}, "has transformer-postprocess='da'"),
        ({"transformer-decoder-autoreg": "average-attention"}, "only 'self-attention' or 'rnn'$"),
        ({"transformer-ffn-activation": "gelu"}, "only 'swish' or 'relu'$"),
        ({"tied-embeddings-src": True}, "has tied-embeddings-src=True"),
        ({"dec-cell": "gru"}, "has dec-cell='gru', which is not supported, only 'ssru'$"),
        ({"transformer-tied-layers": [1, 1]}, r"has transformer-tied-layers=\[1, 1\]"),
        ({"transformer-decoder-dim-ffn": 32}, "another transformer-dim-ffn for the decoder"),
        ({"enc-depth": 3}, r"16 tensors are missing: encoder_l3_self_Wq"),
        ({"enc-depth": 1}, r"16 tensors are not part of the architecture special:model.yml names: encoder_l2_ffn_W1"),
        ({"transformer-dim-ffn": 24}, r"_ffn_W1 have the shape \(8, 16\); special:model.yml needs \(8, 24\)"),
    ],
)
def test_another_architecture_is_refused(tmp_path, run_import, config, message):
    folder = write_marian(tmp_path / "marian", config, tensors=marian_tensors(MARIAN))
    with pytest.raises(ValueError, match=message):
        run_import(folder)


@pytest.mark.parametrize("damage", ["empty", "array", "compressed", "cut", "packed"])
@pytest.mark.parametrize("file", ["model.npz", "model.bin"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, run_import, file, damage):
    folder = write_marian(tmp_path / "marian", file=file)
    path = folder / file
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "array":
        with open(path, "wb") as stream:
            np.save(stream, np.ones(3))
    elif damage == "compressed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.rename(folder / f"{file}.gz")
    with pytest.raises(ValueError, match=rf"{folder}"):
        run_import(folder)


def test_a_vocabulary_with_a_begin_marker_has_its_zeros_for_it(tmp_path, run_import):
    tensors = marian_tensors(MARIAN)
    tensors["Wemb"] = np.pad(tensors["Wemb"], [[0, 1], [0, 0]], mode="edge")  # it has one more piece
    tensors["decoder_ff_logit_out_b"] = np.pad(tensors["decoder_ff_logit_out_b"], [[0, 0], [0, 1]])
    folder = write_marian(tmp_path / "marian", tensors=tensors)
    (folder / "vocab.enpt.spm").write_bytes(vocabulary(bos_id=2))
    _, model, _ = run_import(folder)
    assert not model.target_embedding.matrix.numpy()[[PAD, BOS]].any()


def test_a_missing_option_is_refused(tmp_path):
    tensors = {"special:model.yml": np.frombuffer(b"dim-emb: 8\0", np.int8)}
    np.savez(tmp_path / "model.npz", **tensors)
    with pytest.raises(ValueError, match=r"special:model.yml lacks 'transformer-dim-ffn'$"):
        settings_of(str(tmp_path))


def test_several_models_or_vocabularies_in_a_folder_are_refused(tmp_path, run_import):
    folder = write_marian(tmp_path / "marian")
    (folder / "lex.50.50.enpt.s2t.bin").write_bytes(b"a shortlist is no model")
    run_import(folder)
    (folder / "vocab.pt.spm").write_bytes(VOCABULARY)
    run_import(folder)  # the same vocabulary
    (folder / "vocab.pt.spm").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"vocab.enpt.spm and vocab.pt.spm differ; leave one .* or srcvocab"):
        run_import(folder)
    write_marian(folder, file="model.npz")
    with pytest.raises(ValueError, match=r"several models of Marian: model.bin, model.npz; leave only one"):
        run_import(folder)


def test_a_folder_without_vocabulary_is_refused(tmp_path, run_import):
    folder = write_marian(tmp_path / "marian")
    (folder / "vocab.enpt.spm").unlink()
    with pytest.raises(ValueError, match=r"file not found: .*/\*.spm, the vocabulary$"):
        run_import(folder)


@pytest.mark.parametrize("file", ["model.bin", "model.npz"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_damaged_file_is_refused_with_its_path(tmp_path, run_import, file, kept):
    path = write_marian(tmp_path / "marian", file=file) / file
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"{file} cannot be read: "):
        run_import(path.parent)


def test_a_layout_of_one_kind_of_processor_is_refused(tmp_path, run_import):
    folder = write_marian(tmp_path / "marian")
    content = binary_file([("special:model.yml", "bytes", (5,), b"a: 1\0")])
    (folder / "model.bin").write_bytes(content.replace(b"\x01\x01\0\0\0\0\0\0", b"\x01\x51\0\0\0\0\0\0", 1))
    with pytest.raises(ValueError, match=r"has the type 0x5101, .* `marian-conv --gemm-type float32`"):
        run_import(folder)
