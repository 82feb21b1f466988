"""A served language model: completions to append, scores that are those of the whole text, whatever the batch."""

import itertools
import math

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import DecodingConfig, ModelConfig, TokenizerConfig
from models.export import export
from models.export_language_model import LanguageModelServer
from models.runtime import SavedModelRuntime, TensorFlowError
from models.scoring import language_model_log_probabilities
from models.tokenizer import learn_tokenizer, load_tokenizer
from models.transformer import DecoderLanguageModel

CONTEXT = 16
WORDS = ["the", "light", "in", "hall", "is", "on", "and", "lamp", "garden", "off", "now", "please", "open", "door"]
HOSTILE = ["", " ", "the light", "a\0b e\u0301 \U0001f469\u200d\U0001f467", "the lamp " * 300, "grün 日本語 \ufeff"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    keras.utils.set_random_seed(1)  # first: it takes the resources of tokenizers with it
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    learn_tokenizer([(word, 10) for word in WORDS], TokenizerConfig(vocab_size=320), folder)
    tokenizer = load_tokenizer(folder)
    config = ModelConfig(1, 2, d_model=16, num_heads=2, dff=32, positions="rotary", max_positions=CONTEXT)
    model = DecoderLanguageModel(config, tokenizer.vocab_size)
    model.build()
    for weight in model.trainable_variables:  # far from even, so that it matters what it looks at
        weight.assign(weight * 3)
    server = LanguageModelServer(model, tokenizer, DecodingConfig(max_new_tokens=6))
    return server, model, tokenizer


@pytest.fixture(scope="module")
def runtime(server, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    export(server[0], folder, ["the light", "the lamp is on", ""])
    with SavedModelRuntime(folder) as runtime:
        yield runtime


def sample(runtime, texts, **options):
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6, "seed": 1} | options
    rows = {name: np.broadcast_to(value, len(texts)).tolist() for name, value in given.items()}
    return [text.decode() for text in runtime.run("sample", {"text": texts, **rows})["completion"]]


@pytest.mark.parametrize("signature", ["serving_default", "score"])
def test_a_batch_is_answered_as_its_rows_are(runtime, signature):
    together = runtime.run(signature, {"text": HOSTILE})
    for row, text in enumerate(HOSTILE):
        for name, values in runtime.run(signature, {"text": [text]}).items():
            if values.dtype == object:
                assert values[0] == together[name][row], text
            else:
                np.testing.assert_allclose(values[0], together[name][row], rtol=1e-4)


@pytest.mark.parametrize("signature", ["sample", "score"])
def test_hostile_texts_are_answered_by_every_signature(server, runtime, signature, hostile_texts, ask_every_way):
    options = {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "max_new_tokens": 4, "seed": 1}
    rows = {name: [value] * len(hostile_texts) for name, value in options.items()} if signature == "sample" else {}
    # All of a text is scored, eight tokens at a time here: a hundred thousand characters would take a minute.
    texts = [text[:1000] for text in hostile_texts] if signature == "score" else hostile_texts
    ask_every_way(runtime, server[0], signature, {"text": texts, **rows})


def test_each_row_is_sampled_by_its_own_options(runtime):
    texts = ["the light"] * 4
    seeds = sample(runtime, texts, seed=[1, 2, 1, 3])
    assert seeds[0] == seeds[2]
    assert len(set(seeds)) == 3
    assert len(set(sample(runtime, texts, seed=[1, 2, 3, 4], temperature=0.0))) == 1
    assert len(set(sample(runtime, texts, seed=[1, 2, 3, 4], top_k=1))) == 1


@pytest.mark.parametrize(("texts", "values"), [(2, 1), (9, 1), (1, 2), (9, 3)])
def test_options_that_are_not_one_a_text_are_refused(runtime, texts, values):
    """Few of them would broadcast in a small batch, and fail in a large one for reasons that say nothing."""
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6, "seed": 1}
    for option in given:
        rows = {name: [value] * (values if name == option else texts) for name, value in given.items()}
        with pytest.raises(TensorFlowError, match="sample takes as many values of temperature, ") as raised:
            runtime.run("sample", {"text": ["the light"] * texts, **rows})
        assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_longer_completion_begins_as_a_shorter_one_ends(runtime):
    longer = [sample(runtime, ["open the door"], max_new_tokens=tokens)[0] for tokens in range(1, 9)]
    whole = [text.rstrip("\ufffd") for text in longer]
    assert all(longer.startswith(shorter) for shorter, longer in itertools.pairwise(whole))


def test_a_completion_can_be_appended(server, runtime):
    """What is written is what the tokens of both give together, so the space before a new word is there."""
    _, _, tokenizer = server
    for seed in range(8):
        (completion,) = sample(runtime, ["the light"], seed=seed, max_new_tokens=5)
        first = tokenizer.tokenize(tf.constant([f"the light{completion}"]))
        assert tokenizer.detokenize(first).numpy()[0].decode() == f"the light{completion}".rstrip()


def test_a_text_that_fits_is_scored_as_a_whole(server, runtime):
    _, model, tokenizer = server
    text = "the lamp"
    ids = tokenizer.tokenize(tf.constant([text])).to_list()[0] + [3]
    assert len(ids) <= CONTEXT // 2, "one window"
    expected = float(tf.reduce_sum(language_model_log_probabilities(model, tf.constant([ids]))))
    answer = runtime.run("score", {"text": [text]})
    assert answer["log_probability"][0] == pytest.approx(expected, rel=1e-4)
    assert answer["tokens"][0] == len(ids)
    assert answer["characters"][0] == len(text)
    assert answer["bits_per_character"][0] == pytest.approx(-expected / math.log(2) / len(text), rel=1e-4)


def test_of_a_long_text_each_token_is_scored_with_what_stands_before_it(server, runtime):
    _, model, tokenizer = server
    text = "the lamp is on and the door in the garden is off now please open"
    ids = [2, *tokenizer.tokenize(tf.constant([text])).to_list()[0], 3]
    assert len(ids) > 2 * CONTEXT
    half, total = CONTEXT // 2, 0.0
    for place in range(1, len(ids)):
        first = max(0, (place - 1) // half * half - half)  # windows move by half a context
        logits = model(tf.constant([ids[first:place]]))
        total += float(tf.nn.log_softmax(logits[0, -1])[ids[place]])
    assert runtime.run("score", {"text": [text]})["log_probability"][0] == pytest.approx(total, rel=1e-3)


def test_an_empty_batch_has_an_empty_answer(runtime):
    assert runtime.run("serving_default", {"text": []})["completion"].shape == (0,)
    assert runtime.run("score", {"text": []})["bits_per_character"].shape == (0,)


def test_warm_up_asks_every_signature(server):
    requests = server[0].warmup_requests(["a", "b"])
    assert {request.signature for request in requests} == set(server[0].signatures())
