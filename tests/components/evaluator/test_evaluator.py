"""Evaluator: queries the SavedModel, measures as sacrebleu does, and blesses models that beat their baselines."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from seq2serve.components.base.artifact import Examples, Model, ModelBlessing, ModelEvaluation, ModelFiles, RawFiles
from seq2serve.components.base.component import Context, Earlier
from seq2serve.components.evaluator.comparison import last_blessed
from seq2serve.components.evaluator.component import Evaluator
from seq2serve.components.evaluator.report import BATCH_ROWS
from seq2serve.components.example_gen.component import ExampleGen
from seq2serve.components.example_gen.config import InputConfig, SplitConfig
from seq2serve.components.tasks.registry import get_task
from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.tokenizer import learn_tokenizer
from seq2serve.pipeline.running.raw_files import resolve_raw_files

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
    """Returns a function that evaluates a SavedModel and returns metrics, predictions and the blessing."""

    def evaluate(examples, saved_model, bar="strongest", num_examples=0, task="translation"):
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
            task=get_task(task),
            bar=bar,
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
    """Returns {metric: result} as sacrebleu's command line prints it."""
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


def test_metrics_equal_those_of_the_sacrebleu_command(evaluate, make_saved_model, write_examples, tmp_path):
    metrics, predictions, _ = evaluate(write_examples(ROWS), make_saved_model(upper))
    sources, references = zip(*ROWS, strict=True)
    for subject, hypotheses in (("model", [row["prediction"] for row in predictions]), ("baseline", sources)):
        expected = sacrebleu(tmp_path, hypotheses, references)
        assert metrics[subject] == {name: pytest.approx(expected[name]["score"], abs=1e-8) for name in ("bleu", "chrf")}
        for name, signature in metrics["signature"].items():
            assert signature == expected[name]["signature"], subject
    assert metrics["num_examples"] == len(ROWS)


def test_predictions_are_in_the_order_of_the_rows(evaluate, make_saved_model, write_examples):
    rows = [(f"text {number} " + "x" * (number * 37 % 101), "t") for number in range(2 * BATCH_ROWS + 5)]
    _, predictions, _ = evaluate(write_examples(rows[:50], rows[50:]), make_saved_model(upper))
    assert predictions == [
        {"source": source, "target": target, "prediction": source.upper()} for source, target in rows
    ]


@pytest.mark.parametrize("num_examples", [1, 4])
def test_num_examples_selects_the_first_rows(evaluate, make_saved_model, write_examples, num_examples):
    metrics, predictions, _ = evaluate(
        write_examples(ROWS[:3], ROWS[3:]), make_saved_model(upper), num_examples=num_examples
    )
    assert [row["source"] for row in predictions] == [source for source, _ in ROWS[:num_examples]]
    assert metrics["num_examples"] == num_examples


@pytest.mark.parametrize(("bar", "blessed"), [("strongest", False), ("trivial", False), ("none", True)])
def test_a_translator_that_copies_the_source_equals_its_baseline(
    evaluate, make_saved_model, write_examples, bar, blessed
):
    metrics, _, blessing = evaluate(write_examples(PAIRS), make_saved_model(tf.identity), bar)
    assert metrics["model"] == metrics["baseline"]
    assert metrics["strongest"] == "source copied"
    assert metrics["headline"] == {"metric": "bleu", "reason": ""}
    assert os.listdir(blessing.uri) == ["BLESSED" if blessed else "NOT_BLESSED"]
    verdict = json.loads(pathlib.Path(blessing.uri, *os.listdir(blessing.uri)).read_text())
    assert verdict == blessing.properties
    assert (verdict["blessed"], verdict["metric"]) == (blessed, "bleu")
    assert "on 40 test rows: not significantly better than source copied (" in verdict["reason"]
    assert verdict["baselines"]["source copied"]["interval"] == [0, 0]


def test_a_translator_that_is_right_is_blessed_on_any_number_of_rows(evaluate, make_saved_model, write_examples):
    metrics, _, blessing = evaluate(write_examples(PAIRS[:3]), make_saved_model(upper))
    assert metrics["model"]["chrf"] == pytest.approx(100)
    assert blessing.properties["blessed"]
    _, _, blessing = evaluate(write_examples(PAIRS[:3]), make_saved_model(upper_unless_it_ends_in(0)))
    assert not blessing.properties["blessed"]
    assert blessing.properties["baselines"] == {}


