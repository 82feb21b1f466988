"""`seq2serve.load`: texts in, answers out, for all three tasks, with the errors of the command line."""

import functools
import math
import subprocess
import sys

import pytest

import seq2serve
from seq2serve.components.pusher.versions import versions

TEXTS = ["Turn on the light in the hall now.", "Open", ""]


@pytest.fixture(scope="module")
def loaded(finished_run_of):
    """Returns a function that returns the model of a task, loaded once: the first call of a signature takes seconds."""
    return functools.cache(lambda task: seq2serve.load((run := finished_run_of(task)).folder / run.serving))


@pytest.fixture
def translate(loaded):
    return loaded("translation")


@pytest.mark.parametrize("task", ["translation", "classification", "language_model"])
def test_several_texts_have_the_answers_of_each(loaded, task):
    model = loaded(task)
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
    assert all(len(set(row)) == len(row) <= 2 for row in best)
    assert max(map(len, best)) == 2
    assert best[2] == [""]  # the text is empty, and an answer is not repeated
    assert translate(TEXTS[0], n_best=1) == [translate(TEXTS[0])]
    assert list(map(len, translate([TEXTS[0]] * 2, n_best=[1, 2]))) == [1, 2]


def test_a_translator_takes_options(translate):
    assert translate(TEXTS, length_penalty=1.0) == translate(TEXTS)  # the default
    text = TEXTS[0]
    one, many = translate(text, max_length=1), translate([text] * 2, min_length=[0, 12], max_length=[1, 0], beam_size=1)
    assert len(one) < len(many[1])
    assert many[0] == translate(text, max_length=1, beam_size=1)


@pytest.mark.parametrize(
    ("task", "option", "value", "message"),
    [
        ("translation", "n_best", 3, "n_best must be between 1 and beam_size"),
        ("translation", "beam_size", 3, "beam_size must be between 1 and 2"),
        ("language_model", "top_p", 0.0, "top_p must be above 0 and at most 1"),
        ("language_model", "max_new_tokens", 17, "max_new_tokens must be between 1 and 16"),
    ],
)
def test_an_option_out_of_range_is_an_error_with_its_name(loaded, task, option, value, message):
    model = loaded(task)
    with pytest.raises(seq2serve.UserError, match=message) as error:
        model(TEXTS[0], **{option: value})
    assert error.value.code == "inputs-invalid"
    assert "\n" not in str(error.value)


def test_cut_texts_and_answers_are_counted_in_a_warning(loaded):
    long = "Turn on the light in the hall. " * 100
    model = loaded("classification")
    with pytest.warns(UserWarning, match="1 of 2 texts were longer than the model reads") as caught:
        answers = model(["Open", long])
    assert [caught[0].filename, len(caught)] == [__file__, 1]
    assert all(isinstance(answer, str) for answer in answers)
    model = loaded("translation")
    with pytest.warns(UserWarning, match="2 of 2 answers stopped at the maximum length"):
        model(TEXTS[:2], max_length=1)
    with pytest.warns(UserWarning, match="1 of 1 texts were"):
        model.score((long, "Öffne"))


def test_nothing_is_warned_of_if_nothing_is_cut(loaded, recwarn):
    model = loaded("classification")
    model(TEXTS)
    assert not recwarn.list


def test_predict_returns_every_output(loaded):
    model = loaded("classification")
    row = model.predict(TEXTS[0])
    assert row.keys() == {"label", "probability", "labels", "probabilities", "truncated"}
    assert row["label"] in row["labels"]
    assert math.isclose(sum(row["probabilities"]), 1, rel_tol=1e-5)
    assert [row["label"] for row in model.predict(TEXTS)] == model(TEXTS)


def test_a_language_model_takes_options(loaded):
    model = loaded("language_model")
    assert model("Turn on", temperature=0) == model("Turn on", temperature=0, seed=5)
    seeds = {model("Turn on", temperature=2.0, seed=seed) for seed in range(8)}
    assert len(seeds) > 1
    assert len(model("Turn on", max_new_tokens=1)) < len(model("Turn on", max_new_tokens=12))
    one_by_one = [model("Turn on", temperature=2.0, seed=seed) for seed in (1, 2)]
    assert model(["Turn on"] * 2, temperature=2.0, seed=[1, 2]) == one_by_one


def test_options_left_out_are_those_of_serving_default(loaded):
    model = loaded("language_model")
    assert model(TEXTS, seed=0) == model(TEXTS)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"temprature": 1.0}, "option-unknown"),
        ({"seed": [1, 2]}, "option-out-of-range"),
        ({"beam_size": 1}, "option-unknown"),
        ({"seed": "a"}, "inputs-invalid"),
    ],
)
def test_bad_options_are_errors(loaded, options, code):
    model = loaded("language_model")
    with pytest.raises(seq2serve.UserError) as error:
        model("Turn on", **options)
    assert error.value.code == code


def test_an_unknown_option_is_an_error_that_lists_the_known_ones(translate):
    with pytest.raises(seq2serve.UserError, match="has no option 'temperature'; it has beam_size, ") as error:
        translate("Open", temperature=1.0)
    assert (error.value.code, error.value.fields["option"]) == ("option-unknown", "temperature")


def test_pairs_are_scored(translate):
    text, translation = TEXTS[0], translate(TEXTS[0])
    one = translate.score((text, translation))
    several = translate.score([(text, translation), {"source": text, "target": "Unsinn"}])
    assert several[0] == pytest.approx(one)
    assert several[1]["log_probability"] < one["log_probability"] < 0
    assert translate.score([]) == []


def test_texts_are_scored(loaded):
    model = loaded("language_model")
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
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "False"
    assert done.stderr == ""
