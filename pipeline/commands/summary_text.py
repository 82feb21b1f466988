"""Prints the summary of a finished run: warnings, answers of the pushed model, metrics and next steps."""

import glob
import itertools
import json
import shlex
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from seq2serve.components.base.artifact import BEFORE, CORPUS, Artifact
from seq2serve.components.pusher.store import version_path
from seq2serve.components.pusher.versions import unserved_reason
from seq2serve.components.storage.files import local_copy
from seq2serve.components.tasks.data import PRETRAINED
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.registry import Task, get_task
from seq2serve.components.trainer.history import describe_choice
from seq2serve.pipeline.commands.findings_text import print_findings, print_suggested_start, print_text_warnings
from seq2serve.pipeline.commands.result_tables import make_table, result_tables
from seq2serve.pipeline.config import PipelineConfig
from seq2serve.pipeline.running.pipeline import RunResult

NUM_SHOWN = 8
MAX_PROMPT_CHARACTERS = 60  # of the text in the example command


def print_summary(result: RunResult, config: PipelineConfig) -> None:
    """Prints data warnings, held-out texts with the answers of the pushed SavedModel, metrics and next steps.

    Args:
        result: a run whose Pusher pushed a model, now or in an earlier run.
        config: the configuration of its pipeline.
    """
    console, task = Console(soft_wrap=False, highlight=False), get_task(config.task)
    evaluation = result.output("Evaluator", "evaluation")
    pushed = result.output("Pusher", "pushed_model").properties
    rows = _held_out(task, result)
    print_findings(result)
    print_text_warnings(result)
    console.print(_answers(task, rows, _answers_before(task, evaluation)))
    print_metrics(console, task, evaluation.properties)
    if choice := describe_choice(result.output("Trainer", "model").properties):
        console.print(f"  {choice}", soft_wrap=True)
    print_result_tables(console, evaluation.properties)
    print_slices(console, task, evaluation.properties, (CORPUS, "rows"))
    _print_next_steps(console, task, result, pushed, _example_prompt(task, rows))
    if "warm_start" not in result.output("Trainer", "model").properties:
        print_suggested_start(result, config)


def print_metrics(console: Console, task: Task, report: dict) -> None:
    """Prints the metrics of a model and its baselines; `report` is the content of a ModelEvaluation."""
    console.print(_metrics(task, report))
    headline = report["headline"]
    reason = f", because {headline['reason']}" if headline["reason"] else ""
    console.print(f"  headline: {headline['metric']}{reason}", soft_wrap=True, markup=False)
    for name, signature in report["signature"].items():
        console.print(f"  {name}: {signature}", soft_wrap=True)


def print_result_tables(console: Console, report: dict) -> None:
    """Prints the further tables of a ModelEvaluation."""
    if report.get("lowercase"):
        console.print("  case is ignored: the model writes lower case only (tokenizer.lowercase)", soft_wrap=True)
    for table in result_tables(report["tables"], console):
        console.print(table)


def print_slices(console: Console, task: Task, report: dict, columns: Collection[str] = ()) -> None:
    """Prints the headline of slices, with those of the other models that are known on them.

    Args:
        console: to print to.
        task: of the model.
        report: the content of a ModelEvaluation.
        columns: those whose slices are printed; empty for all.
    """
    metric = task.metric(report["headline"]["metric"])
    systems = {
        "model": "model",
        "baseline": report.get("strongest", ""),
        "last_blessed": "last blessed",
        "base_model": "base model",
    }
    for by, group in itertools.groupby(report["slices"], key=lambda part: part["by"]):
        if columns and by not in columns:
            continue
        parts = list(group)
        shown = [key for key in systems if any(key in part for part in parts)]
        rows = []
        for part in parts:
            values = [metric.text(part[key][metric.name]) if key in part else "" for key in shown]
            bounds = part["intervals"].get(metric.name)
            interval = interval_text(metric, bounds) if bounds else ""
            rows.append((part["name"], f"{part['num_examples']:,}", *values, interval))
        header = (by, "examples", *(systems[key] for key in shown), "95 % interval")
        console.print(make_table(f"{metric.name} by {by}", header, rows))


