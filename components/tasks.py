"""A Task as a value: what differs between one application and another.

Comes in: the task's name. Goes out: its columns, model, batches, serving signatures, metrics and baseline.
Read next: trainer.py and evaluator.py, which ask a Task and never which task it is.

The functions import TensorFlow when they are called, not when this file is.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

from components.errors import UserError
from models.config import DecodingConfig, ModelConfig


@dataclasses.dataclass(frozen=True)
class Task:
    """An application of the Transformer.

    Args:
        name: as on the command line.
        columns: of an example, in the order of the model's inputs; the first is what is served, the last the answer.
        output: name of the answer among the outputs of `serving_default`.
        headline: the metric that blesses, early stopping and summaries look at; higher is better.
        make_model: (ModelConfig, vocabulary size) -> built keras.Model.
        make_loss: (label smoothing) -> keras.losses.Loss.
        make_batches: (files, batch_tokens, seed, start) -> endless tf.data.Dataset of (inputs, labels).
        export: (model, tokenizer, DecodingConfig, folder, sample texts) -> None, writes the SavedModel.
        measure: (predictions, references) -> {metric: value}, and the signatures that say how they were computed.
        baseline: (inputs) -> predictions that cost nothing.
    """

    name: str
    columns: tuple[str, ...]
    output: str
    headline: str
    make_model: Callable[[ModelConfig, int], Any]
    make_loss: Callable[[float], Any]
    make_batches: Callable[[Sequence[str], int, int, int], Any]
    export: Callable[[Any, Any, DecodingConfig, str, list[str]], None]
    measure: Callable[[list[str], list[str]], tuple[dict[str, float], dict[str, str]]]
    baseline: Callable[[list[str]], list[str]]


def _make_transformer(config: ModelConfig, vocab_size: int):
    from models.transformer import Transformer

    model = Transformer(config, vocab_size)
    model.build()
    return model


def _make_token_loss(label_smoothing: float):
    from models.training import MaskedCrossEntropy

    return MaskedCrossEntropy(label_smoothing)


def _make_pair_batches(files: Sequence[str], batch_tokens: int, seed: int, start: int):
    from models.dataset import pair_batches

    return pair_batches(files, batch_tokens, seed, start)


def _export_translation(model, tokenizer, decoding: DecodingConfig, directory: str, samples: list[str]) -> None:
    from models.export import export
    from models.export_translation import TranslationServer

    export(TranslationServer(model, tokenizer, decoding), directory, samples)


def _measure_translation(predictions: list[str], references: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Computes BLEU (Papineni et al. 2002) and chrF (Popovic 2015) by sacrebleu (Post 2018)."""
    from sacrebleu.metrics import BLEU, CHRF

    values, signatures = {}, {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        values[name] = metric.corpus_score(predictions, [references]).score
        signatures[name] = str(metric.get_signature())
    return values, signatures


TRANSLATION = Task(
    name="translation",
    columns=("source", "target"),
    output="translation",
    headline="bleu",
    make_model=_make_transformer,
    make_loss=_make_token_loss,
    make_batches=_make_pair_batches,
    export=_export_translation,
    measure=_measure_translation,
    baseline=list,  # copies the source
)

TASKS = {task.name: task for task in (TRANSLATION,)}


def get_task(name: str) -> Task:
    """Returns the Task of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UserError(f"There is no task {name!r}{hint} Tasks: {', '.join(TASKS)}.")
    return TASKS[name]
