"""The command that repeats a run: its files, its preset, and the settings that differ from the preset."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from seq2serve.components.tasks.registry import TASKS
from seq2serve.pipeline.config import PRESETS, preset, setting_names, value_text
from seq2serve.pipeline.report.facts import RunFacts
from seq2serve.pipeline.running.fingerprint import as_json

# Parameters of components that are groups of settings -> the section in the names of these settings.
_SECTIONS = {
    **dict.fromkeys(("columns", "input_config", "split_config", "preprocessing"), "data."),
    "tokenizer_config": "tokenizer.",
    "recipe": "",
}
# (component, parameter) -> setting, for parameters that are one setting.
_SINGLE_SETTINGS = {
    ("ExampleGen", "max_reject_share"): "data.max_reject_share",
    ("ExampleGen", "slice_columns"): "data.slices",
    ("ExampleGen", "split_config.drop_overlap"): "data.overlap",
    ("ExampleValidator", "overlap"): "data.overlap",
    ("Evaluator", "bar"): "evaluation.bar",
    ("Evaluator", "num_examples"): "evaluation.num_examples",
}
# Artifact type of the user's files -> the option that takes them.
_FILE_OPTIONS = {"SchemaFile": "--schema", "TokenizerFiles": "--tokenizer", "ModelFiles": "--warm-start"}


def reproduction(facts: RunFacts) -> str:
    """Returns the command that repeats a run; for `seq2serve demo`, a `seq2serve run` on the files of the demo.

    Args:
        facts: facts of a run.
    Returns:
        A command with quoted arguments; empty if the run did not reach training, where the last settings are recorded.
    """
    settings = run_settings(facts)
    if not settings or "RawFiles" not in facts.user_files or facts.run.pipeline not in TASKS:
        return ""
    name, changed = _nearest_preset(facts.run.pipeline, settings)
    arguments = ["seq2serve", "run", _data_files(facts), "--task", facts.run.pipeline, "--preset", name]
    for column in TASKS[facts.run.pipeline].columns:
        file_column = changed.pop(f"data.{column}", column)
        arguments += [f"--{column}", file_column] if file_column != column else []
    for setting, value in changed.items():
        arguments += ["--set", f"{setting}={value_text(value)}"]
    arguments += [*_file_options(facts), "--pipeline-root", facts.root]
    destination = facts.parameters("Pusher").get("destination")
    return shlex.join([*arguments, *(["--serving-dir", destination] if destination else [])])


def run_settings(facts: RunFacts) -> dict[str, Any]:
    """Collects the settings of a run from the parameters of its components.

    Returns:
        Setting, such as "training.steps" -> value, for all settings that the task uses; empty if the run did not reach
        training.
    """
    transform = facts.parameters("Transform") or facts.parameters("TransformByTokenizer")
    example_gen, recipe = facts.parameters("ExampleGen"), facts.parameters("Trainer").get("recipe")
    if not recipe:
        return {}
    sections = {
        "data": [
            example_gen["columns"],
            example_gen["input_config"] | {"delimiter": example_gen["input_config"]["delimiter"].replace("\t", "\\t")},
            example_gen["split_config"],
            {"max_reject_share": example_gen["max_reject_share"], "slices": ",".join(example_gen["slice_columns"])},
            {"overlap": facts.parameters("ExampleValidator")["overlap"]},
            {key: transform["preprocessing"][key] for key in ("max_length", "too_long")},
        ],
        "tokenizer": [transform.get("tokenizer_config", {})],
        **{section: [recipe[section]] for section in ("model", "training", "decoding")},
        "evaluation": [{key: value for key, value in facts.parameters("Evaluator").items() if key != "task"}],
    }
    values = {
        f"{section}.{key}": value
        for section, groups in sections.items()
        for group in groups
        for key, value in group.items()
    }
    return {name: values[name] for name in setting_names() if name in values}


def setting_of(component: str, parameter: str) -> str:
    """Returns the setting that determines a parameter of a component.

    Args:
        component: name of the component.
        parameter: a parameter, or the path of a value in it, such as recipe.training.steps.
    Returns:
        The setting, such as training.steps; empty if the parameter is not a setting.
    """
    outer, _, inner = parameter.partition(".")
    name = _SINGLE_SETTINGS.get((component, parameter), f"{_SECTIONS.get(outer, '')}{inner}")
    return name if name in setting_names() else ""


def _nearest_preset(task: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the preset with the fewest different settings, and these settings."""
    differences = {}
    for name in PRESETS:
        values = dict(_flat(as_json(name, preset(name, task))))
        differences[name] = {setting: value for setting, value in settings.items() if values[setting] != value}
    nearest = min(differences, key=lambda name: len(differences[name]))
    return nearest, differences[nearest]


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, values in config.items():
        if isinstance(values, dict):
            yield from ((f"{section}.{key}", value) for key, value in values.items())


def _data_files(facts: RunFacts) -> str:
    """Returns the files argument of the run; for a single file its absolute path, which is valid in any folder."""
    files = facts.raw_files
    # An entry with more than path, bytes and sha256 belongs to a split or a column, which only the URI names.
    return files[0]["path"] if len(files) == 1 and len(files[0]) == 3 else facts.user_files["RawFiles"].uri


def _file_options(facts: RunFacts) -> list[str]:
    """Returns the options for the user's other files."""
    arguments = []
    for kind, option in _FILE_OPTIONS.items():
        if kind in facts.user_files:
            # With the state of an optimizer, which a setting asks for, the model's folder is one of two parts.
            uri = facts.user_files[kind].uri.partition(",optimizer=")[0].removeprefix("model=")
            arguments += [option, uri.replace("/**", "").replace("/*", "")]
    return arguments
