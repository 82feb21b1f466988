"""An exported language model continues and scores texts; results do not depend on the batch."""

import itertools
import math
import re

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import DecodingConfig, ModelConfig, TokenizerConfig
from seq2serve.models.export.export import export
from seq2serve.models.export.language_model import LanguageModelServingModule
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.transformer.models import DecoderLanguageModel

CONTEXT = 16
OPTIONS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 6, "seed": 1}
WORDS = ["the", "light", "in", "hall", "is", "on", "and", "lamp", "garden", "off", "now", "please", "open", "door"]
HOSTILE = ["", " ", "the light", "a\0b e\u0301 \U0001f469\u200d\U0001f467", "the lamp " * 300, "grün 日本語 \ufeff"]


@pytest.fixture(scope="module")
def model_and_tokenizer(tmp_path_factory):
    keras.utils.set_random_seed(1)  # before loading: it discards the resources of tokenizers
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    learn_tokenizer(
        [(word, 10) for word in WORDS], TokenizerConfig(vocab_size=400, model_type="bpe", whitespace="keep"), folder
    )
    tokenizer = load_tokenizer(folder)
    config = ModelConfig(1, 2, d_model=16, num_heads=2, dff=32, positions="rotary", max_positions=CONTEXT)
    model = DecoderLanguageModel(config, tokenizer.vocab_size)
    model.build()
    for weight in model.trainable_variables:  # larger weights, so that predictions depend on the context
        weight.assign(weight * 3)
    return model, tokenizer


@pytest.fixture(scope="module")
def serving_module(model_and_tokenizer):
    return LanguageModelServingModule(*model_and_tokenizer, DecodingConfig(max_new_tokens=6))


