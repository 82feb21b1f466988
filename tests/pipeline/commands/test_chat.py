"""Chat streams a completion in pieces that add up to the completion of a single request."""

import io

import pytest
import tensorflow as tf

from seq2serve.components.base.errors import UserError
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.pipeline.commands.chat import chat, read_lines, stream

OPTIONS = {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "max_new_tokens": 11, "seed": 5}


@pytest.fixture(scope="module")
def served(finished_run_of):
    with SavedModelRuntime(
        finished_run_of("language_model").output("Trainer", "model").path("Format-Serving")
    ) as served:
        yield served


def sampled(served, text, seed):
    options = {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "max_new_tokens": 11, "seed": seed}
    answer = served.run("sample", {"text": [text], **{name: [value] for name, value in options.items()}})
    return answer["completion"][0].decode()


def test_the_pieces_add_up_to_the_completion(served):
    pieces = list(stream(served, "Turn on the", OPTIONS))
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == sampled(served, "Turn on the", 5)


def test_each_line_is_continued_and_an_empty_line_continues_the_last_answer(served):
    out = io.StringIO()
    chat(served, ["Open the", "", "Check"], out, io.StringIO(), OPTIONS)
    first = "Open the" + sampled(served, "Open the", 5)
    second = first + sampled(served, first, 6)
    assert out.getvalue() == f"{first}\n{second}\nCheck{sampled(served, 'Check', 7)}\n"


def test_a_space_at_the_end_of_a_line_is_not_repeated(served):
    out = io.StringIO()
    chat(served, ["Turn on "], out, io.StringIO(), OPTIONS | {"temperature": 0.0})
    assert out.getvalue().startswith("Turn on the ")


def test_the_seed_after_the_largest_is_zero(served):
    out = io.StringIO()
    chat(served, ["Open the", "Check"], out, io.StringIO(), OPTIONS | {"seed": 2**31 - 1})
    assert out.getvalue().splitlines()[1] == f"Check{sampled(served, 'Check', 0)}"


def test_a_note_says_what_was_cut(served):
    notes = {}
    for text in ("Open", "Open the door. " * 100):
        out = io.StringIO()
        chat(served, [text], io.StringIO(), out, OPTIONS | {"max_new_tokens": 1, "temperature": 0.0})
        notes[len(text)] = out.getvalue().splitlines()
    short, long = notes.values()
    assert short == ["(reached --max-new-tokens 1: an empty line continues)"]
    assert long[0] == "(the text is longer than the model reads: its beginning was cut)"


def test_lines_are_read_without_line_ends():
    assert list(read_lines(io.BytesIO("größer\n\r\nno end".encode()))) == ["größer", "", "no end"]


@pytest.fixture
def ask(finished_run_of, invoke):
    """Returns a function that sends lines to `seq2serve chat`."""
    path = finished_run_of("language_model").output("Trainer", "model").path("Format-Serving")
    return lambda lines, *options: invoke("chat", "--model", path, *options, stdin=lines)


def test_a_line_that_is_not_utf8_is_an_error_after_earlier_lines_are_answered(ask):
    outcome = ask(b"Open the\ncaf\xe9!\n", "--max-new-tokens", "1")
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, "line-encoding", {"line": 2})
    assert outcome.stdout.startswith("Open the")
    message = "line 2 is not UTF-8 (invalid continuation byte at byte 3); send the text as UTF-8"
    assert outcome.stderr.endswith(f"seq2serve: {message}\n")


def test_options_left_out_are_those_of_the_model(ask, served):
    """The model's context allows fewer tokens than the default of other models."""
    (answer,) = served.run("serving_default", {"text": ["Open the"]})["completion"]
    outcome = ask(b"Open the\n")
    assert (outcome.exit_code, outcome.stdout) == (0, f"Open the{answer.decode()}\n")


def test_more_tokens_than_the_context_allows_are_refused_with_the_limit(ask):
    outcome = ask(b"Open the\n", "--max-new-tokens", "17", "--temperature", "0")
    assert (outcome.exit_code, outcome.error.code) == (2, "model-failed")
    assert "max_new_tokens must be between 1 and 16" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", 2**31), ("--top-k", 2**31), ("--top-p", 0), ("--temperature", -1)]
)
def test_a_number_out_of_range_is_a_usage_error(invoke, option, value):
    outcome = invoke("chat", "--model", "model", option, str(value))
    assert (outcome.exit_code, outcome.error) == (2, None)
    assert f"Invalid value for '{option}'" in outcome.message


def test_a_signature_without_the_sampling_options_is_an_error(invoke, tmp_path):
    module = tf.Module()
    module.sample = tf.function(lambda text: {"completion": text}, [tf.TensorSpec([None], tf.string, "text")])
    tf.saved_model.save(module, str(tmp_path), signatures={"sample": module.sample})
    outcome = invoke("chat", "--model", tmp_path)
    missing = ["--temperature", "--top-p", "--max-new-tokens"]
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, "options-missing", {"options": missing})
    options = ["--temperature", "1", "--top-p", "1", "--max-new-tokens", "4"]
    outcome = invoke("chat", "--model", tmp_path, *options, stdin=b"Open the\n")
    assert (outcome.exit_code, outcome.error.code, outcome.error.fields) == (2, "model-failed", {"path": str(tmp_path)})
    assert outcome.stderr.startswith(f"seq2serve: {tmp_path} cannot continue a text: signature 'sample' has no input")
    assert outcome.stderr.count("\n") == 1


def test_a_signature_that_does_not_say_what_was_cut_is_an_error(invoke, tmp_path):
    names = ("temperature", "top_k", "top_p", "max_new_tokens", "seed")
    dtypes = (tf.float32, tf.int32, tf.float32, tf.int32, tf.int32)
    options = [tf.TensorSpec([None], dtype, name) for name, dtype in zip(names, dtypes, strict=True)]
    module = tf.Module()
    module.sample = tf.function(
        lambda text, *options: {"completion": text}, [tf.TensorSpec([None], tf.string, "text"), *options]
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"sample": module.sample})
    options = ["--temperature", "1", "--top-p", "1", "--max-new-tokens", "4"]
    outcome = invoke("chat", "--model", tmp_path, *options, stdin=b"Open the\n")
    assert (outcome.exit_code, outcome.error.code) == (2, "model-failed")
    assert "signature 'sample' has no output 'finish_reason'; export the model again" in outcome.stderr


def test_a_model_that_is_not_a_language_model_is_an_error(text_model):
    message = "^the model has no signature 'sample', so it is not a language model; name one with --model$"
    with SavedModelRuntime(text_model) as served, pytest.raises(UserError, match=message) as error:
        chat(served, ["a"], io.StringIO(), io.StringIO(), OPTIONS)
    assert (error.value.code, error.value.fields) == ("signature-missing", {"signature": "sample"})


def test_a_model_that_cannot_be_loaded_is_an_error(invoke, tmp_path):
    (tmp_path / "saved_model.pb").write_text("damaged")
    outcome = invoke("chat", "--model", tmp_path)
    assert (outcome.exit_code, outcome.error.code) == (2, "model-unloadable")
    assert outcome.error.fields == {"path": str(tmp_path)}
