"""The SavedModel takes strings and gives strings, one row at a time or many, in the C++ runtime as in Python."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from models.config import DecodingConfig, ModelConfig, TokenizerConfig
from models.export import export
from models.export_translation import TranslationServer
from models.runtime import SavedModelRuntime
from models.saved_model import iterate_nodes, read_meta_graph
from models.tokenizer import learn_tokenizer, load_tokenizer
from models.transformer import Transformer
from models.warmup import read_warmup_requests

WORDS = [
    "the",
    "light",
    "in",
    "kitchen",
    "turn",
    "on",
    "off",
    "open",
    "close",
    "door",
    "window",
    "now",
    "please",
    "lamp",
]
TEXTS = ["turn on the light", "open", "close the window in the hall now", "please", "lamp off", "☃ unseen Zeichen"]


@pytest.fixture(scope="module")
def make_server(make_transformer, tmp_path_factory):
    """Returns a function that makes a server of one model and tokenizer; its keywords make the DecodingConfig."""
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    counts = [(word, 10 + number) for number, word in enumerate(WORDS)]
    size = learn_tokenizer(counts, TokenizerConfig(vocab_size=330), folder)
    model = make_transformer(vocab_size=size, seed=5)
    tokenizer = load_tokenizer(folder)  # after the seed was set: that empties TensorFlow's cache, the tokenizer with it
    return lambda **decoding: TranslationServer(model, tokenizer, DecodingConfig(**decoding))


@pytest.fixture(scope="module")
def server(make_server):
    return make_server(beam_size=3, max_length_ratio=1.5, max_length_extra=4, max_source_length=12)


@pytest.fixture(scope="module")
def exported(server, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    export(server, folder, TEXTS[:3])
    return folder


@pytest.fixture(scope="module")
def loaded(exported):
    signature = tf.saved_model.load(exported).signatures["serving_default"]
    return lambda texts: {key: value.numpy() for key, value in signature(text=tf.constant(texts, tf.string)).items()}


def test_a_signature_names_its_input_and_outputs_with_the_batch_first(exported):
    signature = tf.saved_model.load(exported).signatures["serving_default"]
    assert signature.structured_input_signature[1] == {"text": tf.TensorSpec([None], tf.string, "text")}
    outputs = {name: (spec.dtype, spec.shape.rank) for name, spec in signature.structured_outputs.items()}
    assert outputs == {"translation": (tf.string, 1), "score": (tf.float32, 1)}


def test_the_graph_holds_the_decoding_loop_once(exported):
    """The loop over tokens and the one around it, for both halves of a batch and both signatures that translate."""
    nodes = iterate_nodes(read_meta_graph(exported))
    assert sum(node.op in ("While", "StatelessWhile") for _, node in nodes) == 2


def test_what_is_exported_answers_as_the_server_did(server, loaded):
    expected = server.serving_default(tf.constant(TEXTS))
    answer = loaded(TEXTS)
    assert answer["translation"].tolist() == expected["translation"].numpy().tolist()
    np.testing.assert_allclose(answer["score"], expected["score"], rtol=1e-5)
    assert any(answer["translation"])


def test_a_batch_is_answered_as_its_rows_are(loaded):
    together = loaded(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = loaded([text])
        assert alone["translation"][0] == together["translation"][row]
        assert alone["score"][0] == pytest.approx(together["score"][row], rel=1e-4)


def test_an_empty_batch_has_an_empty_answer(loaded):
    answer = loaded([])
    assert answer["translation"].shape == answer["score"].shape == (0,)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_text_without_tokens_has_an_empty_translation(loaded, text):
    answer = loaded([text, TEXTS[0]])
    assert (answer["translation"][0], answer["score"][0]) == (b"", 0)
    assert answer["translation"][1] == loaded([TEXTS[0]])["translation"][0]


def test_a_long_text_is_cut_where_the_config_says(server, loaded):
    ids = server.source_ids(tf.constant(["open door " * 50, "open"]))
    assert ids.shape == (2, 13)  # 12 tokens and the end marker
    assert ids[0, -1] == server.tokenizer.eos_id
    longer, cut = loaded(["open door " * 50]), loaded(["open door " * 30])
    assert longer["translation"] == cut["translation"]


def test_a_translation_is_no_longer_than_the_config_allows(make_server):
    """With room for one token, every translation is the text of one piece."""
    brief = make_server(beam_size=1, max_length_ratio=0.0, max_length_extra=1)
    answer = brief.serving_default(tf.constant(TEXTS))
    pieces = brief.tokenizer.detokenize(tf.range(brief.tokenizer.vocab_size)[:, tf.newaxis])
    assert set(answer["translation"].numpy()) <= set(pieces.numpy())


@pytest.mark.parametrize("text", [b"\xff\xfe broken", b"a\0b", "\U0001f600" * 40, b"</s> <pad> <s>"])
def test_any_bytes_give_valid_utf8(loaded, text):
    answer = loaded([text])
    answer["translation"][0].decode("utf-8")
    assert np.isfinite(answer["score"]).all()


SIGNATURES = ("serving_default", "n_best", "score", "attention")
# What has broken servers before, beside ordinary text.
HOSTILE = [
    "",
    " \t ",
    "a\0b",
    b"\xff\xfe",
    "e\u0301 \U0001f469\u200d\U0001f467 \ufb01",
    "\u202e\u05e9\u05dc\u05d5\u05dd \u0639\u0627\u0644\u0645",  # right to left
    "</s> <pad>",
    "word " * 500,
    *TEXTS,
]


def inputs_of(signature, texts):
    """Makes inputs for a signature: a pair is a text and the one after it."""
    if signature in ("score", "attention"):
        return {"source": texts, "target": [*texts[1:], *texts[:1]]}
    return {"text": texts}


@pytest.fixture(scope="module")
def runtime(exported):
    with SavedModelRuntime(exported) as loaded:
        yield loaded


def rows(inputs, chosen):
    return {name: [texts[row] for row in chosen] for name, texts in inputs.items()}


def assert_same(answer, expected, row=None):
    """Compares answers, or an answer of one row with a row of another; what is longer there is padding."""
    for name, array in answer.items():
        other = np.asarray(expected[name] if row is None else expected[name][row : row + 1])
        other = other[tuple(slice(size) for size in array.shape)]
        if array.dtype == object:
            assert array.tolist() == other.tolist(), name
        else:
            np.testing.assert_allclose(array, other, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_the_cpp_runtime_answers_as_python_does(server, runtime, signature):
    inputs = inputs_of(signature, HOSTILE)
    tensors = {name: tf.constant(texts) for name, texts in inputs.items()}
    expected = {name: value.numpy() for name, value in getattr(server, signature)(**tensors).items()}
    assert_same(runtime.run(signature, inputs), expected)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_batch_is_answered_as_its_rows_are_also_when_padded_by_repeating_a_row(runtime, signature):
    inputs = inputs_of(signature, HOSTILE)
    together = runtime.run(signature, inputs)
    padded = runtime.run(signature, rows(inputs, [*range(len(HOSTILE)), *[0] * 5]))
    for row in range(len(HOSTILE)):
        assert_same(runtime.run(signature, rows(inputs, [row])), together, row)
        assert_same(rows_of(padded, row), together, row)


def rows_of(answer, row):
    return {name: array[row : row + 1] for name, array in answer.items()}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_batches_of_any_size_have_as_many_answers(runtime, signature):
    for size in (0, 1000):
        answer = runtime.run(signature, inputs_of(signature, (TEXTS * 200)[:size]))
        assert {len(array) for array in answer.values()} == {size}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_row_of_a_hundred_thousand_characters_is_cut(runtime, signature):
    inputs = inputs_of(signature, ["open door " * 10_000, "open"])
    shorter = inputs_of(signature, ["open door " * 1_000, "open"])
    assert_same(runtime.run(signature, inputs), runtime.run(signature, shorter))


def test_n_best_begins_with_the_translation_and_gets_worse(runtime):
    best, n_best = (runtime.run(name, {"text": TEXTS}) for name in ("serving_default", "n_best"))
    assert n_best["translations"].shape == n_best["scores"].shape == (len(TEXTS), 3)
    assert n_best["translations"][:, 0].tolist() == best["translation"].tolist()
    assert (np.diff(n_best["scores"]) <= 0).all()


def test_a_score_is_the_sum_over_the_tokens_of_the_target(server, runtime):
    answer = runtime.run("score", {"source": TEXTS[:2], "target": [TEXTS[1], ""]})
    length = int(server.tokenizer.tokenize([TEXTS[1]]).row_lengths()[0])
    assert answer["tokens"].tolist() == [length + 1, 1]
    assert (answer["log_probability"] < 0).all()


def test_attention_is_shared_out_among_the_source_tokens(runtime):
    answer = runtime.run("attention", {"source": TEXTS[:3], "target": TEXTS[1:4]})
    for row in range(3):
        source, target = answer["source_length"][row], answer["target_length"][row]
        assert answer["source_tokens"][row][source - 1] == answer["target_tokens"][row][target - 1] == b"</s>"
        assert not any(answer["source_tokens"][row][source:])
        np.testing.assert_allclose(answer["attention"][row, :, :, :target, :source].sum(-1), 1, rtol=1e-5)
    assert answer["attention"].shape[1:3] == (2, 2)  # layers, heads


def test_warm_up_requests_are_the_samples_alone_and_together_for_every_signature(exported):
    requests = read_warmup_requests(exported)
    assert requests[-1].signature == "serving_default"
    for signature in SIGNATURES:
        inputs = [request.inputs for request in requests if request.signature == signature]
        for name in inputs[0]:
            texts = [[text.decode() for text in values[name]] for values in inputs]
            assert texts == [[TEXTS[0]], [TEXTS[1]], [TEXTS[2]], TEXTS[:3]]


def test_vocabulary_config_and_versions_ride_along(server, exported):
    extra = pathlib.Path(exported, "assets.extra")
    vocabulary = (extra / "vocabulary.tsv").read_text(encoding="utf-8").splitlines()
    assert len(vocabulary) == server.tokenizer.vocab_size
    assert vocabulary[3] == "</s>\t3"
    config = json.loads((extra / "config.json").read_text(encoding="utf-8"))
    assert (config["task"], config["decoding"]["beam_size"], config["model"]["d_model"]) == ("translation", 3, 16)
    assert json.loads((extra / "versions.json").read_text(encoding="utf-8"))["tensorflow"] == tf.__version__


def test_source_and_target_may_have_a_tokenizer_each(make_server, tmp_path):
    """Every signature reads the source with the one and the target with the other."""
    own, exported = str(tmp_path / "own"), str(tmp_path / "exported")
    pathlib.Path(own).mkdir()
    size = learn_tokenizer([(word[::-1], 9) for word in WORDS], TokenizerConfig(vocab_size=310), own)
    shared = make_server()
    target_size = shared.tokenizer.vocab_size
    config = ModelConfig(1, 1, d_model=16, num_heads=2, dff=32, tie_embeddings=False)
    model = Transformer(config, target_size, source_vocab_size=size)
    model.build()
    source_tokenizer = load_tokenizer(own)
    decoding = DecodingConfig(beam_size=1, max_length_ratio=1.5, max_length_extra=4, max_source_length=24)
    server = TranslationServer(model, shared.tokenizer, decoding, source_tokenizer)
    export(server, exported, TEXTS[:3])
    inputs = {signature: inputs_of(signature, TEXTS[:2]) for signature in SIGNATURES}
    with SavedModelRuntime(exported) as runtime:
        answers = {signature: runtime.run(signature, inputs[signature]) for signature in SIGNATURES}
    in_python = tf.saved_model.load(exported).signatures["attention"]
    loaded = in_python(**{name: tf.constant(texts) for name, texts in inputs["attention"].items()})
    assert_same(answers["attention"], {name: value.numpy() for name, value in loaded.items()})
    for side, tokenizer in (("source", source_tokenizer), ("target", shared.tokenizer)):
        pieces = tokenizer.id_to_piece(tokenizer.tokenize(inputs["attention"][side]).flat_values).numpy().tolist()
        seen = [piece for row in answers["attention"][f"{side}_tokens"].tolist() for piece in row]
        assert [piece for piece in seen if piece not in (b"", b"</s>")] == pieces
    for name, number in (("vocabulary.tsv", target_size), ("source_vocabulary.tsv", size)):
        assert len((tmp_path / "exported" / "assets.extra" / name).read_text().splitlines()) == number
