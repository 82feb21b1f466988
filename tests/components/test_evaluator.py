"""Evaluator: asks the SavedModel itself, scores as sacrebleu does, and blesses what beats copying the source."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from components.artifact import Examples, Model, ModelBlessing, ModelEvaluation
from components.evaluator import BATCH_ROWS, Evaluator

ROWS = [
    ("Turn on the light.", "TURN ON THE LIGHT."),
    ("The door isn't open, is it?", "DIE TÜR IST DOCH NICHT OFFEN?"),
    ("A", "A"),
    ("Temperature: 21.5 °C (70.7 °F): “warm”", "TEMPERATUR: 21,5 °C (70,7 °F): „WARM“"),
    ("Drücke 日本語 😀 100 %", "DRÜCKE 日本語 😀 100 %"),
    ("Unknown", "unbekannt"),
]


@pytest.fixture
def evaluate(tmp_path):
    """Returns a function that evaluates a planted model and returns metrics, predictions and the blessing."""

    def evaluate(examples, saved_model, min_over_baseline=1.0, num_examples=0, task="translation"):
        number = len(list(tmp_path.glob("evaluation-*")))
        evaluation = ModelEvaluation(str(tmp_path / f"evaluation-{number}"))
        blessing = ModelBlessing(str(tmp_path / f"blessing-{number}"))
        os.makedirs(evaluation.uri)
        os.makedirs(blessing.uri)
        Evaluator.function(
            examples=examples,
            model=Model(saved_model),
            evaluation=evaluation,
            blessing=blessing,
            task=task,
            min_over_baseline=min_over_baseline,
            num_examples=num_examples,
        )
        metrics = json.loads(pathlib.Path(evaluation.path("metrics.json")).read_text())
        with open(evaluation.path("predictions.jsonl"), encoding="utf-8") as file:
            predictions = [json.loads(line) for line in file]
        assert evaluation.properties == metrics
        return metrics, predictions, blessing

    return evaluate


def upper(text):
    return tf.strings.upper(text, encoding="utf-8")


def sacrebleu(folder, hypotheses, references):
    """Returns {metric: (score, signature)} as the command line prints them."""
    for name, lines in (("hypotheses", hypotheses), ("references", references)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "references", "-i", "hypotheses", "-m", "bleu", "chrf", "-w", "9"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {result["name"].lower().replace("chrf2", "chrf"): result for result in json.loads(done.stdout)}


def test_metrics_are_those_of_sacrebleu_on_the_command_line(evaluate, plant, write_examples, tmp_path):
    metrics, predictions, _ = evaluate(write_examples(ROWS), plant(upper))
    sources, references = zip(*ROWS, strict=True)
    for who, hypotheses in (("model", [row["prediction"] for row in predictions]), ("baseline", sources)):
        expected = sacrebleu(tmp_path, hypotheses, references)
        assert metrics[who] == {name: pytest.approx(expected[name]["score"], abs=1e-8) for name in ("bleu", "chrf")}
        for name, signature in metrics["signature"].items():
            assert signature == expected[name]["signature"], who
    assert metrics["num_examples"] == len(ROWS)


def test_the_answers_are_the_saved_models_in_the_order_of_the_rows(evaluate, plant, write_examples):
    rows = [(f"text {number} " + "x" * (number * 37 % 101), "t") for number in range(2 * BATCH_ROWS + 5)]
    _, predictions, _ = evaluate(write_examples(rows[:50], rows[50:]), plant(upper))
    assert predictions == [
        {"source": source, "target": target, "prediction": source.upper()} for source, target in rows
    ]


@pytest.mark.parametrize("num_examples", [1, 4])
def test_it_may_ask_the_first_rows_only(evaluate, plant, write_examples, num_examples):
    metrics, predictions, _ = evaluate(write_examples(ROWS[:3], ROWS[3:]), plant(upper), num_examples=num_examples)
    assert [row["source"] for row in predictions] == [source for source, _ in ROWS[:num_examples]]
    assert metrics["num_examples"] == num_examples


def test_copying_the_source_is_the_baseline(evaluate, plant, write_examples):
    metrics, _, blessing = evaluate(write_examples(ROWS), plant(tf.identity), min_over_baseline=0.0)
    assert metrics["model"] == metrics["baseline"]
    assert blessing.properties["blessed"], "as good as the baseline is at least 0 above it"


@pytest.mark.parametrize(("slack", "blessed"), [(0.01, True), (-0.01, False)])
def test_a_model_is_blessed_from_the_margin_on(evaluate, plant, write_examples, slack, blessed):
    examples, model = write_examples(ROWS), plant(upper)
    metrics, _, _ = evaluate(examples, model)
    margin = metrics["model"]["bleu"] - metrics["baseline"]["bleu"]
    assert margin > 20
    _, _, blessing = evaluate(examples, model, min_over_baseline=margin - slack)
    assert os.listdir(blessing.uri) == ["BLESSED" if blessed else "NOT_BLESSED"]
    word = json.loads(pathlib.Path(blessing.uri, *os.listdir(blessing.uri)).read_text())
    assert word == blessing.properties
    assert word["blessed"] is blessed
    assert ("at least" if blessed else "below") in word["reason"]
    assert f"{metrics['model']['bleu']:.2f}" in word["reason"]
    assert f"{metrics['baseline']['bleu']:.2f}" in word["reason"]


# Other tasks: their own signature is asked, their own baselines compared with, and lower may be better.


@pytest.fixture
def write_texts(tmp_path):
    """Returns a function that writes rows of columns as the train and the test split of Examples."""

    def write(train, test) -> Examples:
        for split, rows in (("train", train), ("test", test)):
            (tmp_path / f"Split-{split}").mkdir()
            with tf.io.TFRecordWriter(str(tmp_path / f"Split-{split}/data_tfrecord-00000-of-00001")) as writer:
                for row in rows:
                    example = tf.train.Example()
                    for column, text in row.items():
                        example.features.feature[column].bytes_list.value.append(text.encode())
                    writer.write(example.SerializeToString())
        return Examples(str(tmp_path), {"splits": ["train", "test"]})

    return write


def save(folder, signature, answer) -> str:
    """Saves a model one of whose signatures answers as `answer` does."""
    module = tf.Module()
    serve = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    module.serve = serve
    tf.saved_model.save(module, str(folder / "Format-Serving"), signatures={signature: serve})
    return str(folder)


@pytest.mark.parametrize(("margin", "blessed"), [(1.0, True), (100.0, False)])
def test_fewer_bits_are_better(evaluate, write_texts, tmp_path, margin, blessed):
    def score(text):
        characters = tf.strings.length(text, "UTF8_CHAR")
        log_probability = tf.cast(characters, tf.float32) * -0.6931472  # a bit for each character
        return {"log_probability": log_probability, "characters": characters, "tokens": characters + 1}

    rows = [{"text": f"{word} the quick brown fox"} for word in ("one", "two", "three", "four")]
    examples = write_texts(rows[:2], rows[2:])
    model = save(tmp_path / "model", "score", score)
    metrics, predictions, blessing = evaluate(examples, model, margin, task="language_model")
    assert metrics["model"]["bits_per_character"] == pytest.approx(1, rel=1e-4)
    assert list(metrics["baselines"]) == ["characters by frequency", "5-gram of characters"]
    assert metrics["baseline"] == metrics["baselines"]["characters by frequency"]
    assert 2 < metrics["baseline"]["bits_per_character"] < 8
    assert blessing.properties["blessed"] is blessed
    assert ("is at most" if blessed else "is above") in blessing.properties["reason"]
    assert [row["tokens"] for row in predictions] == [len(row["text"]) + 1 for row in rows[2:]]


def test_a_classifier_stands_beside_the_majority_and_tf_idf(evaluate, write_texts, tmp_path):
    def classify(text):
        good = tf.cast(tf.strings.regex_full_match(text, ".*good.*"), tf.float32)
        probabilities = tf.stack([0.9 - 0.8 * good, 0.1 + 0.8 * good], axis=1)
        labels = tf.repeat([["bad", "good"]], tf.shape(text)[0], axis=0)
        return {"label": tf.where(good > 0, "good", "bad"), "labels": labels, "probabilities": probabilities}

    rows = [{"text": f"a {label} {i}", "label": label} for i in range(9) for label in ("good", "good", "bad")]
    examples = write_texts(rows, rows[:6])
    model = save(tmp_path / "model", "serving_default", classify)
    metrics, predictions, blessing = evaluate(examples, model, task="classification")
    assert metrics["model"]["accuracy"] == 100
    assert metrics["baseline"]["accuracy"] == pytest.approx(100 * 2 / 3)
    assert {"majority label", "TF-IDF, logistic regression"} >= set(metrics["baselines"]) >= {"majority label"}
    assert blessing.properties["blessed"]
    assert [row["prediction"] for row in predictions] == [row["label"] for row in rows[:6]]
    assert metrics["tables"][0]["title"] == "By label"
