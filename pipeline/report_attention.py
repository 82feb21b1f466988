"""What the model looks at: attention of every layer and head, for a few test sentences.

Comes in: RunFacts. Goes out: values that report.js draws as heat maps.
Read next: report.js, "attention"; models/export_translation.py, whose signature is asked, and models/heat_maps.py.
"""

import base64
import json
from typing import Any

from pipeline.report_run import RunFacts

NUM_SENTENCES = 4
MAX_CHARACTERS = 80  # of a sentence and of its answer: a map of more cannot be read
_SIGNATURE = "attention"
# What a weight says; report.js puts the pieces and the share in the place of the words in brackets.
_WRITES = "Before it wrote [row] it gave [column] [share] of its attention."
_READS = "Where it read [row] it gave [column] [share] of its attention."
_FORESEES = "Having read up to [row], it gave [column] [share] of its attention."


def describe_attention(facts: RunFacts) -> list[dict[str, Any]]:
    """Computes what the model looks at in a few test sentences.

    Of a translator the exported model is asked, through the C++ runtime, what it looked at when it wrote its own
    answers; what has no such signature is loaded as it was trained, and asked what each piece looks at.

    Args:
        facts: of a run.
    Returns:
        Of each sentence: source and target (pieces), layers, heads, `said` (what a weight says), and weights: base64 of
        a byte a weight, of 255 that a row shares, by layer, head, target and source.
    """
    model, evaluation = facts.output("Trainer", "model"), facts.output("Evaluator", "evaluation")
    if model is None or evaluation is None:
        return []
    from models.saved_model import read_meta_graph, read_signatures

    column = facts.task.text_columns[0]
    with open(evaluation.path("predictions.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    if _SIGNATURE in read_signatures(read_meta_graph(model.path("Format-Serving"))):
        return _of_served(model.path("Format-Serving"), [(line[column], line["prediction"]) for line in lines])
    return _of_trained(model.path("Format-Keras"), [(_beginning(line[column]),) for line in lines])


def _of_served(folder: str, rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    from models.runtime import SavedModelRuntime

    pairs = _chosen(rows)
    if not pairs:
        return []
    sources, targets = zip(*pairs, strict=True)
    with SavedModelRuntime(folder) as runtime:
        answers = runtime.run(_SIGNATURE, {"source": list(sources), "target": list(targets)})
    return [_described({name: values[i] for name, values in answers.items()}) for i in range(len(pairs))]


def _of_trained(folder: str, rows: list[tuple[str]]) -> list[dict[str, Any]]:
    import numpy as np
    import tensorflow as tf

    from models.heat_maps import of_text
    from models.tokenizer import load_tokenizer
    from models.transformer import DecoderLanguageModel, EncoderClassifier
    from models.warm_start import load_model

    model, tokenizer = load_model(folder), load_tokenizer(f"{folder}/tokenizer")
    if not isinstance(model, EncoderClassifier | DecoderLanguageModel):
        return []  # a model of the user's own
    # A classifier reads the end of a text as well, a language model its beginning.
    ends = isinstance(model, EncoderClassifier)
    padding, marker = ([0, 1], tokenizer.eos_id) if ends else ([1, 0], tokenizer.bos_id)
    found = []
    for (text,) in _chosen(rows):
        ids = tf.pad(tokenizer.tokenize([text]).to_tensor(), [[0, 0], padding], constant_values=marker)
        maps = of_text(model, tokenizer, ids)
        weights = np.stack([layer.weights for layer in maps])  # [L, H, T, T]
        found.append(_packed(maps[0].columns, maps[0].rows, weights, _READS if ends else _FORESEES))
    return found


def _beginning(text: str) -> str:
    """Returns a text, of a long one the words that a readable map has room for."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rpartition(" ")[0]


def _chosen(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Returns rows of different lengths, from short to long, none too long for a map."""
    readable = {row for row in rows if all(" " in text.strip() and len(text) <= MAX_CHARACTERS for text in row)}
    fitting = sorted(readable, key=lambda row: (len(row[0]), row))
    last = len(fitting) - 1
    places = dict.fromkeys(round(last * (number + 1) / NUM_SENTENCES) for number in range(NUM_SENTENCES))
    return [fitting[place] for place in places if fitting]


def _described(answer: dict[str, Any]) -> dict[str, Any]:
    """Returns the map of one row of an answer, without what pads it."""
    width, height = (int(answer[f"{side}_length"]) for side in ("source", "target"))
    weights = answer["attention"][:, :, :height, :width]  # [L, H, T, S]
    return _packed(
        _pieces(answer["source_tokens"][:width]), _pieces(answer["target_tokens"][:height]), weights, _WRITES
    )


def _packed(source: list[str], target: list[str], weights: Any, said: str) -> dict[str, Any]:
    return {
        "source": source,
        "target": target,
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "said": said,
        "weights": base64.b64encode((weights * 255).round().astype("uint8").tobytes()).decode(),
    }


def _pieces(pieces: Any) -> list[str]:
    return [piece.decode() for piece in pieces]
