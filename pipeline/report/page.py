"""The page of `seq2serve report`: one HTML file that shows a run, or two side by side, and needs no network."""

import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jinja2

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.metadata.store import MetadataStore
from seq2serve.pipeline.report import graph
from seq2serve.pipeline.report.attention import describe_attention
from seq2serve.pipeline.report.card import counted, model_card
from seq2serve.pipeline.report.data import describe_data
from seq2serve.pipeline.report.facts import RunFacts, Step, read_run
from seq2serve.pipeline.report.quality import compare_runs, describe_quality, describe_verdicts
from seq2serve.pipeline.report.reproduction import effective_config, reproduction, setting_of
from seq2serve.pipeline.report.training import describe_search, draw_curves
from seq2serve.pipeline.running.fingerprint import changes

_FOLDER = pathlib.Path(__file__).parent
_PARAMETER = re.compile(r"^parameter (\S+):")  # in a phrase of pipeline.running.fingerprint.changes
_PREFIXES = {1e9: "G", 1e6: "M", 1e3: "k", 1: ""}
_STATUS = {
    "COMPLETE": "ran",
    "CACHED": "reused",
    "FAILED": "failed",
    "CANCELED": "interrupted",
    "RUNNING": "running",
}


def write_report(store: MetadataStore, run_ids: Sequence[int], root: str, path: str) -> None:
    """Writes the page.

    Args:
        store: metadata store of the pipeline root.
        run_ids: one run, or two to show side by side, the earlier one first.
        root: the pipeline root.
        path: path of the HTML file; an existing file is overwritten.
    Raises:
        UserError: there is no such run, another version of seq2serve made it, or the file cannot be written.
    """
    folder = pathlib.Path(path).absolute().parent
    if not folder.is_dir():
        raise UserError(
            f"cannot write {path}: the folder {folder} does not exist; create it, or choose another file with --output",
            code="folder-missing",
            path=path,
        )
    runs = [read_run(store, run_id, root) for run_id in run_ids]
    try:
        page = _render(_values(runs))
    except KeyError as error:
        raise UserError(
            f"{_title(runs)}: made by another version of seq2serve, which did not record {error}; run the command of "
            f"the run again",
            code="run-outdated",
            runs=list(run_ids),
        ) from error
    try:
        pathlib.Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; choose another file with --output",
            code="file-unwritable",
            path=path,
        ) from error


def _values(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Returns the values of the template."""
    return {
        "title": f"{_title(runs)} — seq2serve",
        "pages": [_page(facts) for facts in runs],
        "curves": draw_curves(runs),
        "changes": _changes(*runs) if len(runs) == 2 else [],
        "comparison": compare_runs(*runs) if len(runs) == 2 else None,
        "now": time.time(),
    }


def _title(runs: Sequence[RunFacts]) -> str:
    return "Run " + " and run ".join(str(facts.run.id) for facts in runs)


def _page(facts: RunFacts) -> dict[str, Any]:
    """Returns the values for one run. Values of components that the run did not reach are None or empty."""
    model = facts.output("Trainer", "model")
    steps = {name: _step(step) for name, step in facts.steps.items()}
    inputs = dict.fromkeys(facts.user_files, ()) | {name: step.inputs for name, step in facts.steps.items()}
    return {
        "run": facts.run,
        "seconds": facts.run.finished - facts.run.started if facts.run.finished else None,
        "steps": steps,
        "num_reused": sum(step["state"] == "CACHED" for step in steps.values()),
        "dag": graph.draw(inputs),
        "verdicts": describe_verdicts(facts),
        "model": model.properties if model else None,
        "data": describe_data(facts),
        "search": describe_search(facts),
        "quality": describe_quality(facts),
        "attention": describe_attention(facts),
        "card": model_card(facts),
        "lineage": facts.lineage,
        "command": reproduction(facts),
        "config": effective_config(facts),
        "is_repeatable": not facts.recipe.get("training", {}).get("minutes"),
        "versions": {name: v for step in facts.steps.values() for name, v in step.origin.parts["versions"].items()},
    }


def _step(step: Step) -> dict[str, Any]:
    execution = step.execution
    return {
        "name": step.name,
        "state": execution.state,
        "status": _STATUS[execution.state],
        "seconds": step.seconds,
        "reason": execution.reason,
        "message": execution.message,
        "prior": ", ".join(f"{row.type} #{row.artifact.id} of run {row.run_id}" for row in step.prior),
    }


def _changes(first: RunFacts, second: RunFacts) -> list[str]:
    """Describes the differences in settings, inputs, code and libraries between two runs, per component."""
    lines = []
    for name, step in second.steps.items():
        if name not in first.steps:
            lines.append(f"{name}: only in run {second.run.id}")
        else:
            phrases = changes(first.steps[name].origin.parts, step.origin.parts)
            lines += [f"{name}: {_with_setting_name(name, phrase)}" for phrase in phrases]
    return lines + [f"{name}: only in run {first.run.id}" for name in first.steps if name not in second.steps]


def _with_setting_name(component: str, phrase: str) -> str:
    """Replaces the name of a parameter in a phrase of `changes` with that of its setting, if it has one."""
    parameter = _PARAMETER.match(phrase)
    setting = setting_of(component, parameter[1]) if parameter else ""
    return f"{setting}{phrase[parameter.end(1) :]}" if setting else phrase


def _render(values: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"counted": counted, "duration": _duration, "bytes": _bytes, "short": _short, "date": _date}
    assets = {kind: (_FOLDER / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
    return environment.get_template("report.html").render(**values, **assets)


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
    """Formats a number with three significant digits, such as 1.44 M."""
    size = next(size for size in (1e9, 1e6, 1) if number >= size or size == 1)
    return f"{number / size:.3g} {_PREFIXES[size]}" if size > 1 else f"{number:,.0f}"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
