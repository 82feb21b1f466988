"""What a finished run tells the person who started it.

Comes in: a RunResult. Goes out: what is odd, answers of the pushed model, its metrics, and what to do next.
Read next: dag.py for where each artifact comes from.
"""

import glob
import json
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.tasks import Task, get_task
from pipeline.config import PipelineConfig
from pipeline.root import reached
from pipeline.runner import RunResult
from pipeline.validation import print_findings

NUM_SHOWN = 8
MAX_ASKED_CHARACTERS = 60  # of the text in the command that asks the model


def print_summary(result: RunResult, config: PipelineConfig) -> None:
    """Prints what is odd about the data, held-out texts with the pushed SavedModel's answers, metrics and next steps.

    Args:
        result: of a run whose Pusher pushed or had pushed before.
        config: of its pipeline.
    """
    console, task = Console(soft_wrap=False, highlight=False), get_task(config.task)
    evaluation = result.output("Evaluator", "evaluation")
    pushed = result.output("Pusher", "pushed_model").properties
    rows = _held_out(task, result)
    print_findings(result)
    console.print(_answers(task, rows))
    console.print(_metrics(task, evaluation.properties))
    for name, signature in evaluation.properties["signature"].items():
        console.print(f"  {name}: {signature}", soft_wrap=True)
    for table in evaluation.properties["tables"]:
        console.print(_table(table["title"], table["header"], table["rows"]))
    _print_next_steps(console, task, result, pushed, _asked(task, rows))


def _held_out(task: Task, result: RunResult) -> list[dict]:
    """Returns held-out rows with what the pushed SavedModel answered, through the C++ runtime; each text once."""
    inferred = result.output("BulkInferrer", "inference_result")
    rows = []
    with reached(inferred.uri) as folder:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/predictions-*.jsonl")):
            with open(path, encoding="utf-8") as file:
                rows += [json.loads(line) for line in file]
    source = task.text_columns[0]
    return list({row[source]: row for row in rows}.values())  # interface text repeats itself


def _asked(task: Task, rows: list[dict]) -> str:
    """Returns a held-out text for a command: a short one, or the beginning of one."""
    prompts = (" ".join(task.prompt(row[task.text_columns[0]]).split()) for row in rows)
    usable = [prompt for prompt in prompts if prompt.isprintable() and not prompt.startswith("-")]
    short = next((prompt for prompt in usable if len(prompt) <= MAX_ASKED_CHARACTERS), "")
    beginning = next(iter(usable), "")[:MAX_ASKED_CHARACTERS]
    return short or beginning.rpartition(" ")[0] or beginning


def _answers(task: Task, rows: list[dict]) -> Table:
    """Shows rows from all over."""
    source, target = task.text_columns[0], task.columns[-1]
    table = Table(title="Held-out texts, answered by the pushed SavedModel", title_justify="left", show_lines=True)
    for header in (source, task.output, f"reference {target}"):
        table.add_column(header, overflow="fold")
    for row in rows[:: max(1, len(rows) // NUM_SHOWN)][:NUM_SHOWN]:
        prompt = task.prompt(row[source])
        cells = (prompt, row[task.answer_name(task.output)], task.reference(row, prompt))
        table.add_row(*map(Text, cells))
    return table


def _metrics(task: Task, report: dict) -> Table:
    compared = {"model": report["model"], **report["baselines"]}
    rows = [(name, *(f"{v[name]:.{task.decimals}f}" for v in compared.values())) for name in report["model"]]
    return _table(f"Test set, {report['num_examples']} examples", ("metric", *compared), rows)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print_next_steps(console: Console, task: Task, result: RunResult, pushed: dict, asked: str) -> None:
    root, destination = result.pipeline.pipeline_root, pushed["pushed_destination"]
    steps = {
        "Watch training": ["seq2serve", "tensorboard", "--pipeline-root", root],
        "See it all": ["seq2serve", "report", "--pipeline-root", root],
        "Where it came from": ["seq2serve", "lineage", "--pipeline-root", root, destination],
        task.example[0]: ["seq2serve", "predict", "--model", destination, asked or task.example[1]],
        "Serve": ["seq2serve", "serve", destination.rpartition("/")[0]],
    }
    version = f"Version {pushed['pushed_version']} is in {destination} ({result.seconds:.0f} s). Next:"
    console.print(version, soft_wrap=True, markup=False)
    for what, command in steps.items():
        console.print(f"  {what}:", shlex.join(command), soft_wrap=True, markup=False)
