"""BLEU in the words of the references' script.

Comes in: references. Goes out: sacrebleu's BLEU, to be asked with them.
Read next: evaluation.py and components/translation_metrics.py, which ask.
"""

import re
from collections.abc import Iterable

from sacrebleu.metrics import BLEU

# Thai, Lao, Tibetan, Myanmar, Khmer, Hiragana and Katakana, Han.
_WITHOUT_SPACES = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002ffff]")
_LETTERS = re.compile(r"[^\W\d_]")


def make_bleu(references: Iterable[str]) -> BLEU:
    """Chooses what counts as a word.

    Args:
        references: of all sentences.
    Returns:
        BLEU of words as sacrebleu's default takes them, 13a. Of characters where most letters of the references are of
        scripts that put no spaces between words: by 13a a sentence would be one word, all right or all wrong. Its
        signature says which (https://github.com/mjpost/sacrebleu).
    """
    without, letters = 0, 0
    for text in references:
        without += len(_WITHOUT_SPACES.findall(text))
        letters += len(_LETTERS.findall(text))
    return BLEU(tokenize="char" if 2 * without > letters else "13a")
