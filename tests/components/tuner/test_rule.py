"""Tuner by rule: from the counts of Transform to an artifact that Trainer takes."""

import json

import pytest

from seq2serve.components.base.artifact import HyperParameters, Tokenizer, TransformedExamples, TunerResults
from seq2serve.components.base.component import Context
from seq2serve.components.tasks.registry import TASKS
from seq2serve.components.tuner.component import Tuner
from seq2serve.components.tuner.config import TunerConfig
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig

RECIPE = Recipe(ModelConfig(), TrainingConfig(), DecodingConfig())
AUTOMATIC = ("model.d_model", "training.steps", "training.batch_tokens")


@pytest.fixture
def tune(tmp_path):
    def call(task, properties, vocab_size=4000):
        best = HyperParameters(str(tmp_path))
        (tmp_path / "results").mkdir(exist_ok=True)
        Tuner.function(
            transformed_examples=TransformedExamples("", properties),
            tokenizer=Tokenizer("", {"vocab_size": vocab_size}),
            best_hyperparameters=best,
            tuner_results=TunerResults(str(tmp_path / "results")),
            task=TASKS[task],
            recipe=RECIPE,
            automatic=AUTOMATIC,
            searched=(),
            tuner_config=TunerConfig(),
            context=Context(),
        )
        return best

    return call


def examples(column, total, **labels):
    counts = {"label_counts": {"label": labels}} if labels else {}
    return {"num_examples": {"train": 900, "eval": 100}, "num_tokens": {"train": {column: total}}, **counts}


def test_the_choice_is_in_the_file_and_in_the_properties_with_its_reason(tune, capsys):
    best = tune("classification", examples("text", 18_000, good=500, bad=400))
    with open(best.path("best_hyperparameters.json"), encoding="utf-8") as file:
        assert json.load(file) == best.properties["settings"]
    assert set(best.properties["settings"]) == set(AUTOMATIC)
    assert "900 rows with 18,000 tokens in total, 2 labels" in best.properties["reason"]
    assert best.properties["reason"] in capsys.readouterr().err


def test_a_translator_is_sized_by_its_target(tune):
    properties = examples("target", 50_000_000)
    properties["num_tokens"]["train"]["source"] = 10
    large = tune("translation", properties, {"source": 10, "target": 8000}).properties["settings"]
    small = tune("translation", examples("target", 10_000)).properties["settings"]
    assert large["model.d_model"] > small["model.d_model"]


def test_trainer_takes_the_chosen_settings_over_those_of_the_recipe():
    recipe = RECIPE.with_values({"model.d_model": 32, "training.steps": 7, "training.optimizer": "muon"})
    assert (recipe.model.d_model, recipe.training.steps, recipe.training.optimizer) == (32, 7, "muon")
    assert recipe.decoding == RECIPE.decoding
    assert RECIPE.with_values({}) == RECIPE
