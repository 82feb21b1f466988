"""A Task says all that differs between applications, and is a value: found by name, cheap until it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF

from components.errors import UserError
from components.evaluator_comparison import answers_of, prediction_lines
from components.task import Features, Recipe
from components.tasks import TASKS, get_task
from models.config import DecodingConfig, ModelConfig, TrainingConfig

ROWS = {
    "translation": [
        {"source": "Turn on the light.", "target": "Schalte das Licht ein."},
        {"source": "Open the door in the cellar.", "target": "Öffne die Tür im Keller."},
        {"source": "Check the sensor in the garden.", "target": "Prüfe den Sensor im Garten."},
    ],
    "classification": [{"text": f"row {i}", "label": "good" if i % 3 else "bad"} for i in range(12)],
    "language_model": [{"text": "the light in the hall"}, {"text": "the lamp in the hall"}],
}
BEST = {
    "translation": {"translation": [row["target"] for row in ROWS["translation"]]},
    "classification": {
        "labels": [["bad", "good"]] * 12,
        "probabilities": [[0.1, 0.9] if i % 3 else [0.9, 0.1] for i in range(12)],
    },
    "language_model": {"log_probability": [-1.0, -1.0], "characters": [21, 20], "tokens": [6, 6]},
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def test_a_task_is_found_by_its_name(task):
    assert get_task(task.name) is task


def test_an_unknown_task_is_bad_input_and_the_nearest_is_named():
    with pytest.raises(UserError, match=r"no task 'translate'; did you mean 'translation'\? Tasks: translation"):
        get_task("translate")


def test_nothing_heavy_is_imported_before_a_task_is_used():
    code = "import sys, components.tasks; assert not {'tensorflow', 'keras', 'sacrebleu', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_no_component_asks_which_task_it_is():
    paths = {path.name: path for path in (Path(__file__).parents[2] / "components").glob("*.py")}
    assert "trainer.py" in paths
    for path in paths.values():
        if not path.name.startswith("task"):
            assert not re.search(rf"[\"']({'|'.join(TASKS)})[\"']|task\w*\.name", path.read_text()), path.name


def test_the_right_answers_get_the_best_headline_and_each_baseline_less(task):
    rows = ROWS[task.name]
    best = task.measure(BEST[task.name], rows)
    baselines = task.baselines(lambda: rows, [{**row} for row in rows])
    assert baselines
    for name, answers in baselines.items():
        measured = task.measure(answers, rows)
        assert measured.metrics.keys() == best.metrics.keys()
        if name != "TF-IDF, logistic regression":  # it may know rows that it was shown
            assert (measured.metrics[task.headline] < best.metrics[task.headline]) == task.higher_is_better, name
    assert best.signature.keys() <= best.metrics.keys()


def test_what_is_kept_of_answers_is_enough_to_measure_them_by_the_headline(task):
    rows = ROWS[task.name]
    answers = BEST[task.name] | {column: [row[column] for row in rows] for column in task.label_columns}
    kept = answers_of(task, list(prediction_lines(task, answers, rows)))
    measured = task.measure(answers, rows)
    assert task.tally(kept, rows).total()[task.headline] == pytest.approx(measured.metrics[task.headline])
    assert measured.tally.total().items() <= measured.metrics.items()
    assert len(measured.quality) == len(measured.tally) == len(rows)


def test_a_translation_is_measured_by_sacrebleu():
    predictions, references = ["das Licht ist an", "die Tür"], ["das Licht ist aus", "die Tür ist auf"]
    rows = [{"source": "", "target": reference} for reference in references]
    measured = get_task("translation").measure({"translation": predictions}, rows)
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        assert measured.metrics[name] == metric.corpus_score(predictions, [references]).score
        assert measured.signature[name] == str(metric.get_signature())
        assert 0 < measured.metrics[name] < 100


def test_a_long_document_counts_for_more_than_a_short_one():
    answers = {"log_probability": [-900.0, -1.0], "characters": [990, 10], "tokens": [297, 4]}
    metrics = get_task("language_model").measure(answers, [{"text": ""}] * 2).metrics
    assert metrics["bits_per_character"] == pytest.approx(901 / 1000 / 0.6931472)
    assert metrics["perplexity"] == pytest.approx(2.7182818 ** (901 / 301))


def test_the_parts_of_a_task_fit_together(task, house_of):
    """Its batches feed its model, its loss takes what comes out, and what it exports answers as it says it does."""
    import numpy as np

    from models.runtime import SavedModelRuntime

    house = house_of(task.name)
    examples = house.output("Transform", "transformed_examples")
    counts = [examples.properties["label_counts"][column] for column in task.label_columns]
    features = Features(house.output("Transform", "tokenizer").properties["vocab_size"], *counts)
    recipe = Recipe(
        ModelConfig(1, 1, d_model=8, num_heads=2, dff=8, max_positions=16),
        TrainingConfig(batch_tokens=64, label_weights="balanced", token_dropout=0.5),
        DecodingConfig(),
    )
    model = task.make_model(recipe.model, features)
    files = [str(path) for path in Path(examples.uri).glob("Split-train/*")]
    inputs, labels = next(iter(task.make_batches(files, recipe, 0, None)))
    assert np.isfinite(task.make_loss(recipe.training, features)(labels, model(inputs)).numpy())
    text = task.example[1]
    with SavedModelRuntime(house.output("Trainer", "model").path("Format-Serving")) as served:
        answers = served.run("serving_default", {"text": [text, ""]})
        judged = served.run(task.judged, {"text": [text, ""]})
    assert len(answers[task.output]) == 2
    row = dict.fromkeys(task.columns, text) | dict.fromkeys(task.label_columns, next(iter(features.label_counts), ""))
    assert task.measure({name: values.tolist()[:1] for name, values in _decoded(judged).items()}, [row]).metrics


def _decoded(outputs):
    import numpy as np

    return {name: np.vectorize(lambda v: v.decode() if isinstance(v, bytes) else v)(v) for name, v in outputs.items()}
