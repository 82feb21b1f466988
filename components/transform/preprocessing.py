"""Preprocessing: what Transform does to each column."""

import dataclasses
from typing import Literal

from seq2serve.components.tasks.sizing import LONGEST_LIMIT


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How each column is processed (TFX: Transform's preprocessing_fn).

    Args:
        columns: text columns, whose texts become token ids.
        max_length: the length limit of a text, in tokens; 0 chooses it from the data (tasks/sizing.py).
        label_columns: columns whose values become indices into the schema's domain or, if the column has no domain,
            into the sorted values of the train split.
        too_long: "cut" truncates a longer text and counts it in `num_truncated`; "drop" drops its row and counts it in
            `num_dropped`.
        placeholders: number of placeholders that a SentencePiece model which the user brings is given. Two columns are
            source and target: a span that both have is replaced by a placeholder in both, if the tokenizer has any.
        longest_limit: the largest limit that may be chosen.
    """

    columns: tuple[str, ...]
    max_length: int
    label_columns: tuple[str, ...] = ()
    too_long: Literal["cut", "drop"] = "cut"
    placeholders: int = 0
    longest_limit: int = LONGEST_LIMIT
