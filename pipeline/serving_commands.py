"""The commands for a model that is ready: predict, chat, serve, versions, rollback.

Comes in: arguments. Goes out: predictions, a server, or a changed serving folder.
Read next: predictions.py and chat.py; served_model.py and serving_rest.py for `serve`; components/serving_folder.py.
"""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import UserError
from pipeline.exits import explained
from pipeline.logs import set_up_logs

_LAST_PORT, _MOST_INT32 = 2**16 - 1, 2**31 - 1
_ServingFolder = Annotated[str, typer.Argument(metavar="DIR|URL", help="A serving folder, such as serving/en-de.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (predict, chat, serve, versions, rollback):
        app.command()(command)


def predict(
    model: Annotated[
        str, typer.Option("--model", metavar="DIR|URL", help="A SavedModel, or a serving folder: its newest version.")
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; quote each.", show_default=False)
    ] = None,
    file: Annotated[
        str,
        typer.Option(metavar="FILE", help="Texts, one a line; - for standard input. A JSON object a line comes out."),
    ] = "",
    signature: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What to ask. One with several inputs takes a JSON object a line: input -> value."
        ),
    ] = "serving_default",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Lines asked at a time.")] = 32,
) -> None:
    """Asks a SavedModel, as the model server would: C++ runtime, no Python graph.

    TEXT gives a line a text; --file gives a JSON object a line, with the inputs and every output.

    seq2serve predict --model serving/translation "Good morning"

    seq2serve predict --model serving/translation --file texts.txt > answers.jsonl

    seq2serve predict --model serving/translation --signature score --file pairs.jsonl
    """
    with explained():
        if not texts and not file:
            raise UserError("Missing argument 'TEXT': give texts, or --file FILE, where - is standard input")
        if texts and file:
            raise UserError(f"texts and --file {file} at once; give one of them")
        set_up_logs(verbose=False)
        from pipeline import predictions

        with _saved_model(model) as folder:
            if texts:
                predictions.print_answers(folder, signature, texts)
            else:
                predictions.print_json_lines(folder, signature, file, batch_size)


def chat(
    model: Annotated[
        str,
        typer.Option("--model", metavar="DIR|URL", help="A language model, or a serving folder: its newest version."),
    ],
    temperature: Annotated[float, typer.Option(min=0, help="Higher is bolder; 0 takes the likeliest.")] = 0.5,
    top_k: Annotated[
        int, typer.Option(min=0, max=_MOST_INT32, help="Draw from the k likeliest tokens; 0 for all.")
    ] = 0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Draw from the likeliest that reach p together.")] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=_MOST_INT32, help="Another seed, other answers.")] = 0,
) -> None:
    """Goes on from what you type, as you watch. An empty line lets the model go on from what it wrote; Ctrl-D ends.

    seq2serve chat --model serving/language_model --temperature 0.8
    """
    with explained():
        set_up_logs(verbose=False)
        from models.runtime import SavedModelRuntime
        from pipeline import chat as loop

        try:
            with _saved_model(model) as folder:
                served = SavedModelRuntime(folder)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{model} cannot be loaded: {error}") from error
        options = loop.Options(temperature, top_k, top_p, max_new_tokens, seed)
        try:
            loop.chat(served, loop.read_lines(sys.stdin.buffer), sys.stdout, options)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{model} cannot go on: {error}") from error


def serve(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A serving folder, or a SavedModel.")],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The model's name in requests.", show_default="the folder's name")
    ] = "",
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines ask.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=_LAST_PORT, help="For REST and the page to try the model.")
    ] = 8501,
    grpc_port: Annotated[int, typer.Option(metavar="PORT", min=0, max=_LAST_PORT, help="For gRPC.")] = 8500,
) -> None:
    """Serves a model as TensorFlow Serving would, on this machine, with a page to try it.

    It is for laptops, where there may be no TensorFlow Serving (macOS, Arm),
    and for tests: one process, no batching. In production, use TensorFlow
    Serving: the folder holds a compose.yaml for it.

    seq2serve serve serving/translation --port 9000
    """
    with explained():
        set_up_logs(verbose=False)
        from components.artifact import is_remote

        if is_remote(folder):
            raise UserError(f"{folder} is no folder of this machine: copy it here, or let TensorFlow Serving read it")
        from pipeline.serving import run_server

        run_server(name or Path(folder).absolute().name, folder, host, port, grpc_port)


def versions(folder: _ServingFolder) -> None:
    """Lists the versions in a serving folder: what they are, and which of them are served.

    The label stable is on the version that servers answer with, canary on
    the one pushed last; they differ after a rollback. A request may name a
    version or a label.
    """
    with explained():
        from components.serving_folder import labels, read_versions

        try:
            known = read_versions(folder)
        except OSError as error:
            raise UserError(f"cannot look into {folder}: {error}") from error
        if not known:
            raise UserError(f"there are no versions in {folder}; name a serving folder, such as serving/translation")
        named = labels(known)
        print(f"{'VERSION':<12}{'LABELS':<16}{'TASK':<16}{'MODEL':<14}WHAT")
        for version in known:
            called = ", ".join(label for label, number in named.items() if number == version.number)
            record = version.record
            what = record.get("evaluation", {}).get("reason", "")
            if version.copy_of:
                what = f"rolled back to {version.copy_of}; {what}"
            columns = f"{called:<16}{record.get('task', ''):<16}{record.get('model_fingerprint', '')[:12]:<14}{what}"
            print(f"{version.number:<12}{columns}".rstrip())


def rollback(
    folder: _ServingFolder,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="Which; without it, the one pushed before what is served.")
    ] = None,
) -> None:
    """Serves an earlier version again: publishes it under a new number, which every server picks up by itself.

    seq2serve rollback serving/translation

    seq2serve rollback serving/translation 1763830000
    """
    with explained():
        from components.serving_folder import rollback as roll_back

        try:
            origin, copy = roll_back(folder, version)
        except OSError as error:
            raise UserError(f"cannot roll back in {folder}: {error}; nothing there changed") from error
        print(f"Version {copy} is version {origin} again.")


def _saved_model(folder: str) -> contextlib.AbstractContextManager[str]:
    """Lends the folder that holds saved_model.pb: the one given, or its newest version; a copy of one far away."""
    from components.serving_folder import versions as numbers
    from components.serving_store import GRAPH_FILE, local_copy, open_store

    try:
        store = open_store(folder)
        for name in (".", "Format-Serving", *map(str, reversed(numbers(folder)))):
            if store.has(GRAPH_FILE if name == "." else f"{name}/{GRAPH_FILE}"):
                return local_copy(folder if name == "." else store.path(name))
    except OSError as error:
        raise UserError(f"cannot look for a SavedModel in {folder}: {error}") from error
    raise UserError(f"no SavedModel in {folder}: neither {GRAPH_FILE} nor a numbered version that has one")
