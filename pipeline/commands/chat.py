"""`seq2serve chat`: streams a language model's continuation of each line that a person types."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, TextIO

from seq2serve.components.base.errors import UserError
from seq2serve.models.runtime.answers import FINISH_REASON, LENGTH, STOP, TRUNCATED, default_options
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.pipeline.serving.location import load_runtime, saved_model

SIGNATURE = "sample"
_TOKENS_PER_PIECE = 4  # fewer look smoother, but take more calls
_NUM_SEEDS = 2**31  # the signature takes int32


class Piece(NamedTuple):
    """A part of a continuation.

    Args:
        text: what is new.
        truncated: whether the beginning of the text was cut, because it was too long.
        finish_reason: "stop" or "length", of the continuation so far.
    """

    text: str
    truncated: bool
    finish_reason: str


def chat_with(model: str, seed: int, **options: float | None) -> None:
    """Loads a model and chats on standard input and output until the input ends.

    Args:
        model: path or URL of a SavedModel or a serving folder.
        seed: of the first continuation.
        options: of the signature `sample`; None for what the model does by default.
    Raises:
        UserError: there is no model, it cannot be loaded, it is not a language model, or it fails.
    """
    with saved_model(model) as folder:
        served, defaults = load_runtime(folder, model), default_options(folder, SIGNATURE)
    chosen = {name: defaults.get(name) if value is None else value for name, value in options.items()}
    missing = [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value is None]
    if missing and SIGNATURE in served.signatures:
        raise UserError(
            f"{model} does not say what its options are by default; pass {', '.join(missing)}",
            code="options-missing",
            options=missing,
        )
    try:
        chat(served, read_lines(sys.stdin.buffer), sys.stdout, sys.stderr, {**chosen, "seed": seed})
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # the rest names nodes of the graph
        raise UserError(f"{model} cannot continue a text: {reason}", code="model-failed", path=model) from error


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


def chat(
    served: SavedModelRuntime, lines: Iterable[str], out: TextIO, notes: TextIO, options: Mapping[str, Any]
) -> None:
    """Writes a continuation of each line; an empty line continues all of the text that was written last.

    Args:
        served: a model with the signature `sample`.
        lines: what the person types, see `read_lines`.
        out: shows each piece as soon as the model returns it.
        notes: says what was cut.
        options: of the signature, by name; `seed` is that of the first continuation; each following one adds 1.
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
        piece = Piece("", truncated=False, finish_reason=STOP)
        for piece in stream(served, text, {**options, "seed": (options["seed"] + number) % _NUM_SEEDS}):
            out.write(piece.text)
            out.flush()
            text += piece.text
        out.write("\n")
        out.flush()
        if piece.truncated:
            notes.write("(the text is longer than the model reads: its beginning was cut)\n")
        if piece.finish_reason == LENGTH:
            notes.write(f"(reached --max-new-tokens {options['max_new_tokens']}: an empty line continues)\n")


def stream(served: SavedModelRuntime, text: str, options: Mapping[str, Any]) -> Iterator[Piece]:
    """Yields a continuation piece by piece.

    Each call of the signature has the same seed and a higher limit. A row's random numbers depend only on its seed, so
    each result extends the one before, and the last equals that of a single call.

    Raises:
        ValueError: the signature lacks an output, as in models that an earlier version exported.
    """
    inputs = {name: [value] for name, value in {"text": text, **options}.items()}
    written, limit = "", options["max_new_tokens"]
    for length in range(_TOKENS_PER_PIECE, limit + _TOKENS_PER_PIECE, _TOKENS_PER_PIECE):
        inputs["max_new_tokens"] = [min(length, limit)]
        outputs = served.run(SIGNATURE, inputs)
        if missing := [name for name in ("completion", FINISH_REASON, TRUNCATED) if name not in outputs]:
            raise ValueError(f"signature {SIGNATURE!r} has no output {missing[0]!r}; export the model again")
        completion = outputs["completion"][0].decode()
        completion = completion.rstrip("\ufffd")  # the first bytes of a character whose other bytes follow
        reason = outputs[FINISH_REASON][0].decode()
        yield Piece(completion[len(written) :], bool(outputs[TRUNCATED][0]), reason)
        written = max(written, completion, key=len)
        if reason == STOP:
            return
