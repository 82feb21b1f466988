"""`seq2serve chat`: streams a language model's continuation of each line that a person types."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TextIO

from seq2serve.components.base.errors import UserError
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.pipeline.serving.location import load_runtime, saved_model

SIGNATURE = "sample"
_TOKENS_PER_PIECE = 4  # fewer look smoother, but take more calls
_NUM_SEEDS = 2**31  # the signature takes int32


@dataclasses.dataclass(frozen=True)
class Options:
    """Inputs of the signature `sample`, see models/decoding/sampling.py."""

    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int
    seed: int


def chat_with(model: str, options: Options) -> None:
    """Loads a model and chats on standard input and output until the input ends.

    Args:
        model: path or URL of a SavedModel or a serving folder.
        options: see `chat`.
    Raises:
        UserError: there is no model, it cannot be loaded, it is not a language model, or it fails.
    """
    with saved_model(model) as folder:
        served = load_runtime(folder, model)
    try:
        chat(served, read_lines(sys.stdin.buffer), sys.stdout, options)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{model} cannot continue a text: {error}", code="model-failed", path=model) from error


def read_lines(file: BinaryIO) -> Iterator[str]:
    """Yields the lines that a person types, without line ends.

    Raises:
        UserError: a line is not UTF-8.
    """
    for number, line in enumerate(file, 1):
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"line {number} is not UTF-8 ({error.reason} at byte {error.start}); send the text as UTF-8",
                code="line-encoding",
                line=number,
            ) from error
        yield text


def chat(served: SavedModelRuntime, lines: Iterable[str], out: TextIO, options: Options) -> None:
    """Writes a continuation of each line; an empty line continues all of the text that was written last.

    Args:
        served: a model with the signature `sample`.
        lines: what the person types, see `read_lines`.
        out: shows each piece as soon as the model returns it.
        options: `seed` is that of the first continuation; each following one adds 1.
    Raises:
        UserError: the model is not a language model.
    """
    if SIGNATURE not in served.signatures:
        raise UserError(
            f"the model has no signature {SIGNATURE!r}, so it is not a language model; name one with --model",
            code="signature-missing",
            signature=SIGNATURE,
        )
    text = ""
    for number, line in enumerate(lines):
        text = line or text
        out.write(text)
        for piece in stream(served, text, dataclasses.replace(options, seed=(options.seed + number) % _NUM_SEEDS)):
            out.write(piece)
            out.flush()
            text += piece
        out.write("\n")
        out.flush()


def stream(served: SavedModelRuntime, text: str, options: Options) -> Iterator[str]:
    """Yields a continuation piece by piece.

    Each call of the signature has the same seed and a higher limit. A row's random numbers depend only on its seed, so
    each result extends the one before, and the last equals that of a single call.
    """
    inputs = {name: [value] for name, value in dataclasses.asdict(options).items()}
    written = ""
    for length in range(_TOKENS_PER_PIECE, options.max_new_tokens + _TOKENS_PER_PIECE, _TOKENS_PER_PIECE):
        inputs["max_new_tokens"] = [min(length, options.max_new_tokens)]
        completion = served.run(SIGNATURE, {"text": [text], **inputs})["completion"][0].decode()
        completion = completion.rstrip("\ufffd")  # the first bytes of a character whose other bytes follow
        if len(completion) <= len(written):
            return
        yield completion[len(written) :]
        written = completion
