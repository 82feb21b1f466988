"""Trainer: interrupted training ends with the same weights and curves, averages are exported, NaN is an error."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.components.base.artifact import ModelFiles, ModelRun, Tokenizer
from seq2serve.components.base.component import EarlierExecution
from seq2serve.components.base.errors import UserError
from seq2serve.components.storage.data_records import read_record
from seq2serve.components.storage.files import list_files
from seq2serve.components.tasks.evaluation import Evaluation, Findings
from seq2serve.components.tasks.metric import Metric
from seq2serve.components.tasks.translation.implementation import TranslationImplementation
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.components.trainer import executor
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TokenizerConfig, TrainingConfig
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer, load_tokenizer
from seq2serve.models.transformer.models import Transformer

# Dropout and averaging are on, so that the result depends on every part of a checkpoint.
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
# Without dropout, to compare curves within a tolerance.
DETERMINISTIC = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, dropout=0.0),
    training=dataclasses.replace(TINY.training, clip_norm=0.5),
)
KILLS = 3
TRAININGS = str(pathlib.Path(__file__).with_name("trainings.py"))


@pytest.fixture(scope="module")
def uninterrupted(train):
    """TINY, trained without interruption."""
    return train(TINY)


def with_training(**changes):
    return dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **changes))


def reload(model):
    """Rebuilds the model from Format-Keras, as a user would do in Python."""
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


# The same data, seed and code result in the same weights.


@pytest.fixture(scope="module")
def training_arguments(finished_run, tmp_path_factory):
    """Returns a function that makes the JSON of a training for trainings.py, which may have events."""
    inputs = {key: finished_run.output("Transform", key) for key in ("transformed_examples", "tokenizer")}
    artifacts = {key: {"uri": artifact.uri, "properties": artifact.properties} for key, artifact in inputs.items()}

    def training(recipe, scratch, **events):
        folder = tmp_path_factory.mktemp("training")
        outputs = {key: {"uri": str(folder / key)} for key in ("model", "model_run")}
        for path in (folder / "model", folder / "model_run", scratch):
            path.mkdir(exist_ok=True)
        arguments = {"recipe": dataclasses.asdict(recipe), "scratch": str(scratch)}
        return {"artifacts": {**artifacts, **outputs}, **arguments, **events}

    return training


# With this seed: killed before the first checkpoint, after it, and after resuming from it.
@pytest.fixture(scope="module", params=[21], ids="seed-{}".format)
def other_processes(request, finished_run, training_arguments, tmp_path_factory):
    """Trainings in other processes: one that is killed KILLS times and then interrupted, and one on two devices.

    Returns the arguments and results (exit code, stderr) of all trainings; the last is the one on two devices. The
    parameter is the seed of the steps after which the processes are killed.
    """
    rng = random.Random(request.param)
    scratch = tmp_path_factory.mktemp("killed") / r"my [old] \one"  # brackets and backslash are patterns to TensorFlow
    start, every, trainings = 0, TINY.training.checkpoint_steps, []
    for _ in range(KILLS):
        after = rng.randint(start + 1, TINY.training.steps - 1)
        trainings.append(training_arguments(TINY, scratch, killed_after=after))
        start = after // every * every
    after = rng.randint(start + 1, TINY.training.steps - 1)
    trainings.append(training_arguments(TINY, scratch, interrupted_after=after))
    trainings.append(training_arguments(DETERMINISTIC, tmp_path_factory.mktemp("two-devices"), devices=2))
    process = finished_run.execute([sys.executable, TRAININGS, json.dumps(trainings)])
    assert process.returncode == 0, process.stderr
    return trainings, [json.loads(line) for line in process.stdout.splitlines()]


def test_a_killed_and_interrupted_training_has_the_weights_and_curves_of_an_uninterrupted_one(
    train, uninterrupted, other_processes, curves
):
    """KILLS times `kill -9`, then Ctrl-C. The uninterrupted training is in another process, with the same seed."""
    trainings, results = other_processes
    killed_after = [training["killed_after"] for training in trainings[:KILLS]]
    assert [code for code, _ in results[:KILLS]] == [-signal.SIGKILL] * KILLS, results
    interrupted_after, (code, stderr) = trainings[KILLS]["interrupted_after"], results[KILLS]
    assert code == 130, stderr
    assert f"Trainer saves step {interrupted_after} and stops\n" in stderr
    every = TINY.training.checkpoint_steps
    starts = [0, *(after // every * every for after in killed_after)]
    for start, (_, stderr) in zip(starts, results[: KILLS + 1], strict=True):
        assert (f"Trainer resumes from step {start}\n" in stderr) == (start > 0)

    trained = train(TINY, pathlib.Path(trainings[0]["scratch"]))
    assert len(trained.steps) == TINY.training.steps - interrupted_after, "does not resume from the saved step"
    assert_same_weights(trained.model, uninterrupted.model)
    assert len(list((trained.scratch / "checkpoints").glob("*.index"))) == 2, "earlier checkpoints are not removed"
    kept = sorted(path.stem for path in (trained.scratch / "kept").glob("*.index"))
    assert kept == ["weights-3", "weights-6", "weights-8"], "a longer training would export 3 or 6, but not 8"
    assert trained.model.properties == uninterrupted.model.properties
    assert curves(trained.model_run) == curves(uninterrupted.model_run), f"{killed_after}, {interrupted_after}"


def test_training_on_two_devices_has_the_curves_of_training_on_one(train, other_processes, curves):
    trainings, results = other_processes
    exit_code, stderr = results[-1]
    assert exit_code == 0, stderr
    one_device = curves(train(DETERMINISTIC).model_run)
    two_devices = curves(ModelRun(trainings[-1]["artifacts"]["model_run"]["uri"]))
    assert one_device.keys() == two_devices.keys()
    for key, points in one_device.items():
        steps, values = zip(*points, strict=True)
        other_steps, other_values = zip(*two_devices[key], strict=True)
        assert other_steps == steps
        np.testing.assert_allclose(values, other_values, rtol=1e-4)


def test_a_run_killed_after_the_last_step_does_not_train_again(train, uninterrupted, curves):
    trained = train(TINY, uninterrupted.scratch)
    assert not trained.steps
    assert_same_weights(trained.model, uninterrupted.model)
    assert curves(trained.model_run) == curves(uninterrupted.model_run)


def test_a_checkpoint_contains_every_variable_that_training_changes(uninterrupted):
    steps = TINY.training.steps
    variables = tf.train.list_variables(str(uninterrupted.scratch / "checkpoints" / f"ckpt-{steps}"))
    kinds = ("state/", "moments/", "iterations/")
    sizes = [np.prod(shape, dtype=int) for name, shape in variables if name.startswith(kinds)]
    # For each weight: its value, Adam's two moments and the average. The step. Two numbers of random state for each of
    # seven dropouts: one after each of the two embeddings, two in the encoder layer, three in the decoder layer.
    assert sum(sizes) == 4 * uninterrupted.model.properties["num_parameters"] + 1 + 2 * 7


def test_a_weighted_corpus_without_rows_is_an_error(train):
    with pytest.raises(UserError, match=r"the corpus own has a weight and no rows in train: ") as error:
        train(TINY, corpus_weights={"own": 2.0, "web": 1.0})
    assert (error.value.code, error.value.fields) == ("corpus-empty", {"corpus": "own"})


# A longer training continues an earlier one.


def as_earlier(trained, recipe):
    """Returns a training as the runner passes it to a later one."""
    parameters = {"task": "translation without export", "recipe": dataclasses.asdict(recipe)}
    outputs = {"model": trained.model, "model_run": trained.model_run}
    return EarlierExecution(parameters, outputs, lambda artifact: artifact if os.path.isdir(artifact.uri) else None)


@pytest.fixture(scope="module")
def shorter(train):
    """TINY with five steps, the last between two checkpoints."""
    recipe = with_training(steps=5)
    return as_earlier(train(recipe), recipe)


def test_a_longer_training_continues_the_longest_earlier_one_and_has_the_weights_of_an_uninterrupted_one(
    train, uninterrupted, shorter, curves, events, capfd
):
    recipe = with_training(steps=2)
    shortest = as_earlier(train(recipe), recipe)
    capfd.readouterr()
    trained = train(TINY, earlier=(shortest, shorter))
    assert f"Trainer continues from step 5 of {shorter.outputs['model_run'].uri}\n" in capfd.readouterr().err
    assert len(trained.steps) == 3
    assert_same_weights(trained.model, uninterrupted.model)
    assert trained.model.properties == uninterrupted.model.properties
    points, expected = curves(trained.model_run), curves(uninterrupted.model_run)
    assert dict(points["validation", "loss"]).items() >= dict(expected["validation", "loss"]).items()
    settings = [path.name for path in pathlib.Path(trained.model_run.path("logs", "validation")).glob("*.settings")]
    assert len(settings) == 1, "TensorBoard would show the settings of the earlier training"


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        ({"schedule": "cosine"}, {"schedule": "cosine", "steps": 6}, "train with training.schedule=inverse_sqrt"),
        ({}, {"steps": 3}, "it has more than the 3 steps of this training"),
        ({}, {"patience": 2}, "with training.patience=2 it might have stopped earlier"),
        ({}, {"minutes": 0.001}, "its length was not set in minutes"),
    ],
    ids=["cosine", "shorter", "patience", "minutes"],
)
def test_a_training_that_cannot_continue_starts_again_and_says_why(train, shorter, capfd, before, now, reason):
    recipe = with_training(steps=5, **before)
    model = dataclasses.replace(shorter.outputs["model"])
    model.properties = {**model.properties, "recipe": dataclasses.asdict(recipe)}
    earlier = dataclasses.replace(shorter, outputs={**shorter.outputs, "model": model})
    trained = train(with_training(**{"steps": 8, **now}), earlier=(earlier,))
    assert len(trained.steps) == trained.model.properties["steps"]
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Trainer starts at step 0")]
    assert f"does not continue the 5 steps of {earlier.outputs['model_run'].uri}: " in line
    assert reason in line


def test_a_training_with_another_setting_or_a_deleted_state_does_not_continue(train, shorter, capfd):
    trained = train(with_training(steps=6, learning_rate=0.02), earlier=(shorter,))
    assert len(trained.steps) == 6
    weighted = dataclasses.replace(shorter, parameters={**shorter.parameters, "corpus_weights": {"own": 2.0}})
    assert len(train(with_training(steps=6), earlier=(weighted,)).steps) == 6
    deleted = dataclasses.replace(shorter, outputs={**shorter.outputs, "model_run": ModelRun("/nowhere")})
    assert len(train(with_training(steps=6), earlier=(deleted,)).steps) == 6
    assert "the 5 steps of /nowhere: the folder was deleted" in capfd.readouterr().err


def test_a_killed_continuation_resumes(train, uninterrupted, shorter, tmp_path, monkeypatch):
    """It is killed while it copies the state, and after that."""
    update = tf.compat.v1.train.update_checkpoint_state
    monkeypatch.setattr(tf.compat.v1.train, "update_checkpoint_state", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(TINY, tmp_path, earlier=(shorter,))
    monkeypatch.setattr(tf.compat.v1.train, "update_checkpoint_state", update)
    monkeypatch.setattr(executor, "fit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(TINY, tmp_path, earlier=(shorter,))
    monkeypatch.undo()
    trained = train(TINY, tmp_path)
    assert len(trained.steps) == 3
    assert_same_weights(trained.model, uninterrupted.model)


# Export of the averaged or best weights.


def test_the_exported_weights_are_the_mean_of_the_moving_averages_at_the_best_checkpoints(uninterrupted, curves):
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


def test_the_checkpoint_with_the_best_metric_is_exported_and_patience_stops_training(train, capfd):
    """The metric has a fixed sequence of values. Run again after the last step, Trainer does not evaluate again."""

    class FixedEvaluation(Evaluation):
        metric = Metric("quality", "%")

        def run(self):
            return Findings({**super().run().metrics, "quality": next(values)}, [], [])

    class Implementation(TranslationImplementation):
        def make_evaluation(self, model, tokenizers, data, recipe, batches, rows):
            return FixedEvaluation(model, batches)

        def export(self, *_):
            pass

    class Task(Translation):
        def implementation(self):
            return Implementation(self)

    recipe = with_training(checkpoint_steps=1, patience=2, average_decay=0.0, export_checkpoints=1)
    values = iter([1.0, 5.0, 3.0, 4.0])
    trained = train(recipe, task=Task())
    assert {key: trained.model.properties[key] for key in ("steps", "exported_steps", "eval_quality")} == {
        "steps": 4,
        "exported_steps": [2],
        "eval_quality": 5.0,
    }
    for expected, variable in zip(trained.steps[1], reload(trained.model).trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, expected)
    message = "Trainer stops early at step 4: quality has not improved for 2 evaluations, since step 2"
    assert message in capfd.readouterr().err
    again = train(recipe, trained.scratch, Task())
    assert not again.steps
    assert again.model.properties == trained.model.properties
    assert_same_weights(again.model, trained.model)


# The end of training.


def test_an_epoch_has_one_step_per_batch_of_the_train_split(train, finished_run):
    shards = list_files(finished_run.output("Transform", "transformed_examples").path("Split-train"))
    recipe = with_training(epochs=0.125, batch_parts=2)
    batches = sum(1 for _ in Translation().implementation().make_batches(shards, recipe, 0, 1))
    assert train(recipe).model.properties["steps"] == round(batches / 8) not in (0, TINY.training.steps)


def test_a_time_limit_ends_training_and_the_learning_rate_schedule(train, curves):
    trained = train(with_training(minutes=0.001, schedule="cosine", checkpoint_steps=1))
    assert trained.model.properties["steps"] == 1  # a step takes longer than the limit
    assert curves(trained.model_run)["train", "learning_rate"][-1][1] == 0


# The Model artifact.


def test_the_model_has_the_documented_layout_and_properties(finished_run):
    model = finished_run.output("Trainer", "model")
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/tf_serving_warmup_requests"):
        assert os.path.isfile(model.path("Format-Serving", name)), name
    network = reload(model)
    assert network.config.d_model == 32
    assert model.properties["steps"] == 200
    assert model.properties["num_parameters"] == network.count_params()
    assert 0 < model.properties["eval_loss"] < 3
    assert 50 < model.properties["eval_accuracy"] < 100


def test_the_model_has_the_record_of_its_data_and_of_its_base_models_data(train, uninterrupted, finished_run):
    properties = finished_run.output("ExampleGen", "examples").properties
    record = read_record(uninterrupted.model.path("Format-Keras"))
    assert record == {name: properties[name] for name in ("files_read", "num_rows", "num_examples")}
    (file,) = record["files_read"]
    assert file["name"] == "pairs.tsv"
    assert len(file["sha256"]) == 64
    trained = train(with_training(steps=1), base_model=as_files(uninterrupted.model))
    assert read_record(trained.model.path("Format-Keras")) == {**record, "base_model": record}


def test_the_served_model_answers_like_the_reloaded_keras_model(finished_run):
    model, texts = finished_run.output("Trainer", "model"), ["Turn on the light in the hall.", "Open", ""]
    tokenizer = load_tokenizer(finished_run.output("Transform", "tokenizer").uri)
    module = TranslationServingModule(reload(model), tokenizer, DecodingConfig(beam_size=2, length_penalty=1.0), 256)
    expected = module.serving_default(tf.constant(texts))
    with SavedModelRuntime(model.path("Format-Serving")) as served:
        answers = served.run("serving_default", {"text": texts})
    assert answers["translation"].tolist() == expected["translation"].numpy().tolist()
    np.testing.assert_allclose(answers["score"], expected["score"].numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_trained_in_bfloat16_is_exported_in_float32(train):
    exported = []

    class Implementation(TranslationImplementation):
        def export(self, model, *_):
            exported.append(model)

    class Task(Translation):
        def implementation(self):
            return Implementation(self)

    trained = train(with_training(precision="bfloat16", steps=3), task=Task())
    (served,) = exported
    assert {layer.compute_dtype for layer in served._flatten_layers()} == {"float32"}
    weights = {variable.path: variable.numpy() for variable in served.trainable_variables}
    assert all(np.isfinite(weight).all() for weight in weights.values())
    for weight, reloaded in zip(weights.values(), reload(trained.model).trainable_variables, strict=True):
        np.testing.assert_array_equal(weight, reloaded)


def test_float16_without_a_gpu_is_an_error(train):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"training\.precision=float16 needs a GPU, .*; use bfloat16$") as error:
        train(with_training(precision="float16"))
    assert error.value.code == "precision-unsupported"
    assert error.value.fields == {"setting": "training.precision"}


# Warm start.


def as_files(model, checkpoint=()):
    """Returns the files of a Model's folder as --warm-start passes them."""
    paths = [*sorted(pathlib.Path(model.path("Format-Keras")).rglob("*.*")), *checkpoint]
    return ModelFiles(model.path("Format-Keras"), {"files": [{"path": str(path)} for path in paths]})


