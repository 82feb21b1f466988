"""`seq2serve settings`: the docstrings of the configs, complete and true, are what a person reads."""

import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.config import preset, setting_names, with_settings
from pipeline.settings import settings_text


def paragraphs(text):
    """Returns name -> (value, what is said of it)."""
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    ends = [*heads[1:], len(lines)]
    parts = {lines[i].partition("=")[::2]: " ".join(lines[i + 1 : j]) for i, j in zip(heads, ends, strict=True)}
    return {name: (value, said) for (name, value), said in parts.items()}


def test_every_setting_is_listed_and_explained():
    listed = paragraphs(settings_text(preset("small", "translation")))
    assert tuple(listed) == setting_names()
    assert not [name for name, (_, said) in listed.items() if len(said.split()) < 5]


@pytest.mark.parametrize("task", ["translation", "classification", "language_model"])
def test_what_is_listed_can_be_set_as_it_stands(task):
    config = preset("demo", task)
    listed = paragraphs(settings_text(config))
    assert with_settings(config, [f"{name}={value}" for name, (value, _) in listed.items()]) == config


def test_a_part_of_a_name_narrows_it_down():
    result = CliRunner().invoke(app, ["settings", "optimizer", "--preset", "demo"])
    assert result.output.startswith("training.optimizer=muon\n")
    assert "One of: adam, muon." in " ".join(result.output.split())
    assert CliRunner().invoke(app, ["settings", "nothing"]).exit_code == 2
