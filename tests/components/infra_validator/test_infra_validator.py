"""InfraValidator blesses models that the model server can serve; otherwise the blessing states the reason."""

import json
import os
import pathlib
import re
import shutil

import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from seq2serve.components.base import progress
from seq2serve.components.base.artifact import Examples, InfraBlessing, Model, ModelBlessing, PushedModel
from seq2serve.components.base.errors import NotBlessedError
from seq2serve.components.infra_validator.component import InfraValidator
from seq2serve.components.pusher.component import Pusher
from seq2serve.models.export.warmup import WARMUP_FILE, WarmupRequest, write_warmup_requests

TEXT = tf.TensorSpec([None], tf.string, name="text")


class Reverser(tf.Module):
    """A valid model with a TF Text op and a variable: reverses the words of each text."""

    def __init__(self):
        self.weight = tf.Variable(tf.ones([64]))

    def answer(self, text):
        words = tf_text.WhitespaceTokenizer().tokenize(text)
        return tf.strings.reduce_join(words[:, ::-1], axis=-1, separator=" ")

    @tf.function(input_signature=[TEXT])
    def serve(self, text):
        lengths = tf.cast(tf.strings.length(text), tf.float32)
        return {"translation": self.answer(text), "score": lengths * tf.reduce_mean(self.weight)}


class PyFunction(Reverser):
    def answer(self, text):
        return tf.ensure_shape(tf.py_function(lambda value: value, [text], tf.string), [None])


class Compiled(Reverser):
    @tf.function(jit_compile=True)
    def only_by_xla(self, numbers):
        return numbers * 2

    def answer(self, text):
        return tf.strings.as_string(self.only_by_xla(tf.strings.length(text)))


class FixedBatch(Reverser):
    @tf.function(input_signature=[TEXT])
    def serve(self, text):
        return {"translation": self.answer(text), "temperature": tf.constant(1.0)}


class WrongBatch(Reverser):
    def answer(self, text):
        return tf.repeat(text, 2)


class InvalidUtf8(Reverser):
    def answer(self, text):
        return text + tf.constant("é".encode()[:1])


class DependsOnOtherRows(Reverser):
    def answer(self, text):
        return text + tf.strings.as_string(tf.reduce_max(tf.strings.length(text)))


class FailsOnBlank(Reverser):
    def answer(self, text):
        with tf.control_dependencies([tf.debugging.assert_greater(tf.strings.length(text), 0, "an empty text")]):
            return tf.identity(text)


class Aborts(Reverser):
    def answer(self, text):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the kernel gave up")]):
            return tf.identity(text)


class Exits(Reverser):
    def answer(self, text):
        with tf.control_dependencies([tf.raw_ops.Abort(exit_without_error=True)]):
            return tf.identity(text)


class Hangs(Reverser):
    def answer(self, text):
        return tf.while_loop(lambda value: tf.reduce_all(tf.strings.length(value) >= 0), lambda value: [value], [text])[
            0
        ]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    artifact = Examples(str(tmp_path_factory.mktemp("examples")), {"columns": ["source", "target"]})
    os.makedirs(artifact.path("Split-test"))
    for shard in range(2):
        path = artifact.path("Split-test", f"data_tfrecord-{shard:05d}-of-00002")
        with tf.io.TFRecordWriter(path) as writer:
            for index in range(25):
                values = {"source": f"wörter in satz {shard} {index}", "target": f"words of {index}"}
                feature = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                    for name, value in values.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return artifact


@pytest.fixture
def validate(tmp_path, examples):
    """Returns a function that exports a module, damages the export, validates it and returns the verdict."""

    def validate(module, damage=lambda directory: None, compare=None, **parameters):
        model, blessing = Model(str(tmp_path / "model")), InfraBlessing(str(tmp_path / "blessing"))
        os.makedirs(blessing.uri)
        directory = model.path("Format-Serving")
        signatures = {"serving_default": module.serve, **({"compare": compare} if compare else {})}
        tf.saved_model.save(module, directory, signatures=signatures)
        damage(pathlib.Path(directory))
        InfraValidator.function(model=model, examples=examples, blessing=blessing, **parameters)
        (name,) = os.listdir(blessing.uri)
        verdict = json.loads(pathlib.Path(blessing.path(name)).read_text(encoding="utf-8"))
        assert name == ("INFRA_BLESSED" if verdict["blessed"] else "INFRA_NOT_BLESSED")
        assert blessing.properties == {"blessed": verdict["blessed"], "reason": verdict["reason"]}
        assert "Traceback" not in verdict["reason"]
        if not verdict["blessed"]:
            assert_not_pushed(model, blessing, tmp_path)
        return verdict

    return validate


def assert_not_pushed(model, blessing, folder):
    model_blessing = ModelBlessing(str(folder / "model_blessing"), {"blessed": True})
    os.makedirs(model_blessing.uri)
    pathlib.Path(model_blessing.path("BLESSED")).write_text("{}", encoding="utf-8")
    artifacts = {"model": model, "model_blessing": model_blessing, "infra_blessing": blessing}
    with pytest.raises(NotBlessedError) as error:
        Pusher.function(
            **artifacts, pushed_model=PushedModel(str(folder)), destination=str(folder / "serving"), task="translation"
        )
    assert error.value.code == "not-blessed"
    assert error.value.fields == {"components": ["InfraValidator"]}
    assert not (folder / "serving").exists()


def add_warmup(directory):
    write_warmup_requests(str(directory), [WarmupRequest("serving_default", {"text": ["warm", "up"]})])


