"""The baselines of language modelling: n-grams of characters, trained on the text that the model reads."""

import itertools
from collections.abc import Sequence

import tensorflow as tf

from seq2serve.components.tasks.data import Answers, Baseline
from seq2serve.components.tasks.language_model.ngrams import NgramModel
from seq2serve.models.tokenizers.base import Tokenizer

MAX_CHARACTERS = 50_000_000  # to train on, because every n-gram is kept in memory
BATCH_ROWS = 256  # of texts that a tokenizer normalises together
ORDERS = {"characters by frequency": 1, "Kneser-Ney 5-gram of characters": 5}


def baselines(train: Sequence[str], texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, Baseline]:
    """Returns n-gram models' probabilities of the very text whose characters the model's `score` counts.

    Args:
        train: the texts of the train split; those beyond MAX_CHARACTERS are left out.
        texts: the texts to score.
        tokenizer: of the model.
    """
    ends = itertools.accumulate(map(len, train))
    used = [text for text, end in zip(train, ends, strict=True) if end <= MAX_CHARACTERS] or train[:1]
    used, inputs = _normalized(used, tokenizer), _normalized(texts, tokenizer)
    found: dict[str, Baseline] = {}
    for name, order in ORDERS.items():
        model = NgramModel(used, order)
        answers: Answers = {
            "log_probability": [model.log_probability(text) for text in inputs],
            "characters": [len(text) for text in inputs],
            "tokens": [len(text) + 1 for text in inputs],
        }
        found[name] = Baseline(answers, is_trivial=order == 1)
    return found


def _normalized(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Returns texts with the white space, case and Unicode forms that the model reads."""
    normalized: list[str] = []
    for first in range(0, len(texts), BATCH_ROWS):
        ids = tokenizer.tokenize(tf.constant(texts[first : first + BATCH_ROWS]))
        normalized += [text.decode() for text in tokenizer.detokenize(ids).numpy()]
    return normalized
