"""Trainer: the same weights whatever interrupts it, the averaged ones exported, the curves whole, NaN explained."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import sys

import numpy as np
import pytest

from components.artifact import Model, ModelFiles, ModelRun, Tokenizer
from components.component import Context
from components.errors import UserError
from components.tasks import TASKS, TRANSLATION
from components.trainer import Recipe, Trainer
from models.config import DecodingConfig, ModelConfig, TrainingConfig

# Dropout and averages are on, so that all that a checkpoint must hold matters.
TINY = Recipe(
    ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16, dropout=0.3),
    TrainingConfig(
        steps=8, batch_tokens=512, learning_rate=0.01, warmup_steps=2, average_decay=0.25, checkpoint_steps=3
    ),
    DecodingConfig(),
)
# Exporting takes longer than all else here, and the house's own model has been exported.
TASK = "translation that is not exported"

# A process that trains, and is gone after a step.
KILLED = f"""
import dataclasses, json, os, signal, sys
from components import trainer, trainer_callbacks
from components.artifact import Artifact
from components.component import Context
from components.tasks import TASKS, TRANSLATION
from models.config import DecodingConfig, ModelConfig, TrainingConfig

arguments = json.loads(sys.argv[1])
move_bar = trainer_callbacks.ProgressBar.on_train_batch_end

def move_bar_and_die(self, batch, logs=None):
    move_bar(self, batch, logs)
    if int(self.model.optimizer.iterations) == arguments["killed_after"]:
        os.kill(os.getpid(), signal.SIGKILL)

trainer_callbacks.ProgressBar.on_train_batch_end = move_bar_and_die
TASKS[{TASK!r}] = dataclasses.replace(TRANSLATION, export=lambda *_: None)
recipe = arguments["recipe"]
trainer.Trainer.function(
    **{{key: Artifact(**artifact) for key, artifact in arguments["artifacts"].items()}},
    task={TASK!r},
    recipe=trainer.Recipe(
        ModelConfig(**recipe["model"]), TrainingConfig(**recipe["training"]), DecodingConfig(**recipe["decoding"])
    ),
    context=Context(scratch=arguments["scratch"]),
)
"""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training left, and the weights that it had after each step."""

    model: Model
    model_run: ModelRun
    scratch: pathlib.Path
    steps: list[list[np.ndarray]]


@pytest.fixture(scope="module")
def train(house, tmp_path_factory):
    """Returns a function that trains on the house's text."""
    from components import trainer_callbacks

    class Record(trainer_callbacks.ProgressBar):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            steps.append([variable.numpy() for variable in self.model.trainable_variables])

    steps = []

    def train(recipe, scratch=None, **inputs):
        folder = tmp_path_factory.mktemp("trained")
        trained = Trained(Model(f"{folder}/model"), ModelRun(f"{folder}/run"), scratch or folder / "scratch", [])
        for path in (trained.model.uri, trained.model_run.uri, trained.scratch):
            os.makedirs(path, exist_ok=True)
        Trainer.function(
            **{key: house.output("Transform", key) for key in ("transformed_examples", "tokenizer")} | inputs,
            model=trained.model,
            model_run=trained.model_run,
            task=TASK,
            recipe=recipe,
            context=Context(scratch=str(trained.scratch)),
        )
        trained.steps[:] = steps
        steps.clear()
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, TASK, dataclasses.replace(TRANSLATION, export=lambda *_: None))
        patch.setattr(trainer_callbacks, "ProgressBar", Record)
        yield train


@pytest.fixture(scope="module")
def uninterrupted(train):
    """TINY, trained from beginning to end."""
    return train(TINY)


def with_training(**changes):
    return dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **changes))


def reload(model):
    """Makes the model again of what is in Format-Keras, as a person would who wants to go on in Python."""
    from models.transformer import Transformer

    config = json.loads(pathlib.Path(model.path("Format-Keras", "config.json")).read_text())
    assert config.pop("class") == "Transformer"
    network = Transformer.from_config(config)
    network.build()
    network.load_weights(model.path("Format-Keras", "model.weights.h5"))
    return network


