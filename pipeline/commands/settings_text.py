"""Formats the settings as text: each with its value in a preset, its allowed values and its meaning.

The fields of the dataclasses in pipeline/config.py and models/config.py are the only source.
"""

import ast
import functools
import inspect
import itertools
import textwrap
import typing

from seq2serve.pipeline.config import PipelineConfig, sections, setting_names, setting_type, value_text


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
        description = f"{_meanings(sections()[section])[key]} {_choice(name)}"
        wrapped = textwrap.fill(description.strip(), width, initial_indent="    ", subsequent_indent="    ")
        value = "(chosen from the data)" if name in config.automatic else value_text(config.value(name))
        paragraphs.append(f"{name}={value}\n{wrapped}")
    return "\n".join(paragraphs)


@functools.cache
def _meanings(kind: type) -> dict[str, str]:
    """Returns field -> the string below it in the source of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    meanings = {}
    for field, below in itertools.pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                meanings[name] = " ".join(text.split())
    return meanings


def _choice(name: str) -> str:
    """Returns the allowed values of a setting, as a sentence; empty for free text."""
    kind, allowed = setting_type(name)
    if typing.get_origin(kind) is typing.Literal:
        return f"One of: {', '.join(typing.get_args(kind))}."
    if kind is bool:
        return "true or false."
    return f"{allowed}.".capitalize() if allowed else ""
