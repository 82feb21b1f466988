"""The metrics of greedy translations of the eval split, during training."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from seq2serve.components.tasks.bootstrap import standard_error
from seq2serve.components.tasks.evaluation import Evaluation, Findings, query_in_batches, readable_row
from seq2serve.components.tasks.task import Task
from seq2serve.models.decoding import attention_maps
from seq2serve.models.decoding.attention_maps import AttentionMap


class TranslationEvaluation(Evaluation):
    """Translates sample texts greedily, in the graph that is served, and computes their metrics.

    Args:
        model, batches: see Evaluation.
        serving_module: a models.export.translation.TranslationServingModule of the model.
        rows: sample rows with `source` and `target`, before tokenization.
        task: its metrics are computed, and its headline ranks checkpoints.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Sequence[tuple],
        serving_module: Any,
        rows: Sequence[Mapping[str, str]],
        task: Task,
    ):
        super().__init__(model, batches)
        self._serving_module, self._rows = serving_module, sorted(rows, key=lambda row: len(row["source"]))
        self._task, self.metric = task, task.metric(task.headline({}).metric)
        self.metrics = (*self.metrics, *task.metrics)

    def run(self) -> Findings:
        """Evaluates the model with its current weights."""
        self._serving_module.refresh()
        answers = query_in_batches(self._serving_module, [row["source"] for row in self._rows], "translation")
        statistics = self._task.statistics({self._task.output: answers}, self._rows)
        texts = [{**row, "translation": answer} for row, answer in zip(self._rows, answers, strict=True)]
        metrics = {**super().run().metrics, **statistics.total()}
        return Findings(metrics, texts, self._maps(), standard_error(statistics, self.metric))

    def _maps(self) -> list[AttentionMap]:
        row, module = readable_row(self._rows, "source"), self._serving_module
        source, target = module.pair_ids([row["source"]], [row["target"]])
        return attention_maps.of_translation(self._model, module.source_tokenizer, module.tokenizer, source, target)
