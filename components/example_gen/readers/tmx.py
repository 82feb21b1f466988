"""The reader of TMX (Translation Memory eXchange 1.4b), the XML format of translation memories."""

import itertools
from collections.abc import Iterator
from typing import BinaryIO
from xml.parsers import expat

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.config import InputConfig
from seq2serve.components.example_gen.readers.base import RejectedRowError, Row, RowReader, Rows, Scans, require_text
from seq2serve.components.example_gen.readers.layout import column_missing
from seq2serve.components.example_gen.text_files import (
    MAX_LINE_BYTES,
    DamagedFileError,
    Segment,
    TextFile,
    errors_as_damage,
    open_decompressed,
)

Variants = list[tuple[str, str]]  # (language, text)
_CHUNK_BYTES = 1 << 18
_MAX_CHECKED_UNITS = 1000  # if a file has fewer, one of them must have each language
_CODES = {"bpt", "ept", "it", "ph", "ut"}  # elements with markup of the original document, which is not text


class TmxReader(RowReader):
    """Each translation unit is a row; the columns are languages. The file is not cut into segments.

    Args:
        languages: example column -> language, such as en. It also finds en-GB if a unit has no en.
        optional: the columns that may be empty.
    """

    is_cut = False

    def __init__(self, languages: dict[str, str], optional: tuple[str, ...]):
        self._languages = languages
        self._optional = optional

    def read(self, segment: Segment, scans: Scans) -> Rows:
        with open_decompressed(segment.path) as stream:
            for number, variants in _units(stream, segment.path):
                raw = "\t".join(text for _, text in variants).encode()
                try:
                    cells = {column: self._text(variants, column) for column in self._languages}
                    yield Row(number, raw, require_text(cells, self._optional), "")
                except RejectedRowError as error:
                    yield Row(number, raw, {}, str(error), error.detail)

    def _text(self, variants: Variants, column: str) -> str:
        language = self._languages[column]
        matches = _matches(variants, language)
        if len(matches) > 1:
            raise RejectedRowError(f"several texts in {language!r}")
        if not matches and column not in self._optional:
            raise RejectedRowError(f"no {language!r}")
        text = matches[0] if matches else ""
        if len(text.encode()) > MAX_LINE_BYTES:
            raise RejectedRowError(f"longer than {MAX_LINE_BYTES} bytes")
        return text


def _matches(variants: Variants, language: str) -> list[str]:
    """Returns the texts in a language; without any, those in its regional variants."""
    wanted = language.strip().lower().replace("_", "-")
    codes = [(code.lower().replace("_", "-"), text) for code, text in variants]
    exact = [text for code, text in codes if code == wanted]
    return exact or [text for code, text in codes if code.startswith(f"{wanted}-")]


def _units(stream: BinaryIO, path: str) -> Iterator[tuple[int, Variants]]:
    """Yields (number of its first line, texts by language) of each translation unit; the XML names its encoding.

    Raises:
        DamagedFileError: the file is not well-formed XML, or it declares entities, which could expand without a limit.
    """
    units = _Units(path)
    with errors_as_damage(path, expat.ExpatError, ValueError, LookupError, problem="not well-formed XML"):
        while chunk := stream.read(_CHUNK_BYTES):
            units.parser.Parse(chunk, False)
            yield from units.take()
        units.parser.Parse(b"", True)
    yield from units.take()


class _Units:
    """Collects translation units from the events of a parser.

    Args:
        path: of the file, for error messages.
    """

    def __init__(self, path: str):
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._entity
        self._path = path
        self._finished: list[tuple[int, Variants]] = []
        self._line, self._language = 0, ""
        self._variants: Variants = []
        self._text: list[str] | None = None  # of the open <seg>
        self._num_codes = 0  # open elements of _CODES

    def take(self) -> list[tuple[int, Variants]]:
        """Returns the units that are finished since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tu":
            self._line, self._variants = self.parser.CurrentLineNumber, []
        elif name == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang", "")
        elif name == "seg":
            self._text = []
        self._num_codes += name in _CODES

    def _end(self, name: str) -> None:
        self._num_codes -= name in _CODES
        if name == "seg" and self._text is not None:
            self._variants.append((self._language, "".join(self._text).strip()))
            self._text = None
        elif name == "tu":
            self._finished.append((self._line, self._variants))

    def _characters(self, text: str) -> None:
        if self._text is not None and not self._num_codes:
            self._text.append(text)

    def _entity(self, *_: object) -> None:
        raise DamagedFileError(
            f"{self._path}: it declares XML entities, which are not expanded; replace them and remove the declaration",
            path=self._path,
        )


def make_reader(file: TextFile, columns: dict[str, str], input_config: InputConfig) -> TmxReader:
    """Returns the reader of a file.

    Raises:
        UserError: the file is not TMX, or has few units, of which none has a language.
    """
    with open_decompressed(file.path) as stream:
        units = list(itertools.islice(_units(stream, file.path), _MAX_CHECKED_UNITS))
    if not units:
        raise UserError(
            f"{file.path}: no translation units; TMX has them as <tu> elements", code="rows-missing", path=file.path
        )
    variants = list(itertools.chain.from_iterable(variants for _, variants in units))
    required = {column: language for column, language in columns.items() if column not in input_config.optional}
    for column, language in required.items():
        if not _matches(variants, language) and len(units) < _MAX_CHECKED_UNITS:
            codes = list(dict.fromkeys(code for code, _ in variants))
            raise column_missing(file.path, language, column, codes, path=file.path)
    return TmxReader(columns, input_config.optional)