def test_slices_and_best_and_worst_examples_are_of_the_same_predictions(evaluate, make_saved_model, write_examples):
    rows = [(f"text {'long ' * (number % 3 * 4)}{number}", f"TEXT {number}") for number in range(30)]
    metrics, predictions, _ = evaluate(write_examples(rows), make_saved_model(upper))
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


# Comparison with the last blessed model.


@pytest.fixture
def evaluate_and_publish(tmp_path, make_saved_model):
    """Returns a function that evaluates a model as the runner does, in a pipeline root with earlier evaluations.

    The model is a new one that answers as `answer` does or, without `answer`, the earlier model number `of`.
    """
    root = tmp_path / "runs"
    evaluations, blessings = [], []  # newest first

    def evaluate_and_publish(number, examples, answer=None, of=None, **parameters):
        model = root / "Trainer" / "model" / str(of or number)
        if answer:
            model.mkdir(parents=True)
            os.rename(f"{make_saved_model(answer)}/Format-Serving", model / "Format-Serving")
        folders = [root / ".staging" / str(number + 1) / key for key in ("evaluation", "blessing")]
        for folder in folders:
            folder.mkdir(parents=True)
        evaluation, blessing = ModelEvaluation(str(folders[0])), ModelBlessing(str(folders[1]))
        settings = {"task": get_task("translation"), "bar": "strongest", "num_examples": 0, **parameters}
        Evaluator.function(
            examples=examples,
            model=Model(str(model)),
            evaluation=evaluation,
            blessing=blessing,
            earlier_evaluations=tuple(evaluations),
            earlier_blessings=tuple(blessings),
            **settings,
        )
        for artifact, folder, history in zip((evaluation, blessing), folders, (evaluations, blessings), strict=True):
            (root / "Evaluator" / folder.name).mkdir(parents=True, exist_ok=True)
            artifact.uri = str(folder.rename(root / "Evaluator" / folder.name / str(number + 1)))
            history.insert(0, Earlier(artifact, number + 1, functools.partial(lambda artifact: artifact, artifact)))
        return blessing.properties

    return evaluate_and_publish


COLOURS, THINGS = ("red", "blue"), ("door", "cup")
SENTENCES = [f"the {colour} {thing} number {i}" for i in range(10) for colour in COLOURS for thing in THINGS]
PAIRS = [(text, text.upper()) for text in SENTENCES]


def upper_unless_it_ends_in(digit):
    """Returns a model that is right except on texts that end in this digit."""

    def answer(text):
        return tf.where(tf.strings.regex_full_match(text, f".*{digit}"), "?", upper(text))

    return answer


def wrong_noun(text):
    """Answers with a wrong noun in every text."""
    return tf.strings.regex_replace(upper(text), "DOOR|CUP", "?")


def test_a_significantly_worse_model_is_not_blessed(evaluate_and_publish, write_examples):
    examples = write_examples(PAIRS)
    assert "last_blessed" not in evaluate_and_publish(1, examples, upper)
    verdict = evaluate_and_publish(3, examples, wrong_noun)
    assert not verdict["blessed"]
    last = verdict["last_blessed"]
    assert (last["evaluation"], last["num_examples"]) == (2, len(PAIRS))
    assert (last["worse"], last["better"]) == (True, False)
    assert last["ours"] < last["theirs"] == pytest.approx(100)
    assert last["slices"][0] == pytest.approx(100)
    lower, upper_bound = last["interval"]
    above_baseline, comparison = verdict["reason"].split("); ", 1)
    assert "significantly better than source copied (" in above_baseline
    assert comparison.startswith(
        f"significantly worse, p = {last['p_value']:.3f}: {last['ours']:.1f} against 100.0 of the last blessed model "
        f"(Evaluator/evaluation/2) on 40 shared test rows (paired bootstrap: 95 % confidence interval of the "
        f"difference {lower:.1f} to {upper_bound:.1f}). Next: "
    )
    assert comparison.endswith("; to accept it anyway, --set evaluation.bar=none or use another --pipeline-root")
    # A model that was not blessed is ignored: the next one is compared with the first one.
    assert evaluate_and_publish(5, examples, upper)["last_blessed"]["evaluation"] == 2


