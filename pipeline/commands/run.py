"""The commands that run a pipeline: demo, run, validate."""

from typing import Annotated

import typer

from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.commands.options import (
    DEFAULT_TASK,
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
from seq2serve.pipeline.config import PipelineConfig, preset, with_settings
from seq2serve.pipeline.running.preflight import check_serving_dir, checked_beam_options
from seq2serve.pipeline.running.user_models import user_models

# Imports inside functions keep `seq2serve --help` fast. TensorFlow and Beam are imported by the components that run.


def demo(
    beam_options: BeamArguments = None,
    task: TaskOption = DEFAULT_TASK,
    language: Annotated[
        str,
        typer.Option(
            metavar="CODE", help="Translation: the target language, such as fr, pl or ja; the source is English."
        ),
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
    """Trains, evaluates and pushes a model of a demo corpus, then prints some of its answers.

    Takes a few minutes on two cores. The first run downloads the corpus.

    Translation: the interface text of Home Assistant, English to German.

    Classification: sentences rated as positive or negative.

    Language model: State of the Union messages of the presidents of the United States.

    Examples:

    seq2serve demo --language fr

    seq2serve demo --task classification --set training.steps=3000
    """
    with explained(verbose):
        from seq2serve.pipeline.demo.corpora import get_corpus

        config, corpus = with_settings(preset("demo", task), settings or []), get_corpus(task)
        folder = serving_dir or f"serving/{corpus.serving_name(language)}"
        options = checked_beam_options(beam_options, "the demo corpus", pipeline_root, folder)
        set_up_logs(verbose)
        arguments = {
            "files": corpus.fetch(language),
            "pipeline_root": pipeline_root,
            "serving_dir": folder,
            **user_models(tokenizer, warm_start, config, settings or []),
        }
        _run(config, arguments, options, verbose, metadata)


def run(
    file: FileArgument,
    beam_options: BeamArguments = None,
    task: TaskOption = DEFAULT_TASK,
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
    """Trains, evaluates and pushes a model of your own text.

    Prints one line per component: whether it ran or was reused, and why.

    Examples:

    seq2serve run pairs.tsv --source english --target german --preset small --set training.steps=5000

    seq2serve run reviews.csv --task classification --text review --label stars

    seq2serve run 'books/*.txt' --task language_model --preset tiny
    """
    with explained(verbose):
        columns = {"source": source, "target": target, "text": text, "label": label}
        config = _config(preset_name, task, columns, settings)
        folder = serving_dir or f"serving/{task}"
        options = checked_beam_options(beam_options, file, pipeline_root, folder)
        set_up_logs(verbose)
        arguments = {
            "files": file,
            "pipeline_root": pipeline_root,
            "serving_dir": folder,
            "schema_file": str(schema or ""),
            **user_models(tokenizer, warm_start, config, settings or []),
        }
        _run(config, arguments, options, verbose, metadata)


def validate(
    file: FileArgument,
    beam_options: BeamArguments = None,
    task: TaskOption = DEFAULT_TASK,
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
    """Checks your data without training: statistics, schema, warnings and errors.

    A later [bold]run[/bold] with the same text and the same --preset reuses the results.

    Example:

    seq2serve validate pairs.tsv --source english --target german
    """
    with explained(verbose):
        columns = {"source": source, "target": target, "text": text, "label": label}
        config = _config(preset_name, task, columns, settings)
        options = checked_beam_options(beam_options, file, pipeline_root)
        set_up_logs(verbose)
        from seq2serve.pipeline.commands.findings_text import print_validation
        from seq2serve.pipeline.dag import make_validation_pipeline
        from seq2serve.pipeline.running.runner import Runner

        pipeline = make_validation_pipeline(config, file, pipeline_root, str(schema or ""))
        print_validation(Runner(pipeline, options, verbose, metadata).run())


def _config(preset_name: str, task: str, columns: dict[str, str], settings: list[str] | None) -> PipelineConfig:
    """Returns a preset with the file's columns and the changes of --set."""
    column_settings = [f"data.{column}={name}" for column, name in columns.items()]
    return with_settings(preset(preset_name, task), [*column_settings, *(settings or [])])


def _run(
    config: PipelineConfig, arguments: dict[str, str], beam_options: tuple[str, ...], verbose: bool, metadata: str
) -> None:
    """Runs the whole pipeline and prints its summary; `arguments` are those of `make_pipeline`."""
    from seq2serve.pipeline.commands.summary_text import print_summary
    from seq2serve.pipeline.dag import make_pipeline
    from seq2serve.pipeline.running.runner import Runner

    pipeline = make_pipeline(config, **arguments)
    check_serving_dir(arguments["serving_dir"], config.task)
    print_summary(Runner(pipeline, beam_options, verbose, metadata).run(), config)
