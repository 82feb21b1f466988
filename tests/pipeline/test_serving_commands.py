"""predict turns files and standard input into JSON lines; versions and rollback show and change a serving folder."""

import json
import pathlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from components.serving_folder import publish, read_versions, versions
from pipeline.__main__ import app

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A SavedModel whose serving_default shouts, and whose `pair` takes two inputs."""
    import tensorflow as tf

    text, other = (tf.TensorSpec([None], tf.string, name=name) for name in ("text", "other"))
    module, folder = tf.Module(), str(tmp_path_factory.mktemp("model"))

    @tf.function(input_signature=[text])
    def shout(text):
        return {"loud": tf.strings.upper(text), "score": 0.5 * tf.cast(tf.strings.length(text), tf.float32)}

    @tf.function(input_signature=[text, other])
    def pair(text, other):
        return {"length": tf.strings.length(text + other)}

    module.shout, module.pair = shout, pair
    tf.saved_model.save(module, folder, signatures={"serving_default": shout, "pair": pair})
    return folder


def predict(model, *arguments, stdin=b""):
    command = [sys.executable, "-m", "pipeline", "predict", "--model", model, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, input=stdin, capture_output=True, check=False)


def test_standard_input_becomes_a_json_object_a_line(model):
    lines = b"one\n\nzwei \r\nno end"
    done = predict(model, "--file", "-", "--batch-size", "3", stdin=lines)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"text": "one", "loud": "ONE", "score": 1.5},
        {"text": "", "loud": "", "score": 0},
        {"text": "zwei ", "loud": "ZWEI ", "score": 2.5},
        {"text": "no end", "loud": "NO END", "score": 3},
    ]


def test_a_signature_with_several_inputs_takes_json_lines_of_a_file(model, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"text": "ab", "other": "c"}\n{"other": "", "text": "d"}\n', encoding="utf-8")
    done = predict(model, "--file", str(file), "--signature", "pair")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["text"], row["other"], row["length"]) for row in rows] == [("ab", "c", 3), ("d", "", 1)]


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["--file", "nowhere.txt"], b"", "cannot read nowhere.txt: No such file or directory"),
        (["--file", "-"], b"good\n\xff\n", "-, line 2: it is not UTF-8 (invalid start byte at byte 0)"),
        (["--file", "-", "--signature", "pair"], b"{\n", "-, line 1: JSON Parse error"),
        (
            ["--file", "-", "--signature", "pair"],
            b'{"text": "a"}\n',
            "-, line 1: it has text; the signature takes other",
        ),
        (["--file", "-", "--signature", "pair"], b'{"text": 1, "other": "a"}\n', "takes strings, got 1"),
        (["--file", "-", "--signature", "nonsense"], b"", "no signature 'nonsense'; it has pair, serving_default"),
        (["--file", "-", "a text"], b"", "at once; give one of them"),
        (["--signature", "pair", "a text"], b"", "'pair' takes other, text; ask with --file, a JSON object of those"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(model, arguments, content, message):
    done = predict(model, *arguments, stdin=content)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def serving(model, tmp_path):
    folder = tmp_path / "serving"
    numbers = []
    for number in (1, 2):
        copy = tmp_path / f"model-{number}"
        copy.mkdir()
        (copy / "saved_model.pb").write_text(str(number), encoding="utf-8")
        record = {
            "task": "translation",
            "model_fingerprint": f"{number}" * 64,
            "evaluation": {"reason": f"BLEU {number}"},
        }
        numbers.append(publish(str(folder), str(copy), record, 5))
    return folder, *numbers


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_versions_shows_what_each_is_and_which_are_served(serving):
    folder, first, second = serving
    lines = [line.split() for line in command("versions", folder).output.splitlines()]
    assert lines == [
        ["VERSION", "LABELS", "TASK", "MODEL", "WHAT"],
        [str(first), "translation", "1" * 12, "BLEU", "1"],
        [str(second), "stable,", "canary", "translation", "2" * 12, "BLEU", "2"],
    ]


def test_rollback_serves_an_earlier_version_and_versions_says_so(serving):
    folder, first, second = serving
    copy = second + 1
    assert command("rollback", folder).output == f"Version {copy} is version {first} again.\n"
    lines = [line.split() for line in command("versions", folder).output.splitlines()]
    assert lines[2][:2] == [str(second), "canary"]
    assert lines[3] == [str(copy), "stable", "translation", "1" * 12, "rolled", "back", "to", f"{first};", "BLEU", "1"]
    assert command("rollback", folder, second).exit_code == 0
    assert read_versions(folder)[-1].copy_of == second


def test_rollback_to_nowhere_changes_nothing(serving, tmp_path):
    folder, first, second = serving
    assert command("rollback", folder, 7).exit_code == 2
    assert versions(folder) == [first, second]
    for arguments in (["rollback", tmp_path / "none"], ["versions", tmp_path / "none"]):
        result = command(*arguments)
        assert (result.exit_code, "there are no versions" in result.stderr) == (2, True)
    assert not (tmp_path / "none").exists()


# Object stores; TensorFlow's file system in memory stands for one.


def test_a_push_to_an_object_store_is_listed_rolled_back_and_asked(model, tmp_path):
    there = f"ram://{tmp_path.name}/shout"
    number = publish(there, model, {"evaluation": {"reason": "loud enough"}}, 3)
    asked = CliRunner().invoke(app, ["predict", "--model", there, "hi", "you"])
    assert (asked.exit_code, asked.stdout) == (0, "HI\nYOU\n"), asked.output
    listed = CliRunner().invoke(app, ["versions", there])
    assert f"{number}  stable, canary" in listed.stdout
    assert "loud enough" in listed.stdout


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_cannot_be_is_refused(model, option, port):
    done = CliRunner().invoke(app, ["serve", model, option, port])
    assert (done.exit_code, f"Invalid value for '{option}'" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "gs://bucket/model"], "gs://bucket/model is no folder of this machine"),
        (["predict", "--model", "nowhere://bucket", "hi"], "cannot look for a SavedModel in nowhere://bucket"),
        (["versions", "nowhere://bucket"], "cannot look into nowhere://bucket"),
    ],
)
def test_what_cannot_be_reached_is_said(arguments, message):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.stderr
