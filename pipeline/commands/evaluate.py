"""The command `evaluate`."""

from typing import Annotated

import typer

from seq2serve.pipeline.commands.exits import explained
from seq2serve.pipeline.commands.logs import set_up_logs
from seq2serve.pipeline.commands.options import (
    ColumnOptions,
    MetadataOption,
    SettingsOption,
    VerboseOption,
    grouped,
)

# The imports inside the function keep help instant: they load TensorFlow and Beam.


@grouped
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A serving folder, whose newest version is used, a pushed version, or a Trainer's model such as "
            "runs/Trainer/model/7.",
        ),
    ],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="In any format that [bold]run[/bold] reads. Also a quoted pattern, or parallel files: "
            "source=a.en,target=a.de.",
        ),
    ],
    columns: ColumnOptions,
    pipeline_root: Annotated[
        str,
        typer.Option(
            "--pipeline-root",
            metavar="DIR|URL",
            help="Where the model was trained: the baselines of some tasks need the training rows.",
            show_default="runs, or that of MODEL",
        ),
    ] = "",
    metadata: MetadataOption = "",
    settings: SettingsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Measures a finished model on all rows of a file: metrics, intervals, slices and baselines. Pushes nothing.

    The settings of [bold]--set[/bold] that have an effect are those of how files are read, data.slices and
    evaluation.num_examples.

    Examples:

    seq2serve evaluate serving/translation new.tsv --source english --target german

    seq2serve evaluate runs/Trainer/model/7 reviews.csv --text review --label stars --set data.slices=author
    """
    with explained(verbose):
        set_up_logs(verbose)
        from seq2serve.pipeline.commands.evaluation import evaluate_files, evaluation_config, find_model
        from seq2serve.pipeline.commands.evaluation_text import print_evaluation

        names = columns.columns()
        finished = find_model(model, None, pipeline_root, metadata)
        config = evaluation_config(finished.task, names, settings or [])
        print_evaluation(evaluate_files(finished, file, config))
