"""Arguments and options that several commands share, as types of the commands' parameters."""

from pathlib import Path
from typing import Annotated, Any

import typer

from seq2serve.components.tasks.registry import TASKS
from seq2serve.pipeline.config import PipelineConfig

DEFAULT_TASK = PipelineConfig.task


def _column_option(column: str, contents: str) -> Any:
    """Returns the option for the name of a column in the user's file; its help lists the tasks that use the column."""
    tasks = ", ".join(name for name, task in TASKS.items() if column in task.columns)
    return typer.Option(metavar="COLUMN", help=f"The column with the {contents} (for {tasks}).")


FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="TSV, CSV, JSON lines, Parquet, TFRecord or plain text, optionally .gz, .bz2 or .zst. Also a quoted "
        "pattern, or several files with roles, such as train=a.tsv,test=b.tsv or source=a.en,target=a.de.",
    ),
]
_PRESETS = (
    "Settings to start from: tiny (seconds, to try a file), demo (minutes), small (hours on a laptop), base and big "
    "(the sizes in Vaswani et al. 2017). [bold]seq2serve settings[/bold] shows them."
)
PresetOption = Annotated[str, typer.Option("--preset", metavar="NAME", help=_PRESETS)]
SourceOption = Annotated[str, _column_option("source", "texts to translate")]
TargetOption = Annotated[str, _column_option("target", "translations")]
TextOption = Annotated[str, _column_option("text", "texts")]
LabelOption = Annotated[str, _column_option("label", "labels")]
SchemaOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Validate the data against this schema.pbtxt, such as an edited copy of an inferred one, instead of "
        "inferring a schema.",
    ),
]
TokenizerOption = Annotated[
    str,
    typer.Option(
        metavar="DIR|FILE",
        help="Use this tokenizer instead of training one: a tokenizer's folder or a .model file, or one per column: "
        "source=DIR,target=DIR.",
        show_default=False,
    ),
]
WarmStartOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Start training from the weights of an earlier model, such as runs/Trainer/model/7. Its task may differ. "
        "Its tokenizer is used, too, unless --tokenizer names one with the same vocabulary.",
    ),
]
RootOption = Annotated[
    str,
    typer.Option(
        "--pipeline-root",
        metavar="DIR|URL",
        help="Where artifacts, metadata and logs are stored. An object store, such as gs://bucket/runs, holds only "
        "artifacts; the rest, and copies of artifacts, are in a local folder such as runs-gs-bucket-runs.",
    ),
]
MetadataOption = Annotated[
    str,
    typer.Option(
        "--metadata",
        metavar="URL",
        envvar="SEQ2SERVE_METADATA",
        help="Store metadata in a database that several pipeline roots and machines share, such as "
        "postgresql://user@host/database, instead of in the pipeline root.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change a setting, such as training.steps=500 or model.d_model=256; repeatable. "
        "[bold]seq2serve settings[/bold] lists all settings with their meaning.",
    ),
]
PUSHED = "Where model versions are pushed: a folder, or an object store such as gs://bucket/models/en_de."
TaskOption = Annotated[str, typer.Option(metavar="TASK", help=f"The task of the model: {', '.join(TASKS)}.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the logs of libraries, and stack traces of failures.")
]
BeamArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- BEAM_OPTION",
        help="Everything after a bare -- is passed to Apache Beam unchanged, such as: -- --runner=FlinkRunner",
        show_default=False,
    ),
]
