"""What can be set, as text: every setting with its value in a preset, what else it may be, and what it means.

Comes in: a PipelineConfig. Goes out: lines for a terminal or a pipe.
Read next: config.py, whose dataclasses and their docstrings are the only source.
"""

import inspect
import re
import textwrap
import typing

from pipeline.config import PipelineConfig, allowed_range, setting_names

_ENTRY = re.compile(r" {4}(\w[\w, ]*): (.+)")  # of a docstring's "Args:"


def settings_text(config: PipelineConfig, only: str = "", width: int = 100) -> str:
    """Returns a paragraph a setting.

    Args:
        config: of a preset and a task; gives the values.
        only: the name to show, its beginning, or its part behind the dot; where none is so called, any part of a name;
            empty for all.
        width: most characters of a line.
    """
    called = [name for name in setting_names() if name.startswith(only) or only in name.split(".")]
    paragraphs = []
    for name in called or [name for name in setting_names() if only in name]:
        section, key = name.split(".")
        values = getattr(config, section)
        said = f"{_meaning(type(values), key)} {_choice(name, type(values), key)}"
        wrapped = textwrap.fill(said.strip(), width, initial_indent="    ", subsequent_indent="    ")
        paragraphs.append(f"{name}={_written(getattr(values, key))}\n{wrapped}")
    return "\n".join(paragraphs)


def _written(value: object) -> str:
    """Returns a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _meaning(kind: type, key: str) -> str:
    """Returns what a dataclass's docstring says of a field, as a sentence."""
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
    hint = typing.get_type_hints(kind)[key]
    if typing.get_origin(hint) is typing.Literal:
        return f"One of: {', '.join(typing.get_args(hint))}."
    if hint is bool:
        return "true or false."
    return f"{allowed_range(name).capitalize()}." if hint in (int, float) else ""