def test_an_old_model_is_compared_with_newer_blessed_models(evaluate_and_publish, write_examples):
    examples = write_examples(PAIRS)
    assert evaluate_and_publish(1, examples, wrong_noun)["blessed"]
    better = evaluate_and_publish(3, examples, upper)
    assert better["blessed"]
    assert (better["last_blessed"]["worse"], better["last_blessed"]["better"]) == (False, True)
    assert "; significantly better: 100.0 against " in better["reason"]
    again = evaluate_and_publish(5, examples, of=1)
    assert (again["blessed"], again["last_blessed"]["evaluation"]) == (False, 4)


def test_a_model_that_is_worse_by_chance_is_blessed(evaluate_and_publish, write_examples):
    examples = write_examples(PAIRS)
    evaluate_and_publish(1, examples, upper_unless_it_ends_in(4))
    verdict = evaluate_and_publish(3, examples, upper_unless_it_ends_in(9))
    assert verdict["blessed"]
    last = verdict["last_blessed"]
    assert (last["worse"], last["better"]) == (False, False)
    assert last["interval"][0] <= 0 <= last["interval"][1]
    assert "; not significantly different: " in verdict["reason"]


def test_models_are_compared_only_on_rows_that_both_answered(evaluate_and_publish, write_examples):
    examples = write_examples(PAIRS)
    evaluate_and_publish(11, examples, upper)
    other = [(f"{source} again", target) for source, target in PAIRS]
    assert "last_blessed" not in evaluate_and_publish(21, write_examples(other), upper)
    mixed = [*PAIRS, *other]
    assert evaluate_and_publish(31, write_examples(mixed), upper)["last_blessed"]["num_examples"] == len(PAIRS)


OTHER = [(f"{source} again", target) for source, target in PAIRS]


def rows_slices(tmp_path, number) -> dict[str, dict]:
    """Returns the slices of old and new rows in the metrics of an evaluation."""
    metrics = json.loads((tmp_path / "runs" / "Evaluator" / "evaluation" / str(number) / "metrics.json").read_text())
    return {part["name"]: part for part in metrics["slices"] if part["by"] == "rows"}


def base_of(model: pathlib.Path) -> ModelFiles:
    """Returns the files of an earlier model that training started from."""
    paths = [model / "Format-Keras" / name for name in ("config.json", "model.weights.h5", "tokenizer/tokenizer.json")]
    return ModelFiles("", {"files": [{"path": str(path)} for path in paths]})


def test_the_effect_is_seen_on_old_and_new_rows(evaluate_and_publish, write_examples, tmp_path, capsys):
    evaluate_and_publish(1, write_examples(PAIRS), upper_unless_it_ends_in(4))
    assert not rows_slices(tmp_path, 2)
    base = base_of(tmp_path / "runs" / "Trainer" / "model" / "1")
    evaluate_and_publish(3, write_examples([*PAIRS, *OTHER]), upper, base_model=base)
    parts = rows_slices(tmp_path, 4)
    assert {name: part["num_examples"] for name, part in parts.items()} == {"old": len(PAIRS), "new": len(OTHER)}
    assert parts["old"]["model"]["bleu"] == pytest.approx(100)
    assert parts["old"]["last_blessed"]["bleu"] < 100
    assert "last_blessed" not in parts["new"]
    assert parts["new"]["base_model"].keys() == parts["new"]["model"].keys()
    # The base model answers the new rows in upper case, and their references lack the last word.
    assert parts["new"]["base_model"] == pytest.approx(parts["new"]["model"])
    printed = capsys.readouterr().err
    assert (
        f"bleu on 40 old test rows: 100.0 against {parts['old']['last_blessed']['bleu']:.1f} of the last blessed"
        in printed
    )
    assert "of the base model" in printed
    # All rows are old now.
    evaluate_and_publish(5, write_examples([*PAIRS, *OTHER]), upper, base_model=base)
    assert not rows_slices(tmp_path, 6)


def test_a_base_model_that_cannot_answer_is_left_out(evaluate_and_publish, write_examples, tmp_path):
    evaluate_and_publish(1, write_examples(PAIRS), upper)
    other_task = save_model(tmp_path / "other", "serving_default", lambda text: {"label": text})
    examples = write_examples([*PAIRS, *OTHER])
    evaluate_and_publish(3, examples, upper, base_model=base_of(pathlib.Path(other_task)))
    assert rows_slices(tmp_path, 4).keys() == {"old", "new"}
    assert "base_model" not in rows_slices(tmp_path, 4)["new"]
    evaluate_and_publish(
        21, write_examples([*PAIRS, *OTHER, ("One more", "x")]), upper, base_model=base_of(tmp_path / "n")
    )
    assert "base_model" not in rows_slices(tmp_path, 22)["new"]


