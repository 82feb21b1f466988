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

from components.artifact import ModelFiles, ModelRun, Tokenizer
from components.errors import UserError
from components.tasks import TASKS, TRANSLATION
from components.trainer import Recipe
from models.config import DecodingConfig, ModelConfig, TrainingConfig

# Dropout and averages are on, so that all that a checkpoint must hold matters.
TINY = Recipe(
    ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16, dropout=0.3),
    TrainingConfig(
        steps=8,
        batch_tokens=512,
        learning_rate=0.01,
        warmup_steps=2,
        average_decay=0.25,
        checkpoint_steps=3,
        eval_examples=0,
        export="best",
        export_checkpoints=2,
    ),
    DecodingConfig(),
)
# What does not hang on chance, to be compared to the last digits but a few.
STEADY = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, dropout=0.0),
    training=dataclasses.replace(TINY.training, clip_norm=0.5),
)
TRAININGS = str(pathlib.Path(__file__).with_name("trainings.py"))


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


# Same data, seed and code, same weights.


@pytest.fixture(scope="module")
def elsewhere(house, not_exported, tmp_path_factory):
    """Returns a function that makes (recipe, scratch, what happens) a training for trainings.py."""
    inputs = {key: house.output("Transform", key) for key in ("transformed_examples", "tokenizer")}
    artifacts = {key: {"uri": artifact.uri, "properties": artifact.properties} for key, artifact in inputs.items()}

    def training(recipe, scratch, **happens):
        folder = tmp_path_factory.mktemp("elsewhere")
        made = {key: {"uri": str(folder / key)} for key in ("model", "model_run")}
        for path in (folder / "model", folder / "model_run", scratch):
            path.mkdir(exist_ok=True)
        given = {"task": not_exported, "recipe": dataclasses.asdict(recipe), "scratch": str(scratch)}
        return {"artifacts": {**artifacts, **made}, **given, **happens}

    return training


@pytest.fixture(scope="module")
def trained_elsewhere(house, elsewhere, tmp_path_factory):
    """What became of trainings in other processes: five killed and one interrupted in turn, and one of two devices."""
    scratch = tmp_path_factory.mktemp("killed") / r"my [old] \one"  # TensorFlow takes either sign for a pattern's
    start, every, trainings = 0, TINY.training.checkpoint_steps, []
    for _ in range(5):
        after = random.randint(start + 1, TINY.training.steps - 1)
        trainings.append(elsewhere(TINY, scratch, killed_after=after))
        start = after // every * every
    after = random.randint(start + 1, TINY.training.steps - 1)
    trainings.append(elsewhere(TINY, scratch, interrupted_after=after))
    steady = elsewhere(STEADY, tmp_path_factory.mktemp("steady"), devices=2)
    done = house.execute([sys.executable, TRAININGS, json.dumps([*trainings, steady])])
    assert done.returncode == 0, done.stderr
    return trainings, [json.loads(line) for line in done.stdout.splitlines()], steady


