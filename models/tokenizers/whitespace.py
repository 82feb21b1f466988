"""White space as part of the text: the spaces between words, line ends, tabs and indentation.

A tokenizer either folds white space, so that single spaces separate words, or keeps it. If it keeps it, "\\n", "\\t"
and every space are pieces or parts of pieces. A round trip changes only how line ends and spaces are written.

The piece of a word begins with a space ("▁The"). A word at the beginning of a line has the same piece: a space is
inserted there, and removed again when ids become text.
"""

import tensorflow as tf

LINE_ENDS = "\r\n\v\f\x85\u2028\u2029"  # all of them become "\n"; so does "\r\n"
SPACE_PIECE = "\u2581"  # SentencePiece's symbol for a space, which becomes one in a text
# As in Python's `str.isspace`, and the symbol: other spaces than line ends and tabs, and all white space.
SPACE = f"[\x1c-\x1f\\p{{Zs}}{SPACE_PIECE}]"
ANY = f"[\t-\r\x1c-\x1f\x85\\p{{Z}}{SPACE_PIECE}]"


def mark_lines(texts: tf.Tensor) -> tf.Tensor:
    """Inserts a space at the beginning of each text and line and after each tab, unless a line end or tab follows.

    Args:
        texts: tf.string [B], not normalised.
    Returns:
        tf.string [B].
    """
    return tf.strings.regex_replace(texts, f"(^|[{LINE_ENDS}\t])([^{LINE_ENDS}\t])", r"\1 \2")


def unmark_lines(texts: tf.Tensor) -> tf.Tensor:
    """Removes the spaces that `mark_lines` inserts: tf.string [B], normalised -> tf.string [B]."""
    return tf.strings.regex_replace(texts, "(^|[\n\t]) ", r"\1")
