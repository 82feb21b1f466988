"""What the signatures of all tasks share: outputs that say what was cut, and the defaults of their options.

`truncated` is bool [B]: the input was cut. `finish_reason` is string [B], or `finish_reasons` [B, N]: why generation
stopped. The names are those of vLLM and of the servers that follow OpenAI's API.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports NumPy, which a run that reuses everything does not need
    from seq2serve.models.runtime.saved_model import Signature

TRUNCATED = "truncated"
FINISH_REASON, FINISH_REASONS = "finish_reason", "finish_reasons"
STOP, LENGTH = "stop", "length"  # the end marker was generated; the maximum length was reached

_CONFIG = os.path.join("assets.extra", "config.json")


def default_options(directory: str, signature: str) -> dict[str, Any]:
    """Reads the options with which a signature answers as `serving_default`.

    Args:
        directory: the folder of a SavedModel.
        signature: its name.
    Returns:
        Input of the signature -> value; empty if the export recorded none.
    """
    try:
        with open(os.path.join(directory, _CONFIG), encoding="utf-8") as file:
            return json.load(file).get("options", {}).get(signature, {})
    except OSError:  # a SavedModel from elsewhere
        return {}


def answer_names(signature: "Signature", rank: int = 1) -> list[str]:
    """Returns the outputs of strings that may be the answer: one string per text, or with a rank of 2 several."""
    reasons = (FINISH_REASON, FINISH_REASONS)
    outputs = {name: spec for name, spec in signature.outputs.items() if name not in reasons}
    return [name for name, spec in outputs.items() if spec.dtype == "string" and len(spec.shape or ()) == rank]


def count_cuts(outputs: Mapping[str, Sequence[Any]]) -> tuple[int, int]:
    """Counts the texts that were cut, and the answers that reached the maximum length.

    Args:
        outputs: output name -> a value per row; strings may be bytes. Of several answers to a text, the first counts.
    """
    reasons = outputs.get(FINISH_REASON, [row[0] for row in outputs.get(FINISH_REASONS, ())])
    return sum(map(bool, outputs.get(TRUNCATED, ()))), sum(reason in (LENGTH, LENGTH.encode()) for reason in reasons)


def describe_cuts(texts: int, answers: int, number: int) -> list[str]:
    """Returns a sentence for each kind of cut.

    Args:
        texts, answers: see `count_cuts`.
        number: of texts in all.
    """
    sentences = []
    if texts:
        sentences.append(f"{texts} of {number} texts were longer than the model reads, and were cut (truncated)")
    if answers:
        sentences.append(f"{answers} of {number} answers stopped at the maximum length (finish_reason {LENGTH})")
    return sentences


def json_value(value: Any) -> Any:
    """Returns an array, or a value of one, as JSON: lists of texts and numbers."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
