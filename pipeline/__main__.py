"""The command line: demo, run, validate, runs, lineage, tensorboard, and those of serving_commands.py.

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
from components.tasks import TASKS
from pipeline import serving_commands
from pipeline.config import PRESETS, PipelineConfig, preset, with_settings
from pipeline.exits import explained as _explained
from pipeline.logs import set_up_logs

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
    rich_markup_mode="rich",
)

FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="TSV, CSV, JSON lines, Parquet, TFRecord or plain text, also .gz, .bz2 or .zst; or a quoted pattern; or "
        "several with their parts, such as train=a.tsv,test=b.tsv or source=a.en,target=a.de.",
    ),
]
PresetOption = Annotated[
    str, typer.Option("--preset", metavar="NAME", help=f"Settings to start from: {', '.join(PRESETS)}.")
]
SourceOption = Annotated[str, typer.Option(metavar="COLUMN", help="Column to translate from.")]
TargetOption = Annotated[str, typer.Option(metavar="COLUMN", help="Column to translate into.")]
TextOption = Annotated[str, typer.Option(metavar="COLUMN", help="Column to classify, or to go on from.")]
LabelOption = Annotated[str, typer.Option(metavar="COLUMN", help="Column of the labels.")]
SchemaOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Hold the data against this schema.pbtxt, inferred once and edited, instead of its own."
    ),
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|FILE", help="Use this tokenizer instead of learning one: a Tokenizer's folder, or a .model file."
    ),
]
WarmStartOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Start training from the weights of an earlier model, such as runs/Trainer/model/7, of this task or of "
        "another; it needs the same tokenizer.",
    ),
]
RootOption = Annotated[
    Path, typer.Option("--pipeline-root", metavar="DIR", help="Where artifacts, metadata and logs are kept.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change one setting, such as training.steps=500 or model.d_model=256; may be given many times. "
        "Sections: data, tokenizer, model, training, decoding, evaluation; an unknown name lists what there is.",
    ),
]
_PUSHED = "Where model versions are pushed; also an object store, such as gs://bucket/models/en_de."
TaskOption = Annotated[str, typer.Option(metavar="TASK", help=f"What the model is to do: {', '.join(TASKS)}.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show library logs, and stack traces of failures.")
]
BeamArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- BEAM_OPTION",
        help="Everything after a bare -- goes to Apache Beam as it is, such as: -- --runner=FlinkRunner",
        show_default=False,
    ),
]


@app.command()
def demo(
    beam_options: BeamArguments = None,
    task: TaskOption = "translation",
    language: Annotated[
        str, typer.Option(metavar="CODE", help="Language to translate English into; for translation.")
    ] = "de",
    tokenizer: TokenizerOption = None,
    warm_start: WarmStartOption = None,
    pipeline_root: RootOption = Path("runs"),
    serving_dir: Annotated[
        str, typer.Option(metavar="DIR|URL", help=_PUSHED, show_default="serving/en-<language> or <task>")
    ] = "",
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Trains, checks and pushes a model on real text, then shows what it answers.

    Takes some minutes on two cores, and the first time it downloads its corpus. Translation: the interface text of Home
    Assistant, English to German. Classification: what people felt about sentences. Language model: speeches of the
    presidents of the United States.
    """
    with _explained(verbose):
        config = with_settings(preset("demo", task), settings or [])
        options = _checked_beam_options(beam_options)
        set_up_logs(verbose)
        from pipeline.corpora import fetch_corpus

        file = fetch_corpus(task, language)
        folder = serving_dir or "serving/" + (f"en-{language}" if task == "translation" else task)
        from pipeline.dag import make_pipeline

        given = {"tokenizer": _tokenizer_files(tokenizer), "warm_start": _model_files(warm_start)}
        _run(make_pipeline(config, file, str(pipeline_root), folder, **given), config, options, verbose)


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
    tokenizer: TokenizerOption = None,
    warm_start: WarmStartOption = None,
    pipeline_root: RootOption = Path("runs"),
    serving_dir: Annotated[str, typer.Option(metavar="DIR|URL", help=_PUSHED, show_default="serving/<task>")] = "",
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
        options = _checked_beam_options(beam_options)
        set_up_logs(verbose)
        from pipeline.dag import make_pipeline

        given = {"tokenizer": _tokenizer_files(tokenizer), "warm_start": _model_files(warm_start)}
        given["schema_file"], folder = str(schema or ""), serving_dir or f"serving/{task}"
        _run(make_pipeline(config, file, str(pipeline_root), folder, **given), config, options, verbose)


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
    pipeline_root: RootOption = Path("runs"),
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Looks at your text and trains nothing: reads, counts, and says what is wrong or odd.

    A later [bold]run[/bold] of the same text reuses what this has done.
    """
    with _explained(verbose):
        columns = {"source": source, "target": target, "text": text, "label": label}
        config = _config(preset_name, task, columns, settings)
        options = _checked_beam_options(beam_options)
        set_up_logs(verbose)
        from pipeline.dag import make_validation_pipeline
        from pipeline.runner import Runner
        from pipeline.validation import print_validation

        pipeline = make_validation_pipeline(config, file, str(pipeline_root), str(schema or ""))
        print_validation(Runner(pipeline, options, verbose).run())


@app.command()
def runs(
    run_id: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="One run: its components and artifacts.")
    ] = None,
    pipeline_root: RootOption = Path("runs"),
) -> None:
    """Lists the runs in a pipeline root, or what one of them did."""
    with _explained():
        from pipeline.history import run_text, runs_text

        store = _open_store(pipeline_root)
        print(runs_text(store) if run_id is None else run_text(store, run_id))


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
    pipeline_root: RootOption = Path("runs"),
) -> None:
    """Shows what an artifact was made from, back to the raw files, and what was made of it."""
    with _explained():
        from pipeline.history import lineage_text

        print(lineage_text(_open_store(pipeline_root), artifact))


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
    pipeline_root: RootOption = Path("runs"),
) -> None:
    """Shows how every model was trained, or is being trained: curves, answers, attention, settings side by side."""
    with _explained():
        if not pipeline_root.is_dir():
            raise UserError(f"no runs in {pipeline_root}: there is no such folder; name it with --pipeline-root")
        command = [sys.executable, "-m", "tensorboard.main", f"--logdir={pipeline_root}", *(options or [])]
        os.execv(sys.executable, command)


serving_commands.register(app)


def main() -> None:
    """Runs the command line; the entry point `seq2serve`."""
    app(prog_name="seq2serve")


def _config(preset_name: str, task: str, columns: dict[str, str], settings: list[str] | None) -> PipelineConfig:
    """Returns the settings of a preset with the file's columns, and what --set changes."""
    named = [f"data.{column}={name}" for column, name in columns.items()]
    return with_settings(preset(preset_name, task), [*named, *(settings or [])])


