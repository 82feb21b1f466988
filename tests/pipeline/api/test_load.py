"""`seq2serve.load`: texts in, answers out, for all three tasks, with the errors of the command line."""

import math
import subprocess
import sys

import pytest

import seq2serve
from seq2serve.components.pusher.versions import versions

TEXTS = ["Turn on the light in the hall now.", "Open", ""]


@pytest.fixture(scope="module")
def loaded(finished_run_of):
    """Returns a function that loads the model of a task."""
    return lambda task: seq2serve.load((run := finished_run_of(task)).folder / run.serving)


@pytest.fixture
def translate(loaded):
    with loaded("translation") as model:
        yield model


@pytest.mark.parametrize("task", ["translation", "classification", "language_model"])
def test_several_texts_have_the_answers_of_each(loaded, task):
    with loaded(task) as model:
        answers = model(TEXTS)
        assert answers == [model(text) for text in TEXTS]
        assert all(isinstance(answer, str) for answer in answers)
        assert model([]) == []


def test_the_order_of_many_texts_is_kept(translate):
    texts = [f"Open the door at {number} o'clock." for number in range(70)] + ["Open"]
    assert translate(texts[::-1]) == translate(texts)[::-1]


def test_n_best_are_the_best_translations_first(translate):
    best = translate(TEXTS, n_best=2)
    assert [row[0] for row in best] == translate(TEXTS)
    assert [len(row) for row in best] == [2, 2, 2]
    assert translate(TEXTS[0], n_best=1) == [translate(TEXTS[0])]


@pytest.mark.parametrize("number", [0, 3])
def test_n_best_beyond_the_beam_is_an_error(translate, number):
    with pytest.raises(seq2serve.UserError, match=f"n_best must be between 1 and .* 2, got {number}") as error:
        translate(TEXTS[0], n_best=number)
    assert error.value.code == "option-out-of-range"


def test_predict_returns_every_output(loaded):
    with loaded("classification") as model:
        row = model.predict(TEXTS[0])
        assert row.keys() == {"label", "probability", "labels", "probabilities"}
        assert row["label"] in row["labels"]
        assert math.isclose(sum(row["probabilities"]), 1, rel_tol=1e-5)
        assert [row["label"] for row in model.predict(TEXTS)] == model(TEXTS)


def test_a_language_model_takes_options(loaded):
    with loaded("language_model") as model:
        assert model("Turn on", temperature=0) == model("Turn on", temperature=0, seed=5)
        seeds = {model("Turn on", temperature=2.0, seed=seed) for seed in range(8)}
        assert len(seeds) > 1
        assert len(model("Turn on", max_new_tokens=1)) < len(model("Turn on", max_new_tokens=12))
        one_by_one = [model("Turn on", temperature=2.0, seed=seed) for seed in (1, 2)]
        assert model(["Turn on"] * 2, temperature=2.0, seed=[1, 2]) == one_by_one


def test_options_left_out_are_those_of_serving_default(loaded):
    with loaded("language_model") as model:
        assert model(TEXTS, seed=0) == model(TEXTS)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"temprature": 1.0}, "option-unknown"),
        ({"seed": [1, 2]}, "option-out-of-range"),
        ({"seed": "a"}, "inputs-invalid"),
    ],
)
def test_bad_options_are_errors(loaded, options, code):
    with loaded("language_model") as model, pytest.raises(seq2serve.UserError) as error:
        model("Turn on", **options)
    assert error.value.code == code


def test_a_translator_has_no_options(translate):
    with pytest.raises(seq2serve.UserError, match="has no signature 'sample'") as error:
        translate("Open", temperature=1.0)
    assert error.value.code == "signature-missing"


def test_pairs_are_scored(translate):
    text, translation = TEXTS[0], translate(TEXTS[0])
    one = translate.score((text, translation))
    several = translate.score([(text, translation), {"source": text, "target": "Unsinn"}])
    assert several[0] == pytest.approx(one)
    assert several[1]["log_probability"] < one["log_probability"] < 0
    assert translate.score([]) == []


def test_texts_are_scored(loaded):
    with loaded("language_model") as model:
        assert model.score("Open").keys() == {"log_probability", "tokens", "characters", "bits_per_character"}
        assert [row["characters"] for row in model.score(["Open", "Open the door."])] == [4, 14]


@pytest.mark.parametrize("pair", [("Open",), {"source": "Open"}, ("Open", 1)])
def test_an_incomplete_pair_is_an_error(translate, pair):
    with pytest.raises(seq2serve.UserError, match="expected source and target") as error:
        translate.score([pair])
    assert error.value.code == "inputs-invalid"


def test_attention_has_no_padding(translate):
    rows = translate.attention([("Open the door.", "Öffne die Tür."), ("Open", "Öffne")])
    for row in rows:
        layers, heads, target, source = row["attention"].shape
        assert (layers, heads) == (1, 2)
        assert len(row["target_tokens"]) == target
        assert len(row["source_tokens"]) == source
        assert all(row["source_tokens"])
        assert row["attention"].sum(-1) == pytest.approx(1, abs=1e-4)
    assert rows[1]["attention"].shape[2] < rows[0]["attention"].shape[2]


def test_a_version_a_label_and_the_newest_are_found(finished_run):
    folder = finished_run.folder / finished_run.serving
    (number,) = versions(folder)
    answers = {seq2serve.load(folder, version)("Open") for version in (None, number, str(number), "stable")}
    answers.add(seq2serve.load(folder / str(number))("Open"))
    answers.add(seq2serve.load(finished_run.output("Trainer", "model").uri)("Open"))
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("path", "version", "code"),
    [("", 7, "version-missing"), ("", "beta", "version-missing"), ("nowhere", None, "saved-model-missing")],
)
def test_a_missing_model_is_an_error(finished_run, path, version, code):
    with pytest.raises(seq2serve.UserError) as error:
        seq2serve.load(finished_run.folder / finished_run.serving / path, version)
    assert error.value.code == code


def test_a_damaged_model_is_an_error(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(seq2serve.UserError, match="cannot be loaded") as error:
        seq2serve.load(tmp_path)
    assert error.value.code == "model-unloadable"


def test_python_tensorflow_is_not_imported(finished_run):
    code = "import sys, seq2serve; print(seq2serve.load(sys.argv[1])('Open')); print('tensorflow' in sys.modules)"
    folder = str(finished_run.folder / finished_run.serving)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "False"
    assert done.stderr == ""
