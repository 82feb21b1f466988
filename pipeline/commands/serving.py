"""The commands for trained models and serving folders: predict, chat, serve, versions, rollback."""

from pathlib import Path
from typing import Annotated

import typer

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import is_remote
from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs

# The imports inside functions keep help instant: they load NumPy, portalocker, or the libraries of the server.

_MAX_PORT, _MAX_INT32 = 2**16 - 1, 2**31 - 1
_OF_THE_MODEL = "that of the model"
_ServingFolder = Annotated[str, typer.Argument(metavar="DIR|URL", help="A serving folder, such as serving/en-de.")]


def predict(
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="DIR|URL", help="A SavedModel, or a serving folder, whose newest version is used."
        ),
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="The input texts; quote each one.", show_default=False)
    ] = None,
    file: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Read texts from a file, one per line, or - for standard input; prints JSON lines."
        ),
    ] = "",
    signature: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The signature to call. If it has several inputs, pass JSON lines with --file: input -> value.",
        ),
    ] = "serving_default",
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Lines per batch.")] = 32,
) -> None:
    """Runs a SavedModel as the model server does: on TensorFlow's C++ runtime.

    For each TEXT, it prints a line with the answer, or a JSON object if the signature returns no text.

    For each line of --file, it prints a JSON object with the inputs and all outputs.

    Examples:

    seq2serve predict --model serving/translation "Good morning"

    seq2serve predict --model serving/translation --file texts.txt > answers.jsonl

    seq2serve predict --model serving/translation --signature score --file pairs.jsonl

    seq2serve predict --model serving/classification --signature embed "Good morning"
    """
    with explained():
        if not texts and not file:
            raise UserError(
                "Missing argument 'TEXT': pass texts, or --file FILE, where - is standard input", code="inputs-missing"
            )
        if texts and file:
            raise UserError(
                f"both texts and --file {file} were passed; use only one of them", code="inputs-ambiguous", path=file
            )
        set_up_logs(verbose=False)
        from seq2serve.pipeline.commands import predictions

        if texts:
            predictions.print_answers(model, signature, texts)
        else:
            predictions.print_json_lines(model, signature, file, batch_size)


def chat(
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="DIR|URL", help="A language model, or a serving folder, whose newest version is used."
        ),
    ],
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, help="Higher is more varied; 0 always takes the most likely token.", show_default=_OF_THE_MODEL
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=0, max=_MAX_INT32, help="Sample from the k most likely tokens; 0 for all.")
    ] = 0,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1,
            help="Sample from the most likely tokens whose probabilities add up to p.",
            show_default=_OF_THE_MODEL,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MAX_INT32,
            help="Maximum tokens of an answer, at most half of the model's context.",
            show_default=_OF_THE_MODEL,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=_MAX_INT32, help="Random seed of the first answer.")] = 0,
) -> None:
    """Streams a continuation of each line that you type. An empty line continues the last answer; Ctrl-D exits.

    Example:

    seq2serve chat --model serving/language_model --temperature 0.8
    """
    with explained():
        set_up_logs(verbose=False)
        from seq2serve.pipeline.commands.chat import chat_with

        chat_with(model, seed, temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens)


def serve(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A serving folder or a SavedModel.")],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The name of the model in requests.", show_default="the folder's name")
    ] = "",
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 or :: accepts other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=_MAX_PORT, help="The port for REST and the demo page.")
    ] = 8501,
    grpc_port: Annotated[int, typer.Option(metavar="PORT", min=0, max=_MAX_PORT, help="The port for gRPC.")] = 8500,
) -> None:
    """Serves a model on this machine with the API of TensorFlow Serving, and a page to try it.

    Use it for tests, and on laptops without TensorFlow Serving (macOS, Arm): it is one process and does no batching.

    In production, use TensorFlow Serving; the serving folder has a compose.yaml for it.

    After SIGTERM or Ctrl-C, requests in progress have 8 seconds to finish.

    Example:

    seq2serve serve serving/translation --port 9000
    """
    with explained():
        set_up_logs(verbose=False)
        if is_remote(folder):
            raise UserError(
                f"{folder} is not a local folder: copy it to this machine, or serve it with TensorFlow Serving",
                code="folder-remote",
                path=folder,
            )
        from seq2serve.pipeline.serving.server import run_server

        run_server(name or Path(folder).absolute().name, folder, host, port, grpc_port)


def versions(folder: _ServingFolder) -> None:
    """Lists the versions in a serving folder, with their states and labels.

    Model servers load the served versions: the newest, unless models.config selects others.

    The label stable marks the newest version; others are those in models.config.

    A served version is shown as damaged if its files are not those that were pushed.
    """
    with explained():
        from seq2serve.components.pusher import versions as serving_folder

        try:
            pushed = serving_folder.read_versions(folder)
            served, labels = serving_folder.served(folder), serving_folder.labels(folder)
            newest = [version.number for version in pushed if not version.withdrawn][-1:]
            warnings = [reason for number in newest if (reason := serving_folder.unserved_reason(folder, number))]
            active = [version for version in pushed if not version.withdrawn and version.number in served.numbers]
            damaged = {version.number: serving_folder.damage(folder, version) for version in active}
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error}", code="folder-unreadable", path=folder) from error
        if not pushed:
            raise UserError(
                f"no versions in {folder}; name a serving folder, such as serving/translation",
                code="versions-missing",
                path=folder,
            )
        print(f"{'VERSION':<12}{'STATE':<11}{'LABELS':<16}{'TASK':<16}{'MODEL':<14}EVALUATION")
        for version in pushed:
            served_state = "damaged" if damaged.get(version.number) else "served"
            state = "withdrawn" if version.withdrawn else served_state if version.number in damaged else ""
            version_labels = ", ".join(label for label, number in labels.items() if number == version.number)
            record = version.record
            columns = f"{state:<11}{version_labels:<16}{record.get('task', ''):<16}"
            columns += f"{record.get('model_fingerprint', '')[:12]:<14}{record.get('evaluation', {}).get('reason', '')}"
            print(f"{version.number:<12}{columns}".rstrip())
        for warning in [*warnings, *filter(None, damaged.values())]:
            print(warning)


def rollback(
    folder: _ServingFolder,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="By default, the version before the newest.")
    ] = None,
) -> None:
    """Makes an earlier version the newest again, by withdrawing newer ones. Running servers follow in seconds.

    A withdrawn version stays in the folder as withdrawn-VERSION. Roll back to it to serve it again.

    Examples:

    seq2serve rollback serving/translation

    seq2serve rollback serving/translation 1763830000
    """
    with explained():
        from seq2serve.components.pusher import versions as serving_folder

        try:
            target, withdrawn = serving_folder.rollback(folder, version)
            warning = serving_folder.unserved_reason(folder, target)
        except OSError as error:
            raise UserError(
                f"cannot roll back {folder}: {error}; fix this and run the command again, which finishes the rollback",
                code="rollback-failed",
                path=folder,
            ) from error
        print(f"Version {target} is the newest.", f"Withdrawn: {', '.join(map(str, withdrawn)) or 'none'}.")
        if warning:
            print(warning)
