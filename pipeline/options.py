"""What several commands take: their arguments and options, said once.

Comes in: nothing. Goes out: types for the parameters of commands, with their help.
Read next: __main__.py, whose commands they are.
"""

from pathlib import Path
from typing import Annotated

import typer

from components.tasks import TASKS

FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="TSV, CSV, JSON lines, Parquet, TFRecord or plain text, also .gz, .bz2 or .zst; or a quoted pattern; or "
        "several with their parts, such as train=a.tsv,test=b.tsv or source=a.en,target=a.de.",
    ),
]
_PRESETS = (
    "Settings to start from: tiny (seconds, to try a file), demo (minutes), small (hours on a laptop), base and big "
    "(the paper's). [bold]seq2serve settings[/bold] shows them."
)
PresetOption = Annotated[str, typer.Option("--preset", metavar="NAME", help=_PRESETS)]
SourceOption = Annotated[str, typer.Option(metavar="COLUMN", help="Translation: the column to translate from.")]
TargetOption = Annotated[str, typer.Option(metavar="COLUMN", help="Translation: the column to translate into.")]
TextOption = Annotated[str, typer.Option(metavar="COLUMN", help="Other tasks: the column of texts.")]
LabelOption = Annotated[str, typer.Option(metavar="COLUMN", help="Classification: the column of labels.")]
SchemaOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Hold the data against this schema.pbtxt, inferred once and edited, instead of its own."
    ),
]
TokenizerOption = Annotated[
    str,
    typer.Option(
        metavar="DIR|FILE",
        help="Use this tokenizer instead of learning one: a Tokenizer's folder, or a .model file. One for each column: "
        "source=DIR,target=DIR.",
        show_default=False,
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
    str,
    typer.Option(
        "--pipeline-root",
        metavar="DIR|URL",
        help="Where artifacts, metadata and logs are kept. Of an object store, such as gs://bucket/runs, only "
        "artifacts are there; the rest, and copies, are in a folder here, called runs-gs-bucket-runs.",
    ),
]
MetadataOption = Annotated[
    str,
    typer.Option(
        "--metadata",
        metavar="URL",
        envvar="SEQ2SERVE_METADATA",
        help="Keep what ran and what was made in a database that several roots and machines share, such as "
        "postgresql://user@host/database, instead of in the pipeline root.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change one setting, such as training.steps=500 or model.d_model=256; may be given many times. "
        "[bold]seq2serve settings[/bold] lists them all, with what they mean.",
    ),
]
PUSHED = "Where model versions are pushed; also an object store, such as gs://bucket/models/en_de."
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
