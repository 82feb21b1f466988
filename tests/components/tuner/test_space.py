"""The search space: its values are allowed for every model and all settings, and those of a person are not in it."""

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tasks.sizing import TrainData, choose
from seq2serve.components.tuner.space import all_changes, make_space, searchable, size, starting_point
from seq2serve.models.config import ModelConfig, Range, Recipe, TrainingConfig
from seq2serve.pipeline.config import PRESETS, preset

RANGES: dict[str, Range] = {
    f"{section}.{key}": typing.get_args(hint)[1]
    for section, kind in (("model", ModelConfig), ("training", TrainingConfig))
    for key, hint in typing.get_type_hints(kind, include_extras=True).items()
    if typing.get_origin(hint) is typing.Annotated
}


def recipe_of(config) -> Recipe:
    return Recipe(config.model, config.training, config.decoding)


def names_of(task: str, made: tuple[str, ...] = (), **options) -> tuple[str, ...]:
    return searchable(TASKS[task].parts, made, TrainingConfig(), **options)


@st.composite
def recipes(draw) -> tuple[str, Recipe]:
    """A task, and the settings of a preset, or those by rule for data of any size, with some of a person."""
    task, name = draw(st.sampled_from(sorted(TASKS))), draw(st.sampled_from(sorted(PRESETS)))
    config = preset(name, task)
    recipe = recipe_of(config)
    tokens = draw(st.integers(1, 10**10))
    labels = draw(st.integers(2, 1000)) if TASKS[task].label_columns else 0
    data = TrainData(max(1, tokens // 20), tokens, draw(st.integers(8, 10**6)), labels)
    heads = draw(st.integers(1, 7))
    own = {
        "model.num_heads": heads,
        "model.d_model": 2 * heads * draw(st.integers(1, 40)),
        "model.dropout": draw(st.floats(0, 0.9)),
        "training.learning_rate": draw(st.floats(1e-9, 10)),
        "training.label_smoothing": draw(st.floats(0, 0.9)),
        "training.token_dropout": draw(st.floats(0, 0.9)),
        "training.warmup_steps": draw(st.integers(0, 10**5)),
        "training.batch_tokens": draw(st.integers(1, 10**6)),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(own))))
    chosen |= {"model.num_heads", "model.d_model"} if chosen & {"model.num_heads", "model.d_model"} else set()
    recipe = recipe.with_values({key: own[key] for key in chosen})
    automatic = [name for name in config.automatic if name not in chosen and name.startswith(("model.", "training."))]
    return task, recipe.with_values(choose(TASKS[task].parts, data, recipe, automatic))


@given(recipes(), st.randoms(use_true_random=False))
def test_every_point_of_the_space_is_allowed_and_the_start_is_one(case, random):
    task, recipe = case
    names = names_of(task)
    space = make_space(names, recipe)
    assert all(recipe.value(name) in values for name, values in space.items())
    assert starting_point(space, recipe).keys() == space.keys()
    point = {name: random.choice(values) for name, values in space.items()}
    changes = all_changes(point, names, recipe)
    for name, value in changes.items():
        assert RANGES[name].allows(value), (name, value)
        assert type(value) is type(recipe.value(name)), (name, value)
    model = recipe.with_values(changes).model
    if model.d_model != recipe.model.d_model:
        assert model.d_model % (2 * model.num_heads) == 0


@given(recipes())
def test_values_are_ordered_and_there_is_a_choice(case):
    task, recipe = case
    for name, values in make_space(names_of(task), recipe).items():
        assert list(values) == sorted(set(values))
        assert len(values) > 1, name


@given(recipes())
def test_the_start_changes_nothing(case):
    task, recipe = case
    names = names_of(task)
    assert recipe.with_values(all_changes(starting_point(make_space(names, recipe), recipe), names, recipe)) == recipe


@pytest.mark.parametrize("task", TASKS)
def test_settings_that_a_person_made_are_not_searched(task):
    for made in names_of(task):
        names = names_of(task, (made,))
        recipe = recipe_of(preset("small", task))
        space = make_space(names, recipe)
        assert made not in names
        point = {name: values[-1] for name, values in space.items()}
        assert made not in all_changes(point, names, recipe)
    assert not names_of(task, names_of(task))


def test_what_depends_on_a_setting_follows_it_unless_a_person_made_it():
    recipe = recipe_of(preset("small", "translation"))
    names = names_of("translation")
    changes = all_changes({"model.d_model": 512, "training.steps": 15_000}, names, recipe)
    assert changes == {
        "model.d_model": 512,
        "model.dff": 2048,
        "training.steps": 15_000,
        "training.warmup_steps": 1000,
        "training.checkpoint_steps": 500,
    }
    names = names_of("translation", ("model.dff", "training.warmup_steps"))
    assert all_changes({"model.d_model": 512, "training.steps": 15_000}, names, recipe) == {
        "model.d_model": 512,
        "training.steps": 15_000,
        "training.checkpoint_steps": 500,
    }


def test_only_classifiers_search_the_regularisation_of_classifiers_and_only_parts_of_the_model_its_layers():
    assert {"training.token_dropout", "training.label_smoothing"} <= set(names_of("classification"))
    assert not {"training.token_dropout", "training.label_smoothing"} & set(names_of("translation"))
    assert "model.num_decoder_layers" not in names_of("classification")
    assert "model.num_encoder_layers" not in names_of("language_model")


def test_steps_are_not_searched_where_they_have_no_effect():
    for limit in ({"epochs": 2.0}, {"minutes": 3.0}):
        names = searchable(("encoder",), (), dataclasses.replace(TrainingConfig(), **limit))
        assert not {"training.steps", "training.warmup_steps", "training.checkpoint_steps"} & set(names)


def test_a_warm_start_keeps_the_shapes_of_the_earlier_model():
    names = names_of("translation", warm_start=True)
    assert "training.learning_rate" in names
    assert [name for name in names if name.startswith("model.")] == ["model.dropout"]


def test_the_size_is_the_number_of_points():
    space = make_space(("model.num_encoder_layers", "training.batch_tokens"), recipe_of(preset("tiny", "translation")))
    assert space == {"training.batch_tokens": (1024, 2048, 4096), "model.num_encoder_layers": (1, 2, 3)}
    assert size(space) == 9
