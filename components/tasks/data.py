"""Rows, answers and DataSpec: the data that tasks, components and metrics exchange."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seq2serve.models.tokenizers.base import Tokenizer

Row = Mapping[str, str]  # column -> text of an example
Answers = dict[str, list]  # output of a signature -> its values, one per row
# What only some baselines need is read when they ask for it.
ReadRows = Callable[[], list[Row]]
ReadTokenizers = Callable[[], Mapping[str, "Tokenizer"]]  # text column -> tokenizer


PRETRAINED = "pretrained"  # the baseline that is the pretrained model before training


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A cheap answer to some rows, with which a model is compared.

    Args:
        answers: to the rows.
        is_trivial: whether it takes no look at the text; a model that is not better has learned nothing.
    """

    answers: Answers
    is_trivial: bool = False


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The properties of the data that a model depends on.

    Args:
        vocab_size: size of the tokenizer's vocabulary; with a tokenizer per column, that of the last text column.
        label_counts: label -> number of its rows in the train split, in the order of the label ids; empty without
            labels.
        source_vocab_size: with a vocabulary per column, the size of the first text column.
        max_length: most tokens of a text. The served model cuts a text where training does.
    """

    vocab_size: int
    label_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    source_vocab_size: int | None = None
    max_length: int = dataclasses.field(kw_only=True)

    @property
    def num_choices(self) -> int:
        """Returns from how many labels or pieces a model chooses at each position."""
        return len(self.label_counts) or self.vocab_size


def sample_evenly(rows: Sequence[Row], number: int) -> Sequence[Row]:
    """Returns `number` rows at equal distances, or all rows if there are fewer."""
    return [rows[i * len(rows) // number] for i in range(number)] if number < len(rows) else rows