def test_killed_five_times_and_interrupted_it_ends_with_the_weights_and_the_curves_of_an_uninterrupted_run(
    train, uninterrupted, trained_elsewhere, curves
):
    """`kill -9` after any step, and Ctrl-C; the uninterrupted run is in another process, so also: same seed, same
    weights.
    """
    trainings, ended, _ = trained_elsewhere
    killed_after = [training["killed_after"] for training in trainings[:5]]
    assert [code for code, _ in ended[:5]] == [-signal.SIGKILL] * 5, ended
    interrupted_after, (code, said) = trainings[5]["interrupted_after"], ended[5]
    assert code == 130, said
    assert f"Trainer stops at step {interrupted_after}, which is saved\n" in said
    every = TINY.training.checkpoint_steps
    starts = [0, *(after // every * every for after in killed_after)]
    for start, (_, told) in zip(starts, ended[:6], strict=True):
        assert (f"Trainer goes on from step {start}\n" in told) == (start > 0)

    trained = train(TINY, pathlib.Path(trainings[0]["scratch"]))
    assert len(trained.steps) == TINY.training.steps - interrupted_after, "it goes on from the step that was saved"
    assert_same_weights(trained.model, uninterrupted.model)
    assert len(list((trained.scratch / "checkpoints").glob("*.index"))) == 2, "those before are removed"
    assert len(list((trained.scratch / "kept").glob("*.index"))) == TINY.training.export_checkpoints
    assert trained.model.properties == uninterrupted.model.properties
    assert curves(trained.model_run) == curves(uninterrupted.model_run), f"{killed_after}, {interrupted_after}"


def test_two_devices_learn_as_one_does_from_the_same_batches(train, trained_elsewhere, curves):
    _, ended, steady = trained_elsewhere
    assert ended[-1][0] == 0, ended[-1][1]
    alone, shared = curves(train(STEADY).model_run), curves(ModelRun(steady["artifacts"]["model_run"]["uri"]))
    assert alone.keys() == shared.keys()
    for key, points in alone.items():
        assert [step for step, _ in shared[key]] == [step for step, _ in points]
        np.testing.assert_allclose(*([value for _, value in one] for one in (points, shared[key])), rtol=1e-4)


def test_killed_with_all_done_and_nothing_published_it_need_not_train_again(train, uninterrupted, curves):
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


def test_the_mean_of_the_best_checkpoints_is_exported_each_of_them_a_moving_average(uninterrupted, curves):
    decay, averages = TINY.training.average_decay, uninterrupted.steps[:1]
    for step in uninterrupted.steps[1:]:
        averages.append([decay * old + (1 - decay) * new for old, new in zip(averages[-1], step, strict=True)])
    exported = uninterrupted.model.properties["exported_steps"]
    losses = dict(curves(uninterrupted.model_run)["validation", "loss"])
    assert exported == sorted(losses, key=losses.get)[:2]
    assert len(losses) == 3
    expected = [np.mean(weights, axis=0) for weights in zip(*(averages[step - 1] for step in exported), strict=True)]
    for mean, variable in zip(expected, reload(uninterrupted.model).trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-5, atol=1e-6, err_msg=variable.path)


def test_the_best_by_the_tasks_metric_is_kept_and_patience_ends_training(train, not_exported, monkeypatch, capfd):
    """Of a metric that is told beforehand; killed with all done, it is remembered."""
    from models.evaluation import Evaluation, Findings

    class Told(Evaluation):
        metric, higher_is_better = "told", True

        def run(self):
            return Findings({**super().run().metrics, "told": next(values)}, [], [])

    def make_evaluation(model, tokenizer, features, recipe, batches, rows):
        return Told(model, batches)

    told = dataclasses.replace(TASKS[not_exported], make_evaluation=make_evaluation)
    monkeypatch.setitem(TASKS, not_exported, told)
    recipe = with_training(checkpoint_steps=1, patience=2, average_decay=0.0, export_checkpoints=1)
    values = iter([1.0, 5.0, 3.0, 4.0])
    trained = train(recipe)
    assert {key: trained.model.properties[key] for key in ("steps", "exported_steps", "eval_told")} == {
        "steps": 4,
        "exported_steps": [2],
        "eval_told": 5.0,
    }
    for expected, variable in zip(trained.steps[1], reload(trained.model).trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, expected)
    stopped = "Trainer stops at step 4: the told of step 2 has not been passed in 2 evaluations (training.patience)"
    assert stopped in capfd.readouterr().err
    again = train(recipe, trained.scratch)
    assert not again.steps
    assert again.model.properties == trained.model.properties
    assert_same_weights(again.model, trained.model)


# When it ends.


def test_an_epoch_is_as_many_steps_as_the_train_split_has_batches(train, house):
    from components.trainer import _files

    files = _files(house.output("Transform", "transformed_examples"), "train")
    recipe = with_training(epochs=0.125, batch_parts=2)
    batches = sum(1 for _ in TRANSLATION.make_batches(files, recipe, 0, 1))
    assert train(recipe).model.properties["steps"] == round(batches / 8) not in (0, TINY.training.steps)


def test_minutes_end_it_and_the_schedule_with_it(train, curves):
    trained = train(with_training(minutes=0.001, schedule="cosine", checkpoint_steps=1))
    assert trained.model.properties["steps"] == 1  # which takes longer
    assert curves(trained.model_run)["train", "learning_rate"][-1][1] == 0


# What is made.


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


def test_what_was_trained_in_half_precision_is_exported_in_single(train, not_exported, monkeypatch):
    exported = []
    export = lambda network, *_: exported.append(network)  # noqa: E731
    monkeypatch.setitem(TASKS, not_exported, dataclasses.replace(TRANSLATION, export=export))
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
