"""The model card: size, training, data, intended use and limitations of a model (Mitchell et al. 2019)."""

import glob
import os
from typing import Any

from seq2serve.components.base.artifact import WEIGHT_FILES, Artifact
from seq2serve.components.tasks.bootstrap import MIN_ROWS
from seq2serve.components.tasks.corpora import licence_of
from seq2serve.components.tasks.task import Task
from seq2serve.components.transform.lengths import length_warnings
from seq2serve.pipeline.config import UNCUT
from seq2serve.pipeline.report.data import languages, warnings
from seq2serve.pipeline.report.facts import RunFacts
from seq2serve.pipeline.report.quality import describe_quality, folder_megabytes, infra_checks

_NOT_FOR = (
    "Not for decisions about people, health, law or money without human review: the model was evaluated only on texts "
    "like its training data, and its quality on other texts is unknown."
)


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as 1 row or 1,200 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def model_card(facts: RunFacts) -> dict[str, list[str]]:
    """Makes the card.

    Args:
        facts: facts of a run.
    Returns:
        Title -> lines; empty if there is no model.
    """
    model = facts.output("Trainer", "model")
    if model is None or facts.task is None:
        return {}
    return {
        "Size": _size(facts, model),
        "Training": _training(facts, model),
        "Quality": _quality(facts),
        "Data": _data(facts),
        "Data licences": data_licences(facts),
        "Intended use": [_purpose(facts), _NOT_FOR],
        "Limitations": _limitations(facts),
    }


def data_licences(facts: RunFacts) -> list[str]:
    """Returns the licences of the data files, each once.

    The licences of the demo corpora are known. For other files, the licence is the first line of a LICENSE, LICENCE or
    COPYING file in the same folder.
    """
    lines = [licence_of(file["path"]) or _licence_in(os.path.dirname(file["path"])) for file in facts.raw_files]
    return list(dict.fromkeys(lines)) or ["unknown"]


def _licence_in(folder: str) -> str:
    pattern = "[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]*"
    paths = sorted(path for name in (pattern, "COPYING*") for path in glob.glob(f"{glob.escape(folder)}/{name}"))
    for path in filter(os.path.isfile, paths):
        with open(path, encoding="utf-8", errors="replace") as file:
            first = next((line.strip() for line in file if line.strip()), "")
        return f"{first[:120]} ({path})"
    return (
        f"Unknown: there is no LICENSE in {folder}. Make sure that you may use the data and share models trained on it."
    )


def _size(facts: RunFacts, model: Artifact) -> list[str]:
    config = facts.recipe["model"]
    layers = {name: config[f"num_{name}_layers"] for name in ("encoder", "decoder")}
    parts = " + ".join(f"{number} {name}" for name, number in layers.items() if name in facts.task.parts)
    lines = [
        f"{model.properties['num_parameters']:,} parameters",
        f"{parts} layer{'s' * (parts not in ('1 encoder', '1 decoder'))}, d_model {config['d_model']}, "
        f"{config['num_heads']} heads, dff {config['dff']}, {config['positions']} positions",
        f"SavedModel of {folder_megabytes(model, 'Format-Serving'):.1f} MB",
    ]
    checks = infra_checks(facts)
    if checks and "load_seconds" in checks:
        lines.append(
            f"On the machine of this run: load time {checks['load_seconds']:.1f} s, median latency of one text "
            f"{checks['median_latency_ms']:.0f} ms, peak memory {checks['peak_memory_mib']:,.0f} MiB"
        )
    return lines


def _training(facts: RunFacts, model: Artifact) -> list[str]:
    training, step = facts.recipe["training"], facts.steps["Trainer"]
    metrics = {name: value for name, value in model.properties.items() if name.startswith("eval_")}
    lines = [
        f"{counted(model.properties['steps'], 'step')} of {training['batch_tokens']:,} tokens, "
        f"{training['optimizer']}, peak learning rate {training['learning_rate']:g}, seed {training['seed']}, "
        f"{training['precision']}",
        f"{step.seconds / 60:.1f} minutes" if step.seconds is not None else "",
        "Eval split: "
        + ", ".join(_metric_text(facts.task, name.removeprefix("eval_"), value) for name, value in metrics.items()),
    ]
    if "ModelFiles" in facts.user_files:
        uri = facts.user_files["ModelFiles"].uri.partition(",optimizer=")[0].removeprefix("model=")
        lines.append(f"Warm start from {uri.removesuffix('/**')}")
    if pretrained := model.properties.get("pretrained"):
        names = {key: ", ".join(pretrained[key]) or "none" for key in ("initialised", "ignored")}
        lines.append(
            f"Pretrained start: {pretrained['family']} from {pretrained['source']}, licence of the weights: "
            f"{pretrained['licence']}; {counted(len(pretrained['loaded']), 'weight')} loaded, initialised: "
            f"{names['initialised']}, ignored: {names['ignored']}"
        )
        hashes = {name: digest for name, digest in pretrained["hashes"].items() if name.endswith(WEIGHT_FILES)}
        lines += [f"SHA-256 of {name}: {digest}" for name, digest in hashes.items()]
    if chosen := facts.output("Tuner", "best_hyperparameters"):
        lines.append(f"Settings that Tuner chose: {chosen.properties['reason']}")
    return list(filter(None, lines))


