"""Trainer: the same weights whatever interrupts it, the averaged ones exported, the curves whole, NaN explained."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import signal
import sys

import numpy as np
import pytest

from components.artifact import Model, ModelRun
from components.component import Context
from components.errors import UserError
from components.trainer import Recipe, Trainer
from models.config import DecodingConfig, ModelConfig, TrainingConfig
from pipeline.config import preset, with_settings

# Small enough that making its graph takes longest; dropout is on, so that the random states matter.
TINY = Recipe(
    ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16, dropout=0.3),
    TrainingConfig(steps=3, batch_tokens=512, learning_rate=0.01, warmup_steps=2, average_decay=0.0),
    DecodingConfig(beam_size=1),
)

# A process that trains and is gone after a number of steps.
KILLED = """
import json, os, signal, sys
from components import trainer_callbacks
from components.artifact import Artifact
from components.component import Context
from components.trainer import Recipe, Trainer
from pipeline.config import preset, with_settings

arguments = json.loads(sys.argv[1])
move_bar = trainer_callbacks.ProgressBar.on_train_batch_end

def move_bar_and_die(self, batch, logs=None):
    move_bar(self, batch, logs)
    if int(self.model.optimizer.iterations) == arguments["steps"]:
        os.kill(os.getpid(), signal.SIGKILL)

trainer_callbacks.ProgressBar.on_train_batch_end = move_bar_and_die
config = with_settings(preset("demo", "translation"), arguments["settings"])
Trainer.function(
    **{key: Artifact(**artifact) for key, artifact in arguments["artifacts"].items()},
    task="translation",
    recipe=Recipe(config.model, config.training, config.decoding),
    context=Context(scratch=arguments["scratch"]),
)
"""


@pytest.fixture(scope="module")
def train(house, tmp_path_factory):
    """Returns a function that trains on the house's text; what it did it does not do again."""

    @functools.cache
    def train(recipe, scratch=None, name=None):
        folder = tmp_path_factory.mktemp("trained")
        model, model_run = Model(str(folder / "model")), ModelRun(str(folder / "run"))
        scratch = scratch or folder / "scratch"
        for path in (model.uri, model_run.uri, scratch):
            os.makedirs(path, exist_ok=True)
        Trainer.function(
            transformed_examples=house.output("Transform", "transformed_examples"),
            tokenizer=house.output("Transform", "tokenizer"),
            model=model,
            model_run=model_run,
            task="translation",
            recipe=recipe,
            context=Context(scratch=str(scratch)),
        )
        return Trained(model, model_run, pathlib.Path(scratch))

    return train


@dataclasses.dataclass(frozen=True)
class Trained:
    model: Model
    model_run: ModelRun
    scratch: pathlib.Path


def with_training(**changes):
    return dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **changes))


def weights(model):
    """Returns the names and values of the exported Keras weights."""
    import h5py

    found = {}
    with h5py.File(model.path("Format-Keras", "model.weights.h5")) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return {name: value for name, value in found.items() if not re.search("optimizer|seed_generator", name)}


def curves(model_run):
    """Returns {(run, tag): [(step, value)]} as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = {}
    for name in ("train", "validation"):
        events = EventAccumulator(model_run.path("logs", name)).Reload()
        for tag in events.Tags()["tensors"]:
            found[name, tag] = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
    return found


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


# Same data, seed and code, same weights.


def test_killed_it_ends_with_the_weights_and_the_curves_of_an_uninterrupted_run(house, train, tmp_path):
    """The uninterrupted run is the house's own, in another process, so this is also: same seed, same weights."""
    settings = [argument.removeprefix("--set=") for argument in house.command() if argument.startswith("--set=")]
    config = with_settings(preset("demo", "translation"), settings)
    every = config.training.checkpoint_steps
    steps = int(np.random.default_rng().integers(every + 1, 2 * every))
    arguments = json.dumps({**_arguments(house, tmp_path), "steps": steps, "settings": settings})
    run = house.execute([sys.executable, "-c", KILLED, arguments])
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert f"ckpt-{every}.index" in os.listdir(tmp_path / "scratch" / "checkpoints")

    recipe = Recipe(config.model, config.training, config.decoding)
    # The second time everything is done and in the scratch folder, as for one killed before its outputs were published.
    for name in ("killed while training", "killed while publishing"):
        trained = train(recipe, scratch=tmp_path / "scratch", name=name)
        assert_same_weights(weights(trained.model), weights(house.output("Trainer", "model")))
        assert curves(trained.model_run) == curves(house.output("Trainer", "model_run")), f"{name}, step {steps}"


