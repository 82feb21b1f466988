"""The commands that run a pipeline: demo, run, validate."""

import dataclasses
from typing import Annotated

import typer

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.commands.options import (
    PUSHED,
    ConfigOptions,
    ExecutionOptions,
    FromOption,
    InputOptions,
    PresetOption,
    StartOptions,
    grouped,
)
from seq2serve.pipeline.run_config import NO_DATA, RunConfig
from seq2serve.pipeline.running.preflight import check_serving_dir, checked_beam_options

# Imports inside functions keep `seq2serve --help` fast. TensorFlow and Beam are imported by the components that run.


@grouped
def demo(
    config: ConfigOptions,
    start: StartOptions,
    execution: ExecutionOptions,
    language: Annotated[
        str,
        typer.Option(
            metavar="CODE", help="Translation: the target language, such as fr, pl or ja; the source is English."
        ),
    ] = "de",
    serving_dir: Annotated[
        str, typer.Option(metavar="DIR|URL", help=PUSHED, show_default="serving/en-<language> or <task>")
    ] = "",
) -> None:
    """Trains, evaluates and pushes a model of a demo corpus, then prints some of its answers.

    Takes a few minutes on two cores. The first run downloads the corpus.

    Translation: the interface text of Home Assistant, English to German.

    Classification: sentences rated as positive or negative.

    Language model: State of the Union messages of the presidents of the United States.

    Examples:

    seq2serve demo --language fr

    seq2serve demo --task classification --set training.steps=3000

    seq2serve demo --task classification --from minilm
    """
    with explained(execution.verbose):
        from seq2serve.components.tasks.corpora import get_corpus

        chosen = config.run_config(**dataclasses.asdict(start))
        _refuse_data(chosen)
        chosen = dataclasses.replace(chosen, preset=chosen.preset or ("" if chosen.start_from else "demo"))
        corpus = get_corpus(chosen.pipeline_config().task)
        folder = serving_dir or f"serving/{corpus.serving_name(language)}"
        beam_options = checked_beam_options(execution.beam_options, "the demo corpus", execution.pipeline_root, folder)
        set_up_logs(execution.verbose)
        _run(dataclasses.replace(chosen, data=corpus.fetch(language)), folder, execution, beam_options)


def _refuse_data(chosen: RunConfig) -> None:
    if chosen.data or chosen.schema or chosen.columns:
        raise UserError(
            f"{chosen.file} names data, a schema or columns, and the demo has its own: remove them, or use "
            f"`seq2serve run --config {chosen.file}`",
            code="data-unexpected",
            path=chosen.file,
        )


@grouped
def run(
    inputs: InputOptions,
    config: ConfigOptions,
    start: StartOptions,
    execution: ExecutionOptions,
    preset_name: PresetOption = "",
    serving_dir: Annotated[str, typer.Option(metavar="DIR|URL", help=PUSHED, show_default="serving/<task>")] = "",
) -> None:
    """Trains, evaluates and pushes a model of your own text.

    Prints one line per component: whether it ran or was reused, and why.

    Examples:

    seq2serve run pairs.tsv --source english --target german --set training.steps=5000

    seq2serve run reviews.csv --task classification --text review --label stars

    seq2serve run 'books/*.txt' --task language_model --preset tiny

    seq2serve run --data own.tsv:3,general.tsv:1 --source english --target german

    seq2serve run reviews.csv --task classification --text review --label stars --warm-start last
    """
    with explained(execution.verbose):
        chosen, beam_arguments = _chosen(inputs, config, execution, preset_name, start)
        folder = serving_dir or f"serving/{chosen.pipeline_config().task}"
        beam_options = checked_beam_options(beam_arguments, chosen.data, execution.pipeline_root, folder)
        set_up_logs(execution.verbose)
        _run(chosen, folder, execution, beam_options)


@grouped
def validate(
    inputs: InputOptions,
    config: ConfigOptions,
    execution: ExecutionOptions,
    preset_name: PresetOption = "",
    start_from: FromOption = "",
) -> None:
    """Checks your data without training: statistics, schema, warnings and errors.

    A later [bold]run[/bold] with the same text and the same --preset reuses the results.

    Example:

    seq2serve validate pairs.tsv --source english --target german
    """
    with explained(execution.verbose):
        chosen, beam_arguments = _chosen(inputs, config, execution, preset_name, StartOptions(start_from))
        effective = chosen.pipeline_config()
        beam_options = checked_beam_options(beam_arguments, chosen.data, execution.pipeline_root)
        set_up_logs(execution.verbose)
        from seq2serve.pipeline.commands.findings_text import print_suggested_start, print_validation
        from seq2serve.pipeline.dag import make_validation_pipeline
        from seq2serve.pipeline.running.runner import Runner
        from seq2serve.pipeline.running.user_models import find_start, pretrained_settings

        if pretrained := find_start(chosen, effective.task):
            pretrained_settings(pretrained, effective.task)

        pipeline = make_validation_pipeline(effective, chosen.data, execution.pipeline_root, chosen.schema)
        with chosen.naming_file():
            result = Runner(pipeline, beam_options, execution.verbose, execution.metadata).run()
        print_validation(result)
        if not (chosen.start_from or chosen.warm_start or chosen.tokenizer):
            print_suggested_start(result, effective)


def _chosen(
    inputs: InputOptions,
    config: ConfigOptions,
    execution: ExecutionOptions,
    preset_name: str,
    start: StartOptions,
) -> tuple[RunConfig, list[str]]:
    """Returns what the command line and the config file name, and the arguments for Beam.

    Raises:
        UserError: the config file or an option is wrong, or neither names data.
    """
    file, beam_arguments = inputs.file, list(execution.beam_options or ())
    if file.startswith("-"):  # with --config and without FILE, the first argument after a bare --
        file, beam_arguments = "", [file, *beam_arguments]
    if file and inputs.data:
        raise UserError(
            f"data is named twice: {file} and --data {inputs.data}; name all files in one of them, such as "
            f"--data {file},{inputs.data}",
            code="data-repeated",
        )
    chosen = config.run_config(
        data=file or inputs.data,
        schema=str(inputs.schema or ""),
        **dataclasses.asdict(start),
        preset=preset_name,
        columns=inputs.columns(),
    )
    if not chosen.data:
        raise UserError(NO_DATA, code="data-missing")
    return chosen, beam_arguments


def _run(chosen: RunConfig, serving_dir: str, execution: ExecutionOptions, beam_options: tuple[str, ...]) -> None:
    """Runs the whole pipeline and prints its summary."""
    from seq2serve.pipeline.commands.summary_text import print_summary
    from seq2serve.pipeline.dag import make_configured_pipeline
    from seq2serve.pipeline.running.runner import Runner

    config = chosen.pipeline_config()
    with chosen.naming_file():
        pipeline = make_configured_pipeline(chosen, execution.pipeline_root, serving_dir, execution.metadata)
        check_serving_dir(serving_dir, config.task)
        result = Runner(pipeline, beam_options, execution.verbose, execution.metadata).run()
    print_summary(result, config)
