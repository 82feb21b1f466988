"""Tuner: the best trial is used, a killed search ends like any other, and a failed trial is no failed search."""

import dataclasses
import json
import os
import pathlib

import pytest
import tensorflow as tf

from seq2serve.components.base.artifact import HyperParameters, TunerResults
from seq2serve.components.base.component import Context, EarlierExecution
from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.metric import LOSS
from seq2serve.components.tasks.translation.implementation import TranslationImplementation
from seq2serve.components.tasks.translation.task import Translation
from seq2serve.components.trainer import callbacks as trainer_callbacks
from seq2serve.components.tuner import search as tuner_search
from seq2serve.components.tuner.component import Tuner
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.components.tuner.space import all_changes
from seq2serve.components.tuner.trials import best_trial, read_trials
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig
from seq2serve.models.training.loss import MaskedCrossEntropy

TINY = Recipe(
    ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16, dropout=0.0),
    TrainingConfig(steps=6, batch_tokens=512, learning_rate=0.01, warmup_steps=2, checkpoint_steps=2, eval_examples=0),
    DecodingConfig(),
)
SEARCHED = ("training.learning_rate", "training.steps", "training.checkpoint_steps", "model.d_model", "model.dff")
TRIALS = 3


class Fragile(Translation):
    """Translation whose loss is no number with another learning rate, and whose wider models need too much memory."""

    name = "fragile translation"

    def implementation(self):
        class Implementation(TranslationImplementation):
            def make_loss(self, config, data):
                is_same = config.learning_rate == TINY.training.learning_rate
                return super().make_loss(config, data) if is_same else MaskedCrossEntropy(float("nan"))

            def make_model(self, config, data):
                if config.d_model > TINY.model.d_model:
                    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
                return super().make_model(config, data)

        return Implementation(self)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The outputs of Tuner, and the folder of a killed one."""

    best_hyperparameters: HyperParameters
    tuner_results: TunerResults
    scratch: pathlib.Path

    @property
    def settings(self):
        return self.best_hyperparameters.properties["settings"]

    @property
    def trials(self):
        return read_trials(self.tuner_results.uri)


@pytest.fixture(scope="module")
def tune(finished_run, tmp_path_factory):
    """Returns a function that executes Tuner on the text of the finished run."""

    def tune(config, scratch=None, recipe=TINY, earlier=(), searched=SEARCHED, task=None, automatic=()):
        folder = tmp_path_factory.mktemp("tuned")
        outputs = HyperParameters(f"{folder}/best"), TunerResults(f"{folder}/results")
        tuned = Tuned(*outputs, scratch or folder / "scratch")
        for path in (*(output.uri for output in outputs), tuned.scratch):
            os.makedirs(path, exist_ok=True)
        Tuner.function(
            **{key: finished_run.output("Transform", key) for key in ("transformed_examples", "tokenizer")},
            best_hyperparameters=tuned.best_hyperparameters,
            tuner_results=tuned.tuner_results,
            task=task or Translation(),
            recipe=recipe,
            automatic=automatic,
            searched=searched,
            tuner_config=config,
            context=Context(scratch=str(tuned.scratch), earlier=earlier),
        )
        return tuned

    return tune


@pytest.fixture(scope="module")
def tuned(tune):
    """A search that was not interrupted."""
    return tune(TunerConfig(trials=TRIALS))


def without_seconds(trials):
    return [dataclasses.replace(trial, seconds=0.0) for trial in trials]


def test_the_best_trial_is_used_and_is_not_worse_than_the_first(tuned):
    trials = tuned.trials
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert trials[0].settings == {name: TINY.value(name) for name in trials[0].settings}
    best = best_trial(trials, LOSS)
    assert best.value == min(trial.value for trial in trials if trial.state == "complete") <= trials[0].value
    assert tuned.settings == all_changes(best.settings, SEARCHED, TINY)
    path = tuned.best_hyperparameters.path("best_hyperparameters.json")
    assert json.loads(pathlib.Path(path).read_text()) == tuned.settings
    properties = tuned.tuner_results.properties
    assert (properties["metric"], properties["best"]) == ("loss", best.number)
    assert properties["trials"] == [dataclasses.asdict(trial) for trial in trials]


def test_trainer_gets_from_the_best_settings_what_the_trial_had(tuned, train):
    trained = train(TINY.with_values(tuned.settings))
    assert trained.model.properties["eval_loss"] == best_trial(tuned.trials, LOSS).value


def test_trials_are_in_tensorboards_hparams(tuned):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    for trial in tuned.trials:
        events = EventAccumulator(tuned.tuner_results.path("logs", f"trial-{trial.number}")).Reload()
        content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        hparams = metadata.parse_session_start_info_plugin_data(content).hparams
        assert {name: value.number_value for name, value in hparams.items()} == trial.settings
        (point,) = events.Tensors("eval_loss")
        assert float(tf.make_ndarray(point.tensor_proto)) == pytest.approx(trial.value)
        assert [event.step for event in events.Tensors("loss")] == list(trial.evaluations)


def test_a_search_killed_in_a_trial_and_between_two_ends_like_any_other(tune, tuned, tmp_path, monkeypatch, capfd):
    """The second trial is killed after its first checkpoint, then the search before the third trial."""

    class Killed(BaseException):
        pass

    saved, started = trainer_callbacks.Checkpoint.on_train_batch_end, []

    def save_and_kill(self, batch, logs=None):
        saved(self, batch, logs)
        if len(started) == 2 and trainer_callbacks.steps_done(self.model.optimizer) == 2:
            raise Killed

    run_trial = tuner_search._run_trial

    def run_or_kill(problem, space, trials, *arguments):
        if len(started) == 3:
            raise Killed
        started.append(len(trials))
        return run_trial(problem, space, trials, *arguments)

    monkeypatch.setattr(trainer_callbacks.Checkpoint, "on_train_batch_end", save_and_kill)
    monkeypatch.setattr(tuner_search, "_run_trial", run_or_kill)
    for _ in range(2):
        with pytest.raises(Killed):
            tune(TunerConfig(trials=TRIALS), tmp_path)
    monkeypatch.undo()
    resumed = tune(TunerConfig(trials=TRIALS), tmp_path)
    assert started == [0, 1, 1]  # the third process ran the third trial only
    assert "Tuner resumes after 2 trials\n" in capfd.readouterr().err
    assert without_seconds(resumed.trials) == without_seconds(tuned.trials)
    assert resumed.settings == tuned.settings


def test_ctrl_c_ends_a_search_and_not_only_its_trial(tune, tmp_path, monkeypatch, capfd):
    def press(self, batch, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_callbacks.ProgressBar, "on_train_batch_end", press)
    with pytest.raises(KeyboardInterrupt):
        tune(TunerConfig(trials=TRIALS), tmp_path)
    assert "Tuner stops after 0 finished trials; the same command resumes\n" in capfd.readouterr().err


def earlier_search(tuned, **parameters) -> EarlierExecution:
    recorded = {
        "task": "translation",
        "recipe": dataclasses.asdict(TINY),
        "automatic": [],
        "searched": list(SEARCHED),
        "tuner_config": dataclasses.asdict(TunerConfig(trials=TRIALS)),
    }
    outputs = {"tuner_results": tuned.tuner_results}
    return EarlierExecution({**recorded, **parameters}, outputs, lambda artifact: artifact)


def test_more_trials_continue_an_earlier_search_of_the_same_problem(tune, tuned, monkeypatch):
    ran, run_trial = [], tuner_search._run_trial

    def run_and_count(problem, space, trials, *arguments):
        ran.append(len(trials))
        return run_trial(problem, space, trials, *arguments)

    monkeypatch.setattr(tuner_search, "_run_trial", run_and_count)
    more = tune(TunerConfig(trials=TRIALS + 1), earlier=(earlier_search(tuned),))
    assert ran == [TRIALS]
    assert more.trials[:TRIALS] == tuned.trials
    assert os.path.isdir(more.tuner_results.path("logs", "trial-0"))


def test_a_setting_that_is_wrong_for_the_machine_is_no_failed_trial_and_another_problem_continues_no_search(
    tune, tuned
):
    recipe = TINY.with_values({"training.precision": "float16"})
    with pytest.raises(UserError, match="needs a GPU"):
        tune(TunerConfig(trials=TRIALS), recipe=recipe, earlier=(earlier_search(tuned),))


def test_a_trial_that_diverges_or_needs_too_much_memory_is_a_failed_trial(tune):
    searched = ("training.learning_rate", "model.d_model", "model.dff")
    tuned = tune(TunerConfig(trials=5), searched=searched, task=Fragile())
    assert tuned.trials[0].state == "complete"
    reasons = {trial.reason for trial in tuned.trials if trial.state == "failed"}
    assert "out of memory" in reasons
    assert any(reason.startswith("The loss is nan at step 1") for reason in reasons)
    for trial in tuned.trials[1:]:
        is_same_rate = trial.settings["training.learning_rate"] == TINY.training.learning_rate
        is_narrow = trial.settings["model.d_model"] <= TINY.model.d_model
        assert (trial.state != "failed") == (is_same_rate and is_narrow)
    assert tuned.settings["training.learning_rate"] == TINY.training.learning_rate


def test_a_search_whose_trials_all_fail_is_one_message(tune):
    recipe = TINY.with_values({"training.learning_rate": 0.02})
    with pytest.raises(
        UserError, match=r"^none of 2 trials was complete, and 2 failed; the first: The loss is"
    ) as error:
        tune(TunerConfig(trials=2), recipe=recipe, searched=("model.dropout",), task=Fragile())
    assert error.value.code == "search-failed"


def test_a_search_without_time_for_a_trial_keeps_the_settings_to_start_from(tune, capfd):
    tuned = tune(TunerConfig(minutes=1e-4))
    assert [trial.state for trial in tuned.trials] == ["out of time"]
    assert tuned.settings == all_changes(tuned.trials[0].settings, SEARCHED, TINY)
    assert TINY.with_values(tuned.settings) == TINY
    assert tuned.tuner_results.properties["best"] is None
    assert (
        "tuner.minutes ended before the first of 1 trial (1 out of time) was complete: the settings"
        in capfd.readouterr().err
    )


def test_a_space_with_few_points_is_searched_once_though_there_is_time(tune):
    tuned = tune(TunerConfig(minutes=10), searched=("model.num_encoder_layers",))
    assert [trial.settings for trial in tuned.trials] == [
        {"model.num_encoder_layers": 1},
        {"model.num_encoder_layers": 2},
    ]


def test_without_a_search_settings_follow_by_rule_and_nothing_is_trained(tune):
    tuned = tune(TunerConfig(), automatic=("training.steps", "model.d_model"), searched=())
    assert tuned.settings.keys() == {"training.steps", "model.d_model"}
    assert "because train has" in tuned.best_hyperparameters.properties["reason"]
    assert tuned.trials == tuned.tuner_results.properties["trials"] == []


def test_there_is_no_test_split_to_read(finished_run):
    examples = finished_run.output("Transform", "transformed_examples")
    assert sorted(os.listdir(examples.uri)) == ["Split-eval", "Split-train"]
    assert examples.properties["splits"] == ["train", "eval"]
    assert list(Tuner.inputs) == ["transformed_examples", "tokenizer", "base_model"]
