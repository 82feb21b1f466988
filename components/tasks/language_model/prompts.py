"""Prompts: the beginnings of texts that a language model continues."""

import re

NUM_PROMPT_WORDS = 12
_FIRST_WORDS = re.compile(rf"(?:\s*\S+){{0,{NUM_PROMPT_WORDS}}}")


def make_prompt(text: str) -> str:
    """Returns the first words of a text and the white space between them, for the model to continue."""
    words = _FIRST_WORDS.match(text)
    return words.group() if words else ""