@pytest.fixture(scope="module")
def runtime(serving_module, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    export(serving_module, folder, ["the light", "the lamp is on", ""])
    with SavedModelRuntime(folder) as runtime:
        yield runtime


def sample(runtime, texts, **changes):
    options = OPTIONS | changes
    rows = {name: np.broadcast_to(value, len(texts)).tolist() for name, value in options.items()}
    return [text.decode() for text in runtime.run("sample", {"text": texts, **rows})["completion"]]


@pytest.mark.parametrize("signature", ["serving_default", "score"])
def test_a_batch_has_the_same_results_as_its_rows(runtime, signature):
    together = runtime.run(signature, {"text": HOSTILE})
    for row, text in enumerate(HOSTILE):
        for name, values in runtime.run(signature, {"text": [text]}).items():
            if values.dtype == object:
                assert values[0] == together[name][row], text
            else:
                np.testing.assert_allclose(values[0], together[name][row], rtol=1e-4)


@pytest.mark.parametrize("signature", ["sample", "score"])
def test_every_signature_handles_hostile_texts(serving_module, runtime, signature, hostile_texts, ask_every_way):
    options = {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "max_new_tokens": 4, "seed": 1}
    rows = {name: [value] * len(hostile_texts) for name, value in options.items()} if signature == "sample" else {}
    # `score` reads the whole text, here in steps of eight tokens; 100,000 characters would take a minute.
    texts = [text[:1000] for text in hostile_texts] if signature == "score" else hostile_texts
    ask_every_way(runtime, serving_module, signature, {"text": texts, **rows})


def test_each_row_is_sampled_with_its_own_options(runtime):
    completions = sample(runtime, ["the light"] * 7, seed=[1, 2, 1, 3, 4, 5, 6])
    assert completions[0] == completions[2]
    assert len(set(completions)) > 3
    texts = ["the light"] * 4
    assert len(set(sample(runtime, texts, seed=[1, 2, 3, 4], temperature=0.0))) == 1
    assert len(set(sample(runtime, texts, seed=[1, 2, 3, 4], top_k=1))) == 1


@pytest.mark.parametrize(("texts", "values"), [(2, 1), (9, 1), (1, 2), (9, 3)])
def test_a_number_of_options_other_than_the_number_of_texts_is_an_error(runtime, texts, values):
    """Without the check, options are broadcast in a small batch and fail in a large one, without a clear message."""
    for option in OPTIONS:
        rows = {name: [value] * (values if name == option else texts) for name, value in OPTIONS.items()}
        message = "sample needs the same number of values of each of text, temperature, "
        with pytest.raises(TensorFlowError, match=message) as error:
            runtime.run("sample", {"text": ["the light"] * texts, **rows})
        assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("temperature", -0.5, r"finite and at least 0, got\] \[-0.5\]"),
        ("temperature", math.nan, "finite"),
        ("temperature", math.inf, "finite"),
        ("top_k", -1, r"at least 0, got\] \[-1\]"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.5, "above 0 and at most 1"),
        ("top_p", math.nan, "above 0 and at most 1"),
        ("max_new_tokens", 0, "between 1 and 8"),
        ("max_new_tokens", CONTEXT // 2 + 1, r"between 1 and 8, got\] \[9\]"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_name(runtime, option, value, rule):
    """Also in one row of many: the model server batches requests, and all of a batch fail together."""
    texts = ["the light"] * 9
    with pytest.raises(TensorFlowError, match=f"{option} must be {rule}") as error:
        sample(runtime, texts, **{option: [OPTIONS[option]] * 8 + [value]})
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_every_seed_is_valid(runtime):
    assert len(sample(runtime, ["the"] * 3, seed=[-(2**31), 0, 2**31 - 1])) == 3


def test_a_completion_says_whether_its_prompt_was_cut(model_and_tokenizer, runtime):
    _, tokenizer = model_and_tokenizer
    texts = ["the lamp", "the lamp is on now please open the door"]
    is_long = (tokenizer.tokenize(tf.constant(texts)).row_lengths() > CONTEXT // 2).numpy().tolist()
    assert is_long == [False, True]
    for signature, options in (("serving_default", {}), ("sample", {name: [x] * 2 for name, x in OPTIONS.items()})):
        assert runtime.run(signature, {"text": texts, **options})["truncated"].tolist() == is_long


def test_the_end_marker_is_the_finish_reason_stop(runtime):
    """A completion that ended by itself is the same with a higher limit."""
    rows = {name: [value] * 1000 for name, value in OPTIONS.items()}
    rows |= {"seed": list(range(1000)), "temperature": [100.0] * 1000, "text": ["the"] * 1000}
    six, eight = (runtime.run("sample", rows | {"max_new_tokens": [number] * 1000}) for number in (6, 8))
    ended = six["finish_reason"] == b"stop"
    assert ended.any()
    assert six["completion"][ended].tolist() == eight["completion"][ended].tolist()
    assert (eight["finish_reason"][ended] == b"stop").all()


def test_a_setting_beyond_the_context_is_an_error(model_and_tokenizer):
    assert LanguageModelServingModule(*model_and_tokenizer, DecodingConfig(max_new_tokens=CONTEXT // 2))
    with pytest.raises(ValueError, match=rf"^max_new_tokens \({CONTEXT // 2 + 1}\) exceeds half of the context"):
        LanguageModelServingModule(*model_and_tokenizer, DecodingConfig(max_new_tokens=CONTEXT // 2 + 1))


def test_a_longer_completion_starts_with_the_shorter_one(runtime):
    completions = [sample(runtime, ["open the door"], max_new_tokens=tokens)[0] for tokens in range(1, 9)]
    complete = [text.rstrip("\ufffd") for text in completions]  # without an incomplete character at the end
    assert all(longer.startswith(shorter) for shorter, longer in itertools.pairwise(complete))


def test_a_completion_can_be_appended(model_and_tokenizer, runtime):
    """A completion starts with a space before a new word, because prompt and completion are decoded together."""
    _, tokenizer = model_and_tokenizer
    completions = sample(runtime, ["the light"] * 50, seed=range(50), max_new_tokens=5)
    assert any(completion.startswith(" ") for completion in completions)
    for completion in completions:
        text = re.sub(r"[\0-\x08\x0b-\x1f\x7f]", "", f"the light{completion}")  # tokenizers drop control characters
        assert tokenizer.detokenize(tokenizer.tokenize(tf.constant([text]))).numpy()[0].decode() == text


def test_a_space_at_the_end_of_a_prompt_counts_once(runtime):
    """The model reads the same ids with and without it; only the next token may differ: it must begin a word."""
    texts = [f"{first} {second}" for first, second in itertools.product(WORDS, WORDS)]
    (plain, spaced) = (sample(runtime, [text + end for text in texts], temperature=0.0) for end in ("", " "))
    begins_word = [completion.startswith(" ") for completion in plain]
    assert any(begins_word)
    for without, with_space, begins in zip(plain, spaced, begins_word, strict=True):
        assert with_space == without[1:] or not begins


def test_a_prompt_may_end_with_any_white_space(runtime):
    texts = ["", " ", "  ", "\n", "the\n", "the\n ", "the \n\t", "the\u3000"]
    for seed in range(4):
        completions = sample(runtime, texts, seed=seed, temperature=2.0)
        assert completions == [sample(runtime, [text], seed=seed, temperature=2.0)[0] for text in texts]


def test_the_score_of_a_short_text_equals_its_log_probability(model_and_tokenizer, runtime, log_probability_of):
    model, tokenizer = model_and_tokenizer
    text = "the\n\tlam "
    ids = tokenizer.tokenize(tf.constant([text])).to_list()[0] + [3]
    assert len(ids) <= CONTEXT // 2, "the text must fit in one window"
    expected = log_probability_of(model, tf.constant([ids]))
    answer = runtime.run("score", {"text": [text]})
    assert answer["log_probability"][0] == pytest.approx(expected, rel=1e-4)
    assert answer["tokens"][0] == len(ids)
    assert answer["characters"][0] == len(text)
    assert answer["bits_per_character"][0] == pytest.approx(-expected / math.log(2) / len(text), rel=1e-4)


def test_each_token_of_a_long_text_is_scored_given_the_previous_tokens(model_and_tokenizer, runtime):
    model, tokenizer = model_and_tokenizer
    text = "the lamp is on and the door in the garden is off now please open " * 3
    ids = [2, *tokenizer.tokenize(tf.constant([text])).to_list()[0], 3]
    assert len(ids) > 2 * CONTEXT
    half, total = CONTEXT // 2, 0.0
    for position in range(1, len(ids)):
        start = max(0, (position - 1) // half * half - half)  # windows advance by half a context
        logits = model(tf.constant([ids[start:position]]))
        total += float(tf.nn.log_softmax(logits[0, -1])[ids[position]])
    assert runtime.run("score", {"text": [text]})["log_probability"][0] == pytest.approx(total, rel=1e-3)


def test_an_empty_batch_has_an_empty_result(runtime):
    assert runtime.run("serving_default", {"text": []})["completion"].shape == (0,)
    assert runtime.run("score", {"text": []})["bits_per_character"].shape == (0,)


def test_warmup_requests_cover_every_signature(serving_module):
    requests = serving_module.warmup_requests(["a", "b"])
    assert {request.signature for request in requests} == set(serving_module.signatures())


def test_limits_on_repetition_affect_generation_and_not_scores(model_and_tokenizer, tmp_path):
    """In the C++ runtime as in Python, alone and in a batch."""
    texts = ["the light", "open the door", "", "now"]
    options = {
        "temperature": [0.0] * 4,
        "top_k": [0] * 4,
        "top_p": [1.0] * 4,
        "max_new_tokens": [8] * 4,
        "seed": [1] * 4,
    }
    answers = {}
    for name, limits in {
        "off": {"no_repeat_ngram": 0},
        "on": {"no_repeat_ngram": 1, "repetition_penalty": 1.5},
    }.items():
        module = LanguageModelServingModule(*model_and_tokenizer, DecodingConfig(max_new_tokens=8, **limits))
        export(module, str(tmp_path / name), texts[:2])
        with SavedModelRuntime(str(tmp_path / name)) as runtime:
            answers[name] = runtime.run("sample", {"text": texts, **options}), runtime.run("score", {"text": texts})
            for row, text in enumerate(texts):
                alone = runtime.run("sample", {"text": [text], **{key: values[:1] for key, values in options.items()}})
                assert alone["completion"][0] == answers[name][0]["completion"][row]
        tensors = {key: tf.constant(values) for key, values in {"text": texts, **options}.items()}
        expected = module.sample(**tensors)["completion"].numpy()
        assert answers[name][0]["completion"].tolist() == expected.tolist()
    (free, scores), (limited, same_scores) = answers["off"], answers["on"]
    assert (free["completion"] != limited["completion"]).any()
    np.testing.assert_array_equal(scores["log_probability"], same_scores["log_probability"])
