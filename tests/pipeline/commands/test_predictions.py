"""`predict` prints one answer per text, or JSON lines for the lines of a file, and names the line that is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seq2serve.components.pusher.versions import publish
from seq2serve.models.runtime.saved_model import Signature

REPOSITORY = Path(__file__).parents[3]
PAIR = ["--file", "-", "--signature", "pair"]


def predict(model: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess:
    """Runs `seq2serve predict` as a process: it reads and writes bytes."""
    command = [sys.executable, "-m", "seq2serve", "predict", "--model", model, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, input=stdin, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("model", "folder"),
    [("serving", "serving/10"), ("serving/9", "serving/9"), ("model", "model/Format-Serving")],
)
def test_the_model_is_found_and_each_answer_is_a_line(invoke, tmp_path, monkeypatch, model, folder):
    class EchoRuntime:
        def __init__(self, path: str) -> None:
            self.path = os.path.relpath(path)
            self.signatures = {"serving_default": Signature({"text": None}, {})}

        def run(self, signature: str, inputs: dict[str, list[str]]) -> dict[str, list[bytes]]:
            return {"translation": [f"{self.path} {signature} {text}".encode() for text in inputs["text"]]}

    monkeypatch.setattr("seq2serve.pipeline.serving.location.SavedModelRuntime", EchoRuntime)
    monkeypatch.chdir(tmp_path)
    for name in ("serving/9", "serving/10", "model/Format-Serving"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_text("")
    (tmp_path / "serving" / "11").mkdir()  # a version without a model
    outcome = invoke("predict", "--model", model, "one", "--", "-5 degrees")
    assert outcome.stdout.splitlines() == [f"{folder} serving_default one", f"{folder} serving_default -5 degrees"]


def test_a_model_on_an_object_store_answers(invoke, text_model, blobs):
    url = "memory://bucket/shout"
    publish(url, text_model, {}, 3)
    outcome = invoke("predict", "--model", url, "hi", "you")
    assert (outcome.exit_code, outcome.stdout) == (0, "HI\nYOU\n"), outcome.stderr


def test_each_line_of_standard_input_becomes_a_json_object(text_model):
    done = predict(text_model, "--file", "-", "--batch-size", "3", stdin=b"one\n\nzwei \r\nno end")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"text": "one", "loud": "ONE", "score": 1.5},
        {"text": "", "loud": "", "score": 0},
        {"text": "zwei ", "loud": "ZWEI ", "score": 2.5},
        {"text": "no end", "loud": "NO END", "score": 3},
    ]


def test_a_signature_with_several_inputs_takes_json_lines_of_a_file(text_model, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"text": "ab", "other": "c"}\n{"other": "", "text": "d"}\n', encoding="utf-8")
    done = predict(text_model, "--file", str(file), "--signature", "pair")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["text"], row["other"], row["length"]) for row in rows] == [("ab", "c", 3), ("d", "", 1)]


def test_what_was_cut_is_counted_on_standard_error(invoke, finished_run_of, tmp_path):
    """A classifier's answer is a label and a translator's a text; the reason why it ended is no answer."""
    texts = ["Open", "Turn on the light " * 100]  # one sentence: a translator reads each by itself
    cut = "seq2serve: 1 of 2 texts were longer than the model reads, and were cut (truncated)\n"
    for task in ("classification", "translation"):
        model = finished_run_of(task).output("Trainer", "model").uri
        outcome = invoke("predict", "--model", model, *texts)
        assert (outcome.exit_code, outcome.stdout.count("\n")) == (0, 2)
        assert not {"stop", "length"} & set(outcome.stdout.split())
        assert cut in outcome.stderr
        (tmp_path / "texts").write_text("\n".join(texts))
        outcome = invoke("predict", "--model", model, "--file", tmp_path / "texts", "--batch-size", "1")
        assert [json.loads(line)["truncated"] for line in outcome.stdout.splitlines()] == [False, True]
        assert cut in outcome.stderr


ERRORS = {
    "file missing": (
        ["--file", "nowhere.txt"],
        b"",
        ("file-unreadable", {"path": "nowhere.txt"}),
        "cannot read nowhere.txt: No such file or directory; pass a file with one text per line",
    ),
    "not UTF-8": (
        ["--file", "-"],
        b"good\n\xff\n",
        ("line-encoding", {"path": "-", "line": 2}),
        "-, line 2: not UTF-8 (invalid start byte at byte 0); save the file as UTF-8",
    ),
    "not JSON": (
        PAIR,
        b"{\n",
        ("line-invalid", {"path": "-", "line": 1}),
        "; a line must be a JSON object with other, text",
    ),
    "input missing": (
        PAIR,
        b'{"text": "a"}\n',
        ("line-inputs", {"path": "-", "line": 1}),
        "-, line 1: the object has text; the signature takes other, text",
    ),
    "no inputs": (
        PAIR,
        b"{}\n",
        ("line-inputs", {"path": "-", "line": 1}),
        "-, line 1: the object has nothing; the signature takes other, text",
    ),
    "wrong type": (
        PAIR,
        b'{"text": 1, "other": "a"}\n',
        ("inputs-invalid", {"path": "MODEL"}),
        "MODEL cannot answer: ",
    ),
    "unknown signature": (
        ["--file", "-", "--signature", "nonsense"],
        b"",
        ("signature-missing", {"signature": "nonsense"}),
        "MODEL has no signature 'nonsense'; it has pair, serving_default",
    ),
    "unknown signature of texts": (
        ["--signature", "nonsense", "a text"],
        b"",
        ("signature-missing", {"signature": "nonsense"}),
        "MODEL has no signature 'nonsense'; it has pair, serving_default",
    ),
    "several inputs": (
        ["--signature", "pair", "a text"],
        b"",
        ("signature-inputs", {"signature": "pair", "inputs": ["other", "text"]}),
        "signature 'pair' takes other, text; pass --file with one JSON object of these per line",
    ),
    "texts and file": (
        ["--file", "-", "a text"],
        b"",
        ("inputs-ambiguous", {"path": "-"}),
        "both texts and --file - were passed; use only one of them",
    ),
    "no texts": ([], b"", ("inputs-missing", {}), "Missing argument 'TEXT': pass texts, or --file FILE"),
}


@pytest.mark.parametrize(("arguments", "stdin", "code_and_fields", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_input_is_one_message(invoke, text_model, arguments, stdin, code_and_fields, message):
    code, fields = code_and_fields
    outcome = invoke("predict", "--model", text_model, *arguments, stdin=stdin)
    expected = {name: text_model if value == "MODEL" else value for name, value in fields.items()}
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, code, expected)
    assert message.replace("MODEL", text_model) in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_signature_without_strings_prints_all_outputs(invoke, tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.count = tf.function(
        lambda text: {"length": tf.strings.length(text)}, [tf.TensorSpec([None], tf.string, "text")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.count})
    outcome = invoke("predict", "--model", tmp_path, "a text")
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout) == {"text": "a text", "length": 6}


@pytest.mark.parametrize(
    ("model", "code"), [("nowhere", "saved-model-missing"), ("nowhere://bucket", "url-unsupported")]
)
def test_a_model_that_cannot_be_found_is_an_error(invoke, tmp_path, monkeypatch, model, code):
    monkeypatch.chdir(tmp_path)
    outcome = invoke("predict", "--model", model, "hi")
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, code, {"path": model})


def test_a_damaged_model_is_an_error(invoke, tmp_path):
    (tmp_path / "saved_model.pb").write_text("damaged")
    outcome = invoke("predict", "--model", tmp_path, "hi")
    assert (outcome.exit_code, outcome.error.code) == (2, "model-unloadable")
    assert outcome.error.fields == {"path": str(tmp_path)}
    assert outcome.stderr.startswith(f"seq2serve: {tmp_path} cannot be loaded: ")
