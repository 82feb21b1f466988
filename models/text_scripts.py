"""Which script a text is written in: a cheap sign of a row in the wrong language, and of what a word is.

Comes in: a text. Goes out: the name of the script of most of its letters.
Read next: components/text_counts.py, which counts them; bleu.py, which asks whether words have spaces between them.
"""

import bisect
import collections

# First code point of each block and its script; blocks of signs, digits and marks have none (Unicode, Blocks.txt).
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
_SEEN_CHARACTERS = 100  # of a text, the first: enough to tell


def script(text: str) -> str:
    """Returns the name of the script that most letters of a text's beginning are in; empty if it has no letters."""
    if text.isascii():  # most texts of many corpora, and worth the shortcut
        return "Latin" if any(map(str.isalpha, text)) else ""
    found = collections.Counter(
        _BLOCKS[bisect.bisect_right(_STARTS, ord(character)) - 1][1] for character in text[:_SEEN_CHARACTERS]
    )
    found.pop("", None)
    return max(found, key=lambda name: (found[name], name), default="")
