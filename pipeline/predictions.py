"""What `seq2serve predict` prints: answers of a SavedModel in the C++ runtime, batch by batch.

Comes in: texts, or lines of a file. Goes out: a line a text, or a JSON object a line.
Read next: models/runtime.py, which answers; serving_json.py for what JSON looks like.
"""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from components.errors import UserError
from models.runtime import SavedModelRuntime


def print_answers(folder: str, signature: str, texts: list[str]) -> None:
    """Prints the answer to each text: the output that is one string a text.

    Raises:
        UserError: the model cannot be loaded or asked that way.
    """
    with _explaining(folder):
        model = SavedModelRuntime(folder)
        if signature in model.signatures and (inputs := list(model.signatures[signature].inputs)) != ["text"]:
            raise UserError(
                f"signature {signature!r} takes {', '.join(inputs)}; ask with --file, a JSON object of those a line"
            )
        outputs = model.run(signature, {"text": texts})
    answers = [rows for rows in outputs.values() if len(rows) and isinstance(rows[0], bytes)]
    if not answers:
        raise UserError(f"signature {signature!r} has no output of one string a text; ask with --file for all outputs")
    for answer in answers[0]:
        print(answer.decode(errors="replace"))


def print_json_lines(folder: str, signature: str, file: str, batch_size: int) -> None:
    """Prints inputs and outputs of each line of a file, as they come in.

    Args:
        folder: of a SavedModel.
        signature: its name. With one input, a line is its value; with several, a JSON object of them.
        file: its path, or - for standard input; UTF-8.
        batch_size: lines asked at a time.
    Raises:
        UserError: the model or the file cannot be read, or a line is wrong; says which.
    """
    from pipeline.serving_json import dump, encode

    with _explaining(folder):
        model = SavedModelRuntime(folder)
    if signature not in model.signatures:
        raise UserError(f"{folder} has no signature {signature!r}; it has {', '.join(model.signatures)}")
    names = list(model.signatures[signature].inputs)
    with _open(file) as lines:
        rows = (_parse(line, names, f"{file}, line {number}") for number, line in enumerate(lines, 1))
        while batch := list(itertools.islice(rows, batch_size)):
            inputs = {name: [row[name] for row in batch] for name in names}
            with _explaining(folder):
                outputs = model.run(signature, inputs)
            columns = {name: encode(name, array) for name, array in outputs.items()}
            for row, *values in zip(batch, *columns.values(), strict=True):
                answer = dict(zip(columns, values, strict=True))
                sys.stdout.write(dump({**row, **answer}).decode() + "\n")
            sys.stdout.flush()


@contextlib.contextmanager
def _explaining(folder: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{folder} cannot answer: {error}") from error


@contextlib.contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = open(file, "rb")  # noqa: SIM115 - only opening it may fail as the user's mistake
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; name a file of texts, one a line") from error
    with lines:
        yield lines


def _parse(line: bytes, names: list[str], where: str) -> dict[str, Any]:
    from pipeline.serving_json import parse_object

    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        row = {names[0]: text} if len(names) == 1 else parse_object(line)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: it is not UTF-8 ({error.reason} at byte {error.start}); save the file so") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}; a line is to be an object with {', '.join(names)}") from error
    if set(row) != set(names):
        raise UserError(f"{where}: it has {', '.join(row) or 'nothing'}; the signature takes {', '.join(names)}")
    return row
