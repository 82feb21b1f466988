r"""Splits texts into sentences that are translated one by one, and joins the translations.

A translation model is trained on rows, mostly of one sentence, and forgets parts of longer texts. One rule serves all
languages, and prefers too few ends of sentences to too many. A sentence ends

- at a line break;
- at a final punctuation mark of any script, and the quotes and brackets that close after it, if white space follows and
  then the beginning of a sentence: an upper-case letter, a letter of a script without case, a digit, a symbol or
  markup, perhaps after opening quotes, brackets or a dash;
- at a Chinese or Japanese full stop, question or exclamation mark, if text follows directly. After a closing quote or
  bracket an opening one must follow, because what follows may be "he said".

A full stop ends no sentence after a single letter, a number of one or two digits (an ordinal number in German), or an
abbreviation of the two lists below.
"""

from typing import NamedTuple

import tensorflow as tf

# Marks the end of a sentence, and a full stop that ends none. No UTF-8 text has these bytes, so no text has a mark.
_END, _NO_END = b"\xff", b"\xfe"

_BREAK = r"[\n-\r\x{85}\x{2028}\x{2029}]"
_BLANK = r"[\t\p{Zs}]"
_SPACES = r"\t-\r\x{85}\p{Z}"  # in a character class: line breaks and blanks

# Of Latin, Arabic, Urdu, Indic, Armenian, Ethiopic, Burmese and Khmer; of Chinese and Japanese.
_NARROW_STOPS = (
    r".!?\x{2026}\x{203C}\x{2047}-\x{2049}\x{61F}\x{6D4}\x{964}\x{965}\x{589}\x{1362}\x{1367}\x{104B}\x{17D4}"
)
_WIDE_STOPS = r"\x{3002}\x{FF01}\x{FF1F}\x{FF61}"
# Some languages open with the quotes with which others close. French puts a space between quotes and text.
_CLOSING = r"(?:[ \x{A0}\x{202F}]?\x{BB}|[\"'\p{Pi}\p{Pf}\p{Pe}])*"
_OPENING = rf"(?:[\"'\p{{Pi}}\p{{Pf}}\p{{Ps}}\p{{Pd}}\x{{A1}}\x{{BF}}\x{{2022}}]{_BLANK}?)*"
_OTHER_MARKS = r",:;\x{3001}\x{FF0C}\x{FF1A}\x{FF1B}"
_START = r"[\p{Lu}\p{Lt}\p{Lo}\p{Nd}\p{S}{<%#@&]"
_SENTENCE = rf"([{_NARROW_STOPS}{_WIDE_STOPS}]+{_CLOSING}{_BLANK}+)({_OPENING}{_START})"
_NO_START = rf"{_SPACES}{_NARROW_STOPS}{_WIDE_STOPS}{_OTHER_MARKS}\"'\p{{Pf}}\p{{Pe}}\p{{Pd}}"
_WIDE_SENTENCE = rf"([{_WIDE_STOPS}]+)([^{_NO_START}])|([{_WIDE_STOPS}]+[\p{{Pf}}\p{{Pe}}]+)([\p{{Pi}}\p{{Ps}}])"
_ENDS_WIDE = rf"(?s).*[{_WIDE_STOPS}][\"'\p{{Pf}}\p{{Pe}}]*"

_ABBREVIATIONS = (
    "approx|bijv|bzw|ca|cf|Co|Corp|Dra?|etc|evtl|Fig|ggf|inkl|Inc|Jr|Ltd|Mlle|Mme|Mrs?|Prof|Sra?|Srta|Sta?|Ste|vs"
    "|им|проф|ул|डॉ|प्रो"
)
_CAPITAL_ABBREVIATIONS = "Capt|Col|Gen|Lt|MM|Ms|Rev|Sgt"  # "ms" is a unit
# Before a number only: "no", "max" and "art" are words, too.
_BEFORE_A_NUMBER = r"Abb|Art|Bd|cap|Kap|max|min|No|Nr|núm|pág|pp|Sept?|Tel|vol|\p{L}*str|рис|ст|стр"
_WORD_START = rf"(?:^|[{_SPACES}\p{{Pd}}\p{{Ps}}\p{{Pi}}\"])['\x{{A1}}\x{{BF}}]?"
_LETTERS = r"(?:\p{L}{1,2}\.)*\p{L}"  # initials, "e.g.", "Ph.D.", each half of "z. B."
_INNER = (
    rf"{_WORD_START}(?:{_LETTERS}|(?i:{_ABBREVIATIONS})|{_CAPITAL_ABBREVIATIONS})\."
    rf"|(?:^|[{_SPACES}\p{{Ps}}])\p{{Nd}}{{1,2}}\."
)
_INNER_BEFORE_A_NUMBER = rf"({_WORD_START}(?i:{_BEFORE_A_NUMBER})\.)({_BLANK}*\p{{Nd}})"


