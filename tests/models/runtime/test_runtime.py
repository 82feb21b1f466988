"""SavedModelRuntime has the same results as Python TensorFlow, without it, and fails where the model server fails."""

import concurrent.futures
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from hypothesis import given
from hypothesis import strategies as st

from seq2serve.models.runtime import runtime
from seq2serve.models.runtime.literal_path import literal_path
from seq2serve.models.runtime.runtime import SavedModelRuntime, TensorFlowError

DTYPES = ("string", "float32", "float64", "int32", "int64", "uint8", "bool")


def spec(dtype, *shape, name):
    return tf.TensorSpec(shape, dtype, name=name)


class Everything(tf.Module):
    """Has signatures that use TF Text, pass every dtype through the graph, and keep a string in a variable."""

    def __init__(self):
        self.weight = tf.Variable(2.0)
        self.stored = tf.Variable([""], shape=[None], dtype=tf.string)

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def words(self, text):
        tokens = tf_text.WhitespaceTokenizer().tokenize(text)
        joined = tf.strings.reduce_join(tokens, axis=-1, separator="_")
        return {"words": joined, "score": self.weight * tf.cast(tokens.row_lengths(), tf.float32)}

    @tf.function(input_signature=[spec(dtype, None, None, name=dtype) for dtype in DTYPES])
    def same(self, *values):
        return {dtype: tf.identity(value) for dtype, value in zip(DTYPES, values, strict=True)}

    @tf.function(input_signature=[spec(tf.string, None, name="text")])
    def keep(self, text):
        self.stored.assign(text)
        return {"size": tf.size(text)}

    @tf.function(input_signature=[spec(tf.string, None, name="ignored")])
    def recall(self, ignored):
        return {"text": self.stored.read_value()}


class Unservable(tf.Module):
    """Has functions that Python's loader can run and the model server cannot."""

    @tf.function(jit_compile=True)
    def double(self, numbers):
        return 2.0 * numbers

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def compiled(self, x):
        return {"y": self.double(x)}

    @tf.function(input_signature=[spec(tf.float32, None, name="x")])
    def python(self, x):
        return {"y": tf.ensure_shape(tf.py_function(lambda value: value, [x], tf.float32), [None])}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path, module = str(tmp_path_factory.mktemp("everything") / r"my [old] \one *what?"), Everything()
    signatures = {"serving_default": module.words, "same": module.same, "keep": module.keep, "recall": module.recall}
    tf.saved_model.save(module, path, signatures=signatures)
    return path


@pytest.fixture(scope="module")
def model(directory):
    with SavedModelRuntime(directory) as loaded:
        yield loaded
    # XLA is now disabled for the whole process; enable it again for later tests of training.
    runtime._load_library()._ZN10tensorflow20EnableXlaCompilationEv()


def fill(**values):
    """Returns inputs for the signature `same`: the given values, and one zero or "" of every other dtype."""
    zeros = {dtype: np.zeros([1, 1], dtype) for dtype in DTYPES if dtype != "string"}
    return {"string": [[""]], **zeros, **values}


def run_alone(program, *arguments):
    """Runs a program without Python TensorFlow and returns the lines that it prints; it must not write to stderr."""
    program = (
        "import sys\nfrom seq2serve.models.runtime import runtime\n"
        + program
        + "\nassert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout.splitlines()


def test_signatures_have_names_dtypes_and_shapes(model):
    signature = model.signatures["serving_default"]
    assert sorted(model.signatures) == ["keep", "recall", "same", "serving_default"]
    assert signature.inputs["text"][:2] == ("string", (None,))
    assert {name: output[:2] for name, output in signature.outputs.items()} == {
        "words": ("string", (None,)),
        "score": ("float32", (None,)),
    }


def test_results_equal_those_of_python(model, directory):
    texts = ["one", "", "two  words", "żółć gęślą jaźń \N{FAMILY}", "x " * 5000]
    with literal_path(directory) as path:
        python = tf.saved_model.load(path).signatures["serving_default"](text=tf.constant(texts))
    answer = model.run("serving_default", {"text": texts})
    assert answer["words"].tolist() == python["words"].numpy().tolist()
    np.testing.assert_array_equal(answer["score"], python["score"].numpy())


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype not in ("string", "bool")])
def test_numbers_pass_through_unchanged(model, dtype):
    limits = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    numbers = np.array([[limits.min, limits.max], [0, 1]], dtype)
    for array in (numbers, numbers.T):  # the second is not contiguous
        answer = model.run("same", fill(**{dtype: array}))[dtype]
        assert answer.dtype == dtype
        np.testing.assert_array_equal(answer, array)


def test_booleans_pass_through_unchanged(model):
    assert model.run("same", fill(bool=[[True, False]]))["bool"].tolist() == [[True, False]]