def _metric_text(task: Task, name: str, value: float) -> str:
    metric = task.metric(name)
    return f"{name} {metric.text(value)} {metric.unit}"


def _quality(facts: RunFacts) -> list[str]:
    """Returns the headline on the test split, next to the strongest baseline, and why it is the headline."""
    quality = describe_quality(facts)
    if not quality:
        return []
    row, digits = next(row for row in quality["metrics"] if row["name"] == quality["headline"]), quality["decimals"]
    interval = " to ".join(f"{bound:.{digits}f}" for bound in row["interval"] or ())
    baseline = row["baselines"][quality["baselines"].index(quality["strongest"])]
    lines = [
        f"Test split: {row['name']} {row['value']:.{digits}f}{f' ({interval})' if interval else ''}, "
        f"{quality['strongest']} {baseline:.{digits}f}"
    ]
    reason = quality["headline_reason"]
    return lines + ([f"{row['name']} decides about the model, because {reason}"] if reason else [])


def _data(facts: RunFacts) -> list[str]:
    examples = facts.output("ExampleGen", "examples")
    if examples is None:
        return []
    splits = ", ".join(f"{number:,} {split}" for split, number in examples.properties["num_examples"].items())
    names = [os.path.basename(file["path"]) for file in facts.raw_files]
    files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
    rejected = counted(examples.properties["num_rejected"], "row")
    return [f"Examples: {splits}", f"Files: {files}", f"{rejected} rejected"]


def _purpose(facts: RunFacts) -> str:
    columns = dict(facts.parameters("ExampleGen").get("columns", {}))
    for column, (language, _) in languages(facts).items():
        columns[column] += f" (language {language})"
    transformed = facts.output("Transform", "transformed_examples")
    counts = transformed.properties.get("label_counts", {}) if transformed else {}
    labels = ", ".join(label for column in counts.values() for label in column) or "its labels"
    return facts.task.purpose.format_map(columns | {"labels": labels})


def _limitations(facts: RunFacts) -> list[str]:
    lines = []
    quality = describe_quality(facts)
    names = ("Transform", "TransformByTokenizer")
    transformed = next(filter(None, (facts.output(name, "transformed_examples") for name in names)), None)
    if transformed:
        lines += [warning.text for warning in length_warnings(transformed.properties)]
        # Earlier versions had a separate limit for the served model.
        decoding, limit = facts.recipe["decoding"], transformed.properties["max_length"]
        limit = decoding.get("max_source_length", limit)
        lines += [f"The served model reads only the first {limit:,} tokens of a text"] if limit < UNCUT else []
    if quality:
        lines += _weakest_slice(quality)
    return lines + [f"Data: {warning}" for warning in warnings(facts)]


def _weakest_slice(quality: dict[str, Any]) -> list[str]:
    """Returns a line about the slice with the worst headline, of those with enough rows for an interval."""
    metric, sign = quality["headline"], 1 if quality["higher_is_better"] else -1
    slices = [row for group in quality["slices"] for row in group["rows"] if metric in row["intervals"]]
    if not slices:
        return []
    worst = min(slices, key=lambda row: sign * row["model"][metric])
    low, high = worst["intervals"][metric]
    digits = quality["decimals"]
    return [
        f"Weakest slice: {worst['by']} {worst['name']}, {metric} {worst['model'][metric]:.{digits}f} "
        f"({low:.{digits}f} to {high:.{digits}f}), {worst['num_examples']} examples "
        f"(of the slices with at least {MIN_ROWS})"
    ]
