"""Placeholders: spans of a source that a translation copies, such as numbers, URLs and markup.

Before tokenization each span becomes one of a few placeholder pieces, in training and on the server alike, so the model
learns to copy a piece and never has to spell the span. After decoding the spans replace the pieces again (Luong et al.
2015, arXiv:1410.8206, do the same for rare words).

Private-use characters stand for the pieces within texts. Where a text has private-use characters of its own, they are a
span like others.
"""

import itertools
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

from seq2serve.models.config import MAX_PLACEHOLDERS
from seq2serve.models.tokenizers.base import EOS_ID, Tokenizer

_FIRST = 0xE000  # the first private-use character
# Surrounds spans while a text is split. Tokenizers drop control characters, so no information is lost with those of a
# text.
_MARK = "\x1e"

# Scripts that put no space between words.
_NO_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{3000}-\x{303F}\x{FF00}-\x{FFEF}"
_URL = rf"(?:\b[a-zA-Z][a-zA-Z+]*://|\bwww\.)[^\s<>\"{_NO_SPACES}]*[\p{{L}}\p{{N}}/#&=+\-_~$%@*}}]"
_EMAIL = r"[\p{L}\p{N}._%+\-]+@[\p{L}\p{N}\-]+(?:\.[\p{L}\p{N}\-]+)+"
_ADDRESS = r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}[0-9A-Fa-f](?:/\d+)?|::[0-9A-Fa-f]{1,4}\b"  # IPv6 and MAC
_VARIABLE = r"\{\{[^{}]*\}\}|\{%[^{}]*%\}|[$%#@]?\{[\w.:,$#@|!=+<>()'\"/\[\]\-]*\}"
_FORMAT = r"%%|%\(\w+\)[a-z]|%(?:\d+\$)?[+\-#0]*\d*(?:\.\d+)?(?:ll?|hh?)?[sdiufFeEgGxXoc@]\b"
_MARKUP = r"</?[a-zA-Z][^<>]*>|<!--[^<>]*-->|&(?:[a-zA-Z]+|#\d+|#x[0-9a-fA-F]+);"
_DATE = r"\b\d+(?:-\d+){2,}(?:T[\d:.]+Z?)?\b|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"  # or a UUID
# Numbers with nothing but a space between them are one span: "+49 170 1234567", "10 000".
_NUMBER = r"(?:\B[+\-\x{2212}])?\b\d+(?:[.,:/'\x{2019}\x{A0}\x{202F} ]\d+)*(?:\x{FE0F}?\x{20E3})?|[^\P{Nd}0-9]+"
_CODE = r"\b[A-Z]{1,6}\d{2,}[A-Z0-9]*(?:\.\d+)*\b"
# The name of a variable, a file, a host.
_NAME = r"\b\w+(?:[.\-/]\w+)*_\w+(?:[./\-]?\w+)*|\b[a-zA-Z0-9\-]{2,}\.[a-z0-9]{2,}(?:[.\-][a-z0-9]+)*\b"
_PATH = r"(?:~|\.{1,2}|\b[A-Za-z]:)?(?:[/\\][\w.\-]+)+[/\\][\w.\-]*\w/?"
_SYMBOL = r"\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}\x{2B00}-\x{2BFF}\x{2190}-\x{21FF}\x{2300}-\x{23FF}\x{E000}-\x{F8FF}"
_EMOJI = rf"[{_SYMBOL}][{_SYMBOL}\x{{FE0F}}\x{{200D}}\x{{20E3}}\x{{E0020}}-\x{{E007F}}]*"
_SPANS = (_URL, _EMAIL, _ADDRESS, _VARIABLE, _FORMAT, _MARKUP, _DATE, _NUMBER, _CODE, _NAME, _PATH, _EMOJI)
_ACCENTS = frozenset(map(chr, range(0x300, 0x370)))  # composed with letters, so that no piece has them
# Beginnings of the names of characters of two groups of scripts. A training text never has all characters of a group,
# and with a small vocabulary the rare ones are bytes, so one character of a group tells that it is no unseen script.
_LARGE_SCRIPTS = (("HANGUL",), ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"))
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class MaskedTexts(NamedTuple):
    """Texts with placeholders.

    Args:
        text: tf.string [B], valid UTF-8.
        spans: tf.string [B, M], the spans of each text in their order, "" where there are fewer than M. The first
            placeholder stands for the first span, and so on: in most texts there are few, so these are learned well.
    """

    text: tf.Tensor
    spans: tf.Tensor

    def spans_of(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the spans of placeholders, int32 [B, T] -> tf.string [B, T]; "" for those that a text has not."""
        return tf.gather(self.spans, index, batch_dims=1)

    def is_used(self) -> tf.Tensor:
        """Returns whether each placeholder occurs in the text, bool [B, M]."""
        return self.spans != ""

    def repeat(self, times: int) -> "MaskedTexts":
        """Repeats each text, [B] -> [B * times]."""
        return MaskedTexts(*(tf.repeat(values, times, axis=0) for values in self))


class Placeholders(tf.Module):
    """Replaces spans by M placeholders and back.

    Args:
        tokenizer: that of the sources. Words with a letter, and symbols, that occur in none of its pieces are spans,
            too.
    """

    def __init__(self, tokenizer: Tokenizer):
        super().__init__(name="placeholders")
        self._number = tokenizer.num_placeholders
        self._characters = tf.constant(placeholder_characters(self._number))
        self._pattern = "|".join((*_SPANS, *_unseen(tokenizer.pieces()[EOS_ID + 1 :])))
        self._own_pattern = rf"[\x{{{_FIRST:X}}}-\x{{{_FIRST + self._number - 1:X}}}]"

    def mask(self, text: tf.Tensor) -> MaskedTexts:
        """Replaces the spans of texts, tf.string [B]; spans after the first M stay."""
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", replace_control_characters=False)
        parts, is_span, order = self._split(text, self._pattern)
        is_masked = is_span & (order < self._number)
        characters = tf.gather(self._characters, tf.minimum(order, self._number - 1))
        masked = tf.where(is_masked, characters, self._without_own(parts.flat_values))
        spans = tf.ragged.boolean_mask(parts, parts.with_flat_values(is_masked)).to_tensor(shape=[None, self._number])
        return MaskedTexts(_join(parts, masked), spans)

    def mask_target(self, target: tf.Tensor, source: MaskedTexts) -> tf.Tensor:
        """Replaces the spans of targets, tf.string [B], that their sources have as well; returns tf.string [B].

        The second of two equal spans in a target is the second one in its source.
        """
        target = tf.strings.unicode_transcode(target, "UTF-8", "UTF-8", replace_control_characters=False)
        parts, is_span, _ = self._split(target, self._pattern)
        spans = tf.ragged.boolean_mask(parts, parts.with_flat_values(is_span)).to_tensor()  # [B, T]
        is_same = spans[:, :, tf.newaxis] == spans[:, tf.newaxis]  # [B, T, T]
        rank = tf.reduce_sum(tf.cast(tf.linalg.band_part(tf.cast(is_same, tf.int32), -1, 0), tf.int32), 2)  # [B, T]
        is_equal = (spans[:, :, tf.newaxis] == source.spans[:, tf.newaxis]) & (spans != "")[..., tf.newaxis]
        is_match = is_equal & (tf.cumsum(tf.cast(is_equal, tf.int32), 2) == rank[..., tf.newaxis])  # [B, T, M]
        index = tf.argmax(is_match, 2, tf.int32)
        masked = tf.where(tf.reduce_any(is_match, 2), tf.gather(self._characters, index), self._without_own(spans))
        flat = tf.boolean_mask(masked, spans != "")
        plain = self._without_own(parts.flat_values)
        return _join(parts, tf.tensor_scatter_nd_update(plain, tf.where(is_span), flat))

    def restore(self, text: tf.Tensor, source: MaskedTexts) -> tf.Tensor:
        """Replaces the placeholders in texts, tf.string [B], by the spans of their sources; returns tf.string [B]."""
        parts, is_placeholder, _ = self._split(text, self._own_pattern)
        placeholder = tf.where(is_placeholder, parts.flat_values, self._characters[0])
        code = tf.strings.unicode_decode(placeholder, "UTF-8").flat_values - _FIRST
        rows = tf.cast(parts.value_rowids(), tf.int32)
        spans = tf.gather_nd(source.spans, tf.stack([rows, code], 1))
        return _join(parts, tf.where(is_placeholder, spans, parts.flat_values))

    def _without_own(self, texts: tf.Tensor) -> tf.Tensor:
        """Removes the characters that stand for placeholders."""
        return tf.strings.regex_replace(texts, self._own_pattern, "")

    def _split(self, text: tf.Tensor, pattern: str) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
        """Splits texts before and after each match of a pattern.

        Returns:
            The parts, tf.string [B, (parts)]; for each of them in one row, whether it is a match, bool [N], and the
            number of matches before it in its text, int64 [N].
        """
        clean = tf.strings.regex_replace(text, _MARK, "")
        parts = tf.strings.split(tf.strings.regex_replace(clean, f"(?:{pattern})", rf"{_MARK}\0{_MARK}"), _MARK)
        position = tf.range(tf.size(parts.flat_values, tf.int64)) - tf.gather(parts.row_starts(), parts.value_rowids())
        return parts, position % 2 == 1, position // 2


def make_placeholders(source: Tokenizer, target: Tokenizer) -> Placeholders | None:
    """Returns the placeholders of sources and targets; None unless both tokenizers have them, and as many."""
    has_placeholders = 0 < source.num_placeholders == target.num_placeholders
    return Placeholders(source) if has_placeholders else None


def placeholder_characters(number: int) -> list[str]:
    """Returns the private-use characters that stand for placeholders in texts."""
    return [chr(_FIRST + i) for i in range(number)]


def count_placeholders(pieces: Iterable[str]) -> int:
    """Counts the placeholders with which a sequence of pieces begins."""
    pairs = zip(pieces, placeholder_characters(MAX_PLACEHOLDERS), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _join(parts: tf.RaggedTensor, flat_values: tf.Tensor) -> tf.Tensor:
    return tf.strings.reduce_join(parts.with_flat_values(flat_values), -1)


def _unseen(pieces: Iterable[str]) -> list[str]:
    """Returns the patterns of words with letters, and of symbols, that occur in no piece.

    A tokenizer of bytes does not tell what was in its texts, so there are no patterns for it.
    """
    seen = {character for piece in pieces if not _BYTE.fullmatch(piece) for character in piece}
    if not any(map(str.isalpha, seen)):
        return []
    large = tuple(
        name for names in _LARGE_SCRIPTS if any(_is_of(character, names) for character in seen) for name in names
    )
    letters: list[int] = []
    symbols: list[int] = []
    groups = {"L": letters, "M": letters, "N": letters, "P": symbols, "S": symbols}
    for character in map(chr, range(ord("!"), sys.maxunicode + 1)):
        group = groups.get(unicodedata.category(character)[0])
        is_seen = character in _ACCENTS or _is_seen(character, seen) or (large and _is_of(character, large))
        if group is not None and not is_seen:
            group.append(ord(character))
    word = rf"[^\s\p{{P}}\p{{S}}\p{{Z}}{_NO_SPACES}]*"
    unseen_word = f"{word}(?:{_ranges(letters)}{word})+"
    return [f"{unseen_word}(?: {unseen_word})*", f"{_ranges(symbols)}+"]


def _is_of(character: str, names: tuple[str, ...]) -> bool:
    """Returns whether the name of a character begins with one of `names`."""
    return unicodedata.name(character, "").startswith(names)


def _is_seen(character: str, seen: set[str]) -> bool:
    """Returns whether the normal form of a character, perhaps in lower case, consists of seen characters."""
    normal = unicodedata.normalize("NFC", character)
    return seen.issuperset(normal) or seen.issuperset(normal.lower())


def _ranges(codes: list[int]) -> str:
    """Returns a character class of sorted code points."""
    groups: list[list[int]] = []
    for code in codes:
        if groups and groups[-1][1] == code - 1:
            groups[-1][1] = code
        else:
            groups.append([code, code])
    return "[" + "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in groups) + "]"
