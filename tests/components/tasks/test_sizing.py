"""The tables of the preset `auto`: whatever the data, the choice is allowed, and it follows from what a person set."""

import dataclasses
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tasks.sizing import (
    LONGEST_LIMIT,
    SHORTEST_LIMIT,
    TrainData,
    choose,
    choose_max_length,
    choose_vocab_size,
    describe,
)
from seq2serve.models.config import Recipe
from seq2serve.pipeline.config import AUTO, preset, with_settings

DATA = st.builds(
    TrainData,
    rows=st.integers(1, 10**9),
    tokens=st.integers(1, 10**11),
    vocab_size=st.integers(10, 32_000),
    num_labels=st.integers(2, 1000),
)
MINILM = ("num_encoder_layers=6", "d_model=384", "num_heads=12", "dff=1536", "dropout=0.1", "positions=learned")
FIREFOX = (
    "num_encoder_layers=6",
    "num_decoder_layers=2",
    "d_model=256",
    "dff=1536",
    "positions=sinusoidal",
    "decoder=ssru",
)


def choice(task, data, *made):
    config = with_settings(preset(AUTO, task), made)
    recipe = Recipe(config.model, config.training, config.decoding)
    automatic = [name for name in config.automatic if name.startswith(("model.", "training."))]
    if not TASKS[task].label_columns:
        data = dataclasses.replace(data, num_labels=0)
    return config, choose(TASKS[task].parts, data, recipe, automatic)


@given(task=st.sampled_from(sorted(TASKS)), data=DATA)
@settings(deadline=None)
def test_every_automatic_setting_gets_a_value_in_its_range(task, data):
    config, values = choice(task, data)
    assert set(values) == {name for name in config.automatic if name.startswith(("model.", "training."))}
    chosen = with_settings(config, [f"{name}={value}" for name, value in values.items()])  # checks it as a whole
    assert all(type(chosen.value(name)) is type(value) for name, value in values.items())
    assert describe(values, data)