@given(st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=80)), max_size=8))
def test_any_string_passes_through_unchanged(model, texts):
    expected = [text.encode() if isinstance(text, str) else text for text in texts]
    assert model.run("same", fill(string=np.array([texts], object)))["string"].tolist() == [expected]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_batch_has_an_empty_result(model, dtype):
    empty = np.zeros([0, 3], object if dtype == "string" else dtype)
    assert model.run("same", fill(**{dtype: empty}))[dtype].shape == (0, 3)


def test_a_string_that_the_graph_stores_outlives_the_call(model):
    long = "longer than the twenty-two bytes that a short string can have"
    model.run("keep", {"text": [long]})
    for _ in range(100):
        model.run("serving_default", {"text": ["overwrites the memory of the string if it was freed too early"] * 10})
    assert model.run("recall", {"ignored": [""]})["text"].tolist() == [long.encode()]


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("nonsense", {}, "no signature 'nonsense'"),
        ("serving_default", {}, "lacks input text"),
        ("serving_default", {"text": ["a"], "txet": ["a"]}, "has no input txet; it takes text"),
        ("serving_default", {"text": [1]}, "takes strings, got 1"),
        ("serving_default", {"text": "bare"}, "takes string [?], got the shape []"),
        ("serving_default", {"text": [["a"], ["b"]]}, "got the shape [2, 1]"),
        ("serving_default", {"text": ["\ud800"]}, "valid Unicode"),
        ("same", fill(float32=[["1"]]), "takes float32 [?, ?], got <U1"),
        ("same", fill(int32=[[2**40]]), "got a number that is out of range"),
        ("same", fill(int32=[[1.5]]), "takes int32 [?, ?], got float64"),
        ("same", fill(int64=[[True]]), "takes int64 [?, ?], got bool"),
        ("same", fill(bool=[[1]]), "takes bool [?, ?], got int64"),
    ],
)
def test_the_error_for_invalid_inputs_describes_them(model, signature, inputs, message):
    with pytest.raises(ValueError, match="signature") as error:
        model.run(signature, inputs)
    assert message in str(error.value)


def test_threads_get_their_own_results(model):
    def run(number):
        return [model.run("serving_default", {"text": [f"{number} {i}"]})["words"][0] for i in range(50)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number, answers in enumerate(pool.map(run, range(16))):
            assert answers == [f"{number}_{i}".encode() for i in range(50)]


def test_running_a_closed_runtime_is_an_error(directory):
    with SavedModelRuntime(directory) as closed:
        pass
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.run("serving_default", {"text": ["a"]})


RUN = """
with runtime.SavedModelRuntime(sys.argv[1]) as model:
    try:
        model.run("serving_default", {"x": [1.0]})
    except runtime.TensorFlowError as error:
        print(error)
"""


@pytest.mark.parametrize(("method", "message"), [("compiled", "XLA compilation disabled"), ("python", "EagerPyFunc")])
def test_it_fails_where_the_model_server_fails(tmp_path, method, message):
    module = Unservable()
    tf.saved_model.save(module, str(tmp_path), signatures=getattr(module, method))
    assert message in run_alone(RUN, str(tmp_path))[0]


def test_a_broken_folder_is_an_error(directory, tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        SavedModelRuntime(str(tmp_path))
    broken = shutil.copytree(directory, tmp_path / "broken")
    (broken / "variables" / "variables.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(TensorFlowError):
        SavedModelRuntime(str(broken))
    (broken / "saved_model.pb").write_bytes(pathlib.Path(directory, "saved_model.pb").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"saved_model\.pb"):
        SavedModelRuntime(str(broken))


OPS = """
for ops in (runtime.registered_ops(), runtime.ops_with_cpu_kernel()):
    print(*sorted(ops))
"""


def test_op_lists_contain_the_ops_of_the_server():
    registered, runnable = (set(line.split()) for line in run_alone(OPS))
    assert {"MatMul", "SentencepieceTokenizeOp", "TFText>WhitespaceTokenizeWithOffsetsV2"} <= registered & runnable
    assert {"PyFunc", "PyFuncStateless", "EagerPyFunc"} <= registered - runnable


MEASURE_MEMORY = """
def resident_mebibytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def growth(action, warmup_calls, calls):
    for _ in range(warmup_calls):
        action()
    start = resident_mebibytes()
    for _ in range(calls):
        action()
    return resident_mebibytes() - start

with runtime.SavedModelRuntime(sys.argv[1]) as model:
    texts = ["a text of more than twenty-two bytes " * 20] * 50
    print(growth(lambda: model.run("serving_default", {"text": texts}), 300, 1500))
print(growth(lambda: runtime.SavedModelRuntime(sys.argv[1]), 5, 20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_leaks_no_memory(directory):
    # One leaked string tensor per call would add more than 50 MiB; a leaked session, more than 1 MiB each.
    assert all(float(mebibytes) < 8 for mebibytes in run_alone(MEASURE_MEMORY, directory))
