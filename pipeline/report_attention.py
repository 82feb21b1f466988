"""What the served model looks at: attention of every layer and head, for a few test sentences.

Comes in: RunFacts. Goes out: values that report.js draws as heat maps.
Read next: report.js, "attention"; models/export_translation.py, whose signature is asked.
"""

import base64
import json
from typing import Any

from pipeline.report_run import RunFacts

NUM_SENTENCES = 4
MAX_CHARACTERS = 80  # of a sentence and of its answer: a map of more cannot be read
_SIGNATURE = "attention"


def describe_attention(facts: RunFacts) -> list[dict[str, Any]]:
    """Asks the exported model, through the C++ runtime, what it looked at when it wrote its own answers.

    Args:
        facts: of a run.
    Returns:
        Of each sentence: source and target (pieces), layers, heads, and weights: base64 of a byte a weight, of 255 that
        a row shares, by layer, head, target and source. Empty where the model has no such signature.
    """
    model, evaluation = facts.output("Trainer", "model"), facts.output("Evaluator", "evaluation")
    if model is None or evaluation is None:
        return []
    from models.runtime import SavedModelRuntime
    from models.saved_model import read_meta_graph, read_signatures

    served = model.path("Format-Serving")
    if _SIGNATURE not in read_signatures(read_meta_graph(served)):
        return []
    pairs = _sentences(evaluation.path("predictions.jsonl"), facts.task.text_columns[0])
    if not pairs:
        return []
    with SavedModelRuntime(served) as runtime:
        return [_described(runtime.run(_SIGNATURE, {"source": [one], "target": [other]})) for one, other in pairs]


def _sentences(path: str, column: str) -> list[tuple[str, str]]:
    """Returns sentences of different lengths, from short to long, with their answers."""
    with open(path, encoding="utf-8") as file:
        pairs = {(line[column], line["prediction"]) for line in map(json.loads, file)}
    fitting = sorted(
        (pair for pair in pairs if all(len(text.split()) > 1 and len(text) <= MAX_CHARACTERS for text in pair)),
        key=lambda pair: (len(pair[0]), pair),
    )
    last = len(fitting) - 1
    places = dict.fromkeys(round(last * (number + 1) / NUM_SENTENCES) for number in range(NUM_SENTENCES))
    return [fitting[place] for place in places if fitting]


def _described(answer: dict[str, Any]) -> dict[str, Any]:
    lengths = [int(answer[f"{side}_length"][0]) for side in ("source", "target")]
    weights = answer["attention"][0, :, :, : lengths[1], : lengths[0]]  # [L, H, T, S]
    return {
        "source": _pieces(answer["source_tokens"][0, : lengths[0]]),
        "target": _pieces(answer["target_tokens"][0, : lengths[1]]),
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "weights": base64.b64encode((weights * 255).round().astype("uint8").tobytes()).decode(),
    }


def _pieces(pieces: Any) -> list[str]:
    return [piece.decode() for piece in pieces]
