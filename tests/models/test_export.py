"""The SavedModel takes strings and gives strings, one row at a time or many, in the C++ runtime as in Python."""

import numpy as np
import pytest
import tensorflow as tf

from models.config import DecodingConfig, TokenizerConfig
from models.export import TranslationServer, export_translation
from models.runtime import SavedModelRuntime
from models.tokenizer import learn_sentencepiece, load_tokenizer
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
    size = learn_sentencepiece(counts, TokenizerConfig(vocab_size=330), folder)
    model = make_transformer(vocab_size=size, seed=5)
    tokenizer = load_tokenizer(folder)  # after the seed was set: that empties TensorFlow's cache, the tokenizer with it
    return lambda **decoding: TranslationServer(model, tokenizer, DecodingConfig(**decoding))


@pytest.fixture(scope="module")
def server(make_server):
    return make_server(beam_size=3, max_length_ratio=1.5, max_length_extra=4, max_source_length=12)


@pytest.fixture(scope="module")
def exported(server, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    export_translation(server, folder, TEXTS[:3])
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


def test_what_is_exported_answers_as_the_server_did(server, loaded):
    expected = server.serving_default(tf.constant(TEXTS))
    answer = loaded(TEXTS)
    assert answer["translation"].tolist() == expected["translation"].numpy().tolist()
    np.testing.assert_allclose(answer["score"], expected["score"], rtol=1e-5)
    assert any(answer["translation"])


def test_the_cpp_runtime_answers_as_python_does(exported, loaded):
    with SavedModelRuntime(exported) as runtime:
        answer = runtime.run("serving_default", {"text": TEXTS})
    assert answer["translation"].tolist() == loaded(TEXTS)["translation"].tolist()
    np.testing.assert_allclose(answer["score"], loaded(TEXTS)["score"], rtol=1e-4)


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


def test_warm_up_requests_are_the_samples_alone_and_together(exported):
    requests = read_warmup_requests(exported)
    texts = [[text.decode() for text in request.inputs["text"]] for request in requests]
    assert texts == [[TEXTS[0]], [TEXTS[1]], [TEXTS[2]], TEXTS[:3]]
    assert {request.signature for request in requests} == {"serving_default"}
