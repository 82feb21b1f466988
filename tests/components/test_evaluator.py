"""Evaluator: asks the SavedModel itself, scores as sacrebleu does, and blesses what beats copying the source."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from components.artifact import Examples, Model, ModelBlessing, ModelEvaluation, RawFiles
from components.component import Context
from components.evaluator import BATCH_ROWS, Evaluator
from components.evaluator_comparison import last_blessed
from components.example_gen import ExampleGen, Splitting
from components.file_formats import Reading
from components.tasks import get_task

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
    assert ("lower evaluation.min_over_baseline" in word["reason"]) is not blessed
    assert word["reason"].count("(BLEU points)") == 1
    assert f"{metrics['model']['bleu']:.2f}" in word["reason"]
    assert f"{metrics['baseline']['bleu']:.2f}" in word["reason"]


def test_slices_and_extremes_are_of_the_same_answers(evaluate, plant, write_examples):
    rows = [(f"text {'long ' * (number % 3 * 4)}{number}", f"TEXT {number}") for number in range(30)]
    metrics, predictions, _ = evaluate(write_examples(rows), plant(upper))
    parts = metrics["slices"]
    assert [part["name"] for part in parts] == [f"{ends} characters" for ends in ("1 to 16", "17 to 32", "33 to 64")]
    assert [part["num_examples"] for part in parts] == [10, 10, 10]
    assert parts[0]["model"]["chrf"] > parts[1]["model"]["chrf"] > parts[2]["model"]["chrf"]
    for part in parts:
        assert part["intervals"]["chrf"][0] <= part["model"]["chrf"] <= part["intervals"]["chrf"][1]
    low, high = metrics["intervals"]["model"]["bleu"]
    assert low < metrics["model"]["bleu"] < high
    best, worst = metrics["examples"]["best"], metrics["examples"]["worst"]
    assert {row["source"] for row in best} == {source for source, _ in rows if "long" not in source}
    assert all(row["source"].count("long") == 8 for row in worst)
    assert worst[0]["quality"] <= worst[-1]["quality"] < best[-1]["quality"] <= best[0]["quality"]
    assert {(row["source"], row["prediction"]) for row in (*best, *worst)} <= {
        (row["source"], row["prediction"]) for row in predictions
    }


# The last blessed model is one to beat as well.


@pytest.fixture
def published(tmp_path, plant):
    """Returns a function that evaluates a model as the runner would, in a root where others were evaluated before.

    The model is a new one, or where no answer is given that of an earlier number, `of`.
    """
    root = tmp_path / "runs"

    def published(number, examples, answer=None, of=None, **parameters):
        model = root / "Trainer" / "model" / str(of or number)
        if answer:
            model.mkdir(parents=True)
            os.rename(f"{plant(answer)}/Format-Serving", model / "Format-Serving")
        folders = [root / ".staging" / str(number + 1) / key for key in ("evaluation", "blessing")]
        for folder in folders:
            folder.mkdir(parents=True)
        evaluation, blessing = ModelEvaluation(str(folders[0])), ModelBlessing(str(folders[1]))
        settings = {"task": "translation", "min_over_baseline": 1.0, "num_examples": 0, **parameters}
        Evaluator.function(
            examples=examples, model=Model(str(model)), evaluation=evaluation, blessing=blessing, **settings
        )
        for folder in folders:
            (root / "Evaluator" / folder.name).mkdir(parents=True, exist_ok=True)
            folder.rename(root / "Evaluator" / folder.name / str(number + 1))
        return blessing.properties

    return published


COLOURS, THINGS = ("red", "blue"), ("door", "cup")
SENTENCES = [f"the {colour} {thing} number {i}" for i in range(10) for colour in COLOURS for thing in THINGS]
PAIRS = [(text, text.upper()) for text in SENTENCES]


def all_but(number):
    """Returns what shouts, but where a text ends in a number."""

    def shout(text):
        return tf.where(tf.strings.regex_full_match(text, f".*{number}"), "?", upper(text))

    return shout


def bad(text):
    """Shouts, and gets the thing wrong."""
    return tf.strings.regex_replace(upper(text), "DOOR|CUP", "?")


def test_a_significantly_worse_model_is_not_blessed(published, write_examples):
    examples = write_examples(PAIRS)
    assert "last_blessed" not in published(1, examples, upper)
    word = published(3, examples, bad)
    assert not word["blessed"]
    assert "is at least the baseline's" in word["reason"]
    assert "significantly worse" in word["reason"]
    assert "--pipeline-root" in word["reason"]
    last = word["last_blessed"]
    assert (last["evaluation"], last["num_examples"], last["worse"]) == (2, len(PAIRS), True)
    assert last["ours"] < last["theirs"] == pytest.approx(100)
    assert last["slices"][0] == pytest.approx(100)
    # What was not blessed is none to beat: the next is held against the first again.
    assert published(5, examples, upper)["last_blessed"]["evaluation"] == 2
    assert [last["worse"], last["better"]] == [True, False]


def test_a_model_that_is_taken_up_again_stands_beside_those_blessed_since(published, write_examples):
    examples = write_examples(PAIRS)
    assert published(1, examples, bad, min_over_baseline=-100.0)["blessed"]
    better = published(3, examples, upper)
    assert better["blessed"]
    assert "significantly better: " in better["reason"]
    again = published(5, examples, of=1, min_over_baseline=-100.0)
    assert (again["blessed"], again["last_blessed"]["evaluation"]) == (False, 4)


def test_a_model_that_is_worse_by_chance_is_blessed(published, write_examples):
    examples = write_examples(PAIRS)
    published(1, examples, all_but(4))
    word = published(3, examples, all_but(9))
    assert word["blessed"]
    assert "not significantly different: " in word["reason"]
    assert word["last_blessed"]["interval"][0] <= 0 <= word["last_blessed"]["interval"][1]


def test_only_what_was_asked_the_same_before_is_compared_with(published, write_examples):
    examples = write_examples(PAIRS)
    published(11, examples, upper)
    assert "last_blessed" not in published(3, examples, upper), "a later model is no earlier one"
    other = [(f"{source} again", target) for source, target in PAIRS]
    assert "last_blessed" not in published(21, write_examples(other), upper)
    mixed = [*PAIRS, *other]
    assert published(31, write_examples(mixed), upper)["last_blessed"]["num_examples"] == len(PAIRS)


def test_of_kept_columns_every_value_has_its_metrics(tmp_path, evaluate, plant):
    """From the file to the metrics: ExampleGen keeps the column, and shows it to the Evaluator alone."""
    words = [("light", "law"), ("lamp", "law"), ("door", "news")]
    names = [first + second for first in "abcdefghij" for second in "klmnopqr"]
    lines = [f"{word} {n}\t{word if domain == 'law' else 'X'} {n}\t{domain}" for n in names for word, domain in words]
    file = tmp_path / "pairs.tsv"
    file.write_text("\n".join(["source\ttarget\tdomain", *lines, "a\tb\t"]) + "\n", encoding="utf-8")
    files = RawFiles(str(file), {"files": [{"path": str(file), "bytes": file.stat().st_size, "sha256": ""}]})
    examples = Examples(str(tmp_path / "examples"))
    os.makedirs(examples.uri)
    ExampleGen.function(
        files=files,
        examples=examples,
        columns={"source": "source", "target": "target"},
        reading=Reading(),
        splitting=Splitting(0.2, 0.5),
        max_reject_share=0.5,
        context=Context(),
        slice_columns=("domain",),
    )
    assert examples.properties["columns"] == ["source", "target"]
    assert examples.properties["num_rejected_by_reason"] == {"empty domain": 1}
    metrics, predictions, _ = evaluate(examples, plant(tf.identity))
    law, news = (part for part in metrics["slices"] if part["by"] == "domain")
    assert (law["name"], news["name"]) == ("law", "news")
    assert law["num_examples"] + news["num_examples"] == metrics["num_examples"] == len(predictions)
    assert law["model"]["chrf"] > news["model"]["chrf"] + 30
    assert {row["domain"] for row in predictions} == {"law", "news"}


# Other tasks: their own signature is asked, their own baselines compared with, and lower may be better.


def test_a_model_of_another_task_is_none_to_beat(tmp_path):
    """A classifier's rows have all the columns that a language model's have."""
    rows = [{"text": f"text {i}", "label": "good"} for i in range(40)]
    evaluation, blessing = (tmp_path / "Evaluator" / key / "2" for key in ("evaluation", "blessing"))
    for folder in (evaluation, blessing):
        folder.mkdir(parents=True)
    (blessing / "BLESSED").touch()
    (evaluation / "metrics.json").write_text(json.dumps({"model": {"accuracy": 100.0, "macro_f1": 100.0}}))
    lines = (json.dumps({**row, "prediction": "good"}) + "\n" for row in rows)
    (evaluation / "predictions.jsonl").write_text("".join(lines))
    later = Model(str(tmp_path / "Trainer" / "model" / "5")), rows, ModelBlessing(str(tmp_path / "6" / "blessing"))
    assert last_blessed(get_task("language_model"), *later) is None
    assert len(last_blessed(get_task("classification"), *later).rows) == 40


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
    assert metrics["examples"]["best"][0]["quality"] == pytest.approx(1, rel=1e-4)


def test_where_no_word_has_two_characters_the_majority_is_all_there_is_to_beat():
    rows = [{"text": f"{mood} 好", "label": mood} for mood in "日月"] * 3
    assert list(get_task("classification").baselines(lambda: rows, rows)) == ["majority label"]


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
    assert [table["is_matrix"] for table in metrics["tables"]] == [False, True, False]
    assert {part["name"]: part["model"]["accuracy"] for part in metrics["slices"] if part["by"] == "label"} == {
        "good": 100,
        "bad": 100,
    }
    assert metrics["examples"]["quality"] == "probability of the right label, %"
