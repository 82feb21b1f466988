"""TensorBoard reads the curves, answers, attention maps, histograms and profile of a training."""

import pathlib

import numpy as np

from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig


def test_curves_have_a_point_every_20_steps_and_at_each_checkpoint(finished_run, curves):
    run_curves = curves(finished_run.output("Trainer", "model_run"))
    checkpoints = [50, 100, 150, 200]
    steps = sorted({*range(20, 201, 20), *checkpoints})
    assert {key: [step for step, _ in points] for key, points in run_curves.items()} == {
        **{("train", tag): steps for tag in ("loss", "accuracy", "learning_rate", "gradient_norm", "padding")},
        **{("validation", tag): checkpoints for tag in ("loss", "accuracy")},
    }
    losses = [value for _, value in run_curves["train", "loss"]]
    assert losses[-1] < losses[0] / 2
    rates = [value for _, value in run_curves["train", "learning_rate"]]
    assert max(rates) <= 0.01
    assert rates[-1] < 0.01 / 2


def test_event_files_contain_every_tag(train, events):
    model_config = ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=16)
    training_config = TrainingConfig(steps=3, batch_tokens=512, eval_examples=4, histograms=True, profile_step=2)
    trained = train(Recipe(model_config, training_config, DecodingConfig()))
    values, plugins = events(trained.model_run)
    by_plugin = {}
    for (run, tag), plugin in plugins.items():
        by_plugin.setdefault((run, plugin), set()).add(tag)
    train_tags = {"loss", "accuracy", "learning_rate", "gradient_norm", "tokens_per_second", "padding"}
    assert by_plugin["train", "scalars"] == train_tags
    assert by_plugin["validation", "scalars"] == {"loss", "accuracy", "bleu", "chrf"}
    assert by_plugin["validation", "text"] == {"answers"}
    assert by_plugin["validation", "images"] == {
        f"attention/{kind} layer 1" for kind in ("encoder", "decoder", "cross")
    }
    assert len(by_plugin["train", "histograms"]) == len(trained.steps[0])
    assert "weights/encoder.layers.0.self_attention.in_kernel" in by_plugin["train", "histograms"]
    ((_, table),) = values["validation", "answers"]
    header, _, *rows = table.item().decode().splitlines()
    assert header == "| source | target | translation |"
    assert len(rows) == 4
    assert ("validation", "_hparams_/session_start_info") in plugins
    assert list(pathlib.Path(trained.model_run.uri).rglob("plugins/profile/*/*.xplane.pb"))
    for tag in train_tags:
        assert all(np.isfinite(value) and value >= 0 for _, value in values["train", tag])
