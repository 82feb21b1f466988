"""Prints an evaluation: row counts, rejected rows, metrics with intervals next to the baselines, and slices."""

from rich.console import Console

from seq2serve.components.tasks.registry import get_task
from seq2serve.pipeline.commands.evaluation_result import Evaluation
from seq2serve.pipeline.commands.summary_text import (
    interval_text,
    print_metrics,
    print_result_tables,
    print_slices,
)


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints an evaluation, with the tables of a run's summary."""
    console, task = Console(soft_wrap=False, highlight=False), get_task(evaluation.task)
    counts, report = evaluation.counts, evaluation.report
    numbers = f"{report['num_examples']:,} evaluated, {counts['num_rejected']:,} rejected"
    unused = counts["num_examples"] - report["num_examples"]
    numbers += f", {unused:,} beyond evaluation.num_examples" if unused else ""
    console.print(f"{evaluation.model}: {counts['num_rows']:,} rows, {numbers}", soft_wrap=True, markup=False)
    for reason, number in counts["num_rejected_by_reason"].items():
        print(f"  {number:,} rejected: {reason}")
    for reject in evaluation.rejects:
        print(f"  {reject['file']}, line {reject['line']}: {reject['reason']}: {reject['text'][:80]!r}")
    for note in evaluation.notes:
        print(f"note: {note}")
    for warning in evaluation.warnings:
        print(f"warning: {warning}")
    print_metrics(console, task, report)
    for name, bounds in evaluation.intervals.items():
        console.print(
            f"  {name}: {interval_text(task.metric(name), bounds)}, 95 % confidence interval by bootstrap",
            soft_wrap=True,
        )
    print_result_tables(console, report)
    print_slices(console, task, report)
