"""Chat shows a completion piece by piece, and in the end the very one that asking once would give."""

import dataclasses
import io

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from components.errors import UserError
from models.runtime import SavedModelRuntime
from pipeline.__main__ import app
from pipeline.chat import Options, chat, read_lines, stream

OPTIONS = Options(temperature=0.8, top_k=0, top_p=0.9, max_new_tokens=11, seed=5)


@pytest.fixture(scope="module")
def served(house_of):
    with SavedModelRuntime(house_of("language_model").output("Trainer", "model").path("Format-Serving")) as served:
        yield served


def sampled(served, text, seed):
    options = {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "max_new_tokens": 11, "seed": seed}
    answer = served.run("sample", {"text": [text], **{name: [value] for name, value in options.items()}})
    return answer["completion"][0].decode()


def test_the_pieces_are_the_completion(served):
    pieces = list(stream(served, "Turn on the", OPTIONS))
    assert len(pieces) > 1
    assert "".join(pieces) == sampled(served, "Turn on the", 5)


def test_each_line_is_gone_on_from_and_an_empty_one_from_what_was_written(served):
    out = io.StringIO()
    chat(served, ["Open the", "", "Check"], out, OPTIONS)
    first = "Open the" + sampled(served, "Open the", 5)
    second = first + sampled(served, first, 6)
    assert out.getvalue() == f"{first}\n{second}\nCheck{sampled(served, 'Check', 7)}\n"


def test_after_the_last_seed_comes_the_first(served):
    out = io.StringIO()
    chat(served, ["Open the", "Check"], out, dataclasses.replace(OPTIONS, seed=2**31 - 1))
    assert out.getvalue().splitlines()[1] == f"Check{sampled(served, 'Check', 0)}"


def test_lines_come_as_they_are_typed():
    assert list(read_lines(io.BytesIO("größer\n\r\nno end".encode()))) == ["größer", "", "no end"]


@pytest.fixture
def ask(house_of):
    """Returns a function that types into `seq2serve chat`."""
    path = house_of("language_model").output("Trainer", "model").path("Format-Serving")
    return lambda typed, *options: CliRunner().invoke(app, ["chat", "--model", path, *options], input=typed)


def test_what_is_not_utf8_is_said_with_its_line_after_the_lines_before_it(ask):
    done = ask(b"Open the\ncaf\xe9!\n", "--max-new-tokens", "1")
    assert done.exit_code == 2
    assert done.stdout.startswith("Open the")
    assert done.stderr == "seq2serve: line 2 is not UTF-8 (invalid continuation byte at byte 3); send it so\n"


@pytest.mark.parametrize("option", ["--seed", "--top-k"])
def test_a_number_that_the_model_cannot_take_is_refused(ask, option):
    done = ask(b"Open the\n", option, str(2**31))
    assert (done.exit_code, f"Invalid value for '{option}'" in done.stderr) == (2, True)


def test_a_model_that_cannot_be_asked_so_is_explained(tmp_path):
    module = tf.Module()
    module.sample = tf.function(lambda text: {"completion": text}, [tf.TensorSpec([None], tf.string, "text")])
    tf.saved_model.save(module, str(tmp_path), signatures={"sample": module.sample})
    done = CliRunner().invoke(app, ["chat", "--model", str(tmp_path)], input=b"Open the\n")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "cannot go on: signature 'sample' has no input" in done.stderr


def test_a_model_that_does_not_write_is_refused(house):
    path = house.output("Trainer", "model").path("Format-Serving")
    with SavedModelRuntime(path) as translator, pytest.raises(UserError, match="no signature 'sample'"):
        chat(translator, ["a"], io.StringIO(), OPTIONS)
