"""Splits texts into sentences that are translated one by one, and joins the translations.

A translation model is trained on rows, mostly of one sentence, and forgets parts of longer texts. Line breaks are kept.
Inside a line, white space between sentences becomes one space.
"""

from typing import NamedTuple

import tensorflow as tf

_LINE_BREAK = r"\r\n|[\n-\r\x{85}\x{2028}\x{2029}]"
# Marks the ends of sentences, and spaces after a full stop that ends none. Tokenizers drop control characters, so no
# information is lost with those of a text.
_END, _SPACE = "\x1e", "\x1f"
_CLOSING, _OPENING = r"[\"'\x{2019}\x{201D}\x{BB})\]]*", r"[\"'\x{2018}\x{201C}\x{201E}\x{AB}(\[\x{BF}\x{A1}]*"
_ABBREVIATIONS = (
    "approx|bzw|ca|cf|Co|Corp|Dr|etc|evtl|Fig|ggf|inkl|Inc|Jr|Ltd|max|min|Mme|Mr|Mrs|Ms|No|Nr|Prof|Sr|St|vs"
)
# The space after an abbreviation, an initial or an ordinal number, which may be within a sentence.
_INNER = rf"\b(\p{{L}}|\d{{1,2}}|(?i:{_ABBREVIATIONS}))\. +"
_SENTENCE = rf"([.!?\x{{2026}}]{_CLOSING})[ \t]+({_OPENING}[\p{{Lu}}\p{{Lt}}\p{{Lo}}\p{{Nd}}\p{{S}}{{<%#@&])"
_WIDE_STOP = r"[\x{3002}\x{FF01}\x{FF1F}\x{FF61}][\x{2019}\x{201D}\x{300D}\x{300F}\x{FF09}\x{3011}]*"


class Segments(NamedTuple):
    """The sentences of texts.

    Args:
        sentences: tf.string [N].
        lines: int64 [N], the line of each sentence.
        texts: int64 [L], the text of each line.
        number: int64, B, the number of texts.
    """

    sentences: tf.Tensor
    lines: tf.Tensor
    texts: tf.Tensor
    number: tf.Tensor

    def rows(self) -> tf.Tensor:
        """Returns the text of each sentence, int64 [N]."""
        return tf.gather(self.texts, self.lines)

    def join(self, sentences: tf.Tensor) -> tf.Tensor:
        """Joins the translations of sentences: tf.string [N, K] -> tf.string [B, K]."""
        lines = _join(sentences, self.lines, tf.size(self.texts), " ")
        return _join(tf.strings.regex_replace(lines, f"({_WIDE_STOP}) ", r"\1"), self.texts, self.number, "\n")


def split_sentences(text: tf.Tensor) -> Segments:
    """Splits texts, tf.string [B], into lines and these into sentences. A line without text is an empty sentence.

    The rules prefer too few ends of sentences to too many.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", replace_control_characters=False)
    text = tf.strings.regex_replace(text, f"[{_END}{_SPACE}]", "")
    lines = tf.strings.split(tf.strings.regex_replace(text, _LINE_BREAK, "\n"), "\n")  # [B, (lines)]
    marked = tf.strings.regex_replace(lines.flat_values, _INNER, rf"\1.{_SPACE}")
    marked = tf.strings.regex_replace(marked, _SENTENCE, rf"\1{_END}\2")
    marked = tf.strings.regex_replace(marked, rf"({_WIDE_STOP})[ \x{{3000}}]*(\S)", rf"\1{_END}\2")
    sentences = tf.strings.split(tf.strings.regex_replace(marked, _SPACE, " "), _END)  # [L, (sentences)]
    return Segments(sentences.flat_values, sentences.value_rowids(), lines.value_rowids(), lines.nrows())


def _join(parts: tf.Tensor, groups: tf.Tensor, number: tf.Tensor, separator: str) -> tf.Tensor:
    """Joins the parts of each group: tf.string [N, K] -> tf.string [number, K]; every group has a part."""
    # With a separator, unsorted_segment_join would leave out empty parts at the start.
    joined = tf.strings.unsorted_segment_join(parts + separator, groups, number)
    lengths = tf.strings.length(joined) - len(separator)
    return tf.strings.substr(joined, tf.zeros_like(lengths), lengths)
