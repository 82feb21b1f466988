"""Keys that near-duplicate texts have in common."""

import re
import unicodedata

_DIGITS = re.compile(r"\d+")


def normalize(text: str) -> str:
    """Returns a text without differences in case, digits, white space and compatible Unicode forms (NFKC)."""
    return " ".join(_DIGITS.sub("0", unicodedata.normalize("NFKC", text).casefold()).split())