@given(task=st.sampled_from(sorted(TASKS)), data=DATA, heads=st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
@settings(deadline=None)
def test_the_width_is_a_multiple_of_the_persons_heads(task, data, heads):
    config, values = choice(task, data, f"model.num_heads={heads}")
    assert "model.num_heads" not in values
    with_settings(config, [f"{name}={value}" for name, value in values.items()])


@pytest.mark.parametrize("number", [1, 48, 100, 3000])
def test_half_of_the_context_has_room_for_what_is_generated(number):
    data = TrainData(rows=10, tokens=200_000, vocab_size=4000)
    config, values = choice("language_model", data, f"decoding.max_new_tokens={number}")
    assert values["model.max_positions"] >= 2 * number
    with_settings(config, [f"{name}={value}" for name, value in values.items()])


@pytest.mark.parametrize("task", TASKS)
def test_what_a_person_set_is_not_chosen_and_the_rest_follows_from_it(task):
    data = TrainData(rows=10_000, tokens=200_000, vocab_size=4000, num_labels=2)
    _, values = choice(task, data, "training.steps=70", "model.d_model=32", "training.optimizer=adam")
    assert not {"training.steps", "model.d_model", "training.optimizer"} & values.keys()
    assert (values["training.warmup_steps"], values["training.checkpoint_steps"]) == (7, 35)
    assert values["model.dff"] in (64, 128)
    assert values["training.learning_rate"] < 3e-3


@pytest.mark.parametrize("width", [6, 50, 90, 100, 512])
def test_heads_and_learning_rate_follow_from_the_persons_width(width):
    data = TrainData(rows=10_000, tokens=200_000, vocab_size=4000)
    config, values = choice("translation", data, f"model.d_model={width}")
    with_settings(config, [f"{name}={value}" for name, value in values.items()])
    assert values["training.optimizer"] == ("adam" if width == 512 else "muon")


@pytest.mark.parametrize("heads", [3, 6, 7])
def test_the_width_follows_from_any_number_of_heads(heads):
    config, values = choice("translation", TrainData(10_000, 200_000, 4000), f"model.num_heads={heads}")
    assert values["model.d_model"] % heads == 0
    with_settings(config, [f"{name}={value}" for name, value in values.items()])


@pytest.mark.parametrize("task", TASKS)
def test_more_data_never_get_a_smaller_model_or_less_training(task):
    sizes = [10**power for power in range(3, 11)]
    chosen = [choice(task, TrainData(size // 20, size, 4000, 2))[1] for size in sizes]
    for smaller, larger in itertools.pairwise(chosen):
        for name in ("model.d_model", "training.steps", "training.batch_tokens"):
            batches = smaller["training.batch_tokens"] / larger["training.batch_tokens"]
            assert smaller[name] * (batches if name == "training.steps" else 1) <= larger[name], (name, smaller, larger)


@pytest.mark.parametrize("task", TASKS)
def test_epochs_of_a_person_decide_about_evaluations(task):
    data = TrainData(rows=100_000, tokens=2_000_000, vocab_size=4000, num_labels=2)
    (_, two), (_, four) = (choice(task, data, f"training.epochs={epochs}") for epochs in (2, 4))
    assert 1.9 < four["training.checkpoint_steps"] / two["training.checkpoint_steps"] < 2.1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("limit", ["training.minutes=30", "training.epochs=2"])
def test_steps_that_do_not_count_are_neither_chosen_nor_printed(task, limit):
    data = TrainData(rows=10_000, tokens=200_000, vocab_size=4000, num_labels=2)
    config, values = choice(task, data, limit)
    assert "training.steps" not in values
    assert not re.search(r"(^|, )steps ", describe(values, data))
    assert "training.steps" in choice(task, data)[1]
    # Nor do they decide about others.
    assert choice(task, data, limit, "training.steps=7")[1] == values
    with_settings(config, [f"{name}={value}" for name, value in values.items()])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("tokens", [1000, 200_000, 40_000_000])
def test_a_training_of_minutes_evaluates_by_the_cost_and_ends_with_the_time(task, tokens):
    data = TrainData(rows=tokens // 20, tokens=tokens, vocab_size=4000, num_labels=2)
    values = choice(task, data, "training.minutes=30")[1]
    steps_per_epoch = tokens / values["training.batch_tokens"]
    assert values["training.patience"] == 0
    assert (
        values["training.checkpoint_steps"] == 100 or 0.3 < values["training.checkpoint_steps"] / steps_per_epoch < 0.4
    )
    assert values["training.checkpoint_steps"] >= 100


@pytest.mark.parametrize(("longest", "limit"), [(0, 128), (128, 128), (129, 256), (700, 1024), (5000, 1024)])
def test_no_text_is_cut_up_to_the_longest_limit(longest, limit):
    assert choose_max_length(longest) == limit
    assert SHORTEST_LIMIT <= limit <= LONGEST_LIMIT


@pytest.mark.parametrize(("longest", "allowed", "limit"), [(20, 100, 100), (129, 200, 200), (129, 300, 256)])
def test_a_limit_is_at_most_the_one_allowed(longest, allowed, limit):
    assert choose_max_length(longest, allowed) == limit


@pytest.mark.parametrize("for_labels", [True, False])
def test_a_vocabulary_grows_with_the_text_and_scripts_without_spaces_count(for_labels):
    sizes = [choose_vocab_size({"words": number}, for_labels) for number in (10, 10**4, 10**6, 10**8, 10**10)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2
    one_word = choose_vocab_size({"x" * 5_999_999: 1}, for_labels)
    assert one_word == choose_vocab_size({"xxxxx": 10**6}, for_labels)


@given(data=DATA)
@settings(max_examples=30, deadline=None)
def test_a_pretrained_model_keeps_its_architecture_and_is_trained_gently(data):
    made = [f"model.{setting}" for setting in MINILM]
    (_, usual), (_, values) = (
        choice("classification", dataclasses.replace(data, is_pretrained=is_pretrained), *made)
        for is_pretrained in (False, True)
    )
    assert {name for name in values if name.startswith("model.")} == {"model.ngram_buckets"}
    assert values["model.ngram_buckets"] == 0
    assert values["training.learning_rate"] <= usual["training.learning_rate"] / 5
    assert values["training.steps"] >= 200


@given(data=DATA)
@settings(max_examples=30, deadline=None)
def test_a_pretrained_translator_keeps_its_architecture_and_is_trained_by_adam_at_a_rate_that_falls(data):
    made = [f"model.{setting}" for setting in FIREFOX]
    config, values = choice("translation", dataclasses.replace(data, is_pretrained=True), *made)
    assert not [name for name in values if name.startswith("model.")]
    assert values["training.optimizer"] == "adam"
    assert values["training.learning_rate"] <= 5e-4
    assert values["training.average_decay"] == 0
    assert config.training.schedule == "cosine"
