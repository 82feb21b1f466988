"""An exported classifier returns labels and probabilities, for texts and for tf.Examples, in batches of any size."""

import grpc
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import ModelConfig, TokenizerConfig
from seq2serve.models.export.classification import ClassificationServingModule
from seq2serve.models.export.export import export
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError
from seq2serve.models.runtime.saved_model import read_meta_graph
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.transformer.models import EncoderClassifier

LABELS = ["bad", "good", "très bien"]
TEXTS = ["", " ", "a good day", "a\0b e\u0301 \U0001f469\u200d\U0001f467", "a bad day " * 300, "grün 日本語 \ufeff"]


@pytest.fixture(scope="module")
def model_and_tokenizer(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    words = [(word, 10) for word in ["a", "good", "bad", "day", "was", "it"]]
    learn_tokenizer(words, TokenizerConfig(vocab_size=300), folder)
    tokenizer = load_tokenizer(folder)
    model = EncoderClassifier(ModelConfig(1, 1, d_model=16, num_heads=2, dff=32), tokenizer.vocab_size, len(LABELS))
    model.build()
    return model, tokenizer


@pytest.fixture(scope="module")
def serving_module(model_and_tokenizer):
    return ClassificationServingModule(*model_and_tokenizer, LABELS, 20)


@pytest.fixture(scope="module")
def exported(serving_module, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    export(serving_module, folder, TEXTS[:3])
    return folder


@pytest.fixture(scope="module")
def runtime(exported):
    with SavedModelRuntime(exported) as runtime:
        yield runtime


def test_embeddings_are_the_pooled_outputs_at_unit_length(model_and_tokenizer, runtime):
    model, tokenizer = model_and_tokenizer
    answers = runtime.run("embed", {"text": TEXTS})
    np.testing.assert_allclose(np.linalg.norm(answers["embedding"], axis=1), 1, rtol=1e-5)
    for text, embedding in zip(TEXTS, answers["embedding"], strict=True):
        pooled = model.pool(tf.constant([[*tokenizer.tokenize(tf.constant([text])).to_list()[0][:20], 3]]))[0]
        np.testing.assert_allclose(embedding, pooled / np.linalg.norm(pooled), rtol=1e-3, atol=1e-5)


def test_probabilities_equal_those_of_the_model(model_and_tokenizer, runtime):
    model, tokenizer = model_and_tokenizer
    answers = runtime.run("serving_default", {"text": TEXTS})
    for row, text in enumerate(TEXTS):
        ids = [*tokenizer.tokenize(tf.constant([text])).to_list()[0][:20], 3]
        expected = tf.nn.softmax(model(tf.constant([ids]))[0]).numpy()
        np.testing.assert_allclose(answers["probabilities"][row], expected, rtol=1e-4)
        assert answers["labels"][row].tolist() == [label.encode() for label in LABELS]
        assert answers["label"][row].decode() == LABELS[expected.argmax()]
        assert answers["probability"][row] == pytest.approx(expected.max(), rel=1e-4)


def test_a_batch_has_the_same_results_as_its_rows(runtime):
    together = runtime.run("serving_default", {"text": TEXTS})["probabilities"]
    alone = [runtime.run("serving_default", {"text": [text]})["probabilities"][0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def test_classify_accepts_examples(runtime):
    answer = runtime.run("classify", {"inputs": [as_example(text) for text in TEXTS]})
    expected = runtime.run("serving_default", {"text": TEXTS})
    assert answer["classes"].tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(answer["scores"], expected["probabilities"], rtol=1e-5)


def test_a_long_text_is_cut_and_says_so(model_and_tokenizer, runtime):
    _, tokenizer = model_and_tokenizer
    is_long = tokenizer.tokenize(tf.constant(TEXTS)).row_lengths().numpy() > 20
    assert runtime.run("serving_default", {"text": TEXTS})["truncated"].tolist() == is_long.tolist()
    assert set(is_long) == {False, True}


BYTES = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a good day"]))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "Feature: text .* is required but could not be found"),
        ({"txt": BYTES}, "Feature: text .* is required but could not be found"),
        ({"text": tf.train.Feature()}, "Feature: text .* is required but could not be found"),
        ({"text": tf.train.Feature(bytes_list=tf.train.BytesList())}, "Key: text.*Values size: 0"),
        (
            {"text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a", b"b"]))},
            "Key: text.*Can't parse serialized Example",
        ),
        ({"text": tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))}, "Key: text.*Data types don't match"),
    ],
    ids=["none", "misspelt", "without a kind", "empty list", "two values", "wrong type"],
)
def test_an_example_without_one_text_is_refused_with_the_name_of_the_feature(runtime, features, message):
    example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    for inputs in ([example], [as_example("a good day"), example]):
        with pytest.raises(TensorFlowError, match=message) as error:
            runtime.run("classify", {"inputs": inputs})
        assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_every_signature_handles_hostile_texts(runtime, serving_module, hostile_texts, ask_every_way):
    ask_every_way(runtime, serving_module, "serving_default", {"text": hostile_texts})
    ask_every_way(runtime, serving_module, "embed", {"text": hostile_texts})
    ask_every_way(runtime, serving_module, "classify", {"inputs": [as_example(text) for text in hostile_texts]})


def as_example(text):
    value = tf.train.BytesList(value=[text if isinstance(text, bytes) else text.encode()])
    features = tf.train.Features(feature={"text": tf.train.Feature(bytes_list=value)})
    return tf.train.Example(features=features).SerializeToString()


def test_only_classify_has_the_method_name_of_the_classify_call(exported, runtime):
    definitions = read_meta_graph(exported).signature_def
    methods = {name: definitions[name].method_name for name in runtime.signatures}
    predict = "tensorflow/serving/predict"
    assert methods == {"classify": "tensorflow/serving/classify", "embed": predict, "serving_default": predict}


def test_an_empty_batch_has_an_empty_result(runtime):
    assert runtime.run("serving_default", {"text": []})["probabilities"].shape == (0, 3)
