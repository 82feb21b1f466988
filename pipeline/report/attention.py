"""Attention maps of a few test sentences: the weights of every layer and head, packed for the page."""

import base64
import json
from typing import Any

import numpy as np

from seq2serve.models.runtime.runtime import SavedModelRuntime
from seq2serve.models.runtime.saved_model import read_meta_graph, read_signatures
from seq2serve.pipeline.report.facts import RunFacts

NUM_SENTENCES = 4
MAX_CHARACTERS = 80  # of a sentence and of its answer; larger maps are unreadable
_SIGNATURE = "attention"
_CAPTION = "When the model generated [row], it gave [share] of its attention to [column]."


def describe_attention(facts: RunFacts) -> list[dict[str, Any]]:
    """Computes the attention maps of a few test sentences.

    If the exported model has the signature `attention`, the C++ runtime computes the weights for the model's own
    answers. Otherwise the trained Keras model computes its self-attention, which needs TensorFlow.

    Args:
        facts: facts of a run.
    Returns:
        For each sentence: source and target (pieces), layers and heads (their numbers), caption (a sentence about one
        weight, in which report.js replaces [row], [column] and [share]), and weights (base64 of uint8 [L, H, T, S];
        each row adds up to about 255). Empty if there is no model, no evaluation or no suitable sentence.
    """
    model, evaluation = facts.output("Trainer", "model"), facts.output("Evaluator", "evaluation")
    if model is None or evaluation is None:
        return []
    column = facts.task.text_columns[0]
    with open(evaluation.path("predictions.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    saved_model = model.path("Format-Serving")
    if _SIGNATURE in read_signatures(read_meta_graph(saved_model)):
        return _maps_of_saved_model(saved_model, [(line[column], line["prediction"]) for line in lines])
    # Only this branch needs TensorFlow, which takes seconds to import.
    from seq2serve.pipeline.report.keras_attention import self_attention

    texts = [text for (text,) in _readable_rows([(_beginning(line[column]),) for line in lines])]
    maps = self_attention(model.path("Format-Keras"), texts)
    return [_packed(pieces, pieces, weights, caption) for pieces, weights, caption in maps]


def _maps_of_saved_model(folder: str, rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    pairs = _readable_rows(rows)
    if not pairs:
        return []
    sources, targets = zip(*pairs, strict=True)
    with SavedModelRuntime(folder) as runtime:
        outputs = runtime.run(_SIGNATURE, {"source": list(sources), "target": list(targets)})
    return [_map_of_row({name: values[i] for name, values in outputs.items()}) for i in range(len(pairs))]


def _beginning(text: str) -> str:
    """Returns a text, cut to whole words if it is longer than a readable map."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rpartition(" ")[0]


def _readable_rows(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Selects at most NUM_SENTENCES rows of different lengths, shortest first, whose maps are readable."""
    readable = {row for row in rows if all(" " in text.strip() and len(text) <= MAX_CHARACTERS for text in row)}
    by_length = sorted(readable, key=lambda row: (len(row[0]), row))
    last = len(by_length) - 1
    indices = dict.fromkeys(round(last * (number + 1) / NUM_SENTENCES) for number in range(NUM_SENTENCES))
    return [by_length[index] for index in indices if by_length]


def _map_of_row(outputs: dict[str, Any]) -> dict[str, Any]:
    """Packs the map of one row of the signature's outputs, without its padding."""
    width, height = (int(outputs[f"{side}_length"]) for side in ("source", "target"))
    source, target = _decoded(outputs["source_tokens"][:width]), _decoded(outputs["target_tokens"][:height])
    return _packed(source, target, outputs["attention"][:, :, :height, :width], _CAPTION)


def _packed(source: list[str], target: list[str], weights: np.ndarray, caption: str) -> dict[str, Any]:
    return {
        "source": source,
        "target": target,
        "layers": weights.shape[0],  # [L, H, T, S]
        "heads": weights.shape[1],
        "caption": caption,
        "weights": base64.b64encode((weights * 255).round().astype("uint8").tobytes()).decode(),
    }


def _decoded(pieces: np.ndarray) -> list[str]:
    return [piece.decode() for piece in pieces]
