"""A language model at the terminal: a line goes in, the model goes on from it as one watches.

Comes in: a served language model and lines of text. Goes out: what it writes, piece by piece.
Read next: models/export_language_model.py for the signature that is asked.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TextIO

from components.errors import UserError
from models.runtime import SavedModelRuntime

SIGNATURE = "sample"
TOKENS_AT_ONCE = 4  # shown together: fewer looks smoother and asks more often
_SEEDS = 2**31  # the signature takes int32


@dataclasses.dataclass(frozen=True)
class Options:
    """How the model writes; see models/sampling.py."""

    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int
    seed: int


def read_lines(file: BinaryIO) -> Iterator[str]:
    """Yields the lines that a person types, without their ends.

    Raises:
        UserError: a line is not UTF-8.
    """
    for number, line in enumerate(file, 1):
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise UserError(f"line {number} is not UTF-8 ({error.reason} at byte {error.start}); send it so") from error
        yield text


def chat(served: SavedModelRuntime, lines: Iterable[str], out: TextIO, options: Options) -> None:
    """Goes on from each line; after an empty one, from all that was written last. Each answer has a seed of its own.

    Args:
        served: a model with the signature `sample`.
        lines: what the person types, see `read_lines`.
        out: shows each piece as it comes.
        options: the seed is the first answer's.
    Raises:
        UserError: the model is no language model.
    """
    if SIGNATURE not in served.signatures:
        raise UserError(f"the model has no signature {SIGNATURE!r}, so it is no language model")
    text = ""
    for number, line in enumerate(lines):
        text = line or text
        out.write(text)
        for piece in stream(served, text, dataclasses.replace(options, seed=(options.seed + number) % _SEEDS)):
            out.write(piece)
            out.flush()
            text += piece
        out.write("\n")
        out.flush()


def stream(served: SavedModelRuntime, text: str, options: Options) -> Iterator[str]:
    """Yields a completion piece by piece.

    A row's random numbers are its seed's, so a longer completion begins as a shorter one ends: asking for ever more
    gives in the end what asking once would have given.
    """
    asked = {name: [value] for name, value in dataclasses.asdict(options).items()}
    shown = ""
    for length in range(TOKENS_AT_ONCE, options.max_new_tokens + TOKENS_AT_ONCE, TOKENS_AT_ONCE):
        asked["max_new_tokens"] = [min(length, options.max_new_tokens)]
        completion = served.run(SIGNATURE, {"text": [text], **asked})["completion"][0].decode()
        completion = completion.rstrip("\ufffd")  # half a character, whose other half is still to come
        if len(completion) <= len(shown):
            return
        yield completion[len(shown) :]
        shown = completion
