"""BLEU in the words of the references' script.

Comes in: references. Goes out: sacrebleu's BLEU, to be asked with them.
Read next: evaluation.py and components/translation_metrics.py, which ask.
"""

from collections.abc import Iterable

from sacrebleu.metrics import BLEU

from models.text_scripts import WITHOUT_SPACES, script


def make_bleu(references: Iterable[str]) -> BLEU:
    """Chooses what counts as a word.

    Args:
        references: of all sentences.
    Returns:
        BLEU of words as sacrebleu's default takes them, 13a. Of characters where most references are in scripts without
        spaces between words: by 13a a sentence would be one word, all right or all wrong. Its signature says which
        (https://github.com/mjpost/sacrebleu).
    """
    found = [name for name in map(script, references) if name]
    without = sum(name in WITHOUT_SPACES for name in found)
    return BLEU(tokenize="char" if 2 * without > len(found) else "13a")
