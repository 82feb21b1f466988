"""Formats the settings as text: each with its value in a preset, its allowed values and its meaning.

The dataclasses in pipeline/config.py and their docstrings are the only source.
"""

import inspect
import re
import textwrap
import typing

from seq2serve.pipeline.config import PipelineConfig, allowed_range, setting_names, value_text

_ENTRY = re.compile(r" {4}(\w[\w, ]*): (.+)")  # an entry of a docstring's "Args:"


def settings_text(config: PipelineConfig, only: str = "", width: int = 100) -> str:
    """Returns one paragraph per setting.

    Args:
        config: the configuration of a preset and a task; the source of the values.
        only: shows the settings whose name begins with this, or has it as the part before or after the dot. If there
            are none, shows those whose name contains it. Empty for all.
        width: maximum number of characters per line.
    """
    matching = [name for name in setting_names() if name.startswith(only) or only in name.split(".")]
    paragraphs = []
    for name in matching or [name for name in setting_names() if only in name]:
        section, key = name.split(".")
        values = getattr(config, section)
        description = f"{_meaning(type(values), key)} {_choice(name, type(values), key)}"
        wrapped = textwrap.fill(description.strip(), width, initial_indent="    ", subsequent_indent="    ")
        paragraphs.append(f"{name}={value_text(getattr(values, key))}\n{wrapped}")
    return "\n".join(paragraphs)


def _meaning(kind: type, key: str) -> str:
    """Returns the description of a field in its dataclass's docstring, capitalised."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.getdoc(kind).partition("Args:\n")[2].splitlines():
        if entry := _ENTRY.fullmatch(line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        else:
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    text = meanings.get(key, "")
    return text[:1].upper() + text[1:]


def _choice(name: str, kind: type, key: str) -> str:
    """Returns the allowed values of a setting, as a sentence; empty for free text."""
    hint = typing.get_type_hints(kind)[key]
    if typing.get_origin(hint) is typing.Literal:
        return f"One of: {', '.join(typing.get_args(hint))}."
    if hint is bool:
        return "true or false."
    return f"{allowed_range(name).capitalize()}." if hint in (int, float) else ""
