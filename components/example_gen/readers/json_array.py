"""The elements of a JSON array, read without holding the file in memory."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from seq2serve.components.example_gen.encodings import BYTE_ORDER_MARK
from seq2serve.components.example_gen.text_files import DamagedFileError, Segment, open_decompressed

MAX_ELEMENT_CHARACTERS = 16 << 20  # no longer element is searched for its end
_CHUNK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_array(segment: Segment) -> Iterator[tuple[int, bytes]]:
    """Yields (number of its first line, JSON) of each element of a file that is an array, or arrays one after another.

    Raises:
        DamagedFileError: the file is not an array to its end.
    """
    with open_decompressed(segment.path, segment.encoding) as stream:
        text = _Text(stream)
        while text.next_character():
            text.expect("[", segment.path)
            while text.next_character() != "]":
                number = text.line
                yield number, text.element(segment.path).encode(errors="surrogateescape")
                if text.next_character() != "]":
                    text.expect(",", segment.path)
            text.expect("]", segment.path)


class _Text:
    """The text of a stream from a position on, read in chunks. `line`: the number of the line at the position."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._position = "", 0
        self._is_at_end = False
        self.line = 1
        self._read()
        self._text = self._text.removeprefix(BYTE_ORDER_MARK.decode())

    def next_character(self) -> str:
        """Moves to the next character that is not a space, and returns it; empty at the end of the file."""
        while True:
            self._move(_SPACE.match(self._text, self._position).end())
            if self._position < len(self._text) or self._is_at_end:
                return self._text[self._position : self._position + 1]
            self._read()

    def expect(self, character: str, path: str) -> None:
        """Moves past a character; raises DamagedFileError if another one is next."""
        if self.next_character() != character:
            raise self._damaged(path)
        self._move(self._position + 1)

    def element(self, path: str) -> str:
        """Returns the JSON value at the position, and moves past it; raises DamagedFileError if there is none."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._position)
            except (ValueError, RecursionError):
                end = len(self._text)
                if self._is_at_end or end - self._position > MAX_ELEMENT_CHARACTERS:
                    raise self._damaged(path) from None
            else:
                if end < len(self._text) or self._is_at_end:  # a number may go on in the next chunk
                    element = self._text[self._position : end]
                    self._move(end)
                    return element
            self._read()

    def _damaged(self, path: str) -> DamagedFileError:
        return DamagedFileError(
            f"{path}, line {self.line}: the JSON array is truncated or not valid JSON: "
            f"{self._text[self._position : self._position + 60]!r}; download or create the file again",
            path=path,
            line=self.line,
        )

    def _move(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _read(self) -> None:
        """Reads as much as there already is, so that a long element is not decoded again for each chunk."""
        rest = self._text[self._position :]
        chunk = self._stream.read(max(_CHUNK_BYTES, len(rest)))
        self._is_at_end = not chunk
        self._text, self._position = rest + self._decode(chunk, final=self._is_at_end), 0
