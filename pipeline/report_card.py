"""The model card: what a model is, what it was made of and for, and where it should not be trusted.

Comes in: RunFacts. Goes out: titles with lines of text, as much as the run left.
Read next: report.html, "Model card". The headings follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import glob
import os
from typing import Any

from pipeline import report_quality
from pipeline.corpora import licence_of
from pipeline.report_data import languages
from pipeline.report_run import RunFacts

_PURPOSES = {
    "translation": "Translates one text at a time, of the kind it was trained on, from {source} into {target}.",
    "classification": "Answers one of {labels} for a text of the kind it was trained on.",
    "language_model": "Goes on from the beginning of a text of the kind it was trained on, and scores texts.",
}
_ANY_PURPOSE = "Answers texts of the kind it was trained on."  # a task of the user's own
_NOT_FOR = (
    "Not for decisions about people, health, law or money without a person who checks them: what stands in this report "
    "was measured on texts like those it was trained on, and nothing is known about others."
)


def counted(number: int, noun: str) -> str:
    """Writes how many there are of something, such as 1 row or 1,200 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def model_card(facts: RunFacts) -> dict[str, list[str]]:
    """Writes the card.

    Args:
        facts: of a run.
    Returns:
        Title -> lines; empty if there is no model.
    """
    model = facts.output("Trainer", "model")
    if model is None or facts.task is None:
        return {}
    return {
        "Size": _size(facts, model),
        "Training": _training(facts, model),
        "Data": _data(facts),
        "Licences of the data": data_licences(facts),
        "Intended use": [_purpose(facts), _NOT_FOR],
        "Limits": _limits(facts),
    }


def data_licences(facts: RunFacts) -> list[str]:
    """Says under which licence each file of the data may be used, as far as it can be told.

    The licences of the demos' corpora are known; beside a file of the user's own a file LICENSE, LICENCE or COPYING is
    looked for.
    """
    paths = [file["path"] for file in facts.given["RawFiles"].properties["files"]] if "RawFiles" in facts.given else []
    lines = [licence_of(path) or _licence_beside(os.path.dirname(path)) for path in paths]
    return list(dict.fromkeys(lines)) or ["unknown"]


def _licence_beside(folder: str) -> str:
    pattern = "[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*"
    found = sorted(path for name in (pattern, "COPYING*") for path in glob.glob(f"{glob.escape(folder)}/{name}"))
    for path in filter(os.path.isfile, found):
        with open(path, encoding="utf-8", errors="replace") as file:
            first = next((line.strip() for line in file if line.strip()), "")
        return f"{first[:120]} ({path})"
    return f"Not stated: there is no file LICENSE in {folder}. Make sure that you may use and share what is made of it."


def _size(facts: RunFacts, model: Any) -> list[str]:
    config = facts.parameters("Trainer")["recipe"]["model"]
    layers = {name: config[f"num_{name}_layers"] for name in ("encoder", "decoder")}
    parts = " + ".join(f"{number} {name}" for name, number in layers.items() if _has(facts, name))
    megabytes = report_quality.folder_megabytes(model, "Format-Serving")
    lines = [
        f"{model.properties['num_parameters']:,} parameters",
        f"{parts} layer{'s' * (parts not in ('1 encoder', '1 decoder'))}, d_model {config['d_model']}, "
        f"{config['num_heads']} heads, dff {config['dff']}, "
        f"{config['positions']} positions",
        f"SavedModel of {megabytes:.1f} MB",
    ]
    checks = report_quality.infra_checks(facts)
    if checks and "load_seconds" in checks:
        lines.append(
            f"Loads in {checks['load_seconds']:.1f} s, answers one text in {checks['median_latency_ms']:.0f} ms "
            f"(median), with {checks['peak_memory_mib']:,.0f} MiB of memory, on the machine of this run"
        )
    return lines