def test_several_corpora_are_slices(tmp_path, evaluate, make_saved_model):
    folder = tmp_path / "examples"
    folder.mkdir()
    for name, count in (("own", 30), ("web", 90)):
        rows = [f"{name} row {chr(97 + i // 10)}{chr(97 + i % 10)}" for i in range(count)]
        (tmp_path / f"{name}.tsv").write_text("source\ttarget\n" + "".join(f"{row}\t{row.upper()}\n" for row in rows))
    examples = Examples(str(folder))
    ExampleGen.function(
        files=resolve_raw_files(RawFiles(f"{tmp_path}/own.tsv:3,{tmp_path}/web.tsv")),
        examples=examples,
        columns={"source": "source", "target": "target"},
        input_config=InputConfig(),
        split_config=SplitConfig(0.2, 0.4),
        max_reject_share=0.0,
        context=Context(),
    )
    metrics, *_ = evaluate(examples, make_saved_model(upper))
    sizes = {part["name"]: part["num_examples"] for part in metrics["slices"] if part["by"] == "corpus"}
    assert sizes == {name: counts["test"] for name, counts in examples.properties["corpora"].items()}


def test_slice_columns_have_metrics_for_each_value(tmp_path, evaluate, make_saved_model):
    """From the file to the metrics: ExampleGen stores the column for the Evaluator only."""
    words = [("light", "law"), ("lamp", "law"), ("door", "news")]
    names = [first + second for first in "abcdefghij" for second in "klmnopqr"]
    lines = [f"{word} {n}\t{word if domain == 'law' else 'X'} {n}\t{domain}" for n in names for word, domain in words]
    file = tmp_path / "pairs.tsv"
    empty = [f"lamp {name} {name}\tlamp {name} {name}\t" for name in names[:40]]
    file.write_text("\n".join(["source\ttarget\tdomain", *lines, *empty]) + "\n", encoding="utf-8")
    files = RawFiles(str(file), {"files": [{"path": str(file), "bytes": file.stat().st_size, "sha256": ""}]})
    examples = Examples(str(tmp_path / "examples"))
    os.makedirs(examples.uri)
    ExampleGen.function(
        files=files,
        examples=examples,
        columns={"source": "source", "target": "target"},
        input_config=InputConfig(),
        split_config=SplitConfig(0.2, 0.5),
        max_reject_share=0.5,
        context=Context(),
        slice_columns=("domain",),
    )
    assert examples.properties["columns"] == ["source", "target"]
    assert examples.properties["num_rejected"] == 0
    metrics, predictions, _ = evaluate(examples, make_saved_model(tf.identity))
    law, news, other = (part for part in metrics["slices"] if part["by"] == "domain")
    assert (law["name"], news["name"], other["name"]) == ("law", "news", "(empty)")
    num_examples = law["num_examples"] + news["num_examples"] + other["num_examples"]
    assert num_examples == metrics["num_examples"] == len(predictions)
    assert law["model"]["chrf"] > news["model"]["chrf"] + 30
    assert {row["domain"] for row in predictions} == {"law", "news", ""}


# Other tasks have other signatures and baselines, and lower may be better.


def test_a_model_of_another_task_is_not_compared_with(tmp_path):
    """The rows of a classifier have all the columns of a language model's rows."""
    rows = [{"text": f"text {i}", "label": "good"} for i in range(40)]
    evaluation = tmp_path / "Evaluator" / "evaluation" / "2"
    evaluation.mkdir(parents=True)
    (evaluation / "metrics.json").write_text(json.dumps({"model": {"accuracy": 100.0, "macro_f1": 100.0}}))
    lines = (json.dumps({**row, "prediction": "good"}) + "\n" for row in rows)
    (evaluation / "predictions.jsonl").write_text("".join(lines))
    artifact = ModelEvaluation(str(evaluation))
    later = Model(str(tmp_path / "Trainer" / "model" / "5")), rows, [Earlier(artifact, 2, lambda: artifact)]
    assert last_blessed(get_task("language_model"), *later) is None
    assert len(last_blessed(get_task("classification"), *later).rows) == 40


