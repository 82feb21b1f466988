"""sacrebleu's BLEU with a tokenizer that fits the script of the references."""

from collections.abc import Iterable

from sacrebleu.metrics import BLEU

from seq2serve.models.tokenizers.scripts import WITHOUT_SPACES, script


def make_bleu(references: Iterable[str], lowercase: bool = False) -> BLEU:
    """Returns BLEU of words, or of characters for scripts without spaces between words.

    Words are those of sacrebleu's default tokenizer, 13a. In a script without spaces, 13a would treat a sentence as one
    word that is entirely right or wrong. The signature of the BLEU names the tokenizer
    (https://github.com/mjpost/sacrebleu).

    Args:
        references: the references of all sentences; the script of the majority decides.
        lowercase: whether to ignore case; the signature then has case:lc.
    """
    scripts = [name for name in map(script, references) if name]
    num_without_spaces = sum(name in WITHOUT_SPACES for name in scripts)
    return BLEU(lowercase, tokenize="char" if 2 * num_without_spaces > len(scripts) else "13a")
