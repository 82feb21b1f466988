"""Evaluator: metrics, slices, baselines and the verdict on an exported SavedModel."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from seq2serve.components.base.artifact import (
    PRETRAINED_SERVING,
    BaseModel,
    Examples,
    Model,
    ModelBlessing,
    ModelEvaluation,
)
from seq2serve.components.base.component import Earlier
from seq2serve.components.base.progress import note
from seq2serve.components.evaluator import verdict
from seq2serve.components.evaluator.bar import Bar
from seq2serve.components.evaluator.comparison import BlessedModel, blessed_by_slice, compare_with, last_blessed
from seq2serve.components.evaluator.effect import describe_effect, warn_of_forgetting
from seq2serve.components.evaluator.report import Evaluated, columns_to_slice_by, evaluate_rows, query, read_rows
from seq2serve.components.evaluator.slices import old_and_new
from seq2serve.components.model_importer.pretrained import suggested_start
from seq2serve.components.statistics_gen.languages import languages
from seq2serve.components.tasks.bootstrap import Comparison
from seq2serve.components.tasks.data import PRETRAINED, Baseline, Row
from seq2serve.components.tasks.task import Task
from seq2serve.models.runtime.answers import describe_cuts
from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.tokenizers.tokenizer import load_tokenizers

SAMPLE = 500  # test rows whose language is identified


def evaluate(
    examples: Examples,
    model: Model,
    evaluation: ModelEvaluation,
    blessing: ModelBlessing,
    task: Task,
    bar: Bar,
    num_examples: int,
    base_model: BaseModel | None = None,
    earlier: Sequence[Earlier[ModelEvaluation]] = (),
) -> None:
    """Executes Evaluator; see component.py for the arguments. `earlier` has the evaluations of blessed models."""
    slice_columns = columns_to_slice_by(examples)
    rows = read_rows(examples, "test", [*task.columns, *slice_columns])[: num_examples or None]
    blessed = last_blessed(task, model, rows, earlier)
    evaluated = _evaluated(examples, model, task, rows, slice_columns, blessed)
    describe_effect(task, evaluated, rows, blessed, base_model)
    warn_of_forgetting(evaluated)
    _write_json(evaluation.path("metrics.json"), evaluated.report)
    _write_lines(evaluation.path("predictions.jsonl"), evaluated.lines)
    evaluation.properties.update(evaluated.report)
    for sentence in describe_cuts(**evaluated.report["num_cut"], number=len(rows)):
        note(f"Evaluator: warning: {sentence}")
    comparison = compare_with(task, evaluated.metric, evaluated.answers, rows, blessed) if blessed else None
    _bless(
        blessing, _judgement(evaluated, bar, model, blessed, comparison, lambda: _start(task, examples, model, rows))
    )


def _evaluated(
    examples: Examples,
    model: Model,
    task: Task,
    rows: Sequence[Row],
    slice_columns: Sequence[str],
    blessed: BlessedModel | None,
) -> Evaluated:
    """Returns the answers of the exported model to rows, and its metrics beside those of the baselines."""
    with SavedModelRuntime(model.path("Format-Serving")) as saved_model:
        return evaluate_rows(
            saved_model,
            task,
            model.properties,
            rows,
            slice_columns,
            lambda: (
                task.baselines(
                    train=lambda: read_rows(examples, "train", task.columns),
                    rows=rows,
                    tokenizers=lambda: load_tokenizers(model.path("Format-Keras", "tokenizer"), task.text_columns),
                )
                | _pretrained(model, task, rows)
            ),
            old_and_new(len(rows), blessed.rows) if blessed else (),
        )


def _pretrained(model: Model, task: Task, rows: Sequence[Row]) -> dict[str, Baseline]:
    """Returns the answers of the pretrained model that training started from, as a baseline, if it can answer."""
    folder = model.path(PRETRAINED_SERVING)
    if not os.path.isdir(folder):
        return {}
    with SavedModelRuntime(folder) as pretrained:
        return {PRETRAINED: Baseline(query(pretrained, task, rows))}


def _judgement(
    evaluated: Evaluated,
    bar: Bar,
    model: Model,
    blessed: BlessedModel | None,
    comparison: Comparison | None,
    start: Callable[[], str],
) -> dict[str, Any]:
    """Returns the properties of the blessing; see artifact.ModelBlessing.

    Args:
        start: returns that of verdict.reason; it identifies languages, which takes time.
    """
    evidence = verdict.collect(
        evaluated.metric, evaluated.measurement, evaluated.baselines, evaluated.trivial, comparison
    )
    place = f"Evaluator/evaluation/{blessed.evaluation}" if blessed else ""
    is_blessed = verdict.is_blessed(evidence, bar)
    return {
        "blessed": is_blessed,
        "reason": verdict.reason(evidence, bar, place, model.properties, "" if is_blessed else start()),
        "metric": evaluated.metric.name,
        "baselines": {name: dataclasses.asdict(compared) for name, compared in evidence.baselines.items()},
        **({"last_blessed": _last_blessed(evaluated, blessed, comparison)} if blessed and comparison else {}),
    }


def _start(task: Task, examples: Examples, model: Model, rows: Sequence[Row]) -> str:
    """Returns the name of a pretrained model to start from; empty if the model did, or there is none."""
    if "pretrained" in model.properties:
        return ""
    by_column = [languages(row[column] for row in rows[:SAMPLE]) for column in task.text_columns]
    return suggested_start(task.parts, examples.properties["num_examples"]["train"], by_column)


def _last_blessed(evaluated: Evaluated, blessed: BlessedModel, comparison: Comparison) -> dict[str, Any]:
    """Returns the comparison with the last blessed model; see artifact.ModelBlessing."""
    by_slice = blessed_by_slice(evaluated.metric, blessed, evaluated.parts)
    return {**dataclasses.asdict(comparison), "evaluation": blessed.evaluation, "slices": by_slice}


def _bless(blessing: ModelBlessing, properties: dict[str, Any]) -> None:
    properties = json.loads(json.dumps(properties))  # properties must equal the file, where tuples are lists
    blessing.properties.update(properties)
    _write_json(blessing.path("BLESSED" if properties["blessed"] else "NOT_BLESSED"), properties)


def _write_json(path: str, value: dict) -> None:
    _write_lines(path, [value], indent=2)


def _write_lines(path: str, values: Iterable[dict], indent: int | None = None) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(value, ensure_ascii=False, indent=indent) + "\n" for value in values))
