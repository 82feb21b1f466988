"""The commands that show past runs and the settings: runs, report, lineage, settings, tensorboard."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from seq2serve.components.base.errors import UserError
from seq2serve.components.base.uris import absolute_uri
from seq2serve.components.tasks.registry import DEFAULT_TASK
from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.commands.options import MetadataOption, PresetOption, RootOption, TaskOption
from seq2serve.pipeline.commands.settings_text import settings_text
from seq2serve.pipeline.config import preset
from seq2serve.pipeline.run_config import DEFAULT_PRESET

# The imports inside functions keep help instant: they load SQLAlchemy, portalocker and NumPy.


def runs(
    run_id: Annotated[
        int | None, typer.Argument(metavar="RUN", help="Show the components and artifacts of one run.")
    ] = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
) -> None:
    """Lists the runs in a pipeline root, or the components of one run.

    Examples:

    seq2serve runs

    seq2serve runs 3
    """
    with explained():
        from seq2serve.pipeline.commands import history_text
        from seq2serve.pipeline.running.state_folder import config_path

        store = history_text.open_store(pipeline_root, metadata)
        print(history_text.runs_text(store) if run_id is None else history_text.run_text(store, run_id))
        if run_id is not None and (path := config_path(pipeline_root, run_id)).is_file():
            print(f"Config, for `seq2serve run --config`: {path}")


def report(
    run_ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="RUN", help="The run, by default the last one; pass two to compare them."),
    ] = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The HTML file to write.", show_default="report-<run>.html")
    ] = None,
) -> None:
    """Writes an HTML report of a run: pipeline, data, training, quality, attention, model card, lineage.

    The page is one file that needs no network. The report of a failed run covers the components that finished.
    """
    with explained():
        set_up_logs(verbose=False)
        from seq2serve.pipeline.commands import history_text
        from seq2serve.pipeline.report.page import write_report

        store = history_text.open_store(pipeline_root, metadata)
        numbers = run_ids or [run.id for run in store.runs()[-1:]]
        if not numbers:
            raise UserError(
                f"no runs in {pipeline_root} yet; start one with `seq2serve run`",
                code="runs-missing",
                path=pipeline_root,
            )
        if len(numbers) > 2:
            raise UserError(
                f"a report shows one run or two, not {len(numbers)}; `seq2serve runs` lists all runs",
                code="runs-too-many",
                runs=numbers,
            )
        path = output or Path(f"report-{'-'.join(map(str, numbers))}.html")
        write_report(store, numbers, absolute_uri(pipeline_root), str(path))
        print(f"Report of run {' and run '.join(map(str, numbers))}: {path.absolute()}")


def lineage(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An ID that [bold]seq2serve runs RUN[/bold] shows, or a path: an artifact's folder, a raw file or a "
            "pushed version.",
        ),
    ],
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
) -> None:
    """Shows the lineage of an artifact: its inputs, back to the raw files, and everything made from it.

    Also shows the data behind a base model or a tokenizer that was brought: files, hashes and rows.

    Examples:

    seq2serve lineage serving/translation/1763830000

    seq2serve lineage runs/Trainer/model/7
    """
    with explained():
        from seq2serve.components.pusher.versions import pushed_path
        from seq2serve.pipeline.commands.history_text import open_store
        from seq2serve.pipeline.commands.lineage_text import lineage_text

        print(lineage_text(open_store(pipeline_root, metadata), pushed_path(artifact)))


def settings(
    only: Annotated[
        str, typer.Argument(metavar="NAME", help="Show the settings whose name contains this, such as training.")
    ] = "",
    preset_name: PresetOption = DEFAULT_PRESET,
    task: TaskOption = DEFAULT_TASK,
) -> None:
    """Lists every setting that [bold]--set[/bold] can change, with its value in a preset and its meaning.

    Example:

    seq2serve settings training --preset demo
    """
    with explained():
        text = settings_text(preset(preset_name, task), only)
        if not text:
            raise UserError(
                f"no setting has {only!r} in its name; `seq2serve settings` lists them all",
                code="name-unknown",
                kind="setting",
                name=only,
            )
        print(text)


def tensorboard(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- OPTION",
            help="Everything after a bare -- is passed to TensorBoard unchanged, such as: -- --port=6007",
            show_default=False,
        ),
    ] = None,
    pipeline_root: RootOption = "runs",
) -> None:
    """Starts TensorBoard for the models of a pipeline root: training curves, answers, attention, settings.

    It also shows models that are being trained.
    """
    with explained():
        from seq2serve.pipeline.running.state_folder import state_folder

        folder = state_folder(pipeline_root)
        if not folder.is_dir():
            raise UserError(
                f"no runs in {pipeline_root}: folder not found: {folder}; name it with --pipeline-root. For a URL, "
                f"change to the folder in which training was started",
                code="pipeline-root-missing",
                path=str(folder),
            )
        command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", *(options or [])]
        os.execv(sys.executable, command)