def _run(pipeline: "Pipeline", config: PipelineConfig, beam_options: tuple[str, ...], verbose: bool) -> None:
    from pipeline.runner import Runner
    from pipeline.summary import print_summary

    print_summary(Runner(pipeline, beam_options, verbose).run(), config)


def _tokenizer_files(path: Path | None) -> str:
    """Returns the pattern of the files of a tokenizer, empty for none."""
    return str(path / "*" if path and path.is_dir() else path or "")


def _model_files(folder: Path | None) -> str:
    """Returns the pattern of the files of a Model, or of its Format-Keras, to start from; empty for none."""
    if folder is None:
        return ""
    for candidate in (folder / "Format-Keras", folder):
        if all(
            (candidate / name).is_file() for name in ("config.json", "model.weights.h5", "tokenizer/tokenizer.json")
        ):
            return f"{glob.escape(str(candidate))}/**"
    raise UserError(
        f"no model to start from in {folder}: give the folder of a Trainer's model, such as runs/Trainer/model/7, "
        f"whose Format-Keras has its weights and its tokenizer; what is pushed has neither"
    )


def _checked_beam_options(options: list[str] | None) -> tuple[str, ...]:
    """Catches a stray word: without a bare -- before it, the parser cannot tell it from Beam's."""
    if options and not options[0].startswith("-"):
        raise UserError(
            f"unexpected argument {options[0]!r}. Several files are one quoted pattern, such as 'data/*.tsv'; Beam "
            f"options stand after a bare -- and begin with a dash"
        )
    return tuple(options or ())


def _open_store(pipeline_root: Path) -> "MetadataStore":
    from pipeline.metadata import MetadataStore

    path = pipeline_root.absolute() / "metadata.sqlite"
    if not path.is_file():
        raise UserError(f"no runs in {pipeline_root}: there is no {path}; name the folder with --pipeline-root")
    return MetadataStore(f"sqlite:///{path}")


if __name__ == "__main__":
    main()