def _arguments(house, folder):
    inputs = {key: house.output("Transform", key) for key in ("transformed_examples", "tokenizer")}
    artifacts = {key: {"uri": artifact.uri, "properties": artifact.properties} for key, artifact in inputs.items()}
    for key in ("model", "model_run", "scratch"):
        (folder / key).mkdir()
    artifacts |= {key: {"uri": str(folder / key)} for key in ("model", "model_run")}
    return {"artifacts": artifacts, "scratch": str(folder / "scratch")}


def test_another_seed_gives_other_weights(train):
    one, other = (weights(train(with_training(seed=seed, steps=1)).model) for seed in (1, 2))
    assert any((one[name] != other[name]).any() for name in one)


def test_a_checkpoint_holds_every_variable_that_training_changes(train):
    import tensorflow as tf

    trained = train(with_training(steps=2, average_decay=0.25))
    variables = tf.train.list_variables(str(trained.scratch / "checkpoints" / "ckpt-2"))
    sizes = [np.prod(shape, dtype=int) for name, shape in variables if name.startswith("state/")]
    # Of each weight itself, Adam's two moments and the average; the step; and a random state of two numbers for each
    # dropout: one after each of the two embeddings, two in the encoder's layer, three in the decoder's.
    assert sum(sizes) == 4 * trained.model.properties["num_parameters"] + 1 + 2 * 7


# What is exported.


def test_the_model_has_its_layout(house):
    model = house.output("Trainer", "model")
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/tf_serving_warmup_requests"):
        assert os.path.isfile(model.path("Format-Serving", name)), name
    config = json.loads(pathlib.Path(model.path("Format-Keras", "config.json")).read_text())
    assert config["class"] == "Transformer"
    assert config["config"]["d_model"] == 32
    assert model.properties["steps"] == 120
    assert model.properties["num_parameters"] == sum(value.size for value in weights(model).values())
    assert 0 < model.properties["eval_loss"] < 3
    assert 0.5 < model.properties["eval_accuracy"] < 1


def test_going_on_in_python_from_what_is_exported(house):
    """Format-Keras makes the same model again, and Format-Serving serves the same weights."""
    import tensorflow as tf

    from models.config import ModelConfig
    from models.transformer import Transformer

    model = house.output("Trainer", "model")
    config = json.loads(pathlib.Path(model.path("Format-Keras", "config.json")).read_text())
    assert ModelConfig(**config["config"])
    del config["class"]
    network = Transformer.from_config(config)
    network.build()
    network.load_weights(model.path("Format-Keras", "model.weights.h5"))
    served = tf.train.load_checkpoint(model.path("Format-Serving", "variables", "variables"))
    for index, variable in enumerate(network.weights):
        value = served.get_tensor(f"weights/{index}/.ATTRIBUTES/VARIABLE_VALUE")
        assert value.tobytes() == variable.numpy().tobytes(), variable.path


def test_the_average_of_the_weights_is_exported(train):
    after_one, after_two, averaged = (
        weights(train(with_training(steps=steps, average_decay=decay)).model)
        for steps, decay in ((1, 0.0), (2, 0.0), (2, 0.25))
    )
    for name, value in averaged.items():
        np.testing.assert_allclose(value, 0.25 * after_one[name] + 0.75 * after_two[name], rtol=1e-6, atol=1e-7)
    assert any((averaged[name] != after_two[name]).any() for name in averaged)


# What is shown.


def test_the_curves_are_what_tensorboard_needs(house):
    found = curves(house.output("Trainer", "model_run"))
    steps = [20, 40, 50, 60, 80, 100, 120]  # every 20, and at the checkpoints
    assert {key: [step for step, _ in points] for key, points in found.items()} == {
        **{("train", tag): steps for tag in ("loss", "accuracy", "learning_rate")},
        **{("validation", tag): [50, 100] for tag in ("loss", "accuracy")},
    }
    losses = [value for _, value in found["train", "loss"]]
    assert losses[-1] < losses[0] / 2
    assert max(value for _, value in found["train", "learning_rate"]) <= 0.01
    assert found["train", "learning_rate"][-1][1] < 0.01 / 2


# What goes wrong.


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(train):
    with pytest.raises(UserError, match=r"The loss is nan at step 2, .*training\.learning_rate"):
        train(with_training(steps=3, learning_rate=1e38, warmup_steps=0))


def test_weights_broken_by_the_last_step_are_never_exported(train, tmp_path):
    """No later step's loss tells of it; and run again, training goes on from a checkpoint at which all is done."""
    recipe = with_training(steps=1, learning_rate=1e38, warmup_steps=0, checkpoint_steps=1)
    for name in ("first", "again"):
        with pytest.raises(UserError, match="The loss is nan at step 1"):
            train(recipe, scratch=tmp_path, name=name)
    assert (tmp_path / "checkpoints" / "ckpt-1.index").is_file()
