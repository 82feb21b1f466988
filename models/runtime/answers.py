"""The outputs with which every signature says that it cut something, and which output is the answer.

`truncated` is bool [B]: the input was cut. `finish_reason` is string [B], or `finish_reasons` [B, N]: why generation
stopped. The names are those of vLLM and of the servers that follow OpenAI's API.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from seq2serve.models.runtime.saved_model import Signature

TRUNCATED = "truncated"
FINISH_REASON, FINISH_REASONS = "finish_reason", "finish_reasons"
STOP, LENGTH = "stop", "length"  # the end marker was generated; the maximum length was reached


def answer_names(signature: Signature) -> list[str]:
    """Returns the outputs that have one string per text, without `finish_reason`; usually one, the answer."""
    outputs = {name: spec for name, spec in signature.outputs.items() if name != FINISH_REASON}
    return [name for name, spec in outputs.items() if spec.dtype == "string" and len(spec.shape or ()) == 1]


def cut_inputs(outputs: Mapping[str, Sequence[Any]]) -> int:
    """Counts the rows whose input was cut.

    Args:
        outputs: output name -> a value per row; strings may be bytes.
    """
    return sum(map(bool, outputs.get(TRUNCATED, ())))


def cut_answers(outputs: Mapping[str, Sequence[Any]]) -> int:
    """Counts the rows whose answer, or the best of several, reached the maximum length."""
    reasons = outputs.get(FINISH_REASON, [row[0] for row in outputs.get(FINISH_REASONS, ())])
    return sum(reason in (LENGTH, LENGTH.encode()) for reason in reasons)
