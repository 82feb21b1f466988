"""The effective config of a run, the command that repeats it, and the settings behind parameters of components."""

import shlex

from seq2serve.pipeline.config import setting_names
from seq2serve.pipeline.report.facts import RunFacts
from seq2serve.pipeline.running.state_folder import config_path

# Parameters of components that are groups of settings -> the section in the names of these settings.
_SECTIONS = {
    **dict.fromkeys(("input_config", "split_config", "preprocessing"), "data."),
    "tokenizer_config": "tokenizer.",
    "tuner_config": "tuner.",
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


def effective_config(facts: RunFacts) -> str:
    """Returns the content of the config file that repeats a run; empty if there is none, as for a custom pipeline."""
    path = config_path(facts.root, facts.run.id)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def reproduction(facts: RunFacts) -> str:
    """Returns the command that repeats a run with its config file; for `seq2serve demo`, a `seq2serve run`."""
    destination = facts.parameters("Pusher").get("destination")
    folders = ["--pipeline-root", facts.root, *(["--serving-dir", destination] if destination else [])]
    return shlex.join(["seq2serve", "run", "--config", str(config_path(facts.root, facts.run.id)), *folders])


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
