"""Prints the answers of a SavedModel in the C++ runtime, for `seq2serve predict`: one line or JSON object per text."""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from seq2serve.components.base.errors import UserError
from seq2serve.models.runtime.answers import FINISH_REASON, count_cuts, describe_cuts
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.pipeline.serving.location import load_runtime, saved_model
from seq2serve.pipeline.serving.rest_json import dump, encode, parse_object


def print_answers(model: str, signature: str, texts: list[str]) -> None:
    """Prints the answer to each text: the output that has one string per text; without one, all outputs as JSON.

    Standard error says what was cut.

    Args:
        model: path or URL of a SavedModel or a serving folder.
        signature: its name.
        texts: they form one batch.
    Raises:
        UserError: the model cannot be loaded, or the signature does not take one text.
    """
    served = _load(model)
    inputs = _input_names(model, served, signature)
    if inputs != ["text"]:
        raise UserError(
            f"signature {signature!r} takes {', '.join(inputs)}; pass --file with one JSON object of these per line",
            code="signature-inputs",
            signature=signature,
            inputs=inputs,
        )
    outputs = _run(served, model, signature, {"text": texts})
    columns = [rows for name, rows in outputs.items() if name != FINISH_REASON]
    answers = [rows for rows in columns if len(rows) and isinstance(rows[0], bytes)]
    if answers:
        for answer in answers[0]:
            print(answer.decode(errors="replace"))
    else:
        _print_rows([{"text": text} for text in texts], outputs)
    _report_cuts(*count_cuts(outputs), len(texts))


def print_json_lines(model: str, signature: str, file: str, batch_size: int) -> None:
    """Prints the inputs and outputs of each line of a file, batch by batch; standard error says what was cut.

    Args:
        model: path or URL of a SavedModel or a serving folder.
        signature: its name. If it has one input, each line is its value; otherwise each line is a JSON object
            with a value for each input.
        file: its path, or - for standard input; UTF-8.
        batch_size: number of lines per batch.
    Raises:
        UserError: the model or the file cannot be read, or a line is invalid; the message has the line number.
    """
    served = _load(model)
    names, number, cuts = _input_names(model, served, signature), 0, (0, 0)
    with _open(file) as lines:
        rows = (_parse(line, names, file, number) for number, line in enumerate(lines, 1))
        while batch := list(itertools.islice(rows, batch_size)):
            inputs = {name: [row[name] for row in batch] for name in names}
            outputs = _run(served, model, signature, inputs)
            number += len(batch)
            cuts = tuple(map(sum, zip(cuts, count_cuts(outputs), strict=True)))
            _print_rows(batch, outputs)
    _report_cuts(*cuts, number)


def _print_rows(rows: list[dict[str, Any]], outputs: dict[str, Any]) -> None:
    """Prints a JSON object of inputs and outputs for each row."""
    columns = {name: encode(name, array) for name, array in outputs.items()}
    for row, *values in zip(rows, *columns.values(), strict=True):
        sys.stdout.write(dump({**row, **dict(zip(columns, values, strict=True))}).decode() + "\n")
    sys.stdout.flush()


def _report_cuts(texts: int, answers: int, number: int) -> None:
    for sentence in describe_cuts(texts, answers, number):
        print(f"seq2serve: {sentence}", file=sys.stderr)


def _load(model: str) -> SavedModelRuntime:
    with saved_model(model) as folder:
        return load_runtime(folder, model)


def _input_names(model: str, served: SavedModelRuntime, signature: str) -> list[str]:
    if signature not in served.signatures:
        raise UserError(
            f"{model} has no signature {signature!r}; it has {', '.join(served.signatures)}",
            code="signature-missing",
            signature=signature,
        )
    return list(served.signatures[signature].inputs)


def _run(served: SavedModelRuntime, model: str, signature: str, inputs: dict[str, list[Any]]) -> dict[str, Any]:
    try:
        return served.run(signature, inputs)
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # the rest names nodes of the graph
        raise UserError(f"{model} cannot answer: {reason}", code="inputs-invalid", path=model) from error


@contextlib.contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = open(file, "rb")  # noqa: SIM115 - only a failure to open it is a user error
    except OSError as error:
        raise UserError(
            f"cannot read {file}: {error.strerror}; pass a file with one text per line",
            code="file-unreadable",
            path=file,
        ) from error
    with lines:
        yield lines


def _parse(line: bytes, names: list[str], file: str, number: int) -> dict[str, Any]:
    """Returns input -> value for one line of a file."""
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        row = {names[0]: text} if len(names) == 1 else parse_object(line)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, line {number}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8",
            code="line-encoding",
            path=file,
            line=number,
        ) from error
    except ValueError as error:
        raise UserError(
            f"{file}, line {number}: {error}; a line must be a JSON object with {', '.join(names)}",
            code="line-invalid",
            path=file,
            line=number,
        ) from error
    if set(row) != set(names):
        raise UserError(
            f"{file}, line {number}: the object has {', '.join(row) or 'nothing'}; the signature takes "
            f"{', '.join(names)}",
            code="line-inputs",
            path=file,
            line=number,
        )
    return row
