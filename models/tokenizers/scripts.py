"""Detects the script of a text: a cheap check for rows in the wrong language and for languages without spaces."""

import bisect
import collections

# First code point of each block and its script; empty for symbols, digits and marks (Unicode, Blocks.txt).
_BLOCKS = (
    (0x0000, ""),
    (0x0041, "Latin"),
    (0x005B, ""),
    (0x0061, "Latin"),
    (0x007B, ""),
    (0x00C0, "Latin"),
    (0x0250, ""),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0700, ""),
    (0x0750, "Arabic"),
    (0x0780, ""),
    (0x0900, "Devanagari"),
    (0x0980, "Bengali"),
    (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"),
    (0x0B00, "Odia"),
    (0x0B80, "Tamil"),
    (0x0C00, "Telugu"),
    (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"),
    (0x0D80, "Sinhala"),
    (0x0E00, "Thai"),
    (0x0E80, "Lao"),
    (0x0F00, "Tibetan"),
    (0x1000, "Myanmar"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x13A0, ""),
    (0x1780, "Khmer"),
    (0x1800, ""),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, ""),
    (0x3040, "Chinese or Japanese"),
    (0x3100, ""),
    (0x3400, "Chinese or Japanese"),
    (0xA000, ""),
    (0xAC00, "Hangul"),
    (0xD7B0, ""),
    (0xF900, "Chinese or Japanese"),
    (0xFB00, ""),
    (0x20000, "Chinese or Japanese"),
    (0x30000, ""),
)
_STARTS = [start for start, _ in _BLOCKS]
WITHOUT_SPACES = ("Chinese or Japanese", "Khmer", "Lao", "Myanmar", "Thai", "Tibetan")  # between words
_MAX_CHARACTERS = 100  # read from the beginning of a text: enough to detect its script


def script(text: str) -> str:
    """Returns the script of most letters at the beginning of a text; empty if there are no letters."""
    if text.isascii():  # a shortcut, because most texts of many corpora are ASCII
        return "Latin" if any(map(str.isalpha, text)) else ""
    counts = collections.Counter(
        _BLOCKS[bisect.bisect_right(_STARTS, ord(character)) - 1][1] for character in text[:_MAX_CHARACTERS]
    )
    counts.pop("", None)
    return max(counts, key=lambda name: (counts[name], name), default="")
