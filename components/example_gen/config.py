"""The parameters of ExampleGen: how files are read, and how rows are split."""

import dataclasses
from typing import Literal

from seq2serve.components.example_gen.formats import Format

Unit = Literal["auto", "line", "paragraph", "file", "document"]


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How files are read.

    Args:
        format: the format of every file. `auto` follows each file's extension; without a known extension it is tsv, or
            text if there is only one column. Parallel files (one file per column) are always text.
        delimiter: separates the cells of tsv and csv. If empty, tsv uses a tab, and csv uses the one of , ; tab | with
            which the header contains the columns.
        unit: a row of plain text: a line, a paragraph (lines up to the next empty one), a whole file, or a part of a
            file that is one document (readers/document.py). For `auto`, and for single files, see `text_unit`.
        label_columns: example columns of labels. White space around a label is removed.
        encoding: of text files; `auto` is UTF-8, or UTF-16 if the bytes show it.
        quoting: of tsv. `csv`: cells may be quoted, as in CSV; `none`: quotation marks are text; `auto`: the file shows
            it.
        optional: the columns that may be empty: those that are kept only to slice metrics by.
    """

    format: Format = "auto"
    delimiter: str = ""
    unit: Unit = "line"
    label_columns: tuple[str, ...] = ()
    encoding: str = "auto"
    quoting: Literal["auto", "csv", "none"] = "auto"
    optional: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """How rows are assigned to the splits that have no files of their own.

    Args:
        eval_share, test_share: shares of the rows; the rest is for training.
        seed: of the hash that assigns rows to splits.
        split_key: rows with the same key share a split: `loose` for the text without case, digits and spaces, `exact`
            for the text, or the name of a column.
        drop_overlap: whether rows of the train split that are equal to a row of another split are dropped.
    """

    eval_share: float = 0.05
    test_share: float = 0.05
    seed: int = 1
    split_key: str = "loose"
    drop_overlap: bool = False
