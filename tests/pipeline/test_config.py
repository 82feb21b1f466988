"""Settings: every one has a type, bounds and an error message; presets have the documented sizes."""

import ast
import dataclasses
import pathlib
import tomllib
import typing

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.registry import TASKS, presets_of
from seq2serve.models.config import ModelConfig, Range
from seq2serve.pipeline import config as config_module
from seq2serve.pipeline.commands.settings_text import settings_text
from seq2serve.pipeline.config import (
    PRESETS,
    PipelineConfig,
    preset,
    setting_names,
    setting_type,
    with_columns,
    with_settings,
)

BASE = PipelineConfig()


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
        ("data.split_key=a=b", "a=b"),
        ("data.delimiter= ", " "),
        ("data.delimiter=\t", "\t"),
    ],
)
def test_a_setting_is_parsed_as_the_type_of_its_field(setting, expected):
    value = with_settings(BASE, [setting]).value(setting.partition("=")[0].strip())
    assert value == expected
    assert type(value) is type(expected)


def test_other_settings_stay_the_same_and_the_later_of_two_values_wins():
    config = with_settings(PRESETS["tiny"], ["training.steps=1", "model.dff=8", "training.steps=2"])
    assert config.training == dataclasses.replace(PRESETS["tiny"].training, steps=2)
    assert config.model == dataclasses.replace(PRESETS["tiny"].model, dff=8)
    assert config.data == PRESETS["tiny"].data


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("model", [name for name in setting_names() if name.startswith("model.")]),
        ("training.batch_t", ["training.batch_tokens"]),
        ("steps", ["training.steps"]),
        ("model_typ", ["tokenizer.model_type"]),
        ("nothing", []),
    ],
)
def test_settings_are_listed_by_section_by_name_or_by_part_of_a_name(only, names):
    lines = settings_text(BASE, only).splitlines()
    assert [line.partition("=")[0] for line in lines if not line.startswith(" ")] == names


def test_settings_are_checked_together_not_one_by_one():
    config = with_settings(BASE, ["model.d_model=90", "model.num_heads=9"])
    assert (config.model.d_model, config.model.num_heads) == (90, 9)


def test_only_language_models_keep_white_space():
    for task in TASKS:
        config = preset("demo", task)
        if task == "language_model":
            assert config.tokenizer.whitespace == "keep"
            assert with_settings(config, ["tokenizer.whitespace=fold"]).tokenizer.whitespace == "fold"
        else:
            assert config.tokenizer.whitespace == "fold"
            message = (
                f"^setting tokenizer.whitespace=keep is not supported by {task}, which reads text without line ends"
            )
            with pytest.raises(UserError, match=message) as error:
                with_settings(config, ["tokenizer.whitespace=keep"])
            assert error.value.code == "settings-conflict"


# Errors.


@pytest.mark.parametrize("setting", ["steps=5", "seed=5", "training.steps"])
def test_a_setting_without_section_or_value_is_an_error(setting):
    with pytest.raises(UserError) as error:
        with_settings(BASE, [setting])
    assert (error.value.code, error.value.fields) == ("setting-malformed", {"setting": setting})


@pytest.mark.parametrize(
    ("setting", "kind", "name"),
    [
        ("training.step=5", "setting", "training.step"),
        ("model.steps=5", "setting", "model.steps"),
        ("trainig.steps=5", "section of settings", "trainig"),
        ("task.x=translation", "section of settings", "task"),
        ("model.positions=rotaty", "value of model.positions", "rotaty"),
    ],
)
def test_an_unknown_name_is_an_error(setting, kind, name):
    with pytest.raises(UserError) as error:
        with_settings(BASE, [setting])
    assert (error.value.code, error.value.fields) == ("name-unknown", {"kind": kind, "name": name})


@pytest.mark.parametrize(
    "setting",
    [
        "training.steps=",
        "training.steps=5.5",
        "training.steps=many",
        "training.learning_rate=fast",
        "training.learning_rate=nan",
        "model.dropout=inf",
        "model.norm_first=1",
    ],
)
def test_a_value_of_another_type_is_an_error(setting):
    name, _, text = setting.partition("=")
    with pytest.raises(UserError) as error:
        with_settings(BASE, [setting])
    assert (error.value.code, error.value.fields) == ("setting-invalid", {"setting": name, "value": text})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("training.steps", -1),
        ("model.dropout", 1.5),
        ("training.seed", 4294967296),
        ("data.seed", 99999999999),
        ("data.eval_share", 0.0),
        ("data.test_share", 0.9),
    ],
)
def test_a_value_out_of_range_is_an_error(name, value):
    with pytest.raises(UserError) as error:
        with_settings(BASE, [f"{name}={value}"])
    assert (error.value.code, error.value.fields) == ("setting-out-of-range", {"setting": name, "value": value})


