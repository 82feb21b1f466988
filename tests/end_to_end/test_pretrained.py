"""A run from a pretrained model: imported, fine-tuned, pushed, and traced back to its files; or exported as it is."""

import json
import re
import string

import numpy as np
import pytest

import seq2serve
from tests.models.importing.small_bert import write_bert
from tests.models.importing.small_marian import SEPARATE, SEPARATE_CONFIG, write_marian
from tests.models.importing.small_opus_mt import VOCABULARY, write_opus_mt

CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
CONFIG = {"vocab_size": len(PIECES), "hidden_size": 16, "max_position_embeddings": 130}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = write_bert(tmp_path_factory.mktemp("pretrained") / "bert", CONFIG, pieces=PIECES)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return folder


def run_from(run, pretrained, *settings):
    """Runs the command line with --from, and returns what it printed."""
    options = ["--task", "classification", "--text", "sentence", "--from", str(pretrained)]
    return run.execute([*run.command()[:3], "run", run.file, *options, *(f"--set={setting}" for setting in settings)])


def test_a_pretrained_model_is_fine_tuned_pushed_and_traced(new_run_of, pretrained, components):
    run = new_run_of("classification")
    settings = ("training.steps=30", "training.checkpoint_steps=15", "evaluation.bar=none")
    done = run_from(run, pretrained, *settings)
    assert done.returncode == 0, done.stderr
    ran = components(done.stdout)
    assert [
        name for name in ran if name in ("ModelImporter", "TransformByTokenizer", "Tuner", "Trainer", "Pusher")
    ] == [
        "ModelImporter",
        "TransformByTokenizer",
        "Tuner",
        "Trainer",
        "Pusher",
    ]
    assert f"source: {pretrained}; licence: mit" in done.stderr
    model = run.output("Trainer", "model")
    assert model.properties["warm_start"] == {"taken": ["embedding", "encoder"], "fresh": ["head"], "unused": []}
    lineage = run.execute([*run.command()[:3], "lineage", model.uri]).stdout
    assert re.search(rf"PretrainedFiles .*{re.escape(str(pretrained))}", lineage), lineage
    assert run.execute([*run.command()[:3], "report", "--output", "page.html"]).returncode == 0
    page = (run.folder / "page.html").read_text(encoding="utf-8")
    assert "Pretrained start: bert from" in page
    assert "licence of the weights: mit" in page
    with seq2serve.load(str(run.folder / "serving" / "classification")) as served:
        embeddings = served.embed(["good", "bad", "good"])
    assert embeddings.shape == (3, CONFIG["hidden_size"])
    np.testing.assert_allclose(embeddings[0], embeddings[2], rtol=1e-5)

    again = components(run_from(run, pretrained, *settings).stdout)
    assert {state for state, _ in again.values()} == {"reused"}


def test_without_steps_the_pretrained_model_is_exported_as_it_is(new_run_of, pretrained):
    run = new_run_of("classification")
    done = run_from(run, pretrained, "training.steps=0", "evaluation.bar=none")
    assert done.returncode == 0, done.stderr
    model, imported = run.output("Trainer", "model"), run.output("ModelImporter", "model")
    assert model.properties["steps"] == 0
    assert model.properties["exported_steps"] == [0]
    from seq2serve.models.training.saving import load_model

    before, after = (load_model(artifact.path("Format-Keras")) for artifact in (imported, model))
    for old, new in zip(before.encoder.weights, after.encoder.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def run_translator(run, folder, steps, *more):
    """Fine-tunes a translator, or exports it as it is, and returns what the command line printed."""
    settings = (f"training.steps={steps}", "training.checkpoint_steps=10", "evaluation.bar=none", *more)
    done = run.execute([*run.command()[:3], "run", run.file, "--from", str(folder), *(f"--set={s}" for s in settings)])
    assert done.returncode == 0, done.stderr
    assert run.output("Trainer", "model").properties["warm_start"]["fresh"] == []
    return done.stdout


@pytest.mark.parametrize("steps", [0, 20])
def test_a_translator_of_marian_is_exported_validated_and_pushed(new_run_of, tmp_path, steps):
    run = new_run_of("translation")
    printed = run_translator(run, write_marian(tmp_path / "marian", quantised=True), steps)
    model, imported = run.output("Trainer", "model"), run.output("ModelImporter", "model")
    assert model.properties["recipe"]["model"]["decoder"] == "ssru"
    from seq2serve.models.training.saving import load_model

    before, after = (load_model(artifact.path("Format-Keras")).get_weights() for artifact in (imported, model))
    is_same = all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    assert is_same == (steps == 0)
    evaluation = run.output("Evaluator", "evaluation")
    assert ("pretrained" in evaluation.properties["baselines"]) == (steps > 0)
    with open(evaluation.path("predictions.jsonl"), encoding="utf-8") as lines:
        assert all(("pretrained_prediction" in json.loads(line)) == (steps > 0) for line in lines)
    assert ("before training" in printed) == (steps > 0)
    with seq2serve.load(str(run.folder / "serving" / "translation")) as served:
        assert isinstance(served("Turn on the light."), str)
    assert run.execute([*run.command()[:3], "report", "--output", "page.html"]).returncode == 0
    page = (run.folder / "page.html").read_text(encoding="utf-8")
    assert "Pretrained start: marian-nmt from" in page
    assert "SHA-256 of model.bin: " in page
    assert ("<dt>pretrained_prediction</dt>" in page) == (steps > 0)


@pytest.mark.parametrize("steps", [0, 20])
def test_a_translator_with_two_tokenizers_is_exported_validated_and_pushed(new_run_of, tmp_path, steps):
    run = new_run_of("translation")
    run_translator(run, write_opus_mt(tmp_path / "opus"), steps)
    model, tokenizer = run.output("Trainer", "model"), run.output("TransformByTokenizer", "tokenizer")
    assert model.properties["recipe"]["model"]["tie_embeddings"]
    assert tokenizer.properties == {"kind": "opus-mt", "vocab_size": len(VOCABULARY) + 1}
    with seq2serve.load(str(run.folder / "serving" / "translation")) as served:
        assert isinstance(served(">>deu<< Turn on the light. Now!"), str)


def test_a_translator_with_a_vocabulary_for_each_language_is_exported_validated_and_pushed(new_run_of, tmp_path):
    run = new_run_of("translation")
    folder = write_marian(tmp_path / "marian", SEPARATE_CONFIG, quantised=True, vocabularies=SEPARATE)
    run_translator(run, folder, 20, "decoding.beam_size=1")  # the beams of random weights are nearly equal
    sizes = run.output("ModelImporter", "model").properties["vocab_size"]
    assert run.output("TransformByTokenizer", "tokenizer").properties["vocab_size"] == sizes
    with seq2serve.load(str(run.folder / "serving" / "translation")) as served:
        assert isinstance(served("Turn on the light."), str)


def test_a_folder_that_cannot_be_imported_ends_the_run_before_anything_is_written(new_run_of, tmp_path):
    run = new_run_of("classification")
    folder = write_bert(tmp_path / "other", {"model_type": "gpt2"})
    done = run_from(run, folder)
    assert done.returncode == 2
    assert re.search(r"cannot import .*: config.json has the model_type 'gpt2'", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (run.folder / run.root).exists()
