"""A Task says all that differs between applications, and is a value: found by name, cheap until it is used."""

import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF

from components.errors import UserError
from components.tasks import TASKS, get_task
from models.config import ModelConfig


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


def test_the_right_answers_get_the_best_headline_and_the_baseline_less(task):
    references = ["Schalte das Licht ein.", "Öffne die Tür im Keller.", "Prüfe den Sensor im Garten."]
    inputs = ["Turn on the light.", "Open the door in the cellar.", "Check the sensor in the garden."]
    best, signature = task.measure(references, references)
    costs_nothing, _ = task.measure(task.baseline(inputs), references)
    assert best[task.headline] > costs_nothing[task.headline]
    assert best.keys() == costs_nothing.keys() == signature.keys()
    assert len(task.baseline(inputs)) == len(inputs)


def test_a_translation_is_measured_by_sacrebleu():
    predictions, references = ["das Licht ist an", "die Tür"], ["das Licht ist aus", "die Tür ist auf"]
    values, signatures = get_task("translation").measure(predictions, references)
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        assert values[name] == metric.corpus_score(predictions, [references]).score
        assert signatures[name] == str(metric.get_signature())
        assert 0 < values[name] < 100


def test_the_parts_of_a_task_fit_together(task, house):
    """Its batches feed its model, its loss takes what comes out, and what it exports answers as it says it does."""
    import numpy as np

    from models.runtime import SavedModelRuntime

    tiny = ModelConfig(num_encoder_layers=1, num_decoder_layers=1, d_model=8, num_heads=2, dff=8)
    model = task.make_model(tiny, house.output("Transform", "tokenizer").properties["vocab_size"])
    files = [str(path) for path in Path(house.output("Transform", "transformed_examples").uri).glob("Split-train/*")]
    inputs, labels = next(iter(task.make_batches(files, 64, 1, 0)))
    assert np.isfinite(task.make_loss(0.1)(labels, model(inputs)).numpy())
    with SavedModelRuntime(house.output("Trainer", "model").path("Format-Serving")) as served:
        answers = served.run("serving_default", {"text": ["Turn on the light.", ""]})
    assert len(answers[task.output]) == 2
