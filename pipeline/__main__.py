"""The command line: from demo and run to tensorboard; predict, chat, serve and the like are in serving_commands.py.

Comes in: arguments. Goes out: exit code 0, or one message and 1 (failed), 2 (bad input), 3 (not blessed), 130 (Ctrl-C).
Read next: dag.py, what `run` runs; config.py, what `--set` sets. Whatever is slow to import is imported by the command
that needs it, so that help is instant and a fully cached run loads neither TensorFlow nor Beam.
"""

import glob
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import UserError
from components.file_formats import parse_roles
from pipeline import serving_commands
from pipeline.beam_options import checked_beam_options
from pipeline.config import PipelineConfig, preset, with_settings
from pipeline.exits import explained as _explained
from pipeline.logs import set_up_logs
from pipeline.options import (
    PUSHED,
    BeamArguments,
    FileArgument,
    LabelOption,
    MetadataOption,
    PresetOption,
    RootOption,
    SchemaOption,
    SettingsOption,
    SourceOption,
    TargetOption,
    TaskOption,
    TextOption,
    TokenizerOption,
    VerboseOption,
    WarmStartOption,
)

if TYPE_CHECKING:
    from pipeline.metadata import MetadataStore
    from pipeline.runner import Pipeline

app = typer.Typer(
    name="seq2serve",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raw text in, a served Transformer out.\n\n"
    "Start with [bold]seq2serve demo[/bold], then [bold]seq2serve run[/bold] your own file. What was interrupted goes "
    "on when the same command is run again; what has not changed is reused.",
    epilog="Exit codes: 0 done, 1 a part failed, 2 bad input, 3 the model is not good enough to be pushed, 130 Ctrl-C.",
    rich_markup_mode="rich",
)


