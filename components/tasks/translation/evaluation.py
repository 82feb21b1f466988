"""BLEU of greedy translations of the eval split, during training."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from seq2serve.components.tasks.bootstrap import intervals
from seq2serve.components.tasks.evaluation import Evaluation, Findings, query_in_batches, readable_row
from seq2serve.components.tasks.translation.bleu import make_bleu
from seq2serve.components.tasks.translation.metrics import statistics
from seq2serve.models.decoding import attention_maps
from seq2serve.models.decoding.attention_maps import AttentionMap

WIDTH_IN_STANDARD_ERRORS = 3.92  # of a 95 % confidence interval


class TranslationEvaluation(Evaluation):
    """Translates sample texts greedily, in the graph that is served, and computes their BLEU.

    Args:
        model, batches: see Evaluation.
        serving_module: a models.export.translation.TranslationServingModule of the model.
        rows: sample rows with `source` and `target`, before tokenization.
    """

    metric, higher_is_better = "bleu", True

    def __init__(
        self, model: keras.Model, batches: Sequence[tuple], serving_module: Any, rows: Sequence[Mapping[str, str]]
    ):
        super().__init__(model, batches)
        self._serving_module, self._rows = serving_module, sorted(rows, key=lambda row: len(row["source"]))

    def run(self) -> Findings:
        """Evaluates the model with its current weights."""
        self._serving_module.refresh()
        answers = query_in_batches(self._serving_module, [row["source"] for row in self._rows], "translation")
        references = [row["target"] for row in self._rows]
        bleu = make_bleu(references).corpus_score(answers, [references]).score
        low, high = intervals(statistics(answers, references)).get("bleu", (0.0, 0.0))
        texts = [{**row, "translation": answer} for row, answer in zip(self._rows, answers, strict=True)]
        error = (high - low) / WIDTH_IN_STANDARD_ERRORS
        return Findings({**super().run().metrics, "bleu": bleu}, texts, self._maps(), error)

    def _maps(self) -> list[AttentionMap]:
        row, module = readable_row(self._rows, "source"), self._serving_module
        source, target = module.pair_ids([row["source"]], [row["target"]])
        return attention_maps.of_translation(self._model, module.source_tokenizer, module.tokenizer, source, target)