def optimizer_files(trained):
    """Returns the files of the state of the optimizer after the last step of a training."""
    return sorted(pathlib.Path(trained.model_run.path("checkpoints")).glob("ckpt-*"))


def test_training_starts_from_the_weights_of_an_earlier_model_and_reports_them(train, uninterrupted, capfd):
    """A checkpoint has precedence over the earlier model."""
    recipe = with_training(steps=1, learning_rate=1e-9)  # a step that does not change the weights
    trained = train(recipe, base_model=as_files(uninterrupted.model))
    for old, new in zip(reload(uninterrupted.model).weights, reload(trained.model).weights, strict=True):
        np.testing.assert_allclose(old, new, atol=1e-6)
    started = trained.model.properties["warm_start"]
    assert started["taken"] == ["target_embedding", "encoder", "decoder"]
    assert started["fresh"] == started["unused"] == []
    folder = uninterrupted.model.path("Format-Keras")
    message = f"Trainer starts from {folder}; taken: target_embedding, encoder, decoder; fresh: none; unused: none"
    assert message in capfd.readouterr().err

    trained = train(TINY, uninterrupted.scratch, base_model=as_files(trained.model))
    assert not trained.steps
    assert_same_weights(trained.model, uninterrupted.model)


def test_a_warm_start_takes_the_moments_of_the_earlier_optimizer_on_request(train, uninterrupted, capfd):
    """The first step of a training has a learning rate near zero, so its moments are the earlier ones, decayed."""
    recipe = with_training(steps=1, warm_start_optimizer=True, learning_rate=1e-9, clip_norm=1e-6)
    trained = train(recipe, base_model=as_files(uninterrupted.model, optimizer_files(uninterrupted)))
    assert "; with the state of its optimizer; taken: " in capfd.readouterr().err
    names = [f"moments/{index}/.ATTRIBUTES/VARIABLE_VALUE" for index in range(4)]
    before, after = (
        tf.train.load_checkpoint(str(optimizer_files(training)[0]).rpartition(".")[0])
        for training in (uninterrupted, trained)
    )
    for name in names:  # Keras adds momentum and velocity of a weight one after the other
        earlier, later = before.get_tensor(name), after.get_tensor(name)
        assert np.abs(earlier).max() > 1e-6
        decay = [value for value in (0.9, 0.98) if np.allclose(later, value * earlier, atol=1e-6)]
        assert len(decay) == 1, name


