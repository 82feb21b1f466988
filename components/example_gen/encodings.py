"""Encodings of text files. Text that is not UTF-8 is converted while it is read, so that readers see UTF-8 only."""

import codecs
import re
from typing import BinaryIO

from seq2serve.components.base.errors import UserError

AUTO = "auto"
NOT_UTF8 = "not valid UTF-8"  # the reason of rejects
BYTE_ORDER_MARK = codecs.BOM_UTF8
SAMPLE_BYTES = 1 << 16  # of a file's beginning, from which its encoding is detected

# UTF-32 first: its little-endian mark begins with that of UTF-16. The codecs without an order remove the mark.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, ""),  # readers remove it
)
# In Windows-1252: the euro sign, ellipsis, quotation marks, dashes, trade mark, guillemets and degree sign.
_WINDOWS_PUNCTUATION = frozenset(b"\x80\x85\x91\x92\x93\x94\x95\x96\x97\x99\xab\xbb\xb0")
_NOT_ASCII = re.compile(rb"[\x80-\xff]+")
# Bytes that the named encoding does not have become a lone surrogate. It is not valid UTF-8, so its row is rejected.
_INVALID = "\udcff"
_INVALID_BYTES = _INVALID.encode(errors="surrogatepass")
_MARK_INVALID = "seq2serve-mark-invalid"
codecs.register_error(_MARK_INVALID, lambda error: (_INVALID, error.end))


def check_encoding(name: str) -> None:
    """Checks the setting `data.encoding`.

    Raises:
        UserError: Python has no text encoding of this name.
    """
    try:
        _ = name == AUTO or "a".encode(name)
    except (LookupError, ValueError):
        raise UserError(
            f"setting data.encoding must be auto or an encoding that Python knows, such as utf-8, windows-1252, "
            f"windows-1251, utf-16, gb18030 or shift_jis, got {name!r}",
            code="setting-invalid",
            setting="data.encoding",
            value=name,
        ) from None


def text_encoding(beginning: bytes, setting: str) -> str:
    """Returns the encoding in which a file is read; empty for UTF-8.

    Args:
        beginning: up to SAMPLE_BYTES of the file, decompressed.
        setting: `data.encoding`, which a byte order mark overrides. If it is `auto`, UTF-16 is also recognised by the
            zero bytes of its spaces, digits and line ends.
    """
    marked = next((encoding for mark, encoding in _MARKS if beginning.startswith(mark)), None)
    if marked is not None:
        return marked
    if setting == AUTO:
        return next((name for name in ("utf-16-le", "utf-16-be") if _is_utf16(beginning, name)), "")
    return "" if codecs.lookup(setting).name in ("utf-8", "utf-8-sig") else setting


def encoding_note(beginning: bytes, encoding: str, setting: str) -> str:
    """Returns what the user should know about the encoding that `text_encoding` returned; empty for nothing."""
    if encoding and encoding != setting:
        return f"read as {encoding.upper()}"
    if encoding and not beginning.isascii() and _is_valid(beginning, "utf-8"):
        return f"its beginning is valid UTF-8, but it is read as {encoding}, which data.encoding names"
    return ""


def _is_utf16(sample: bytes, encoding: str) -> bool:
    """Returns whether text without a byte order mark is UTF-16: its zeros are all high bytes, and there are many."""
    evens, odds = sample[::2].count(0), sample[1::2].count(0)
    high, low = (odds, evens) if encoding == "utf-16-le" else (evens, odds)
    # Latin text has a zero in every character. Other scripts have few, but then the text is not valid UTF-8 either.
    is_latin = high > 0.3 * len(sample[::2])
    if (
        not high
        or low > high // 10
        or not (is_latin or (high > 0.005 * len(sample) and not _is_valid(sample, "utf-8")))
    ):
        return False
    return _is_valid(sample, encoding) and "\n" in sample.decode(encoding, errors="ignore")


def _is_valid(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


class Utf8Stream:
    """The content of a file in another encoding, as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str):
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_MARK_INVALID)

    def read(self, size: int) -> bytes:
        """Returns about `size` bytes; none at the end of the file."""
        while chunk := self._stream.read(size):
            if text := self._decoder.decode(chunk):
                return text.encode(errors="surrogatepass")
        return self._decoder.decode(b"", final=True).encode(errors="surrogatepass")


def invalid_text(text: bytes, start: int) -> tuple[str, str]:
    """Returns the reason why bytes are not text, and how to fix them.

    Args:
        text: the invalid bytes and their surroundings.
        start: the position of the invalid bytes.
    """
    if text[start:].startswith(_INVALID_BYTES):
        return "not valid in data.encoding", "use --set data.encoding=auto, or name another encoding"
    return NOT_UTF8, encoding_hint(text, start)


def encoding_hint(text: bytes, start: int) -> str:
    """Returns how to fix text that is not UTF-8, with a guess of its encoding if it resembles Latin-1.

    In Latin-1 and its superset Windows-1252, the bytes beyond ASCII are accented letters and punctuation, rarely two in
    a row. In other scripts whole words are beyond ASCII, and UTF-16 contains NUL bytes.
    """
    runs = _NOT_ASCII.findall(text)
    num_letters = sum(run[0] >= 0xC0 or run[0] in _WINDOWS_PUNCTUATION for run in runs)
    is_latin = runs and b"\0" not in text and 2 * num_letters > len(runs) and max(map(len, runs)) <= 2
    guess = "it looks like Windows-1252 or Latin-1: use" if is_latin else "name its encoding, such as"
    return f"byte 0x{text[start]:02X}; {guess} --set data.encoding=windows-1252, or save the file as UTF-8"
