"""The metrics of language modelling: bits per character, and perplexity per token."""

from typing import TYPE_CHECKING

from seq2serve.components.tasks.metric import Metric

if TYPE_CHECKING:
    import numpy as np


def bits_per_character(columns: "np.ndarray", weights: "np.ndarray") -> float:
    """Returns the bits of all texts divided by their characters; the columns are bits, characters and tokens."""
    bits, characters, _ = map(float, weights @ columns)
    return bits / max(1, characters)


def perplexity(columns: "np.ndarray", weights: "np.ndarray") -> float:
    """Returns two to the power of the bits per token; for columns see `bits_per_character`."""
    bits, _, tokens = map(float, weights @ columns)
    return 2 ** (bits / max(1, tokens))


BITS_PER_CHARACTER = Metric("bits_per_character", "bits per character", bits_per_character, False, 3)
PERPLEXITY = Metric("perplexity", "per token", perplexity, False, 3)