@pytest.fixture
def write_splits(tmp_path):
    """Returns a function that writes the rows of the train and the test split of Examples."""

    def write(train, test) -> Examples:
        for split, rows in (("train", train), ("test", test)):
            (tmp_path / f"Split-{split}").mkdir()
            with tf.io.TFRecordWriter(str(tmp_path / f"Split-{split}/data_tfrecord-00000-of-00001")) as writer:
                for row in rows:
                    example = tf.train.Example()
                    for column, text in row.items():
                        example.features.feature[column].bytes_list.value.append(text.encode())
                    writer.write(example.SerializeToString())
        return Examples(str(tmp_path), {"splits": ["train", "test"], "num_examples": {"train": len(train)}})

    return write


def save_model(folder, signature, answer) -> str:
    """Saves a model with one signature, which computes `answer`."""
    module = tf.Module()
    serve = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    module.serve = serve
    tf.saved_model.save(module, str(folder / "Format-Serving"), signatures={signature: serve})
    return str(folder)


@pytest.mark.parametrize(("bits", "blessed"), [(1.0, True), (9.0, False)])
def test_fewer_bits_per_character_are_better(evaluate, write_splits, tmp_path, bits, blessed):
    def score(text):
        characters = tf.strings.length(text, "UTF8_CHAR")
        log_probability = tf.cast(characters, tf.float32) * -0.6931472 * bits
        return {"log_probability": log_probability, "characters": characters, "tokens": characters + 1}

    rows = [{"text": f"{number} the quick brown fox"} for number in range(24)]
    examples = write_splits(rows[:2], rows[2:])
    model = save_model(tmp_path / "model", "score", score)
    tokenizer = tmp_path / "model" / "Format-Keras" / "tokenizer"
    tokenizer.mkdir(parents=True)
    learn_tokenizer([("quick", 1)], TokenizerConfig(vocab_size=300), str(tokenizer))
    metrics, predictions, blessing = evaluate(examples, model, task="language_model")
    assert metrics["model"]["bits_per_character"] == pytest.approx(bits, rel=1e-4)
    assert list(metrics["baselines"]) == ["characters by frequency", "Kneser-Ney 5-gram of characters"]
    assert metrics["strongest"] == "Kneser-Ney 5-gram of characters"
    assert 1 < metrics["baseline"]["bits_per_character"] < 8
    assert list(blessing.properties["baselines"]) == list(metrics["baselines"])
    assert blessing.properties["blessed"] is blessed
    assert [row["tokens"] for row in predictions] == [len(row["text"]) + 1 for row in rows[2:]]
    assert metrics["examples"]["best"][0]["quality"] == pytest.approx(bits, rel=1e-4)


def test_a_classifier_is_compared_with_the_majority_label_and_tf_idf(evaluate, write_splits, tmp_path):
    def classify(text):
        good = tf.cast(tf.strings.regex_full_match(text, ".*good.*"), tf.float32)
        probabilities = tf.stack([0.9 - 0.8 * good, 0.1 + 0.8 * good], axis=1)
        labels = tf.repeat([["bad", "good"]], tf.shape(text)[0], axis=0)
        return {"label": tf.where(good > 0, "good", "bad"), "labels": labels, "probabilities": probabilities}

    rows = [{"text": f"a {label} {i}", "label": label} for i in range(9) for label in ("good", "good", "bad")]
    examples = write_splits(rows, rows[:6])
    model = save_model(tmp_path / "model", "serving_default", classify)
    metrics, predictions, blessing = evaluate(examples, model, task="classification")
    assert metrics["model"]["accuracy"] == 100
    assert list(metrics["baselines"]) == ["majority label", "random label", "TF-IDF, logistic regression"]
    assert metrics["baselines"]["majority label"]["accuracy"] == pytest.approx(100 * 2 / 3)
    assert metrics["strongest"] == "TF-IDF, logistic regression"
    assert blessing.properties["blessed"]
    assert [row["prediction"] for row in predictions] == [row["label"] for row in rows[:6]]
    assert metrics["tables"][0]["title"] == "By label"
    assert [table["is_matrix"] for table in metrics["tables"]] == [False, True, False]
    assert {part["name"]: part["model"]["accuracy"] for part in metrics["slices"] if part["by"] == "label"} == {
        "good": 100,
        "bad": 100,
    }
    assert metrics["examples"]["quality"] == "probability of the right label, %"
