"""The command that would make a run again: its files, its preset, and what was set otherwise.

Comes in: RunFacts. Goes out: a line for a shell.
Read next: config.py for presets and settings, dag.py for the components whose parameters they became.
"""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from components.tasks import TASKS
from pipeline.config import PRESETS, preset, setting_names
from pipeline.fingerprint import as_json
from pipeline.report_run import RunFacts

# What components take in one parameter, and what the names of the settings in it begin with.
_SECTIONS = {
    **dict.fromkeys(("columns", "reading", "splitting", "preprocessing"), "data."),
    "tokenizer_config": "tokenizer.",
    "recipe": "",
}
_ALONE = {
    ("ExampleGen", "max_reject_share"): "data.max_reject_share",
    ("ExampleGen", "slice_columns"): "data.slices",
    ("Evaluator", "min_over_baseline"): "evaluation.min_over_baseline",
    ("Evaluator", "num_examples"): "evaluation.num_examples",
}


def reproduction(facts: RunFacts) -> str:
    """Writes the command down; `seq2serve demo` is one of them, on the files that it had fetched.

    Args:
        facts: of a run that came to training, before which not all settings are recorded.
    Returns:
        A command, its words quoted; empty where settings or files are unknown.
    """
    settings = run_settings(facts)
    if not settings or "RawFiles" not in facts.given or facts.run.pipeline not in TASKS:
        return ""
    name, changed = _nearest_preset(facts.run.pipeline, settings)
    words = ["seq2serve", "run", _files(facts), "--task", facts.run.pipeline, "--preset", name]
    columns = TASKS[facts.run.pipeline].columns
    for column in columns:
        given = changed.pop(f"data.{column}", column)
        words += [f"--{column}", given] if given != column else []
    for setting, value in changed.items():
        words += ["--set", f"{setting}={_written(value)}"]
    words += [*_brought(facts), "--pipeline-root", facts.root]
    destination = facts.parameters("Pusher").get("destination")
    return shlex.join([*words, *(["--serving-dir", destination] if destination else [])])


def run_settings(facts: RunFacts) -> dict[str, Any]:
    """Returns the settings of a run, by their names, collected from the parameters of its components.

    Returns:
        "training.steps" -> value, of all settings that the task has; empty if the run did not come to training.
    """
    transform = facts.parameters("Transform") or facts.parameters("TransformByTokenizer")
    generated, recipe = facts.parameters("ExampleGen"), facts.parameters("Trainer").get("recipe")
    if not recipe:
        return {}
    parts = {
        "data": [
            generated["columns"],
            generated["reading"] | {"delimiter": generated["reading"]["delimiter"].replace("\t", "\\t")},
            generated["splitting"],
            {"max_reject_share": generated["max_reject_share"], "slices": ",".join(generated["slice_columns"])},
            {key: transform["preprocessing"][key] for key in ("max_length", "too_long")},
        ],
        "tokenizer": [transform.get("tokenizer_config", {})],
        **{section: [recipe[section]] for section in ("model", "training", "decoding")},
        "evaluation": [{key: v for key, v in facts.parameters("Evaluator").items() if key != "task"}],
    }
    found = {f"{name}.{key}": v for name, sections in parts.items() for one in sections for key, v in one.items()}
    return {name: found[name] for name in setting_names() if name in found}


def setting_of(component: str, parameter: str) -> str:
    """Returns the setting that a component's parameter is made of.

    Args:
        component: its name.
        parameter: of the component, with the path to what is in it, such as recipe.training.steps.
    Returns:
        Its name, such as training.steps; empty if it is of none.
    """
    outer, _, inner = parameter.partition(".")
    name = _ALONE.get((component, parameter), f"{_SECTIONS.get(outer, '')}{inner}")
    return name if name in setting_names() else ""


def _nearest_preset(task: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the preset that most settings are of, and those that are not."""
    candidates = {}
    for name in PRESETS:
        values = dict(_flat(as_json(name, preset(name, task))))
        candidates[name] = {setting: value for setting, value in settings.items() if values[setting] != value}
    name = min(candidates, key=lambda name: len(candidates[name]))
    return name, candidates[name]


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, values in config.items():
        if isinstance(values, dict):
            yield from ((f"{section}.{key}", value) for key, value in values.items())


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _files(facts: RunFacts) -> str:
    """Returns the files as they were given; one alone by its whole path, wherever the command is run."""
    raw = facts.given["RawFiles"]
    files = raw.properties["files"]
    return files[0]["path"] if len(files) == 1 and len(files[0]) == 3 else raw.uri


def _brought(facts: RunFacts) -> list[str]:
    """Returns the options for what else the user brought."""
    options = {"SchemaFile": "--schema", "TokenizerFiles": "--tokenizer", "ModelFiles": "--warm-start"}
    words = []
    for kind, option in options.items():
        if kind in facts.given:
            words += [option, facts.given[kind].uri.replace("/**", "").replace("/*", "")]
    return words