@app.command()
def demo(
    beam_options: BeamArguments = None,
    task: TaskOption = "translation",
    language: Annotated[
        str,
        typer.Option(metavar="CODE", help="Language to translate English into, such as fr, pl or ja; for translation."),
    ] = "de",
    tokenizer: TokenizerOption = "",
    warm_start: WarmStartOption = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
    serving_dir: Annotated[
        str, typer.Option(metavar="DIR|URL", help=PUSHED, show_default="serving/en-<language> or <task>")
    ] = "",
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Trains, checks and pushes a model on real text, then shows what it answers.

    Takes some minutes on two cores; the first time it downloads its corpus.

    Translation: the interface text of Home Assistant, English to German.

    Classification: what people felt about sentences.

    Language model: speeches of the presidents of the United States.

    seq2serve demo --language fr

    seq2serve demo --task classification --set training.steps=3000
    """
    with _explained(verbose):
        config = with_settings(preset("demo", task), settings or [])
        folder = serving_dir or "serving/" + (f"en-{language}" if task == "translation" else task)
        options = checked_beam_options(beam_options, "the demo's own", pipeline_root, folder)
        set_up_logs(verbose)
        from pipeline.corpora import fetch_corpus

        file = fetch_corpus(task, language)
        from pipeline.dag import make_pipeline

        given = {"tokenizer": _tokenizer_files(tokenizer), "warm_start": _model_files(warm_start)}
        _run(make_pipeline(config, file, pipeline_root, folder, **given), config, options, verbose, metadata)


@app.command()
def run(
    file: FileArgument,
    beam_options: BeamArguments = None,
    task: TaskOption = "translation",
    preset_name: PresetOption = "small",
    source: SourceOption = "source",
    target: TargetOption = "target",
    text: TextOption = "text",
    label: LabelOption = "label",
    schema: SchemaOption = None,
    tokenizer: TokenizerOption = "",
    warm_start: WarmStartOption = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
    serving_dir: Annotated[str, typer.Option(metavar="DIR|URL", help=PUSHED, show_default="serving/<task>")] = "",
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Makes a served model of your own text: reads, checks, trains, evaluates, pushes.

    Prints a line a component: whether it ran or was reused, and why. Example:

    seq2serve run pairs.tsv --source english --target german --preset small --set training.steps=5000

    seq2serve run reviews.csv --task classification --text review --label stars

    seq2serve run 'books/*.txt' --task language_model --preset tiny
    """
    with _explained(verbose):
        columns = {"source": source, "target": target, "text": text, "label": label}
        config = _config(preset_name, task, columns, settings)
        folder = serving_dir or f"serving/{task}"
        options = checked_beam_options(beam_options, file, pipeline_root, folder)
        set_up_logs(verbose)
        from pipeline.dag import make_pipeline

        given = {"tokenizer": _tokenizer_files(tokenizer), "warm_start": _model_files(warm_start)}
        given["schema_file"] = str(schema or "")
        _run(make_pipeline(config, file, pipeline_root, folder, **given), config, options, verbose, metadata)


@app.command()
def validate(
    file: FileArgument,
    beam_options: BeamArguments = None,
    task: TaskOption = "translation",
    preset_name: PresetOption = "small",
    source: SourceOption = "source",
    target: TargetOption = "target",
    text: TextOption = "text",
    label: LabelOption = "label",
    schema: SchemaOption = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Looks at your text and trains nothing: reads, counts, and says what is wrong or odd.

    A later [bold]run[/bold] of the same text with the same --preset reuses what this has done.

    seq2serve validate pairs.tsv --source english --target german
    """
    with _explained(verbose):
        columns = {"source": source, "target": target, "text": text, "label": label}
        config = _config(preset_name, task, columns, settings)
        options = checked_beam_options(beam_options, file, pipeline_root)
        set_up_logs(verbose)
        from pipeline.dag import make_validation_pipeline
        from pipeline.runner import Runner
        from pipeline.validation import print_validation

        pipeline = make_validation_pipeline(config, file, pipeline_root, str(schema or ""))
        print_validation(Runner(pipeline, options, verbose, metadata).run())


@app.command()
def runs(
    run_id: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="One run: its components and artifacts.")
    ] = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
) -> None:
    """Lists the runs in a pipeline root, or what one of them did.

    seq2serve runs

    seq2serve runs 3
    """
    with _explained():
        from pipeline.history import run_text, runs_text

        store = _open_store(pipeline_root, metadata)
        print(runs_text(store) if run_id is None else run_text(store, run_id))


@app.command()
def report(
    run_ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[RUN] [RUN]", help="The run, by default the last one; two are shown side by side."),
    ] = None,
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page.", show_default="report-<run>.html")
    ] = None,
) -> None:
    """Shows a run on one HTML page: pipeline, data, training, quality, attention, model card, lineage.

    The page is one file that needs no network. A run that failed is shown as far as it got.
    """
    with _explained():
        store = _open_store(pipeline_root, metadata)
        numbers = run_ids or [run.id for run in store.runs()[-1:]]
        if not numbers:
            raise UserError(f"no runs in {pipeline_root} yet; make one with `seq2serve run`")
        if len(numbers) not in (1, 2):
            raise UserError(f"a report shows one run or two, not {len(numbers)}; `seq2serve runs` lists them")
        set_up_logs(False)
        from components.serving_store import whole_name
        from pipeline.report import write_report

        path = output or Path(f"report-{'-'.join(map(str, numbers))}.html")
        write_report(store, numbers, whole_name(pipeline_root), str(path))
        print(f"{path.absolute()} shows run {' beside run '.join(map(str, numbers))}.")


@app.command()
def lineage(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT_ID|URI",
            help="A number that [bold]seq2serve runs RUN[/bold] shows; or a path: an artifact's folder, a raw file, a "
            "pushed version.",
        ),
    ],
    pipeline_root: RootOption = "runs",
    metadata: MetadataOption = "",
) -> None:
    """Shows what an artifact was made from, back to the raw files, and what was made of it.

    seq2serve lineage serving/translation/1763830000

    seq2serve lineage runs/Trainer/model/7
    """
    with _explained():
        from components.serving_folder import pushed_path
        from pipeline.history import lineage_text

        print(lineage_text(_open_store(pipeline_root, metadata), pushed_path(artifact)))


@app.command()
def settings(
    only: Annotated[str, typer.Argument(metavar="[NAME]", help="A name or a part of it, such as training.")] = "",
    preset_name: PresetOption = "small",
    task: TaskOption = "translation",
) -> None:
    """Lists what [bold]--set[/bold] can change: each setting with its value in a preset, and what it means.

    seq2serve settings training --preset demo
    """
    with _explained():
        from pipeline.settings import settings_text

        text = settings_text(preset(preset_name, task), only)
        if not text:
            raise UserError(f"no setting has {only!r} in its name; `seq2serve settings` lists them all")
        print(text)


@app.command()
def tensorboard(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- OPTION",
            help="Everything after a bare -- goes to TensorBoard as it is, such as: -- --port=6007",
            show_default=False,
        ),
    ] = None,
    pipeline_root: RootOption = "runs",
) -> None:
    """Shows how every model was trained, or is being trained: curves, answers, attention, settings side by side."""
    with _explained():
        from pipeline.root import state_folder

        folder = state_folder(pipeline_root)
        if not folder.is_dir():
            raise UserError(
                f"no runs in {pipeline_root}: there is no folder {folder}; name it with --pipeline-root, or for a URL "
                f"stand where the training was started"
            )
        command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", *(options or [])]
        os.execv(sys.executable, command)


serving_commands.register(app)


def main() -> None:
    """Runs the command line; the entry point `seq2serve`."""
    app(prog_name="seq2serve")


def _config(preset_name: str, task: str, columns: dict[str, str], settings: list[str] | None) -> PipelineConfig:
    """Returns the settings of a preset with the file's columns, and what --set changes."""
    named = [f"data.{column}={name}" for column, name in columns.items()]
    return with_settings(preset(preset_name, task), [*named, *(settings or [])])


def _run(
    pipeline: "Pipeline", config: PipelineConfig, beam_options: tuple[str, ...], verbose: bool, metadata: str
) -> None:
    from components.artifact import is_remote
    from components.serving_folder import check_destination
    from pipeline.runner import Runner
    from pipeline.summary import print_summary

    for destination in (node.parameters["destination"] for node in pipeline.nodes if node.id == "Pusher"):
        if not is_remote(destination):  # into that one TensorFlow has to look, as Pusher does
            check_destination(destination, config.task)
    print_summary(Runner(pipeline, beam_options, verbose, metadata).run(), config)


def _tokenizer_files(given: str) -> str:
    """Returns the pattern of the files of a tokenizer, or with their roles those of one a column; empty for none."""
    roles = [(role.column, Path(role.pattern)) for role in (parse_roles(given) if given else ())]
    if [column for column, _ in roles] == [""] and not (roles[0][1] / "tokenizer.json").exists():
        # The folder of a Tokenizer that has a folder for each column.
        roles = [(path.parent.name, path.parent) for path in sorted(roles[0][1].glob("*/tokenizer.json"))] or roles
    patterns = [(column, f"{glob.escape(str(path))}/*" if path.is_dir() else path) for column, path in roles]
    return ",".join(f"{column}={pattern}" if column else str(pattern) for column, pattern in patterns)


def _model_files(folder: Path | None) -> str:
    """Returns the pattern of the files of a Model, or of its Format-Keras, to start from; empty for none."""
    if folder is None:
        return ""
    for candidate in (folder / "Format-Keras", folder):
        is_whole = all((candidate / name).is_file() for name in ("config.json", "model.weights.h5"))
        if is_whole and any((candidate / "tokenizer").glob("**/tokenizer.json")):
            return f"{glob.escape(str(candidate))}/**"
    raise UserError(
        f"no model to start from in {folder}: give the folder of a Trainer's model, such as runs/Trainer/model/7, "
        f"whose Format-Keras has its weights and its tokenizer; what is pushed has neither"
    )


def _open_store(pipeline_root: str, metadata: str) -> "MetadataStore":
    from pipeline.database import sqlite_url
    from pipeline.metadata import MetadataStore
    from pipeline.root import state_folder

    if metadata:
        return MetadataStore(metadata)
    path = state_folder(pipeline_root) / "metadata.sqlite"
    if not path.is_file():
        raise UserError(
            f"no runs in {pipeline_root}: there is no {path}; name the folder with --pipeline-root, or "
            f"a store that it shares with --metadata; for a URL stand where the runs were started"
        )
    return MetadataStore(sqlite_url(path))


if __name__ == "__main__":
    main()
