"""A fine-tuned model that has forgotten a corpus is reported, and only then."""

import numpy as np
import pytest

from seq2serve.components.evaluator.effect import warn_of_forgetting
from seq2serve.components.evaluator.report import Evaluated
from seq2serve.components.evaluator.slices import Slice
from seq2serve.components.tasks.translation.task import Translation

NUM_ROWS = 40  # of each corpus


@pytest.fixture
def evaluated():
    """Returns a function: corpora that the pretrained model translated well, and the tuned one -> an Evaluated."""
    task, names = Translation(), ("own", "general")
    words = np.random.default_rng(1).choice(["light", "door", "turn", "the", "on", "open"], (2 * NUM_ROWS, 8))
    rows = [{"source": "", "target": " ".join(row)} for row in words]

    def measure(known):
        good = [names[i // NUM_ROWS] in known for i in range(len(rows))]
        texts = [row["target"] if is_good else row["target"][::-1] for row, is_good in zip(rows, good, strict=True)]
        return task.measure({"translation": texts}, rows)

    def make(before, after, baseline="pretrained"):
        parts = [Slice("corpus", name, np.arange(NUM_ROWS) + i * NUM_ROWS) for i, name in enumerate(names)]
        baselines = {baseline: measure(before)}
        return Evaluated({}, task.metrics[0], measure(after), baselines, [], parts, [], {})

    return make


@pytest.mark.parametrize(
    ("before", "after", "forgotten"),
    [
        (["general"], ["own"], ["general"]),
        (["general", "own"], [], ["own", "general"]),
        (["general"], ["general", "own"], []),
        ([], ["own"], []),
    ],
)
def test_each_corpus_that_the_pretrained_model_translated_better_is_named(evaluated, capfd, before, after, forgotten):
    warn_of_forgetting(evaluated(before, after))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == len(forgotten)
    for line, name in zip(lines, forgotten, strict=True):
        assert f"bleu on {NUM_ROWS} test rows of {name} is 0.0, before training 100.0" in line


def test_without_a_pretrained_model_nothing_can_be_forgotten(evaluated, capfd):
    warn_of_forgetting(evaluated(["general"], ["own"], baseline="source copied"))
    assert not capfd.readouterr().err
