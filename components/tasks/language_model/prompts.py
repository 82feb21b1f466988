"""Prompts: the beginnings of texts that a language model continues."""

NUM_PROMPT_WORDS = 12


def make_prompt(text: str) -> str:
    """Returns the first words of a text, for the model to continue."""
    return " ".join(text.split()[:NUM_PROMPT_WORDS])
