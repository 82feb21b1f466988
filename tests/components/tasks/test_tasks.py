"""Every task is registered, is cheap to import, and has parts that fit together."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seq2serve import components
from seq2serve.components.base.errors import UserError
from seq2serve.components.evaluator.comparison import answers_of, prediction_lines
from seq2serve.components.tasks.data import DataSpec
from seq2serve.components.tasks.registry import TASKS, get_task
from seq2serve.models.config import DecodingConfig, ModelConfig, Recipe, TrainingConfig
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.pipeline.config import UNCUT

ROWS = {
    "translation": [
        {"source": "Turn on the light.", "target": "Schalte das Licht ein."},
        {"source": "Open the door in the cellar.", "target": "Öffne die Tür im Keller."},
        {"source": "Check the sensor in the garden.", "target": "Prüfe den Sensor im Garten."},
    ],
    "classification": [{"text": f"row {i}", "label": "good" if i % 3 else "bad"} for i in range(12)],
    "language_model": [{"text": "the light in the hall"}, {"text": "the lamp in the hall"}],
}
BEST_ANSWERS = {
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


def test_every_task_folder_is_registered():
    folders = {path.parent.name for path in Path(components.__path__[0]).glob("tasks/*/task.py")}
    assert folders == set(TASKS)
    assert {get_task(name).name for name in folders} == folders


def test_an_unknown_task_is_a_user_error_that_suggests_the_closest_name():
    message = (
        r"^unknown task 'translate' \(did you mean translation\?\); the tasks are translation, classification, "
        r"language_model$"
    )
    with pytest.raises(UserError, match=message) as error:
        get_task("translate")
    assert (error.value.code, error.value.fields) == ("name-unknown", {"kind": "task", "name": "translate"})


def test_importing_the_tasks_imports_no_slow_library():
    code = (
        "import sys, seq2serve.components.tasks.registry; "
        "assert not {'tensorflow', 'keras', 'sacrebleu', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


def test_no_component_depends_on_the_name_of_a_task():
    paths = [path for path in Path(components.__path__[0]).rglob("*.py") if "tasks" not in path.parts]
    assert "trainer" in {path.parent.name for path in paths}
    for path in paths:
        assert not re.search(rf"[\"']({'|'.join(TASKS)})[\"']|task\w*\.name", path.read_text()), path


def test_right_answers_have_a_better_headline_than_every_baseline(task, tokenizer):
    rows = ROWS[task.name]
    best, headline = task.measure(BEST_ANSWERS[task.name], rows), task.metrics[0]
    tokenizers = dict.fromkeys(task.text_columns, tokenizer)
    baselines = task.baselines(lambda: rows, [{**row} for row in rows], lambda: tokenizers)
    assert any(baseline.is_trivial for baseline in baselines.values())
    for name, baseline in baselines.items():
        measured = task.measure(baseline.answers, rows)
        assert measured.metrics.keys() == best.metrics.keys()
        if name != "TF-IDF, logistic regression":  # it is trained on these rows
            assert headline.sign * (best.metrics[headline.name] - measured.metrics[headline.name]) > 0, name
    assert best.signature.keys() <= best.metrics.keys()


def test_the_stored_predictions_suffice_to_compute_the_headline(task):
    rows = ROWS[task.name]
    answers = BEST_ANSWERS[task.name] | {column: [row[column] for row in rows] for column in task.label_columns}
    stored = answers_of(task, list(prediction_lines(task, answers, rows)))
    measured = task.measure(answers, rows)
    for metric in measured.statistics.metrics:
        assert task.statistics(stored, rows).score(metric) == pytest.approx(measured.metrics[metric.name])
    assert measured.statistics.total().items() <= measured.metrics.items()
    assert len(measured.quality) == len(measured.statistics) == len(rows)


def test_the_parts_of_a_task_fit_together(task, finished_run_of):
    """The batches fit the model, its output fits the loss, and the exported signatures have the declared outputs."""
    finished_run = finished_run_of(task.name)
    examples = finished_run.output("Transform", "transformed_examples")
    counts = [examples.properties["label_counts"][column] for column in task.label_columns]
    data = DataSpec(finished_run.output("Transform", "tokenizer").properties["vocab_size"], *counts, max_length=16)
    recipe = Recipe(
        ModelConfig(1, 1, d_model=8, num_heads=2, dff=8, max_positions=16),
        TrainingConfig(batch_tokens=64, label_weights="balanced", token_dropout=0.5),
        DecodingConfig(),
    )
    implementation, limit = task.implementation(), examples.properties["max_length"]
    model = implementation.make_model(recipe.model, data)
    files = [str(path) for path in Path(examples.uri).glob("Split-train/*")]
    inputs, labels = next(iter(implementation.make_batches(files, recipe, 0, None)))
    assert np.isfinite(implementation.make_loss(recipe.training, data)(labels, model(inputs)).numpy())
    text = task.example[1]
    with SavedModelRuntime(finished_run.output("Trainer", "model").path("Format-Serving")) as saved_model:
        answers = saved_model.run("serving_default", {"text": [text, ""]})
        judged = saved_model.run(task.judged, {"text": [text, ""]})
    assert len(answers[task.output]) == 2
    if limit < UNCUT and "truncated" in answers:  # the served model cuts where training does
        with SavedModelRuntime(finished_run.output("Trainer", "model").path("Format-Serving")) as saved_model:
            texts = [" ".join(["."] * number) for number in (1, limit + 1)]
            assert saved_model.run("serving_default", {"text": texts})["truncated"].tolist() == [False, True]
    row = dict.fromkeys(task.columns, text) | dict.fromkeys(task.label_columns, next(iter(data.label_counts), ""))
    first = {name: values.tolist()[:1] for name, values in _decoded(judged).items()}
    assert task.measure(first, [row]).metrics.keys() == {metric.name for metric in task.metrics}


def _decoded(outputs):
    return {name: np.vectorize(lambda v: v.decode() if isinstance(v, bytes) else v)(v) for name, v in outputs.items()}