def test_a_valid_model_is_blessed_with_its_measurements(validate, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0)
    verdict = validate(Reverser(), add_warmup)
    shown = re.findall(r"^InfraValidator (\d+)/(\d+) (.*)$", capsys.readouterr().err, re.MULTILINE)
    assert {int(total) for _, total, _ in shown} == {len(verdict["checks"])}
    assert [int(done) for done, _, _ in shown] == sorted(int(done) for done, _, _ in shown)
    assert shown[0] == ("0", str(len(verdict["checks"])), "graph")
    assert any(status.startswith("one_by_one, 5 requests answered") for _, _, status in shown)
    assert (str(len(verdict["checks"]) - 1), str(len(verdict["checks"])), "python") in shown
    assert verdict["blessed"], verdict["reason"]
    assert all(check["passed"] for check in verdict["checks"])
    saw = {check["name"]: check["saw"] for check in verdict["checks"]}
    assert saw["warm_up"] == "requests replayed: 1"
    assert saw["batch"] == "39 rows in one batch, 0 of them different from the row alone"
    assert saw["batches_of_every_signature"] == "rows alone, in a batch and in a padded batch agree: serving_default"
    assert saw["python"] == "41 rows by Python, 0 of them different from the C++ runtime"
    assert saw["no_python"] == "Python TensorFlow was never imported"
    assert 0 < verdict["load_seconds"] < 60
    assert 0 < verdict["median_latency_ms"] < 1000
    assert 50 < verdict["peak_memory_mib"] < 5000


def test_the_reason_has_the_signature_whose_rows_depend_on_each_other(validate):
    class Second(Reverser):
        @tf.function(input_signature=[TEXT])
        def compare(self, text):
            return {"longest": tf.zeros_like(tf.strings.length(text)) + tf.reduce_max(tf.strings.length(text))}

    def add(directory):
        requests = [WarmupRequest(name, {"text": ["a", "longer", "b"]}) for name in ("serving_default", "compare")]
        write_warmup_requests(str(directory), requests)

    module = Second()
    reason = failure_reason(validate(module, add, compare=module.compare))
    assert re.match("batches_of_every_signature: signature 'compare': 2 of 3 rows have different answers", reason)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (PyFunction, r"ops: function \S*serve\S* uses the op EagerPyFunc, which runs Python"),
        (Compiled, r"compiled_functions: function \S*only_by_xla\S* is compiled"),
        (FixedBatch, r"signatures: signature 'serving_default': 'temperature' is float32 \[\]"),
        (WrongBatch, r"one_by_one: output 'translation' has the shape \[2\] for a batch of 1"),
        (InvalidUtf8, r"one_by_one: output 'translation' is not valid UTF-8: b'\\xc3'"),
        (DependsOnOtherRows, r"batch: signature 'serving_default': \d+ of 39 rows have different answers in a batch"),
        (FailsOnBlank, r"one_by_one: .*an empty text"),
        (Aborts, r"one_by_one: the runtime was killed by SIGABRT: .*the kernel gave up"),
        (Exits, r"one_by_one: the validating process exited with code 0"),
    ],
)
def test_a_model_that_cannot_be_served_is_not_blessed(validate, module, reason):
    assert re.match(reason, failure_reason(validate(module())))


def failure_reason(verdict):
    assert not verdict["blessed"]
    return verdict["reason"]


def test_a_model_that_hangs_is_not_blessed(validate):
    assert failure_reason(validate(Hangs(), time_limit=3)).endswith(": not finished after 3 seconds")


def add_unknown_op(directory):
    path = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    functions = saved_model.meta_graphs[0].graph_def.library.function
    node = next(node for function in functions for node in function.node_def if node.op == "StringLength")
    node.op = "StringLenght"
    path.write_bytes(saved_model.SerializeToString())


def truncate(name, size):
    def damage(directory):
        (path,) = directory.glob(name)
        path.write_bytes(path.read_bytes()[:size])

    return damage


def truncate_warmup(directory):
    add_warmup(directory)
    truncate(WARMUP_FILE, -4)(directory)


def warm_up_with_a_missing_input(directory):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["txet"].CopyFrom(tf.make_tensor_proto(["warm"]))
    (directory / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(directory / WARMUP_FILE)) as writer:
        writer.write(log.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (add_unknown_op, r"ops: function \S+ uses the op StringLenght, which is neither a TensorFlow core op"),
        (truncate_warmup, r"warm_up: .*tf_serving_warmup_requests: the file is cut off or corrupted at request 1"),
        (warm_up_with_a_missing_input, r"warm_up: warm-up request 1: signature 'serving_default' lacks input text"),
        (
            truncate("variables/variables.data*", 10),
            r"load: the runtime cannot load the graph and .*RestoreV2",
        ),
        (truncate("saved_model.pb", 0), r"graph: .*saved_model\.pb holds no graph with the tag 'serve'"),
        (truncate("saved_model.pb", 1000), r"graph: .*saved_model\.pb is broken"),
        (shutil.rmtree, r"graph: no SavedModel: .*No such file"),
    ],
)
def test_a_damaged_export_is_not_blessed(validate, damage, reason):
    assert re.match(reason, failure_reason(validate(Reverser(), damage)))


def test_inputs_are_read_from_the_columns_of_the_same_name(validate):
    class Pairs(Reverser):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.string, name="source"),
                tf.TensorSpec([None], tf.string, name="target"),
            ]
        )
        def serve(self, source, target):
            from_source = tf.strings.regex_full_match(source, "wörter.*") & tf.strings.regex_full_match(
                target, "words.*"
            )
            check = tf.debugging.Assert(tf.reduce_all(from_source | (source == target)), [source, target])
            with tf.control_dependencies([check]):
                return {"text": source + target}

    assert validate(Pairs(), num_sentences=40)["blessed"]