CONFLICTS = {
    r"^setting model.d_model \(512\) must be divisible by model.num_heads \(7\)$": ["model.num_heads=7"],
    r"^setting model.positions=rotary needs an even model.d_model / model.num_heads$": [
        "model.positions=rotary",
        "model.d_model=24",
    ],
    r"^setting model.num_heads \(8\) must be divisible by model.num_kv_heads \(3\)$": ["model.num_kv_heads=3"],
    r"^setting model.sinusoids needs model.positions=sinusoidal$": [
        "model.sinusoids=tensor2tensor",
        "model.positions=learned",
        "model.max_positions=2000",
    ],
    r"^setting model.rotary_base needs model.positions=rotary$": ["model.rotary_base=500"],
    r"^setting model.positions=sinusoidal needs an even model.d_model$": ["model.d_model=9", "model.num_heads=3"],
    r"^setting model.positions=learned needs a data.max_length of at most 100 for model.max_positions=100, got 256": [
        "model.positions=learned",
        "model.max_positions=100",
    ],
    r"^setting tokenizer.vocab_size must be above 260 with byte_fallback \(.*\), got 200$": [
        "tokenizer.vocab_size=200"
    ],
    r"^setting tokenizer.shared=false needs model.tie_embeddings=false: two vocabularies": ["tokenizer.shared=false"],
    r"^setting data.slices: the task has its own column 'target'; rename the column": ["data.slices=topic, target"],
    r"^settings training.epochs and training.minutes both limit training: set one": [
        "training.epochs=2",
        "training.minutes=5",
    ],
}


@pytest.mark.parametrize(
    ("message", "settings"), CONFLICTS.items(), ids=[" ".join(pair) for pair in CONFLICTS.values()]
)
def test_settings_that_contradict_each_other_are_an_error(message, settings):
    with pytest.raises(UserError, match=message) as error:
        with_settings(BASE, settings)
    assert error.value.code == "settings-conflict"


def test_columns_have_the_name_of_the_task_unless_they_are_named():
    config = with_columns(BASE, {"source": "english"})
    assert config.file_columns == {"source": "english", "target": "target"}
    assert with_columns(config, {"target": "2"}).file_columns == {"source": "english", "target": "2"}


def test_two_columns_with_one_name_are_an_error():
    message = r"^columns source and target are both 'source' in the file: name two columns$"
    with pytest.raises(UserError, match=message) as error:
        with_columns(BASE, {"target": "source"})
    assert error.value.code == "settings-conflict"


def test_a_column_that_the_task_does_not_have_is_an_error():
    message = r"^unknown column of translation 'sourse' \(did you mean source\?\). There are: source, target$"
    with pytest.raises(UserError, match=message) as error:
        with_columns(BASE, {"sourse": "english"})
    assert error.value.fields == {"kind": "column of translation", "name": "sourse"}


def test_a_completion_longer_than_half_of_the_context_is_an_error():
    config = with_settings(preset("demo", "language_model"), ["decoding.max_new_tokens=64"])
    message = r"^setting decoding.max_new_tokens must be at most 64, half of model.max_positions, got 65$"
    with pytest.raises(UserError, match=message):
        with_settings(config, ["decoding.max_new_tokens=65"])


def test_two_tokenizers_for_a_task_with_one_text_are_an_error():
    message = r"^setting tokenizer.shared=false needs a task with two texts; classification reads one$"
    with pytest.raises(UserError, match=message) as error:
        with_settings(preset("base", "classification"), ["tokenizer.shared=false", "model.tie_embeddings=false"])
    assert error.value.code == "settings-conflict"


@pytest.mark.parametrize("task", ["classification", "language_model"])
def test_a_recurrent_decoder_for_a_task_without_encoder_and_decoder_is_an_error(task):
    message = rf"^setting model.decoder=ssru needs a task with encoder and decoder, which {task} is not$"
    with pytest.raises(UserError, match=message):
        with_settings(preset("base", task), ["model.decoder=ssru"])
    assert with_settings(BASE, ["model.decoder=ssru"]).model.decoder == "ssru"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps=5", r"^setting 'steps=5': write SECTION.KEY=VALUE \(did you mean training.steps\?\)"),
        ("seed=5", r"did you mean data.seed or training.seed\?"),
        (
            "training.step=5",
            r"^unknown setting 'training.step' \(did you mean training.steps\?\). There are: training.s",
        ),
        (
            "model.steps=5",
            r"^unknown setting 'model.steps' \(did you mean training.steps\?\). There are: model.num_encoder_layers",
        ),
        (
            "trainig.steps=5",
            r"^unknown section of settings 'trainig' \(did you mean training\?\). There are: data, tok",
        ),
        ("model.positions=rotaty", r"^unknown value of model.positions 'rotaty' \(did you mean rotary\?\)"),
        ("training.steps=5.5", r"^setting training.steps must be a whole number, got '5.5'$"),
        ("training.learning_rate=fast", r"^setting training.learning_rate must be a number, got 'fast'$"),
        ("model.dropout=inf", r"^setting model.dropout must be a finite number, got 'inf'$"),
        ("model.norm_first=1", r"^setting model.norm_first must be true or false, got '1'$"),
        ("training.steps=-1", r"^setting training.steps must be at least 0, got -1$"),
        ("model.dropout=1.5", r"^setting model.dropout must be between 0 and 0.9, got 1.5$"),
        ("data.seed=99999999999", r"^setting data.seed must be between 0 and 4294967295, got 99999999999$"),
    ],
)
def test_an_error_names_the_setting_and_the_allowed_values(setting, message):
    with pytest.raises(UserError, match=message):
        with_settings(BASE, [setting])


