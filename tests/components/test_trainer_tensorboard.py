"""TensorBoard, reading what a training left, finds the curves, the answers, the weights and the profile."""

import pathlib

import numpy as np

from components.trainer import Recipe
from models.config import DecodingConfig, ModelConfig, TrainingConfig


def test_the_curves_are_what_tensorboard_needs(house, curves):
    found = curves(house.output("Trainer", "model_run"))
    steps = [20, 40, 50, 60, 80, 100, 120]  # every 20, and at the checkpoints
    assert {key: [step for step, _ in points] for key, points in found.items()} == {
        **{("train", tag): steps for tag in ("loss", "accuracy", "learning_rate", "gradient_norm", "padding")},
        **{("validation", tag): [50, 100, 120] for tag in ("loss", "accuracy")},
    }
    losses = [value for _, value in found["train", "loss"]]
    assert losses[-1] < losses[0] / 2
    rates = [value for _, value in found["train", "learning_rate"]]
    assert max(rates) <= 0.01
    assert rates[-1] < 0.01 / 2


def test_event_files_hold_every_tag(train, events):
    sizes = ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16)
    learning = TrainingConfig(steps=3, batch_tokens=512, eval_examples=4, histograms=True, profile_step=2)
    trained = train(Recipe(sizes, learning, DecodingConfig()))
    found, plugins = events(trained.model_run)
    by_plugin = {}
    for (run, tag), plugin in plugins.items():
        by_plugin.setdefault((run, plugin), set()).add(tag)
    curve = {"loss", "accuracy", "learning_rate", "gradient_norm", "tokens_per_second", "padding"}
    assert by_plugin["train", "scalars"] == curve
    assert by_plugin["validation", "scalars"] == {"loss", "accuracy", "bleu"}
    assert by_plugin["validation", "text"] == {"answers"}
    assert by_plugin["validation", "images"] == {
        f"attention/{kind} layer 1" for kind in ("encoder", "decoder", "cross")
    }
    assert len(by_plugin["train", "histograms"]) == len(trained.steps[0])
    assert "weights/encoder.layers.0.self_attention.in_kernel" in by_plugin["train", "histograms"]
    ((_, table),) = found["validation", "answers"]
    header, _, *rows = table.item().decode().splitlines()
    assert header == "| source | target | translation |"
    assert len(rows) == 4
    assert ("validation", "_hparams_/session_start_info") in plugins
    assert list(pathlib.Path(trained.model_run.uri).rglob("plugins/profile/*/*.xplane.pb"))
    for values in (found["train", tag] for tag in curve):
        assert all(np.isfinite(value) and value >= 0 for _, value in values)
