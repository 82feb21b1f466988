"""Language modelling: what comes next in a text (Radford et al. 2018).

Comes in: documents. Goes out: the Task of them, judged by the bits it needs for a character of unseen documents.
Read next: task.py for what each part is; ngrams.py for the baselines.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from components.task import Answers, Features, Measurement, Recipe, Row, Task, spread
from models.config import ModelConfig

if TYPE_CHECKING:
    import numpy as np

    from components.bootstrap import Metrics, Tally

NUM_PROMPT_WORDS = 12
NUM_REFERENCE_CHARACTERS = 300
NUM_COMPLETIONS = 5  # written at each evaluation while training; the metric takes none
MAX_BASELINE_CHARACTERS = 50_000_000  # that the baselines learn from: they hold every n-gram in memory
BASELINE_ORDERS = {"characters by frequency": 1, "5-gram of characters": 5}


def _make_model(config: ModelConfig, features: Features):
    from models.transformer import DecoderLanguageModel

    model = DecoderLanguageModel(config, features.vocab_size)
    model.build()
    return model


def _make_batches(files: Sequence[str], recipe: Recipe, start: int, epochs: int | None):
    from models.dataset import packed_batches

    config = recipe.training
    return packed_batches(files, recipe.model.max_positions, config.batch_tokens, config.seed, start, epochs)


def _make_evaluation(model, tokenizers, features: Features, recipe: Recipe, batches: Sequence[tuple], rows):
    from models.evaluation import LanguageModelEvaluation
    from models.export_language_model import LanguageModelServer

    prompts = [_prompt(row["text"]) for row in spread(rows, min(NUM_COMPLETIONS, recipe.training.eval_examples))]
    server, characters = (
        LanguageModelServer(model, tokenizers["text"], recipe.decoding),
        sum(len(row["text"]) for row in rows),
    )
    return LanguageModelEvaluation(model, batches, server, prompts, characters)


def _export(model, tokenizers, features: Features, recipe: Recipe, directory: str, samples: list[str]) -> None:
    from models.export import export
    from models.export_language_model import LanguageModelServer

    export(
        LanguageModelServer(model, tokenizers["text"], recipe.decoding), directory, [_prompt(text) for text in samples]
    )


def _measure(answers: Answers, rows: Sequence[Row]) -> Measurement:
    """Adds up over all documents: long ones count more, as they have more to predict."""
    tally = _tally(answers, rows)
    bits, characters, _ = tally.columns.T
    signature = {
        "bits_per_character": "of normalised text, end of document included",
        "perplexity": "a token: the model's pieces, the baselines' characters",
    }
    return Measurement(tally.total(), tally, bits / characters.clip(1), "bits a character", signature)


def _tally(answers: Answers, rows: Sequence[Row]) -> "Tally":
    import numpy as np

    from components.bootstrap import Tally

    counted = [answers[name] for name in ("log_probability", "characters", "tokens")]
    return Tally(np.array(counted, float).T / [-math.log(2), 1, 1], _bits)


def _bits(columns: "np.ndarray", weights: "np.ndarray") -> "Metrics":
    bits, characters, tokens = map(float, weights @ columns)
    return {"bits_per_character": bits / max(1, characters), "perplexity": 2 ** (bits / max(1, tokens))}


def _baselines(train: Callable[[], list[Row]], rows: Sequence[Row]) -> dict[str, Answers]:
    from components.ngrams import NgramModel, normalize

    texts, asked = [normalize(row["text"]) for row in train()], [normalize(row["text"]) for row in rows]
    ends = itertools.accumulate(map(len, texts))
    texts = [text for text, end in zip(texts, ends, strict=True) if end <= MAX_BASELINE_CHARACTERS] or texts[:1]
    answers = {}
    for name, order in BASELINE_ORDERS.items():
        model = NgramModel(texts, order)
        answers[name] = {
            "log_probability": [model.log_probability(text) for text in asked],
            "characters": [len(text) for text in asked],
            "tokens": [len(text) + 1 for text in asked],
        }
    return answers


def _prompt(text: str) -> str:
    return " ".join(text.split()[:NUM_PROMPT_WORDS])


def _reference(row: Row, prompt: str) -> str:
    return " ".join(row["text"].split())[len(prompt) :][:NUM_REFERENCE_CHARACTERS].lstrip()


LANGUAGE_MODEL = Task(
    name="language_model",
    text_columns=("text",),
    output="completion",
    headline="bits_per_character",
    make_model=_make_model,
    make_batches=_make_batches,
    make_evaluation=_make_evaluation,
    export=_export,
    measure=_measure,
    tally=_tally,
    baselines=_baselines,
    reference=_reference,
    example=("Complete", "The people of the United States"),
    higher_is_better=False,
    judged="score",
    prompt=_prompt,
    decimals=3,
    unit="bits a character",
)
