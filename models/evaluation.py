"""How good a model is while it learns: the loss and the task's own metric on the eval split, and answers to look at.

Comes in: a model, the batches of the eval split, and a server of the model for what takes answers. Goes out: Findings.
Read next: components/trainer_callbacks.py, which asks after so many steps; export_translation.py for a server.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from models import heat_maps
from models.heat_maps import HeatMap
from models.learner import tally

BATCH_TEXTS = 64  # that are answered together
READABLE_CHARACTERS, READABLE_TOKENS = 40, 24  # of a text whose attention is drawn


class Findings(NamedTuple):
    """What an evaluation found.

    Args:
        metrics: name -> value; `loss` in nats a label (each of a text's tokens is one), label smoothing included.
        texts: rows for people, name -> text: what was asked, what was to be answered, the answer.
        maps: attention in a text or two.
    """

    metrics: dict[str, float]
    texts: list[dict[str, str]]
    maps: list[HeatMap]


class Evaluation:
    """Computes the loss and the share of right labels of a model that is given the right labels so far.

    A task whose metric is another has a kind of its own, and says which it is.

    Args:
        model: compiled with a models.training.MaskedCrossEntropy; its weights may change between two runs.
        batches: of the eval split, (inputs, labels) each.
    """

    metric, higher_is_better = "loss", False

    def __init__(self, model: keras.Model, batches: Sequence[tuple]):
        self._model, self._batches = model, batches
        # One graph for all shapes.
        any_shape = tf.nest.map_structure(lambda ids: tf.TensorSpec([None] * len(ids.shape), ids.dtype), batches[0])
        self._sums = tf.function(
            lambda inputs, labels: self.sums(labels, model(inputs, training=False)), any_shape, autograph=False
        )

    def run(self) -> Findings:
        """Evaluates the model as it is now."""
        sums = [tf.nest.map_structure(np.asarray, self._sums(inputs, labels)) for inputs, labels in self._batches]
        return Findings(self.metrics({name: np.sum([one[name] for one in sums], axis=0) for name in sums[0]}), [], [])

    def sums(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Counts a batch: labels int32 [B, T] or [B], logits float32 [B, T, V] or [B, V]."""
        return tally(self._model.loss, labels, logits)._asdict()

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Turns the sums over all batches into metrics."""
        return {
            "loss": float(sums["loss"] / sums["weight"]),
            "accuracy": float(sums["right"] / sums["labels"]),
        }


class TranslationEvaluation(Evaluation):
    """Translates some texts, greedily, in the graph that is served, and computes their BLEU.

    Args:
        model, batches: see Evaluation.
        server: a models.export_translation.TranslationServer of the model.
        rows: `source` and `target`, texts as the tokenizer writes them.
    """

    metric, higher_is_better = "bleu", True

    def __init__(self, model: keras.Model, batches: Sequence[tuple], server: Any, rows: Sequence[Mapping[str, str]]):
        super().__init__(model, batches)
        self._server, self._rows = server, sorted(rows, key=lambda row: len(row["source"]))

    def run(self) -> Findings:
        """Evaluates the model as it is now."""
        from models.bleu import make_bleu

        self._server.refresh()
        answers = _answers(self._server, [row["source"] for row in self._rows], "translation")
        references = [row["target"] for row in self._rows]
        bleu = make_bleu(references).corpus_score(answers, [references]).score
        texts = [{**row, "translation": answer} for row, answer in zip(self._rows, answers, strict=True)]
        return Findings({**super().run().metrics, "bleu": bleu}, texts, self._maps())

    def _maps(self) -> list[HeatMap]:
        row = _readable(self._rows, "source")
        source, target = self._server.source_ids([row["source"]]), self._server.target_ids([row["target"]])
        return heat_maps.of_translation(
            self._model, self._server.source_tokenizer, self._server.tokenizer, source, target
        )


class ClassificationEvaluation(Evaluation):
    """Counts what was taken for what: the share that was right, and the mean over the labels of F1.

    Args:
        model, batches: see Evaluation.
        server: a models.export_classification.ClassificationServer of the model.
        rows: `text` and `label`, some for people to look at.
    """

    metric, higher_is_better = "accuracy", True

    def __init__(self, model: keras.Model, batches: Sequence[tuple], server: Any, rows: Sequence[Mapping[str, str]]):
        super().__init__(model, batches)
        self._server, self._rows = server, rows

    def run(self) -> Findings:
        """Evaluates the model as it is now."""
        answers = _answers(self._server, [row["text"] for row in self._rows], "label")
        texts = [{**row, "answer": answer} for row, answer in zip(self._rows, answers, strict=True)]
        maps = self._maps(_readable(self._rows, "text")["text"]) if self._rows else []
        return Findings(super().run().metrics, texts, maps)

    def sums(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Counts a batch, and how often each label (down) was taken for each (across)."""
        confusion = tf.math.confusion_matrix(labels, tf.argmax(logits, 1), logits.shape[1])
        return {**super().sums(labels, logits), "confusion": confusion}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Turns the sums over all batches into metrics; macro_f1 is of the labels that are there or were answered."""
        confusion = sums["confusion"]
        both = confusion.sum(0) + confusion.sum(1)
        f1 = 2 * confusion.diagonal()[both > 0] / both[both > 0]
        return {**super().metrics(sums), "macro_f1": float(f1.mean())}

    def _maps(self, text: str) -> list[HeatMap]:
        tokenizer = self._server.tokenizer
        ids = tokenizer.tokenize([text])[:, :READABLE_TOKENS].to_tensor()
        return heat_maps.of_text(
            self._model, tokenizer, tf.pad(ids, [[0, 0], [0, 1]], constant_values=tokenizer.eos_id)
        )


class LanguageModelEvaluation(Evaluation):
    """Computes the bits a character that a language model needs for the rows of packed text.

    Args:
        model, batches: see Evaluation; the batches hold every token of the split.
        server: a models.export_language_model.LanguageModelServer of the model.
        prompts: beginnings of texts for it to go on from, for people to look at.
        characters: of all texts of the split.
    """

    metric, higher_is_better = "bits_per_character", False

    def __init__(
        self, model: keras.Model, batches: Sequence[tuple], server: Any, prompts: Sequence[str], characters: int
    ):
        super().__init__(model, batches)
        self._server, self._prompts, self._characters = server, prompts, characters

    def run(self) -> Findings:
        """Evaluates the model as it is now."""
        self._server.refresh()
        answers = _answers(self._server, self._prompts, "completion")
        texts = [{"text": text, "completion": more} for text, more in zip(self._prompts, answers, strict=True)]
        maps = self._maps(self._prompts[0]) if self._prompts else []
        return Findings(super().run().metrics, texts, maps)

    def sums(self, labels: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Counts a batch, and the nats that it takes to say the labels, which are not smoothed."""
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return {**super().sums(labels, logits), "nats": tf.reduce_sum(tf.where(labels == 0, 0.0, nats))}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Turns the sums over all batches into metrics."""
        bits = float(sums["nats"]) / math.log(2) / max(1, self._characters)
        return {**super().metrics(sums), "bits_per_character": bits}

    def _maps(self, text: str) -> list[HeatMap]:
        tokenizer = self._server.tokenizer
        ids = tokenizer.tokenize([text])[:, :READABLE_TOKENS].to_tensor()
        return heat_maps.of_text(
            self._model, tokenizer, tf.pad(ids, [[0, 0], [1, 0]], constant_values=tokenizer.bos_id)
        )


def _readable(rows: Sequence[Mapping[str, str]], column: str) -> Mapping[str, str]:
    """Returns the row whose text is nearest to a length at which its tokens can be read beside each other."""
    return min(rows, key=lambda row: abs(len(row[column]) - READABLE_CHARACTERS))


def _answers(server: Any, texts: Sequence[str], output: str) -> list[str]:
    """Asks for a few texts at a time, in their order."""
    groups = [texts[first : first + BATCH_TEXTS] for first in range(0, len(texts), BATCH_TEXTS)]
    answers = [server.serving_default(tf.constant(group))[output].numpy() for group in groups]
    return [answer.decode() for group in answers for answer in group]
