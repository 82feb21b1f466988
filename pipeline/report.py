"""`seq2serve report`: one HTML file that shows a run, or two side by side, to whoever gets it, without a network.

Comes in: a MetadataStore and the numbers of one run or two. Goes out: a file.
Read next: report_run.py, what the store knows; report_data.py, report_training.py, report_quality.py,
report_attention.py and report_card.py, a part of the page each; report.html, the page.
"""

import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jinja2

from components.errors import UserError
from pipeline import report_dag
from pipeline.fingerprint import changes
from pipeline.metadata import MetadataStore
from pipeline.report_attention import describe_attention
from pipeline.report_card import counted, model_card
from pipeline.report_command import reproduction, run_settings, setting_of
from pipeline.report_data import describe_data
from pipeline.report_quality import compare_runs, describe_blessings, describe_quality
from pipeline.report_run import RunFacts, Step, read_run
from pipeline.report_training import draw_curves

_FOLDER = pathlib.Path(__file__).parent
_PARAMETER = re.compile(r"^parameter (\S+):")  # of what pipeline.fingerprint.changes says
_PREFIXES = {1e9: "G", 1e6: "M", 1e3: "k", 1: ""}
_VERBS = {"COMPLETE": "ran", "CACHED": "reused", "FAILED": "failed", "CANCELED": "interrupted", "RUNNING": "runs"}


def write_report(store: MetadataStore, run_ids: Sequence[int], root: str, path: str) -> None:
    """Writes the page.

    Args:
        store: of the pipeline root.
        run_ids: one run, or two to be shown side by side, the earlier one first.
        root: the pipeline root.
        path: of the file, which is overwritten.
    Raises:
        UserError: there is no such run, an older seq2serve made it, or the file cannot be written.
    """
    if not pathlib.Path(path).absolute().parent.is_dir():
        raise UserError(f"cannot write {path}: its folder does not exist; make it, or name another file with --output")
    runs = [read_run(store, run_id, root) for run_id in run_ids]
    try:
        page = _render(_values(runs))
    except KeyError as error:
        raise UserError(
            f"{_title(runs)}: another version of seq2serve made it, which did not record {error}; run its command again"
        ) from error
    try:
        pathlib.Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another with --output") from error


def _values(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Returns what the page shows."""
    return {
        "title": f"{_title(runs)} — seq2serve",
        "pages": [_page(facts) for facts in runs],
        "curves": draw_curves(runs),
        "changes": _changes(*runs) if len(runs) == 2 else [],
        "compared": compare_runs(*runs) if len(runs) == 2 else None,
        "now": time.time(),
    }


def _title(runs: Sequence[RunFacts]) -> str:
    return "Run " + " and run ".join(str(facts.run.id) for facts in runs)


def _page(facts: RunFacts) -> dict[str, Any]:
    """Returns what the page shows of one run; what it did not come to is None or empty."""
    model = facts.output("Trainer", "model")
    steps = {name: _step(step) for name, step in facts.steps.items()}
    inputs = dict.fromkeys(facts.given, ()) | {name: step.inputs for name, step in facts.steps.items()}
    return {
        "run": facts.run,
        "seconds": facts.run.finished - facts.run.started if facts.run.finished else None,
        "steps": steps,
        "num_reused": sum(step["state"] == "CACHED" for step in steps.values()),
        "dag": report_dag.draw(inputs),
        "blessings": describe_blessings(facts),
        "model": model.properties if model else None,
        "data": describe_data(facts),
        "quality": describe_quality(facts),
        "attention": describe_attention(facts),
        "card": model_card(facts),
        "lineage": facts.lineage,
        "command": reproduction(facts),
        "is_repeatable": not run_settings(facts).get("training.minutes"),
        "versions": {name: v for step in facts.steps.values() for name, v in step.origin.parts["versions"].items()},
    }


def _step(step: Step) -> dict[str, Any]:
    execution = step.execution
    return {
        "name": step.name,
        "state": execution.state,
        "verb": _VERBS[execution.state],
        "seconds": step.seconds,
        "reason": execution.reason,
        "message": execution.message,
    }


def _changes(one: RunFacts, other: RunFacts) -> list[str]:
    """Says what differs between two runs in what was set, given and installed, component by component."""
    lines = []
    for name, step in other.steps.items():
        if name not in one.steps:
            lines.append(f"{name}: only in run {other.run.id}")
        else:
            found = changes(one.steps[name].origin.parts, step.origin.parts)
            lines += [f"{name}: {_as_set(name, change)}" for change in found]
    return lines + [f"{name}: only in run {one.run.id}" for name in one.steps if name not in other.steps]


def _as_set(component: str, change: str) -> str:
    """Names a component's parameter as the user sets it, where it is a setting."""
    parameter = _PARAMETER.match(change)
    setting = setting_of(component, parameter[1]) if parameter else ""
    return f"{setting}{change[parameter.end(1) :]}" if setting else change


def _render(values: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"counted": counted, "duration": _duration, "bytes": _bytes, "short": _short, "date": _date}
    texts = {kind: (_FOLDER / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
    return environment.get_template("report.html").render(**values, **texts)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not finished"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _bytes(number: float) -> str:
    size = next(size for size in (1e9, 1e6, 1e3, 1) if number >= size or size == 1)
    return f"{number / size:.3g} {_PREFIXES[size]}B"


def _short(number: float) -> str:
    """Writes a number in three digits, such as 1.44 M."""
    size = next(size for size in (1e9, 1e6, 1) if number >= size or size == 1)
    return f"{number / size:.3g} {_PREFIXES[size]}" if size > 1 else f"{number:,.0f}"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