class Segments(NamedTuple):
    """The sentences of texts, and the white space around them.

    Args:
        sentences: tf.string [B, (S)], at least one per text; "" for a text of white space.
        gaps: tf.string [N], the white space after each of the N sentences of all texts; "" after the last of a text.
        before, after: tf.string [B], the white space around each text.
    """

    sentences: tf.RaggedTensor
    gaps: tf.Tensor
    before: tf.Tensor
    after: tf.Tensor

    def join(self, translations: tf.Tensor) -> tf.Tensor:
        """Joins the translations of sentences: tf.string [N, K] -> tf.string [B, K].

        White space is that of the text, so that the sentences themselves give the text, byte for byte. One exception:
        if a translation ends with a Chinese or Japanese full stop and its sentence does not, the space after it is
        removed; in the opposite case one is inserted.
        """
        rows, limits = self.sentences.value_rowids(), self.sentences.row_limits()
        is_last = (tf.gather(limits, rows) == tf.range(1, tf.size(rows, tf.int64) + 1))[:, tf.newaxis]
        is_wide, was_wide = (
            tf.strings.regex_full_match(texts, _ENDS_WIDE)
            for texts in (translations, self.sentences.flat_values[:, tf.newaxis])
        )
        gaps = self.gaps[:, tf.newaxis]
        is_superfluous = is_wide & ~was_wide & tf.strings.regex_full_match(gaps, f"{_BLANK}*")
        is_missing = was_wide & ~is_wide & (gaps == "") & ~is_last
        gaps = tf.where(is_superfluous, "", tf.where(is_missing, " ", gaps))
        joined = tf.strings.unsorted_segment_join(translations + gaps, rows, self.sentences.nrows())
        return self.before[:, tf.newaxis] + joined + self.after[:, tf.newaxis]


def split_sentences(text: tf.Tensor) -> Segments:
    """Splits texts, tf.string [B], into sentences. Bytes that are not UTF-8 become U+FFFD."""
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", replace_control_characters=False)
    text, after = _cut_end(text)
    marked = tf.strings.regex_replace(text, f"^[{_SPACES}]+", "")
    indents = tf.strings.length(text) - tf.strings.length(marked)
    before = tf.strings.substr(text, tf.zeros_like(indents), indents)
    marked = tf.strings.regex_replace(marked, _INNER, rb"\0" + _NO_END)
    marked = tf.strings.regex_replace(marked, _INNER_BEFORE_A_NUMBER, rb"\1" + _NO_END + rb"\2")
    marked = tf.strings.regex_replace(marked, f"[{_SPACES}]*{_BREAK}[{_SPACES}]*", rb"\0" + _END)
    marked = tf.strings.regex_replace(marked, _SENTENCE, rb"\1" + _END + rb"\2")
    marked = tf.strings.regex_replace(marked, _WIDE_SENTENCE, rb"\1\3" + _END + rb"\2\4")
    parts = tf.strings.split(marked, _END)  # [B, (S)]
    without_marks = tf.strings.unicode_transcode(
        parts.flat_values, "UTF-8", "UTF-8", errors="ignore", replace_control_characters=False
    )
    sentences, gaps = _cut_end(without_marks)
    return Segments(parts.with_flat_values(sentences), gaps, before, after)


def _cut_end(text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits texts into what comes before the white space at the end, and that white space."""
    kept = tf.strings.regex_replace(text, f"[{_SPACES}]+$", "")
    start = tf.strings.length(kept)
    return kept, tf.strings.substr(text, start, tf.strings.length(text) - start)