@pytest.mark.parametrize(
    ("training", "model", "message"),
    [
        ({"optimizer": "muon"}, {}, "its optimizer is adam and the new one muon; set training.optimizer$"),
        ({}, {"num_encoder_layers": 2}, r"needs a model with the same weights, not these: encoder\.layers\.1"),
    ],
    ids=["another optimizer", "another architecture"],
)
def test_moments_of_another_optimizer_or_of_other_weights_are_an_error(train, uninterrupted, training, model, message):
    recipe = with_training(warm_start_optimizer=True, **training)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **model))
    with pytest.raises(UserError, match=message) as error:
        train(recipe, base_model=as_files(uninterrupted.model, optimizer_files(uninterrupted)))
    assert error.value.code == "warm-start-impossible"


def test_a_warm_start_with_another_vocabulary_is_an_error_that_suggests_the_tokenizer(train, uninterrupted, tmp_path):
    learn_tokenizer([("Licht", 5), ("Lampe", 3)], TokenizerConfig(vocab_size=280), str(tmp_path))
    folder = uninterrupted.model.path("Format-Keras")
    with pytest.raises(UserError, match=r"its vocabulary differs .* --tokenizer .*/tokenizer$") as error:
        train(TINY, tokenizer=Tokenizer(str(tmp_path)), base_model=as_files(uninterrupted.model))
    assert error.value.code == "vocabulary-differs"
    assert error.value.fields == {"path": folder, "tokenizer": f"{folder}/tokenizer"}


