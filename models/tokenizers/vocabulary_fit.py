"""Fits a vocabulary and the characters of a corpus to each other, before pieces are learned.

SentencePiece needs a piece for every character and stops with an error of its own if there are too few pieces, as in
Japanese with a small vocabulary. Here the rarest characters become bytes, or the vocabulary grows.
"""

import collections
import dataclasses
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.base import CONTROL_PIECES
from seq2serve.models.tokenizers.sentencepiece import BYTE_ORDER_MARK
from seq2serve.models.tokenizers.whitespace import SPACE_PIECE

NUM_BYTES = 256
# With fewer pieces after control pieces and bytes, a choice of characters makes no sense, and the vocabulary grows.
_MIN_PIECES = 8


class FittedVocabulary(NamedTuple):
    """What to learn pieces from.

    Args:
        words: word -> number of occurrences; without the characters that become bytes.
        config: its `vocab_size` is large enough for the characters of the words.
        notice: what was changed and how to change it; empty if nothing was.
    """

    words: Mapping[str, int]
    config: TokenizerConfig
    notice: str


def fit_vocabulary(words: Mapping[str, int], config: TokenizerConfig) -> FittedVocabulary:
    """Makes the characters fit into `config.vocab_size`, or `config.vocab_size` to the characters.

    Nothing changes if every character that `config.character_coverage` asks for has a piece. Otherwise half of
    `config.vocab_size` is left for pieces of several characters.

    Args:
        words: word -> number of occurrences.
        config: kind and size.
    """
    if config.kind == "bytes":  # has a piece for each byte and no other
        return FittedVocabulary(words, dataclasses.replace(config, vocab_size=2 * NUM_BYTES), "")
    has_bytes = config.byte_fallback and config.kind != "wordpiece"
    pieces_each = 2 if config.kind == "wordpiece" else 1  # to begin a word and to continue one
    line_ends = 2 if config.whitespace == "keep" else 0  # and tabs
    fixed = len((*CONTROL_PIECES, SPACE_PIECE)) + NUM_BYTES * has_bytes + pieces_each * config.placeholders + line_ends
    room = config.vocab_size - fixed
    normal = {word: _normalize(word, config.lowercase) for word in words}
    if not any(normal.values()):
        return FittedVocabulary({}, config, "")
    if pieces_each * len(set("".join(normal.values()))) <= room:
        return FittedVocabulary(words, config, "")
    counts = _count_characters(words, normal)
    needed = _num_covered(counts, config.character_coverage)
    if pieces_each * needed <= room:
        return FittedVocabulary(words, config, "")
    if has_bytes and room >= _MIN_PIECES:
        # A piece of a vocabulary of characters is never longer.
        kept = room if config.kind == "characters" else room // 2
        return _without_rare_characters(words, normal, config, counts, kept)
    size = fixed + pieces_each * needed + (0 if config.kind == "characters" else config.vocab_size // 2)
    notice = (
        f"the vocabulary grew from tokenizer.vocab_size={config.vocab_size:,} to at most {size:,} pieces, because the "
        f"text has {needed:,} different characters. Set a tokenizer.vocab_size for at least as many"
    )
    if config.kind != "wordpiece" and not config.byte_fallback:
        notice += ", or tokenizer.byte_fallback=true to write rare characters as bytes"
    return FittedVocabulary(words, dataclasses.replace(config, vocab_size=size), notice)


def _without_rare_characters(
    words: Mapping[str, int],
    normal: Mapping[str, str],
    config: TokenizerConfig,
    counts: collections.Counter,
    kept: int,
) -> FittedVocabulary:
    """Splits words at the characters that are not among the `kept` most frequent; these become bytes."""
    ranked = _ranked(counts)
    separators = {ord(character): " " for character in ranked[kept:]}
    remaining: collections.Counter = collections.Counter()
    for word, count in words.items():
        for part in normal[word].translate(separators).split():
            remaining[part] += count
    share = 1 - sum(counts[character] for character in ranked[:kept]) / counts.total()
    notice = (
        f"{len(ranked) - kept:,} of {len(ranked):,} different characters ({100 * share:.1f} % of the text) are written "
        f"as bytes, because tokenizer.vocab_size={config.vocab_size:,} has no room for them. Set a larger "
        f"tokenizer.vocab_size to give them pieces of their own"
    )
    # SentencePiece would apply the coverage to the characters that are left.
    return FittedVocabulary(remaining, dataclasses.replace(config, character_coverage=1.0), notice)


def _normalize(word: str, lowercase: bool) -> str:
    """Normalises a word as the tokenizers do, as far as the characters are concerned."""
    composed = unicodedata.normalize("NFC", word)
    cased = "".join(character.lower() for character in composed) if lowercase else composed
    if cased.isprintable() and SPACE_PIECE not in cased:
        return cased
    return "".join(c for c in cased if unicodedata.category(c) != "Cc" and c not in (SPACE_PIECE, BYTE_ORDER_MARK))


def _count_characters(words: Mapping[str, int], normal: Mapping[str, str]) -> collections.Counter:
    counts: collections.Counter = collections.Counter()
    for word, count in words.items():
        for character in normal[word]:
            counts[character] += count
    return counts


def _num_covered(counts: collections.Counter, coverage: float) -> int:
    """Returns how many of the most frequent characters cover a share of the text."""
    covered, total = 0, counts.total()
    for number, character in enumerate(_ranked(counts)):
        if covered >= coverage * total:
            return number
        covered += counts[character]
    return len(counts)


def _ranked(counts: collections.Counter) -> list[str]:
    """Returns the characters, most frequent first; of equal ones in the order of their code points."""
    return sorted(counts, key=lambda character: (-counts[character], character))