def test_a_config_cannot_be_constructed_with_wrong_values():
    with pytest.raises(UserError) as error:
        PipelineConfig(model=ModelConfig(d_model=10, num_heads=3))
    assert error.value.code == "settings-conflict"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("decoding.max_source_length", r"data\.max_length is the limit in training and when served"),
        ("data.label", r"name the column of the file with --column label=NAME"),
        ("evaluation.min_over_baseline", r"Set evaluation\.bar$"),
    ],
)
def test_a_setting_that_was_replaced_names_the_one_that_decides(name, message):
    with pytest.raises(UserError, match=message) as error:
        with_settings(BASE, [f"{name}=5"])
    assert (error.value.code, error.value.fields) == ("setting-replaced", {"setting": name})


def test_texts_to_generate_are_dropped_whole_and_texts_to_classify_are_cut():
    too_long = {task: preset("small", task).data.too_long for task in TASKS}
    assert too_long == {"translation": "drop", "classification": "cut", "language_model": "drop"}


# The fields themselves.


def test_a_language_model_may_learn_the_positions_of_its_rows():
    config = with_settings(preset("small", "language_model"), ["model.positions=learned"])
    assert config.model.max_positions < config.data.max_length


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_has_a_type_that_can_be_parsed_and_a_range_if_it_is_a_number(name):
    kind, allowed = setting_type(name)
    assert kind in (int, float, bool, str) or typing.get_origin(kind) is typing.Literal
    assert (allowed is not None) == (kind in (int, float))
    assert type(BASE.value(name)) is (str if typing.get_origin(kind) else kind)


def test_both_ends_of_a_range_are_allowed_and_nothing_beyond():
    for value, allowed in ((0, True), (0.9, True), (-1e-9, False), (0.9 + 1e-9, False)):
        assert Range(0, 0.9).allows(value) is allowed
    assert Range(1).allows(1e300)
    assert [str(Range(1)), str(Range(1e-6, 4294967295))] == ["at least 1", "between 1e-06 and 4294967295"]


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_can_be_set_to_its_current_value(name):
    assert with_settings(BASE, [f"{name}={BASE.value(name)}"]) == BASE


# Presets.


def test_base_and_big_have_the_sizes_of_the_paper():
    base, big = PRESETS["base"], PRESETS["big"]
    assert base.tokenizer.vocab_size == big.tokenizer.vocab_size == 37_000
    sizes = ("num_encoder_layers", "num_decoder_layers", "d_model", "num_heads", "dff", "dropout")
    assert [getattr(base.model, size) for size in sizes] == [6, 6, 512, 8, 2048, 0.1]
    assert [getattr(big.model, size) for size in sizes] == [6, 6, 1024, 16, 4096, 0.3]


def test_presets_of_a_task_change_presets_that_exist():
    for task in TASKS:
        assert set(presets_of(task)) <= {"common", *PRESETS}
    assert presets_of("a task of somebody else") == {}


def test_no_file_of_the_pipeline_names_a_task():
    """Examples in help texts and README files may; `classification` also names a protocol of TensorFlow Serving."""
    folder = pathlib.Path(config_module.__file__).parent
    protocol = [folder / "serving" / name for name in ("grpc_api.py", "inference.py")]
    files = [path for kind in ("*.py", "*.toml") for path in folder.rglob(kind) if path not in protocol]
    assert len(files) > 50
    for path in files:
        if path.suffix == ".toml":
            named = {value for value in tomllib.loads(path.read_text()) if value in TASKS}
        else:
            strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            named = {value for value in strings if value in TASKS}
        assert not named, path


def test_every_task_has_every_preset():
    for task in TASKS:
        for name in PRESETS:
            assert preset(name, task).task == task


@pytest.mark.parametrize(
    ("name", "task", "fields", "message"),
    [
        (
            "bas",
            "translation",
            {"kind": "preset", "name": "bas"},
            r"^unknown preset 'bas' \(did you mean base\?\). There are: auto, tiny, demo, small, base, big$",
        ),
        (
            "base",
            "translate",
            {"kind": "task", "name": "translate"},
            r"^unknown task 'translate' \(did you mean translation\?\)",
        ),
    ],
)
def test_an_unknown_preset_or_task_is_an_error(name, task, fields, message):
    with pytest.raises(UserError, match=message) as error:
        preset(name, task)
    assert (error.value.code, error.value.fields) == ("name-unknown", fields)
