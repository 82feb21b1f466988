"""An exported translator has the same results for rows and batches, in the C++ runtime and in Python."""

import json
import pathlib

import grpc
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import DecodingConfig, ModelConfig, TokenizerConfig
from seq2serve.models.export.export import export
from seq2serve.models.export.translation import MAX_SENTENCES, TranslationServingModule, _repeats
from seq2serve.models.export.warmup import read_warmup_requests
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError
from seq2serve.models.runtime.saved_model import iterate_nodes, read_meta_graph
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.transformer.models import Transformer

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
def make_serving_module(make_transformer, tmp_path_factory):
    """Returns a function that makes a TranslationServingModule; its other keywords are settings of decoding."""
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    counts = [(word, 10 + number) for number, word in enumerate(WORDS)]
    size = learn_tokenizer(counts, TokenizerConfig(vocab_size=330), folder)
    models = {name: make_transformer(vocab_size=size, seed=5, decoder=name) for name in ("attention", "ssru")}
    tokenizer = load_tokenizer(folder)  # after make_transformer: setting the seed discards the resources of tokenizers

    def make(max_source_length=256, decoder="attention", **decoding):
        return TranslationServingModule(models[decoder], tokenizer, DecodingConfig(**decoding), max_source_length)

    return make


@pytest.fixture(scope="module")
def serving_module(make_serving_module):
    return make_serving_module(beam_size=3, max_length_ratio=1.5, max_length_extra=4, max_source_length=12)


