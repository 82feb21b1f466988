"""Settings: every one has a type, bounds and a message; presets are what they say."""

import dataclasses
import typing

import pytest

from components.errors import UserError
from components.tasks import TASKS
from models.config import ModelConfig
from pipeline import config as module
from pipeline.config import PRESETS, PipelineConfig, preset, setting_names, with_settings
from pipeline.settings import settings_text

BASE = PipelineConfig()


def value(config: PipelineConfig, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.steps=500", 500),
        ("training.steps = 1_000 ", 1000),
        ("training.learning_rate=1e-3", 0.001),
        ("training.learning_rate=1", 1.0),
        ("model.norm_first=False", False),
        ("model.norm_first=true", True),
        ("model.positions=rotary", "rotary"),
        ("data.source=a=b", "a=b"),
    ],
)
def test_a_setting_takes_its_fields_type(setting, expected):
    found = value(with_settings(BASE, [setting]), setting.partition("=")[0].strip())
    assert found == expected
    assert type(found) is type(expected)


def test_settings_leave_the_rest_alone_and_the_later_wins():
    found = with_settings(PRESETS["tiny"], ["training.steps=1", "model.dff=8", "training.steps=2"])
    assert found.training == dataclasses.replace(PRESETS["tiny"].training, steps=2)
    assert found.model == dataclasses.replace(PRESETS["tiny"].model, dff=8)
    assert found.data == PRESETS["tiny"].data


@pytest.mark.parametrize(
    ("only", "shown"),
    [
        ("model", [name for name in setting_names() if name.startswith("model.")]),
        ("training.batch_t", ["training.batch_tokens"]),
        ("steps", ["training.steps"]),
        ("model_typ", ["tokenizer.model_type"]),
        ("nothing", []),
    ],
)
def test_settings_are_listed_by_section_by_name_and_else_by_any_part(only, shown):
    lines = settings_text(BASE, only).splitlines()
    assert [line.partition("=")[0] for line in lines if not line.startswith(" ")] == shown


def test_settings_are_checked_together_not_one_by_one():
    found = with_settings(BASE, ["model.d_model=90", "model.num_heads=9"])
    assert (found.model.d_model, found.model.num_heads) == (90, 9)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "training.step=5",
            r"unknown setting 'training.step' \(did you mean training.steps\?\). There are: training.ste",
        ),
        (
            "trainig.steps=5",
            r"unknown section of settings 'trainig' \(did you mean training\?\). There are: data, token",
        ),
        ("model.steps=5", r"unknown setting 'model.steps'.* There are: model.num_encoder_layers"),
        ("task.x=translation", "unknown section of settings 'task'"),
        ("steps=5", r"write SECTION.KEY=VALUE \(did you mean training.steps\?\)"),
        ("seed=5", r"did you mean data.seed or training.seed\?"),
        ("training.steps", "write SECTION.KEY=VALUE"),
        ("training.steps=", "training.steps must be a whole number, got ''"),
        ("training.steps=5.5", "training.steps must be a whole number, got '5.5'"),
        ("training.steps=many", "training.steps must be a whole number, got 'many'"),
        ("training.learning_rate=fast", "training.learning_rate must be a number, got 'fast'"),
        ("training.learning_rate=nan", "training.learning_rate must be a finite number"),
        ("model.dropout=inf", "model.dropout must be a finite number"),
        ("model.norm_first=1", "model.norm_first must be true or false, got '1'"),
        ("model.positions=rotaty", r"unknown value of model.positions 'rotaty' \(did you mean rotary\?\)"),
        ("training.steps=0", "training.steps must be at least 1, got 0"),
        ("model.dropout=1.5", "model.dropout must be between 0 and 0.9, got 1.5"),
        ("training.seed=4294967296", "training.seed must be between 0 and 4294967295, got 4294967296"),
        ("data.seed=99999999999", "data.seed must be between 0 and 4294967295, got 99999999999"),
        ("data.eval_share=0", "data.eval_share must be between"),
        ("data.test_share=0.9", "data.test_share must be between"),
        ("model.num_heads=7", r"model.d_model \(512\) must be divisible by model.num_heads \(7\)"),
        ("tokenizer.vocab_size=200", "tokenizer.vocab_size must be above 260 with byte_fallback"),
        ("data.target=source", "data.source and data.target are both 'source'"),
        ("tokenizer.shared=false", "tokenizer.shared=false needs model.tie_embeddings=false"),
    ],
)
def test_bad_settings_say_what_and_how(setting, message):
    with pytest.raises(UserError, match=message):
        with_settings(BASE, [setting])


@pytest.mark.parametrize(
    "settings",
    [
        ["model.positions=rotary", "model.d_model=24"],
        ["model.d_model=9", "model.num_heads=3"],
        ["model.positions=learned", "model.max_positions=100"],
    ],
)
def test_positions_that_do_not_fit_are_refused(settings):
    with pytest.raises(UserError, match=r"setting model\.positions="):
        with_settings(BASE, settings)


def test_a_language_model_may_learn_the_positions_of_its_rows():
    config = with_settings(preset("small", "language_model"), ["model.positions=learned"])
    assert config.model.max_positions < config.data.max_length


def test_one_text_has_one_tokenizer():
    with pytest.raises(UserError, match="needs a task with two texts, and classification reads one"):
        with_settings(preset("base", "classification"), ["tokenizer.shared=false", "model.tie_embeddings=false"])


def test_every_number_has_bounds():
    numbers = {name for name in setting_names() if type(value(BASE, name)) in (int, float)}
    assert numbers == module._RANGES.keys()


def test_every_field_has_a_type_that_can_be_read():
    for name in setting_names():
        section, key = name.split(".")
        hint = typing.get_type_hints(type(getattr(BASE, section)))[key]
        assert hint in (int, float, bool, str) or typing.get_origin(hint) is typing.Literal, name


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_can_be_set_to_what_it_is(name):
    assert with_settings(BASE, [f"{name}={value(BASE, name)}"]) == BASE


def test_base_and_big_have_the_papers_sizes():
    base, big = PRESETS["base"], PRESETS["big"]
    assert base.tokenizer.vocab_size == big.tokenizer.vocab_size == 37_000
    sizes = ("num_encoder_layers", "num_decoder_layers", "d_model", "num_heads", "dff", "dropout")
    assert [getattr(base.model, size) for size in sizes] == [6, 6, 512, 8, 2048, 0.1]
    assert [getattr(big.model, size) for size in sizes] == [6, 6, 1024, 16, 4096, 0.3]


def test_presets_are_for_every_task():
    for task in TASKS:
        for name in PRESETS:
            assert preset(name, task).task == task


def test_unknown_preset_and_task():
    with pytest.raises(
        UserError, match=r"unknown preset 'bas' \(did you mean base\?\). There are: demo, tiny, small, base"
    ):
        preset("bas", "translation")
    with pytest.raises(UserError, match=r"unknown task 'translate' \(did you mean translation\?\)"):
        preset("base", "translate")


def test_a_config_cannot_be_built_wrong():
    with pytest.raises(UserError, match="must be divisible"):
        PipelineConfig(model=ModelConfig(d_model=10, num_heads=3))
