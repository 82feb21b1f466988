"""`seq2serve settings` lists every setting with the text below its field, and its output can be passed to --set."""

import pytest

from seq2serve.components.tasks.registry import TASKS
from seq2serve.pipeline.commands.settings_text import settings_text
from seq2serve.pipeline.config import AUTO, preset, setting_names, with_settings


def paragraphs(text):
    """Returns name -> (value, description)."""
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    ends = [*heads[1:], len(lines)]
    parts = {lines[i].partition("=")[::2]: " ".join(lines[i + 1 : j]) for i, j in zip(heads, ends, strict=True)}
    return {name: (value, description) for (name, value), description in parts.items()}


def test_every_setting_is_listed_with_a_description():
    listed = paragraphs(settings_text(preset("small", "translation")))
    assert tuple(listed) == setting_names()
    assert not [name for name, (_, description) in listed.items() if len(description.split()) < 5]


@pytest.mark.parametrize("task", ["translation", "classification", "language_model"])
def test_listed_values_can_be_passed_to_set(task):
    config = preset("demo", task)
    listed = paragraphs(settings_text(config))
    assert with_settings(config, [f"{name}={value}" for name, (value, _) in listed.items()]) == config


def test_the_meaning_is_the_text_below_the_field_and_the_range_is_that_of_its_type():
    listed = paragraphs(settings_text(preset("small", "translation"), width=60))
    assert " ".join(listed["model.dropout"][1].split()) == (
        "Dropout rate on the embeddings and after each sub-layer (section 5.4). Between 0 and 0.9."
    )
    assert listed["evaluation.num_examples"][1].split()[-3:] == ["At", "least", "0."]
    assert listed["tokenizer.lowercase"][1].endswith("true or false.")


def test_a_part_of_a_name_filters_the_list(invoke):
    outcome = invoke("settings", "optimizer", "--preset", "demo")
    assert outcome.stdout.startswith("training.optimizer=muon\n")
    assert "One of: adam, muon." in " ".join(outcome.stdout.split())


def test_an_unknown_name_is_an_error(invoke):
    outcome = invoke("settings", "nothing")
    assert (outcome.exit_code, outcome.error.code) == (2, "name-unknown")
    assert outcome.error.fields == {"kind": "setting", "name": "nothing"}
    assert outcome.stderr == "seq2serve: no setting has 'nothing' in its name; `seq2serve settings` lists them all\n"


@pytest.mark.parametrize("task", TASKS)
def test_a_setting_that_is_chosen_from_the_data_has_no_value(task):
    config = preset(AUTO, task)
    listed = paragraphs(settings_text(config))
    chosen = [name for name, (value, _) in listed.items() if value == "(chosen from the data)"]
    assert sorted(chosen) == sorted(config.automatic)