@pytest.fixture(scope="module")
def exported(serving_module, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    export(serving_module, folder, TEXTS[:3])
    return folder


@pytest.fixture(scope="module")
def loaded(exported):
    signature = tf.saved_model.load(exported).signatures["serving_default"]
    return lambda texts: {key: value.numpy() for key, value in signature(text=tf.constant(texts, tf.string)).items()}


def test_inputs_and_outputs_of_a_signature_have_names_and_the_batch_first(exported):
    signature = tf.saved_model.load(exported).signatures["serving_default"]
    assert signature.structured_input_signature[1] == {"text": tf.TensorSpec([None], tf.string, "text")}
    outputs = {name: (spec.dtype, spec.shape.rank) for name, spec in signature.structured_outputs.items()}
    assert outputs == {
        "translation": (tf.string, 1),
        "score": (tf.float32, 1),
        "finish_reason": (tf.string, 1),
        "truncated": (tf.bool, 1),
    }


def test_the_graph_contains_the_decode_loop_once(exported):
    """All signatures that translate share the loop over batches of sentences, and in it the outer and inner loop."""
    nodes = iterate_nodes(read_meta_graph(exported))
    assert sum(node.op in ("While", "StatelessWhile") for _, node in nodes) == 3


def test_the_exported_model_has_the_same_results_as_the_serving_module(serving_module, loaded):
    expected = serving_module.serving_default(tf.constant(TEXTS))
    answer = loaded(TEXTS)
    assert answer["translation"].tolist() == expected["translation"].numpy().tolist()
    np.testing.assert_allclose(answer["score"], expected["score"], rtol=1e-5)
    assert any(answer["translation"])


def test_a_batch_has_the_same_results_as_its_rows(loaded):
    together = loaded(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = loaded([text])
        assert alone["translation"][0] == together["translation"][row]
        assert alone["score"][0] == pytest.approx(together["score"][row], rel=1e-4)


def test_an_empty_batch_has_an_empty_result(loaded):
    answer = loaded([])
    assert answer["translation"].shape == answer["score"].shape == (0,)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_a_text_of_white_space_stays_as_it_is(loaded, text):
    answer = loaded([text, TEXTS[0]])
    assert (answer["translation"][0].decode(), answer["score"][0]) == (text, 0)
    assert answer["translation"][1] == loaded([TEXTS[0]])["translation"][0]


def test_a_long_text_is_truncated_to_max_source_length(serving_module, loaded):
    ids, _ = serving_module.pair_ids(["open door " * 50, "open"], ["", ""])
    assert ids.shape == (2, 13)  # 12 tokens and the end marker
    assert ids[0, -1] == serving_module.tokenizer.eos_id
    longer, shorter = loaded(["open door " * 50]), loaded(["open door " * 30])
    assert longer["translation"] == shorter["translation"]


def test_a_text_is_translated_sentence_by_sentence(serving_module):
    """White space around a sentence is not part of it, and kept."""
    text = "Turn on the light.  Open the door!\n\n close the window\r\n"
    sentences = ["Turn on the light.", "Open the door!", "close the window"]
    whole = serving_module.serving_default(tf.constant([text, "lamp off"]))
    parts = serving_module.serving_default(tf.constant(sentences))
    first, second, third = (translation.decode() for translation in parts["translation"].numpy())
    assert whole["translation"].numpy()[0].decode() == f"{first}  {second}\n\n {third}\r\n"
    assert whole["score"].numpy()[0] == pytest.approx(parts["score"].numpy().sum(), rel=1e-4)
    n_best = serving_module.n_best(tf.constant([text]))["translations"].numpy()[0]
    assert n_best[0] == whole["translation"].numpy()[0]
    assert len(set(n_best)) == len(n_best)


def test_the_translations_of_a_rank_are_joined(serving_module):
    sentences = ["Turn on the light.", "Open the door!"]
    parts = serving_module.n_best(tf.constant(sentences))
    first, second = parts["translations"].numpy()
    answer = serving_module.n_best(tf.constant([" ".join(sentences)]))
    assert answer["translations"].numpy()[0].tolist() == [b" ".join(pair) for pair in zip(first, second, strict=True)]
    np.testing.assert_allclose(answer["scores"][0], tf.reduce_sum(parts["scores"], 0), rtol=1e-4)


def test_a_text_is_cut_if_one_of_its_sentences_is(serving_module):
    """A source after 12 tokens, a translation after the maximum length."""
    short, long = "open", "Open door" * 20
    answer = serving_module.serving_default(tf.constant([short, f"{short}\n{long}", f"{long}\n{short}"]))
    assert answer["truncated"].numpy().tolist() == [False, True, True]
    options = {"max_length": [1, 0, 1], "min_length": 0}
    texts = [f"{short}\n{short}", "\n", "\n" + short]
    inputs = with_options(texts, **options)
    reasons = serving_module.translate(*(tf.constant(values) for values in inputs.values()))["finish_reasons"]
    assert reasons.numpy()[:, 0].tolist() == [b"length", b"stop", b"length"]


def test_a_text_is_translated_in_one_piece_if_sentences_are_not_split(make_serving_module):
    """Its line breaks are white space to the tokenizer, so a text of one sentence has the same translation."""
    module = make_serving_module(beam_size=3, max_source_length=12, split_sentences=False)
    texts = ["turn on.\nOpen the door!", "turn on. Open the door!", "", *TEXTS]
    answer = {name: value.numpy() for name, value in module.n_best(tf.constant(texts)).items()}
    assert answer["translations"][0].tolist() == answer["translations"][1].tolist()
    np.testing.assert_allclose(answer["scores"][0], answer["scores"][1], rtol=1e-4)
    splitting_module = make_serving_module(beam_size=3, max_source_length=12)
    split = splitting_module.n_best(tf.constant(texts))
    assert answer["translations"][3:].tolist() == split["translations"].numpy()[3:].tolist()
    assert answer["scores"][1, 0] != pytest.approx(split["scores"].numpy()[1, 0])


def test_a_text_of_many_lines_is_translated_in_batches(serving_module):
    lines = [TEXTS[number % 4] for number in range(2 * MAX_SENTENCES + 5)]
    alone = serving_module.serving_default(tf.constant(TEXTS[:4]))["translation"].numpy()
    answer = serving_module.serving_default(tf.constant(["\n".join(lines)]))
    assert answer["translation"].numpy()[0].split(b"\n") == [alone[number % 4] for number in range(len(lines))]


def test_a_translation_does_not_exceed_the_maximum_length(make_serving_module):
    """With at most one token, every translation is the text of one piece."""
    module = make_serving_module(beam_size=1, max_length_ratio=0.0, max_length_extra=1)
    answer = module.serving_default(tf.constant(TEXTS))
    pieces = module.tokenizer.detokenize(tf.range(module.tokenizer.vocab_size)[:, tf.newaxis])
    assert set(answer["translation"].numpy()) <= set(pieces.numpy())


@pytest.mark.parametrize("text", [b"\xff\xfe broken", b"a\0b", "\U0001f600" * 40, b"</s> <pad> <s>"])
def test_the_translation_of_any_bytes_is_valid_utf8(loaded, text):
    answer = loaded([text])
    answer["translation"][0].decode("utf-8")
    assert np.isfinite(answer["score"]).all()


SIGNATURES = ("serving_default", "n_best", "translate", "score", "attention")
OPTIONS = {"beam_size": 3, "n_best": 1, "length_penalty": 0.6, "min_length": 0, "max_length": 0}  # the defaults
# Texts that have broken servers, and ordinary texts.
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
    """Makes the inputs of a signature; a pair consists of a text and the next one."""
    if signature in ("score", "attention"):
        return {"source": texts, "target": [*texts[1:], *texts[:1]]}
    if signature == "translate":
        return with_options(texts, beam_size=[1, 2, 3], min_length=[0, 3], max_length=[0, 0, 0, 5])
    return {"text": texts}


def with_options(texts, **changes):
    """Makes the inputs of `translate`; a list of values is repeated."""
    options = {name: np.resize(value, len(texts)).tolist() for name, value in (OPTIONS | changes).items()}
    return {"text": texts, **options}


@pytest.fixture(scope="module")
def runtime(exported):
    with SavedModelRuntime(exported) as loaded:
        yield loaded


def select(inputs, rows):
    return {name: [texts[row] for row in rows] for name, texts in inputs.items()}


def assert_same(answer, expected, row=None):
    """Compares two results, or a result of one row with a row of a batch, which may have more padding."""
    for name, array in answer.items():
        other = np.asarray(expected[name] if row is None else expected[name][row : row + 1])
        other = other[tuple(slice(size) for size in array.shape)]
        if array.dtype == object:
            assert array.tolist() == other.tolist(), name
        else:
            np.testing.assert_allclose(array, other, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_the_cpp_runtime_has_the_same_results_as_python(serving_module, runtime, signature):
    inputs = inputs_of(signature, HOSTILE)
    function = getattr(serving_module, signature)
    tensors = {spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in function.input_signature}
    expected = {name: value.numpy() for name, value in function(**tensors).items()}
    assert_same(runtime.run(signature, inputs), expected)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_batch_padded_with_copies_of_a_row_has_the_same_results_as_its_rows(runtime, signature):
    inputs = inputs_of(signature, HOSTILE)
    together = runtime.run(signature, inputs)
    padded = runtime.run(signature, select(inputs, [*range(len(HOSTILE)), *[0] * 5]))
    for row in range(len(HOSTILE)):
        assert_same(runtime.run(signature, select(inputs, [row])), together, row)
        assert_same(rows_of(padded, row), together, row)


def rows_of(answer, row):
    return {name: array[row : row + 1] for name, array in answer.items()}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_outputs_have_as_many_rows_as_inputs(runtime, signature):
    for size in (0, 1000):
        answer = runtime.run(signature, inputs_of(signature, (TEXTS * 200)[:size]))
        assert {len(array) for array in answer.values()} == {size}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_text_of_a_hundred_thousand_characters_is_truncated(runtime, signature):
    inputs = inputs_of(signature, ["open door " * 10_000, "open"])
    shorter = inputs_of(signature, ["open door " * 1_000, "open"])
    answer = runtime.run(signature, inputs)
    assert_same(answer, runtime.run(signature, shorter))
    assert answer["truncated"].tolist() == [True, "target" in inputs]  # a pair is cut if one of its texts is
    assert not runtime.run(signature, inputs_of(signature, ["open", "door"]))["truncated"].any()


def test_n_best_starts_with_the_translation_and_is_sorted_by_score(runtime):
    best, n_best = (runtime.run(name, {"text": TEXTS}) for name in ("serving_default", "n_best"))
    assert n_best["translations"].shape == n_best["scores"].shape == (len(TEXTS), 3)
    assert n_best["translations"][:, 0].tolist() == best["translation"].tolist()
    assert (np.diff(n_best["scores"]) <= 0).all()


def test_no_two_translations_of_a_text_are_the_same(runtime):
    """Where there are fewer translations than beams, the rest are empty and score lower than any."""
    answer = runtime.run("n_best", {"text": HOSTILE})
    columns = (answer[name] for name in ("translations", "scores", "finish_reasons"))
    for texts, scores, reasons in zip(*columns, strict=True):
        real = scores > -1e6
        assert len({b" ".join(text.split()) for text in texts[real]}) == real.sum() >= 1
        assert set(texts[~real]) | set(reasons[~real]) <= {b""}
        assert set(reasons[real]) <= {b"stop", b"length"}


def test_texts_that_differ_in_white_space_are_repeats():
    texts = tf.constant([["a b", "a  b", "ab", " a b\u3000"], ["", "", "x", "X"]])
    assert _repeats(texts).numpy().tolist() == [[False, True, False, True], [False, True, False, False]]


def test_translate_answers_each_row_as_a_model_with_its_options(make_serving_module, serving_module, runtime):
    limits = {"max_length_ratio": 1.5, "max_length_extra": 4, "max_source_length": 12}
    other = make_serving_module(beam_size=2, length_penalty=2.0, **limits)
    texts = [text for text in TEXTS for _ in range(2)]
    answer = runtime.run("translate", with_options(texts, beam_size=[3, 2], length_penalty=[0.6, 2.0]))
    for first, module in enumerate((serving_module, other)):
        expected = module.serving_default(tf.constant(TEXTS))
        assert answer["translations"][first::2, 0].tolist() == expected["translation"].numpy().tolist()
        assert answer["finish_reasons"][first::2, 0].tolist() == expected["finish_reason"].numpy().tolist()
        np.testing.assert_allclose(answer["scores"][first::2, 0], expected["score"], rtol=1e-4)
    assert set(answer["translations"][:, 1:].flat) == {b""}  # one translation was wanted


def test_a_translation_that_reaches_its_maximum_length_says_so(serving_module, runtime):
    (short,) = runtime.run("translate", with_options(TEXTS[:1], max_length=1))["finish_reasons"][:, 0]
    assert short == b"length"
    answer = runtime.run("translate", with_options(TEXTS, max_length=22, min_length=20))
    lengths = serving_module.tokenizer.tokenize(answer["translations"][:, 0]).row_lengths().numpy()
    assert ((answer["finish_reasons"][:, 0] == b"length") | (lengths < 22)).all()
    assert (lengths > lengths_of_default(serving_module, runtime)).any()  # the minimum holds


def lengths_of_default(serving_module, runtime):
    translations = runtime.run("serving_default", {"text": TEXTS})["translation"]
    return serving_module.tokenizer.tokenize(translations).row_lengths().numpy()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, r"beam_size must be between 1 and 3, got\] \[0\]"),
        ({"beam_size": 4}, "beam_size must be between 1 and 3"),
        ({"n_best": 4}, "n_best must be between 1 and beam_size"),
        ({"n_best": 0}, "n_best must be between 1 and beam_size"),
        ({"length_penalty": -0.1}, r"length_penalty must be between 0 and 10, got\] \[-0.1\]"),
        ({"length_penalty": float("nan")}, "length_penalty must be"),
        ({"min_length": -1}, "min_length must be between 0 and 22"),
        ({"max_length": 23}, "max_length must be between 0 and 22"),
        ({"max_length": 2, "min_length": 3}, "min_length must be at most max_length"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_name(runtime, options, message):
    """Also among rows with valid options: the model server batches requests, and all of a batch fail together."""
    good = with_options(["open"] * 3)
    inputs = {name: [*values[:2], options.get(name, values[2])] for name, values in good.items()}
    with pytest.raises(TensorFlowError, match=message) as error:
        runtime.run("translate", inputs)
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    runtime.run("translate", good)


@pytest.mark.parametrize(("signature", "name"), [("score", "source"), ("attention", "target"), ("translate", "n_best")])
@pytest.mark.parametrize("rows", [1, 9])
def test_unequal_numbers_of_rows_are_refused(runtime, signature, name, rows):
    """A single row would be broadcast, and be paired with every other row."""
    inputs = inputs_of(signature, ["open"] * 4)
    inputs[name] = (inputs[name] * 3)[:rows]
    with pytest.raises(TensorFlowError, match=f"{signature} needs the same number of values of each of ") as error:
        runtime.run(signature, inputs)
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_score_counts_the_target_tokens_and_the_end_marker(serving_module, runtime):
    answer = runtime.run("score", {"source": TEXTS[:2], "target": [TEXTS[1], ""]})
    length = int(serving_module.tokenizer.tokenize([TEXTS[1]]).row_lengths()[0])
    assert answer["tokens"].tolist() == [length + 1, 1]
    assert (answer["log_probability"] < 0).all()


def test_attention_weights_sum_to_one_over_the_source_tokens(runtime):
    answer = runtime.run("attention", {"source": TEXTS[:3], "target": TEXTS[1:4]})
    for row in range(3):
        source, target = answer["source_length"][row], answer["target_length"][row]
        assert answer["source_tokens"][row][source - 1] == answer["target_tokens"][row][target - 1] == b"</s>"
        assert not any(answer["source_tokens"][row][source:])
        np.testing.assert_allclose(answer["attention"][row, :, :, :target, :source].sum(-1), 1, rtol=1e-5)
    assert answer["attention"].shape[1:3] == (2, 2)  # layers, heads


def test_every_signature_has_warmup_requests_with_the_samples_alone_and_together(exported):
    requests = read_warmup_requests(exported)
    assert requests[-1].signature == "serving_default"
    for signature in SIGNATURES:
        inputs = [request.inputs for request in requests if request.signature == signature]
        for name in {"text", "source", "target"} & set(inputs[0]):
            texts = [[text.decode() for text in values[name]] for values in inputs]
            assert texts == [[TEXTS[0]], [TEXTS[1]], [TEXTS[2]], TEXTS[:3]]


def test_vocabulary_config_and_versions_are_exported(serving_module, exported):
    extra = pathlib.Path(exported, "assets.extra")
    vocabulary = (extra / "vocabulary.tsv").read_text(encoding="utf-8").splitlines()
    assert len(vocabulary) == serving_module.tokenizer.vocab_size
    assert vocabulary[3] == "</s>\t3"
    config = json.loads((extra / "config.json").read_text(encoding="utf-8"))
    assert (config["task"], config["decoding"]["beam_size"], config["model"]["d_model"]) == ("translation", 3, 16)
    assert config["options"]["translate"] == OPTIONS
    versions = json.loads((extra / "versions.json").read_text(encoding="utf-8"))
    assert versions["tensorflow"] == tf.__version__
    assert versions["lowest"] == {"tensorflow": "2.19", "tensorflow-text": "2.19"}


def test_source_and_target_may_have_separate_tokenizers(make_serving_module, tmp_path):
    """Every signature uses the source tokenizer for sources and the target tokenizer for targets."""
    folder, exported = str(tmp_path / "tokenizer"), str(tmp_path / "exported")
    signatures = ("serving_default", "n_best", "score", "attention")  # the test model has one beam
    pathlib.Path(folder).mkdir()
    source_size = learn_tokenizer([(word[::-1], 9) for word in WORDS], TokenizerConfig(vocab_size=310), folder)
    target_tokenizer = make_serving_module().tokenizer
    target_size = target_tokenizer.vocab_size
    config = ModelConfig(1, 1, d_model=16, num_heads=2, dff=32, tie_embeddings=False)
    model = Transformer(config, target_size, source_vocab_size=source_size)
    model.build()
    source_tokenizer = load_tokenizer(folder)
    decoding = DecodingConfig(beam_size=1, max_length_ratio=1.5, max_length_extra=4)
    module = TranslationServingModule(model, target_tokenizer, decoding, 24, source_tokenizer)
    export(module, exported, TEXTS[:3])
    inputs = {signature: inputs_of(signature, TEXTS[:2]) for signature in signatures}
    with SavedModelRuntime(exported) as runtime:
        answers = {signature: runtime.run(signature, inputs[signature]) for signature in signatures}
    in_python = tf.saved_model.load(exported).signatures["attention"]
    loaded = in_python(**{name: tf.constant(texts) for name, texts in inputs["attention"].items()})
    assert_same(answers["attention"], {name: value.numpy() for name, value in loaded.items()})
    for side, tokenizer in (("source", source_tokenizer), ("target", target_tokenizer)):
        pieces = tokenizer.id_to_piece(tokenizer.tokenize(inputs["attention"][side]).flat_values).numpy().tolist()
        tokens = [piece for row in answers["attention"][f"{side}_tokens"].tolist() for piece in row]
        assert [piece for piece in tokens if piece not in (b"", b"</s>")] == pieces
    for name, size in (("vocabulary.tsv", target_size), ("source_vocabulary.tsv", source_size)):
        assert len((tmp_path / "exported" / "assets.extra" / name).read_text().splitlines()) == size


def test_a_recurrent_decoder_has_the_same_results_in_the_cpp_runtime_as_in_python(make_serving_module, tmp_path):
    module = make_serving_module(decoder="ssru", beam_size=3, max_length_ratio=1.5, max_length_extra=4)
    export(module, str(tmp_path), TEXTS[:3])
    inputs = {name: inputs_of(name, TEXTS) for name in SIGNATURES}
    with SavedModelRuntime(str(tmp_path)) as runtime:
        for name, rows in inputs.items():
            python = getattr(module, name)
            tensors = {spec.name: tf.constant(rows[spec.name], spec.dtype) for spec in python.input_signature}
            together = runtime.run(name, rows)
            assert_same(together, {key: value.numpy() for key, value in python(**tensors).items()})
            for row in range(len(TEXTS)):
                assert_same(runtime.run(name, select(rows, [row])), together, row)


def test_limits_on_repetition_affect_translations_and_not_scores(make_serving_module, tmp_path):
    """In the C++ runtime as in Python, for rows with options of their own."""
    limits = {"beam_size": 3, "max_length_ratio": 3.0, "max_length_extra": 20, "no_repeat_ngram": 2}
    free, limited = make_serving_module(**limits | {"no_repeat_ngram": 0}), make_serving_module(**limits)
    export(limited, str(tmp_path), TEXTS[:3])
    inputs = {name: inputs_of(name, TEXTS) for name in ("serving_default", "translate", "score")}
    with SavedModelRuntime(str(tmp_path)) as runtime:
        answers = {name: runtime.run(name, rows) for name, rows in inputs.items()}
        for row in range(len(TEXTS)):
            assert_same(runtime.run("translate", select(inputs["translate"], [row])), answers["translate"], row)
    for name, answer in answers.items():
        function = getattr(limited, name)
        tensors = {spec.name: tf.constant(inputs[name][spec.name], spec.dtype) for spec in function.input_signature}
        assert_same(answer, {key: value.numpy() for key, value in function(**tensors).items()})
    without = {key: value.numpy() for key, value in free.serving_default(tf.constant(TEXTS)).items()}
    assert (without["translation"] != answers["serving_default"]["translation"]).any()
    assert_same(answers["score"], {k: v.numpy() for k, v in free.score(**tensors).items()})
