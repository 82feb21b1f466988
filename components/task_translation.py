"""Translation: one text into another (Vaswani et al. 2017).

Comes in: pairs of a source and a target. Goes out: the Task of them, judged by BLEU and chrF.
Read next: task.py for what each part is; translation_metrics.py for BLEU; task_classification.py for labels.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from components.errors import UserError
from components.task import Answers, Features, Measurement, Recipe, Row, Task, spread
from models.config import ModelConfig

if TYPE_CHECKING:
    from components.bootstrap import Tally


def _make_model(config: ModelConfig, features: Features):
    from models.transformer import Transformer

    if features.source_vocab_size and config.tie_embeddings:
        raise UserError(
            "source and target have a tokenizer each, so one matrix of embeddings cannot serve both: add --set "
            "model.tie_embeddings=false"
        )
    model = Transformer(config, features.vocab_size, features.source_vocab_size)
    model.build()
    return model


def _make_batches(files: Sequence[str], recipe: Recipe, start: int, epochs: int | None):
    from models.dataset import pair_batches

    return pair_batches(files, recipe.training.batch_tokens, recipe.training.seed, start, epochs)


def _make_evaluation(model, tokenizers, features: Features, recipe: Recipe, batches: Sequence[tuple], rows):
    from models.evaluation import Evaluation, TranslationEvaluation
    from models.export_translation import TranslationServer

    asked = spread(rows, recipe.training.eval_examples)
    if not asked:
        return Evaluation(model, batches)
    greedy = dataclasses.replace(recipe.decoding, beam_size=1)
    server = TranslationServer(model, tokenizers["target"], greedy, tokenizers["source"])
    return TranslationEvaluation(model, batches, server, asked)


def _export(model, tokenizers, features: Features, recipe: Recipe, directory: str, samples: list[str]) -> None:
    from models.export import export
    from models.export_translation import TranslationServer

    server = TranslationServer(model, tokenizers["target"], recipe.decoding, tokenizers["source"])
    export(server, directory, samples)


def _measure(answers: Answers, rows: Sequence[Row]) -> Measurement:
    from components.translation_metrics import measure

    return measure(answers["translation"], [row["target"] for row in rows])


def _tally(answers: Answers, rows: Sequence[Row]) -> "Tally":
    from components.translation_metrics import tally

    return tally(answers["translation"], [row["target"] for row in rows])


def _baselines(train: Callable[[], list[Row]], rows: Sequence[Row]) -> dict[str, Answers]:
    return {"source copied": {"translation": [row["source"] for row in rows]}}


def _reference(row: Row, prompt: str) -> str:
    return row["target"]


TRANSLATION = Task(
    name="translation",
    text_columns=("source", "target"),
    output="translation",
    headline="bleu",
    make_model=_make_model,
    make_batches=_make_batches,
    make_evaluation=_make_evaluation,
    export=_export,
    measure=_measure,
    tally=_tally,
    baselines=_baselines,
    reference=_reference,
    example=("Translate", "Turn on the light."),
    unit="BLEU points",
)