def _has(facts: RunFacts, part: str) -> bool:
    """Returns whether a task's model has an encoder, or a decoder."""
    return {"classification": "encoder", "language_model": "decoder"}.get(facts.run.pipeline, part) == part


def _training(facts: RunFacts, model: Any) -> list[str]:
    training, step = facts.parameters("Trainer")["recipe"]["training"], facts.steps["Trainer"]
    measured = {name: value for name, value in model.properties.items() if name.startswith("eval_")}
    lines = [
        f"{counted(model.properties['steps'], 'step')} of {training['batch_tokens']:,} tokens, "
        f"{training['optimizer']}, "
        f"peak rate {training['learning_rate']:g}, seed {training['seed']}, {training['precision']}",
        f"{step.seconds / 60:.1f} minutes" if step.seconds is not None else "",
        "Eval split: " + ", ".join(_measured(name.removeprefix("eval_"), value) for name, value in measured.items()),
    ]
    if "ModelFiles" in facts.given:
        lines.append(f"Started from the weights of {facts.given['ModelFiles'].uri.removesuffix('/**')}")
    return list(filter(None, lines))


def _measured(name: str, value: float) -> str:
    """Writes a metric of the eval split; shares of what is right in percent, as those of the test set are."""
    return f"{name} {100 * value:.1f} %" if name in ("accuracy", "macro_f1") else f"{name} {value:.3g}"


def _data(facts: RunFacts) -> list[str]:
    examples = facts.output("ExampleGen", "examples")
    if examples is None:
        return []
    splits = ", ".join(f"{number:,} {split}" for split, number in examples.properties["num_examples"].items())
    names = [os.path.basename(file["path"]) for file in facts.given["RawFiles"].properties["files"]]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
    return [f"Examples: {splits}", f"From {shown}", f"{counted(examples.properties['num_rejected'], 'row')} rejected"]


def _purpose(facts: RunFacts) -> str:
    columns = dict(facts.parameters("ExampleGen").get("columns", {}))
    for column, (language, _) in languages(facts).items():
        columns[column] += f" (language {language})"
    transformed = facts.output("Transform", "transformed_examples")
    counts = transformed.properties.get("label_counts", {}) if transformed else {}
    labels = ", ".join(label for column in counts.values() for label in column) or "its labels"
    return _PURPOSES.get(facts.run.pipeline, _ANY_PURPOSE).format_map(columns | {"labels": labels})


def _limits(facts: RunFacts) -> list[str]:
    lines = []
    found = report_quality.describe_quality(facts)
    transformed = facts.output("Transform", "transformed_examples")
    if transformed and (cut := sum(transformed.properties["num_truncated"].values())):
        lines.append(
            f"Texts of more than {transformed.properties['max_length']:,} tokens were cut in training: {cut:,}"
        )
    longest = facts.parameters("Trainer")["recipe"]["decoding"]["max_source_length"]
    lines.append(f"Of a longer text only the first {longest:,} tokens are read when it is served")
    if found:
        lines += _weakest(found)
    anomalies = facts.output("ExampleValidator", "anomalies")
    return lines + [f"Data: {warning}" for warning in (anomalies.properties["warnings"] if anomalies else [])]


def _weakest(found: dict[str, Any]) -> list[str]:
    """Names the slice that the model does worst on, of those with enough rows to have an interval."""
    metric, sign = found["headline"], 1 if found["higher_is_better"] else -1
    parts = [part for group in found["slices"] for part in group["rows"] if metric in part["intervals"]]
    if not parts:
        return []
    from components.bootstrap import MIN_ROWS

    worst = min(parts, key=lambda part: sign * part["model"][metric])
    low, high = worst["intervals"][metric]
    places = found["decimals"]
    return [
        f"Weakest slice: {worst['by']} {worst['name']}, {metric} {worst['model'][metric]:.{places}f} "
        f"({low:.{places}f} to {high:.{places}f}), {worst['num_examples']} examples "
        f"(of the slices of at least {MIN_ROWS})"
    ]
