"""Arguments and options that several commands share, as types of the commands' parameters."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.formats import FORMATS
from seq2serve.components.tasks.registry import DEFAULT_TASK, TASKS
from seq2serve.pipeline.run_config import DEFAULT_PRESET, SHORT_COLUMNS, RunConfig, named_columns, read_run_config

Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """Lets a command take groups of options: a parameter whose type is a dataclass becomes an option per field.

    Args:
        command: its parameters are annotated with groups, or as for typer.
    Returns:
        The command with the signature that typer reads.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            types = typing.get_type_hints(groups[name], include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=types[field.name]
                )
                for field in dataclasses.fields(groups[name])
            ]
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def with_groups(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_groups


def _column_option(column: str, contents: str) -> Any:
    """Returns the short form of --column for a column; its help lists the tasks that have it."""
    tasks = ", ".join(name for name, task in TASKS.items() if column in task.columns)
    help_text = f"Short for --column {column}=NAME: the column with the {contents} (for {tasks})."
    return typer.Option(metavar="NAME", help=help_text, show_default=column)


_FORMATS = [file_format.title for file_format in FORMATS.values()]
FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}, optionally .gz, .bz2 or .zst. Also a quoted "
        "pattern, or several files with roles, such as train=a.tsv,test=b.tsv or source=a.en,target=a.de, or several "
        "corpora with weights, such as own.tsv:3,general.tsv:1. Not needed if --config or --data names data.",
    ),
]
DataOption = Annotated[
    str,
    typer.Option("--data", metavar="FILE[:WEIGHT],...", help="The same as the argument FILE.", show_default=False),
]
_PRESETS = (
    "Settings to start from: auto (sized from the data), tiny (seconds, to try a file), demo (minutes), small (hours "
    "on a laptop), base and big (the sizes in Vaswani et al. 2017). [bold]seq2serve settings[/bold] shows them."
)
PresetOption = Annotated[str, typer.Option("--preset", metavar="NAME", help=_PRESETS, show_default=DEFAULT_PRESET)]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="COLUMN=NAME",
        help="The name of a column of the task in your file, such as source=english; or its number if the file has no "
        "header. Repeatable.",
    ),
]
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
    str,
    typer.Option(
        metavar="DIR|last",
        help="Start training from the weights of an earlier model: its folder, such as runs/Trainer/model/7, whose "
        "task may differ; or last, the last model of the pipeline root and task. Its tokenizer is used, too, unless "
        "--tokenizer names one with the same vocabulary.",
        show_default=False,
    ),
]
FromOption = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="NAME|DIR",
        help="Start from a pretrained model: its weights and its tokenizer. A name, such as minilm (English sentences; "
        "80 MB, downloaded once) or firefox-en-pt (a translator; 35 MB), or a folder: in Hugging Face's layout with "
        "config.json, *.safetensors and a tokenizer, or with Marian's *.bin or *.npz and *.spm.",
        show_default=False,
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
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A TOML file with any of: files, columns, task, preset and settings. Options on the command line win over "
        "it. Every run writes such a file, which repeats it.",
        show_default=False,
    ),
]
PUSHED = "Where model versions are pushed: a folder, or an object store such as gs://bucket/models/en_de."
TaskOption = Annotated[
    str,
    typer.Option(metavar="TASK", help=f"The task of the model: {', '.join(TASKS)}.", show_default=DEFAULT_TASK),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show the logs of libraries, the trials of a search, and stack traces of failures."
    ),
]
BeamArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- BEAM_OPTION",
        help="Everything after a bare -- is passed to Apache Beam unchanged, such as: -- --runner=FlinkRunner",
        show_default=False,
    ),
]


@dataclasses.dataclass(frozen=True)
class ColumnOptions:
    """The columns of the user's file."""

    column: ColumnOption = None
    source: Annotated[str | None, _column_option("source", "texts to translate")] = None
    target: Annotated[str | None, _column_option("target", "translations")] = None
    text: Annotated[str | None, _column_option("text", "texts")] = None
    label: Annotated[str | None, _column_option("label", "labels")] = None

    def columns(self) -> dict[str, str]:
        """Returns column of the task -> column of the file, of those that were named.

        Raises:
            UserError: an option names no column, or a column has two names.
        """
        pairs = [(column, name) for column in SHORT_COLUMNS if (name := getattr(self, column)) is not None]
        for text in self.column or ():
            column, _, name = (word.strip() for word in text.partition("="))
            if not (column and name):
                raise UserError(
                    f"--column {text}: write COLUMN=NAME, such as source=english", code="column-malformed", column=text
                )
            pairs.append((column, name))
        return named_columns(pairs)


@dataclasses.dataclass(frozen=True)
class InputOptions(ColumnOptions):
    """The user's file, with its columns and its schema."""

    file: FileArgument = ""
    schema: SchemaOption = None
    data: DataOption = ""


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """What training starts from."""

    start_from: FromOption = ""
    tokenizer: TokenizerOption = ""
    warm_start: WarmStartOption = ""


@dataclasses.dataclass(frozen=True)
class ConfigOptions:
    """Task and settings."""

    config: ConfigOption = None
    task: TaskOption = ""
    settings: SettingsOption = None

    def run_config(self, **values: Any) -> RunConfig:
        """Returns these options and `values` over those of the config file.

        Args:
            **values: fields of a RunConfig.
        Raises:
            UserError: the config file is wrong.
        """
        given = RunConfig(task=self.task, settings=tuple(self.settings or ()), **values)
        return given.over(read_run_config(self.config)) if self.config else given


@dataclasses.dataclass(frozen=True)
class ExecutionOptions:
    """Where and how components run; nothing here changes a result."""

    beam_options: BeamArguments = None
    pipeline_root: RootOption = "runs"
    metadata: MetadataOption = ""
    verbose: VerboseOption = False
