"""A prompt is the beginning of a text, with its white space."""

from seq2serve.components.tasks.language_model.prompts import NUM_PROMPT_WORDS, make_prompt
from seq2serve.components.tasks.language_model.task import LanguageModel


def test_a_prompt_is_the_beginning_of_the_text():
    text = "  def f(x):\n\treturn x\n\n" + "    y = 0\n" * 9
    prompt = make_prompt(text)
    assert text.startswith(prompt)
    assert len(prompt.split()) == NUM_PROMPT_WORDS
    assert not prompt[-1].isspace()


def test_a_short_text_is_its_own_prompt():
    assert make_prompt(" a b\n") == " a b"
    assert make_prompt(" ") == make_prompt("") == ""


def test_the_reference_is_what_follows_the_prompt():
    text = "a  b\n" + "c " * 11 + "\n    d\n  e"
    assert LanguageModel().reference({"text": text}, make_prompt(text)) == "c \n    d\n  e"
