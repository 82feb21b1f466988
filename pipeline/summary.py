"""What a finished run tells the person who started it.

Comes in: a RunResult. Goes out: sample translations of the pushed model, its metrics, and what to do next.
Read next: dag.py for where each artifact comes from.
"""

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.tasks import Task, get_task
from pipeline.config import PipelineConfig
from pipeline.runner import RunResult

NUM_SAMPLES = 8


def print_summary(result: RunResult, config: PipelineConfig) -> None:
    """Prints held-out texts with the pushed SavedModel's answers, the test metrics and the next steps.

    Args:
        result: of a run whose Pusher pushed or had pushed before.
        config: of its pipeline.
    """
    console, task = Console(soft_wrap=False, highlight=False), get_task(config.task)
    evaluation = result.output("Evaluator", "evaluation")
    pushed = result.output("Pusher", "pushed_model").properties
    with open(evaluation.path("predictions.jsonl"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    step = max(1, len(rows) // NUM_SAMPLES)
    rows = rows[::step][:NUM_SAMPLES]
    console.print(_answers(task, rows, pushed["pushed_destination"]))
    console.print(_metrics(evaluation.properties))
    _print_next_steps(console, result, pushed)


def _answers(task: Task, rows: list[dict], saved_model: str) -> Table:
    """Asks the pushed SavedModel through the C++ runtime, as a server would be asked."""
    from models.runtime import SavedModelRuntime

    source, target = task.columns[0], task.columns[-1]
    with SavedModelRuntime(saved_model) as served:
        answers = served.run("serving_default", {"text": [row[source] for row in rows]})[task.output]
    table = Table(title="Held-out sentences, answered by the pushed SavedModel", title_justify="left", show_lines=True)
    for header in (source, task.output, f"reference {target}"):
        table.add_column(header, overflow="fold")
    for row, answer in zip(rows, answers, strict=True):
        table.add_row(Text(row[source]), Text(answer.decode()), Text(row[target]))
    return table


def _metrics(report: dict) -> Table:
    table = Table(title=f"Test set, {report['num_examples']} examples", title_justify="left")
    for header in ("metric", "model", "baseline", "signature"):
        table.add_column(header)
    for name, value in report["model"].items():
        table.add_row(name, f"{value:.1f}", f"{report['baseline'][name]:.1f}", report["signature"][name])
    return table


def _print_next_steps(console: Console, result: RunResult, pushed: dict) -> None:
    root, destination = result.pipeline.pipeline_root, pushed["pushed_destination"]
    steps = {
        "Watch training": f"tensorboard --logdir {root}/Trainer/model_run",
        "Where it came from": f"seq2serve lineage --pipeline-root {root} {destination}",
        "Translate": f"seq2serve predict --model {destination} 'Turn on the light.'",
        "Serve": f"tensorflow_model_server --model_name=translation --model_base_path={destination.rpartition('/')[0]}",
    }
    console.print(f"Version {pushed['pushed_version']} is in {destination} ({result.seconds:.0f} s). Next:")
    for what, command in steps.items():
        console.print(f"  {what}:", command, soft_wrap=True)
