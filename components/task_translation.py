"""Translation: one text into another (Vaswani et al. 2017).

Comes in: pairs of a source and a target. Goes out: the Task of them, judged by BLEU and chrF.
Read next: task.py for what each part is; task_classification.py for a task with labels.
"""

import dataclasses
from collections.abc import Callable, Sequence

from components.task import Answers, Features, Measurement, Recipe, Row, Task, spread
from models.config import ModelConfig, TrainingConfig


def _make_model(config: ModelConfig, features: Features):
    from models.transformer import Transformer

    model = Transformer(config, features.vocab_size)
    model.build()
    return model


def _make_loss(config: TrainingConfig, features: Features):
    from models.training import MaskedCrossEntropy

    return MaskedCrossEntropy(config.label_smoothing)


def _make_batches(files: Sequence[str], recipe: Recipe, start: int, epochs: int | None):
    from models.dataset import pair_batches

    return pair_batches(files, recipe.training.batch_tokens, recipe.training.seed, start, epochs)


def _make_evaluation(model, tokenizer, features: Features, recipe: Recipe, batches: Sequence[tuple], rows):
    from models.evaluation import Evaluation, TranslationEvaluation
    from models.export_translation import TranslationServer

    asked = spread(rows, recipe.training.eval_examples)
    if not asked:
        return Evaluation(model, batches)
    greedy = dataclasses.replace(recipe.decoding, beam_size=1)
    return TranslationEvaluation(model, batches, TranslationServer(model, tokenizer, greedy), asked)


def _export(model, tokenizer, features: Features, recipe: Recipe, directory: str, samples: list[str]) -> None:
    from models.export import export
    from models.export_translation import TranslationServer

    export(TranslationServer(model, tokenizer, recipe.decoding), directory, samples)


def _measure(answers: Answers, rows: Sequence[Row]) -> Measurement:
    """Computes BLEU (Papineni et al. 2002) and chrF (Popovic 2015) by sacrebleu (Post 2018)."""
    from sacrebleu.metrics import BLEU, CHRF

    values, signatures = {}, {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        values[name] = metric.corpus_score(answers["translation"], [[row["target"] for row in rows]]).score
        signatures[name] = str(metric.get_signature())
    return Measurement(values, signatures)


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
    make_loss=_make_loss,
    make_batches=_make_batches,
    make_evaluation=_make_evaluation,
    export=_export,
    measure=_measure,
    baselines=_baselines,
    reference=_reference,
    example=("Translate", "Turn on the light."),
)