def test_a_warm_start_with_another_width_is_an_error_that_names_the_setting(train, finished_run):
    earlier = finished_run.output("Trainer", "model")
    with pytest.raises(UserError, match=r"^cannot start from .*: .*; set model\.d_model=32$") as error:
        train(TINY, base_model=as_files(earlier))
    assert error.value.code == "warm-start-impossible"
    assert error.value.fields == {"path": earlier.path("Format-Keras")}


# Divergence.


def test_a_nan_loss_stops_training_with_an_error_that_has_the_step(train):
    with pytest.raises(UserError, match=r"^The loss is nan at step 2, .*smaller training\.learning_rate") as error:
        train(with_training(steps=3, learning_rate=1e38, warmup_steps=0))
    assert error.value.code == "loss-diverged"
    assert error.value.fields["step"] == 2


def test_weights_that_become_nan_in_the_last_step_are_not_exported(train, tmp_path):
    """The loss of that step is still finite. A second run resumes after it and fails in the same way."""
    recipe = with_training(steps=1, learning_rate=1e38, warmup_steps=0, checkpoint_steps=1)
    for _ in range(2):
        with pytest.raises(UserError) as error:
            train(recipe, tmp_path)
        assert error.value.code == "loss-diverged"
        assert error.value.fields["step"] == 1
    assert (tmp_path / "checkpoints" / "ckpt-1.index").is_file()