def interval_text(metric: Metric, bounds: Sequence[float]) -> str:
    """Returns a confidence interval as it is shown."""
    return " to ".join(map(metric.text, bounds))


def _held_out(task: Task, result: RunResult) -> list[dict]:
    """Returns held-out rows with the answers of the pushed SavedModel in the C++ runtime; each text once."""
    inferred = result.output("BulkInferrer", "inference_result")
    rows = []
    with local_copy(inferred.uri) as folder:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/predictions-*.jsonl")):
            with open(path, encoding="utf-8") as file:
                rows += [json.loads(line) for line in file]
    source = task.text_columns[0]
    return list({row[source]: row for row in rows}.values())  # interface text has duplicates


def _example_prompt(task: Task, rows: list[dict]) -> str:
    """Returns a held-out text for the example command: a short one if possible, else the beginning of one."""
    prompts = (" ".join(task.prompt(row[task.text_columns[0]]).split()) for row in rows)
    usable = [prompt for prompt in prompts if prompt.isprintable() and not prompt.startswith("-")]
    short = next((prompt for prompt in usable if len(prompt) <= MAX_PROMPT_CHARACTERS), "")
    beginning = next(iter(usable), "")[:MAX_PROMPT_CHARACTERS]
    return short or beginning.rpartition(" ")[0] or beginning


def _answers_before(task: Task, evaluation: Artifact) -> dict[str, str]:
    """Returns held-out text -> the answer that a pretrained model had before training; empty without one."""
    if PRETRAINED not in evaluation.properties["baselines"]:
        return {}
    with local_copy(evaluation.uri) as folder, open(f"{folder}/predictions.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {line[task.text_columns[0]]: line[BEFORE] for line in lines if BEFORE in line}


def _answers(task: Task, rows: list[dict], before: dict[str, str]) -> Table:
    """Returns a table of rows from evenly spaced positions, those with an answer before training if there are any."""
    source, target = task.text_columns[0], task.columns[-1]
    table = Table(title="Held-out texts, answered by the pushed SavedModel", title_justify="left", show_lines=True)
    for header in (source, *(["before training"] if before else []), task.output, f"reference {target}"):
        table.add_column(header, overflow="fold")
    rows = [row for row in rows if row[source] in before] or rows
    for row in rows[:: max(1, len(rows) // NUM_SHOWN)][:NUM_SHOWN]:
        prompt = task.prompt(row[source])
        earlier = [before.get(row[source], "")] if before else []
        table.add_row(*map(Text, (prompt, *earlier, row[task.answer_name(task.output)], task.reference(row, prompt))))
    return table


def _metrics(task: Task, report: dict) -> Table:
    systems = {"model": report["model"], **report["baselines"]}
    rows = [(name, *(task.metric(name).text(v[name]) for v in systems.values())) for name in report["model"]]
    return make_table(f"Test set, {report['num_examples']} examples", ("metric", *systems), rows)


def _print_next_steps(console: Console, task: Task, result: RunResult, pushed: dict, prompt: str) -> None:
    root, destination = result.pipeline.pipeline_root, version_path(pushed["pushed_destination"])
    folder = destination.rpartition("/")[0]
    steps = {
        "Training curves": ["seq2serve", "tensorboard", "--pipeline-root", root],
        "Report": ["seq2serve", "report", "--pipeline-root", root],
        "Lineage": ["seq2serve", "lineage", "--pipeline-root", root, destination],
        task.example[0]: ["seq2serve", "predict", "--model", destination, prompt or task.example[1]],
        "Serve": ["seq2serve", "serve", folder],
    }
    number, seconds = pushed["pushed_version"], f"({result.seconds:.0f} s)"
    summary = f"Pushed version {number} to {destination} {seconds}. Next:"
    if not pushed.get("pushed", True):
        summary = f"Version {number} already has this model: {destination} {seconds}. Next:"
    if reason := unserved_reason(folder, pushed["pushed_version"]):
        console.print(f"Warning: {reason}", soft_wrap=True, markup=False)
    console.print(summary, soft_wrap=True, markup=False)
    for title, command in steps.items():
        console.print(f"  {title}:", shlex.join(command), soft_wrap=True, markup=False)
