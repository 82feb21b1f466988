"""The normalisation of BERT's tokenizers as one table over all characters.

Hugging Face's `tokenizers` normalises and splits texts character by character: it drops some, replaces some by a space,
decomposes and lowercases others, and isolates punctuation. So the result for a text is the results for its characters,
joined, and a table needs no regular expressions or ICU, whose versions of Unicode differ between servers.

The table equals the library's version 0.23.3 for every character; `make test-peers` compares them.
"""

import dataclasses
import functools
import string
import unicodedata

import numpy as np

CODE_POINTS = 0x110000
PAGE = 256  # code points
MAX_OUTPUTS = 3  # characters that stand for one
# Rows hold differences of code points, so that most characters share a few rows; code points begin here.
ABSOLUTE = 1 << 22
NOTHING = -ABSOLUTE
_CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),  # not from U+2B820, as in the library
    (0x2F800, 0x2FA1F),
)
_PRIVATE = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))
_TAGS = (0xE0000, 0xE0200)  # format characters and marks; no others lie above U+1FFFF
_DECOMPOSED_CHINESE = (0x2F800, 0x2FA20)
# Categories of characters that are dropped, isolated, stripped or become a space.
_SPECIAL = frozenset(["Cc", "Cf", "Mn", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Zl", "Zp", "Zs"])
# Unicode 9 and later added marks, punctuation, format characters and decompositions in these ranges. The library has
# the categories of Unicode 8, so it reads them as letters. Python's own version of Unicode does not matter then.
_LATER = (
    "5C8-5C9 61D 7FD 890-8E2 9FD-9FE A76 AFA-AFF B53-B55 C04-C3C C77 C84 D00 D3B-D3C D81 EBA ECE 180F-1886 1ABF-1AF0 "
    "1B4E-1B4F 1B7D-1B7F 1DF6-1DFB 2E43-2E63 A82C A8C5 A8FF A9BD 10D24-10F89 11070-11074 110C2-110CD 111CF 1123E-11241 "
    "1133B 113BB-1145E 11660-1166C 116B9 1182F-11FFF 12FF1-1612F 16D6D-16F4F 16FE2-16FE4 1CF00-1D128 1D25B-1D25C "
    "1E000-1E6F5 1E944-1E95F"
)
_CHANGED = {"\u166d": "Po", "\u1734": "Mn", "\U000111c9": "Po"}  # categories in Unicode 8 that have changed since
# Lowercase letters of Unicode 16 and 17, which Python's `str.lower` may lack.
_LOWER = {
    0x1C89: 0x1C8A,
    0xA7CB: 0x264,
    0xA7CC: 0xA7CD,
    0xA7CE: 0xA7CF,
    0xA7D2: 0xA7D3,
    0xA7D4: 0xA7D5,
    0xA7DA: 0xA7DB,
    0xA7DC: 0x19B,
    **{code: code + 0x20 for code in range(0x10D50, 0x10D66)},
    **{code: code + 0x1B for code in range(0x16EA0, 0x16EB9)},
}


@dataclasses.dataclass(frozen=True)
class BertNormalizer:
    """What is done to a text before it is split into words, as in `tokenizers.normalizers.BertNormalizer`.

    Args:
        lowercase: whether each character becomes lower case, without regard to its neighbours.
        strip_accents: whether characters are decomposed (Unicode NFD) and lose their nonspacing marks.
        handle_chinese_chars: whether each Chinese character is a word.
        clean_text: whether control, format and private characters and U+FFFD are dropped.
    """

    lowercase: bool
    strip_accents: bool
    handle_chinese_chars: bool = True
    clean_text: bool = True

    def expand(self, character: str) -> str:
        """Returns what stands for a character: up to three characters, with spaces around words of their own."""
        if self.clean_text and _is_dropped(character):
            return ""
        if _is_space(character):
            return " "
        is_chinese = any(first <= ord(character) <= last for first, last in _CHINESE)
        parts = self._decomposed(character)
        if self.lowercase:
            parts = "".join(map(_lower, parts))
        parts = "".join(f" {part} " if _is_punctuation(part) else part for part in parts)
        return f" {parts} " if is_chinese and self.handle_chinese_chars else parts

    def _decomposed(self, character: str) -> str:
        if not self.strip_accents or ord(character) in _later():
            return character
        return "".join(part for part in unicodedata.normalize("NFD", character) if not _is_mark(part))


@functools.cache
def character_table(normalizer: BertNormalizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what stands for each character, as three int32 arrays of about 300 kB.

    Returns:
        The page of each PAGE code points; the row of each of a page's code points; and the code points of each row, [R,
        MAX_OUTPUTS], relative to the character's own below ABSOLUTE, and negative sums for nothing.
    """
    rows: dict[tuple[int, ...], int] = {}

    def row(code: int, words: str) -> int:
        outputs = [ABSOLUTE + ord(" ") if part == " " else ord(part) - code for part in words]
        return rows.setdefault((*outputs, *[NOTHING] * (MAX_OUTPUTS - len(outputs))), len(rows))

    cells = np.full(CODE_POINTS, row(0, "\0"), np.int32)  # most characters stand for themselves
    for ranges in (_PRIVATE, _CHINESE):  # so many that they are filled at once
        for first, last in ranges:
            cells[first : last + 1] = row(last, normalizer.expand(chr(last)))
    for code in filter(_is_special, (*range(0x20000), *range(*_TAGS))):
        cells[code] = row(code, normalizer.expand(chr(code)))
    for code in range(*_DECOMPOSED_CHINESE):
        cells[code] = row(code, normalizer.expand(chr(code)))
    pages, page_of = np.unique(cells.reshape(-1, PAGE), axis=0, return_inverse=True)
    return page_of.reshape(-1).astype(np.int32), pages.reshape(-1), np.array(list(rows), np.int32)


def _is_special(code: int) -> bool:
    """Returns whether a character may not stand for itself."""
    character = chr(code)
    return (
        unicodedata.category(character) in _SPECIAL
        or code in _LOWER
        or character in _CHANGED
        or character in string.punctuation + "\ufffd"
        or character.lower() != character
        or not unicodedata.is_normalized("NFD", character)
    )


@functools.cache
def _later() -> frozenset[int]:
    limits = [[int(limit, 16) for limit in part.split("-")] for part in _LATER.split()]
    return frozenset(code for limit in limits for code in range(limit[0], limit[-1] + 1))


def _category(character: str) -> str:
    if character in _CHANGED:
        return _CHANGED[character]
    return "Lo" if ord(character) in _later() else unicodedata.category(character)


def _is_dropped(character: str) -> bool:
    return character not in "\t\n\r" and (_category(character) in ("Cc", "Cf", "Co") or character == "\ufffd")


def _is_space(character: str) -> bool:
    return character.isspace() and character not in "\x1c\x1d\x1e\x1f"


def _is_mark(character: str) -> bool:
    return _category(character) == "Mn"


def _is_punctuation(character: str) -> bool:
    # "$", "+", "<", "=", ">", "^", "`", "|" and "~" count, which Unicode calls symbols.
    return character in string.punctuation or _category(character).startswith("P")


def _lower(character: str) -> str:
    return chr(_LOWER.get(ord(character), 0)) if ord(character) in _LOWER else character.lower()
