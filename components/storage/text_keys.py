"""Keys that equal or near-duplicate texts have in common."""

import re
import unicodedata

_DIGITS = re.compile(r"\d+")


def exact_key(text: str) -> str:
    """Returns a text without white space around it, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", text).strip()


def normalize(text: str) -> str:
    """Returns a text without differences in case, digits, white space and compatible Unicode forms (NFKC)."""
    return " ".join(_DIGITS.sub("0", unicodedata.normalize("NFKC", text).casefold()).split())
