"""The command line: `seq2serve COMMAND`, also `python -m seq2serve COMMAND`."""

import typer

from seq2serve.pipeline.commands.evaluate import evaluate
from seq2serve.pipeline.commands.look import lineage, report, runs, settings, tensorboard
from seq2serve.pipeline.commands.run import demo, run, validate
from seq2serve.pipeline.commands.serving import chat, predict, rollback, serve, versions
from seq2serve.pipeline.commands.train_worker import train_worker

COMMANDS = (
    *(demo, run, train_worker, validate, evaluate, runs, report, lineage, settings, tensorboard),
    *(predict, chat, serve, versions, rollback),
)

app = typer.Typer(
    name="seq2serve",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raw text in, a served Transformer out.\n\n"
    "Start with [bold]seq2serve demo[/bold], then call [bold]seq2serve run[/bold] with your own file. Results are "
    "cached: run the same command again and only what changed runs. An interrupted run resumes.",
    epilog="Exit codes: 0 done, 1 a component failed, 2 the input is wrong, 3 the model was not blessed and therefore "
    "not pushed, 130 Ctrl-C.",
    rich_markup_mode="rich",
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Runs the command line; the entry point `seq2serve`."""
    app(prog_name="seq2serve")