def assert_same_weights(one, other):
    names = [variable.path for variable in reload(one).weights]
    for name, *values in zip(names, reload(one).weights, reload(other).weights, strict=True):
        assert values[0].numpy().tobytes() == values[1].numpy().tobytes(), name


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


# Same data, seed and code, same weights.


def test_killed_it_ends_with_the_weights_and_the_curves_of_an_uninterrupted_run(house, train, uninterrupted, tmp_path):
    """`kill -9` after any step; the uninterrupted run is in another process, so also: same seed, same weights."""
    killed_after = random.randint(1, TINY.training.steps)
    inputs = {key: house.output("Transform", key) for key in ("transformed_examples", "tokenizer")}
    artifacts = {key: {"uri": artifact.uri, "properties": artifact.properties} for key, artifact in inputs.items()}
    for key in ("model", "model_run", "scratch"):
        (tmp_path / key).mkdir()
    arguments = {
        "artifacts": {**artifacts, **{key: {"uri": str(tmp_path / key)} for key in ("model", "model_run")}},
        "scratch": str(tmp_path / "scratch"),
        "recipe": dataclasses.asdict(TINY),
        "killed_after": killed_after,
    }
    killed = house.execute([sys.executable, "-c", KILLED, json.dumps(arguments)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    trained = train(TINY, tmp_path / "scratch")
    every = TINY.training.checkpoint_steps
    assert len(trained.steps) == TINY.training.steps - killed_after // every * every, "it goes on from its checkpoint"
    assert_same_weights(trained.model, uninterrupted.model)
    assert curves(trained.model_run) == curves(uninterrupted.model_run), f"killed after step {killed_after}"


def test_killed_with_all_done_and_nothing_published_it_need_not_train_again(train, uninterrupted):
    trained = train(TINY, uninterrupted.scratch)
    assert not trained.steps
    assert_same_weights(trained.model, uninterrupted.model)
    assert curves(trained.model_run) == curves(uninterrupted.model_run)


def test_a_checkpoint_holds_every_variable_that_training_changes(uninterrupted):
    import tensorflow as tf

    steps = TINY.training.steps
    variables = tf.train.list_variables(str(uninterrupted.scratch / "checkpoints" / f"ckpt-{steps}"))
    sizes = [np.prod(shape, dtype=int) for name, shape in variables if name.startswith("state/")]
    # Of each weight itself, Adam's two moments and the average; the step; and a random state of two numbers for each
    # dropout: one after each of the two embeddings, two in the encoder's layer, three in the decoder's.
    assert sum(sizes) == 4 * uninterrupted.model.properties["num_parameters"] + 1 + 2 * 7


# What is exported.


def test_the_average_of_the_weights_is_exported(uninterrupted):
    decay, average = TINY.training.average_decay, uninterrupted.steps[0]
    for step in uninterrupted.steps[1:]:
        average = [decay * old + (1 - decay) * new for old, new in zip(average, step, strict=True)]
    for expected, variable in zip(average, reload(uninterrupted.model).trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6, err_msg=variable.path)


def test_the_model_has_its_layout(house):
    model = house.output("Trainer", "model")
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/tf_serving_warmup_requests"):
        assert os.path.isfile(model.path("Format-Serving", name)), name
    network = reload(model)
    assert network.config.d_model == 32
    assert model.properties["steps"] == 120
    assert model.properties["num_parameters"] == network.count_params()
    assert 0 < model.properties["eval_loss"] < 3
    assert 0.5 < model.properties["eval_accuracy"] < 1


def test_what_is_served_is_what_one_can_go_on_from(house):
    import tensorflow as tf

    from models.export_translation import TranslationServer
    from models.runtime import SavedModelRuntime
    from models.tokenizer import load_tokenizer

    model, texts = house.output("Trainer", "model"), ["Turn on the light in the hall.", "Open", ""]
    tokenizer = load_tokenizer(house.output("Transform", "tokenizer").uri)
    again = TranslationServer(reload(model), tokenizer, DecodingConfig(beam_size=2))
    expected = again.serving_default(tf.constant(texts))
    with SavedModelRuntime(model.path("Format-Serving")) as served:
        answers = served.run("serving_default", {"text": texts})
    assert answers["translation"].tolist() == expected["translation"].numpy().tolist()
    np.testing.assert_allclose(answers["score"], expected["score"].numpy(), rtol=1e-4, atol=1e-5)


def test_what_was_trained_in_half_precision_is_exported_in_single(train, monkeypatch):
    exported = []
    export = lambda network, *_: exported.append(network)  # noqa: E731
    monkeypatch.setitem(TASKS, TASK, dataclasses.replace(TRANSLATION, export=export))
    trained = train(with_training(precision="bfloat16", steps=3))
    (served,) = exported
    assert {layer.compute_dtype for layer in served._flatten_layers()} == {"float32"}
    weights = {variable.path: variable.numpy() for variable in served.trainable_variables}
    assert all(np.isfinite(weight).all() for weight in weights.values())
    for weight, kept in zip(weights.values(), reload(trained.model).trainable_variables, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_a_precision_that_the_machine_lacks_is_refused(train):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"precision=float16 needs a GPU"):
        train(with_training(precision="float16"))


# What it starts from.


def as_files(model):
    """Returns what --warm-start makes of a Model's folder."""
    paths = sorted(pathlib.Path(model.path("Format-Keras")).rglob("*.*"))
    return ModelFiles(model.path("Format-Keras"), {"files": [{"path": str(path)} for path in paths]})


def test_it_starts_from_the_weights_of_an_earlier_model_and_says_what_it_took(train, uninterrupted, capfd):
    """A step of next to nothing leaves them as they are; a checkpoint goes before them."""
    recipe = with_training(steps=1, learning_rate=1e-9)
    trained = train(recipe, base_model=as_files(uninterrupted.model))
    for old, new in zip(reload(uninterrupted.model).weights, reload(trained.model).weights, strict=True):
        np.testing.assert_allclose(old, new, atol=1e-6)
    started = trained.model.properties["warm_start"]
    assert started["taken"] == ["target_embedding", "encoder", "decoder"]
    assert started["fresh"] == started["unused"] == []
    told = f"Trainer starts from {uninterrupted.model.path('Format-Keras')}: taken target_embedding, encoder, decoder; "
    assert told in capfd.readouterr().err

    trained = train(TINY, uninterrupted.scratch, base_model=as_files(trained.model))
    assert not trained.steps
    assert_same_weights(trained.model, uninterrupted.model)


def test_another_vocabulary_is_refused_and_the_remedy_named(train, uninterrupted, tmp_path):
    from models.config import TokenizerConfig
    from models.tokenizer import learn_tokenizer

    learn_tokenizer([("Licht", 5), ("Lampe", 3)], TokenizerConfig(vocab_size=280), str(tmp_path))
    theirs = uninterrupted.model.path("Format-Keras", "tokenizer")
    with pytest.raises(UserError, match=f"its vocabulary is not this run's.* --tokenizer {theirs}$"):
        train(TINY, tokenizer=Tokenizer(str(tmp_path)), base_model=as_files(uninterrupted.model))


def test_another_width_is_refused_and_the_setting_named(train, house):
    with pytest.raises(UserError, match=r"cannot start from .*Format-Keras: it has model\.d_model=32.*; set model\."):
        train(TINY, base_model=as_files(house.output("Trainer", "model")))


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
    rates = [value for _, value in found["train", "learning_rate"]]
    assert max(rates) <= 0.01
    assert rates[-1] < 0.01 / 2


# What goes wrong.


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(train):
    with pytest.raises(UserError, match=r"The loss is nan at step 2, .*training\.learning_rate"):
        train(with_training(steps=3, learning_rate=1e38, warmup_steps=0))


def test_weights_broken_by_the_last_step_are_never_exported(train, tmp_path):
    """No later step's loss tells of it; and run again, training goes on from a checkpoint at which all is done."""
    recipe = with_training(steps=1, learning_rate=1e38, warmup_steps=0, checkpoint_steps=1)
    for _ in range(2):
        with pytest.raises(UserError, match="The loss is nan at step 1"):
            train(recipe, tmp_path)
    assert (tmp_path / "checkpoints" / "ckpt-1.index").is_file()
