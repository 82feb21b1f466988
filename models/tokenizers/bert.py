"""BERT's tokenizer as TensorFlow ops: words split at spaces and around punctuation, then into their longest pieces."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from seq2serve.models.tokenizers.base import EOS_ID, UNK_ID, Tokenizer
from seq2serve.models.tokenizers.bert_characters import (
    ABSOLUTE,
    MAX_OUTPUTS,
    PAGE,
    BertNormalizer,
    character_table,
)

BERT_VOCABULARY = "vocab.txt"
BERT_CONTROL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # in the order of base.py's ids
SUFFIX_MARK = "##"
MAX_WORD_CHARACTERS = 100


class BertTokenizer(Tokenizer):
    """The tokenizer of BERT, MiniLM and other encoders (Devlin et al. 2019, arXiv:1810.04805).

    A text becomes the same pieces as in Hugging Face's fast BertTokenizer. A word without matching pieces, or with more
    than 100 characters, becomes one `[UNK]`. There are three differences:

    - Ids: control pieces come first; see `vocabulary_order`.
    - `[CLS]`, `[MASK]` and other control pieces that are spelled out in a text are plain text.
    - Marks out of Unicode's canonical order are not sorted, if they are marks that `strip_accents` leaves in place.

    Args:
        pieces: the vocabulary in the order of the ids.
        normalizer: what is done to texts before they are split into words.
    Raises:
        ValueError: the control pieces do not come first, a piece occurs twice, or it contains NUL and texts may, too.
    """

    def __init__(self, pieces: Sequence[str], normalizer: BertNormalizer):
        super().__init__()
        if tuple(pieces[: len(BERT_CONTROL_PIECES)]) != BERT_CONTROL_PIECES:
            raise ValueError(f"the vocabulary does not begin with {', '.join(BERT_CONTROL_PIECES)}")
        if len(set(pieces)) < len(pieces):
            raise ValueError("a piece occurs twice in the vocabulary")
        if not normalizer.clean_text and any("\0" in piece for piece in pieces):
            raise ValueError("a piece contains NUL, which only a tokenizer with clean_text can ignore")
        self._pieces = tf.constant(pieces)
        is_suffix = [piece.startswith(SUFFIX_MARK) and piece != SUFFIX_MARK for piece in pieces]
        surfaces = [
            piece.removeprefix(SUFFIX_MARK) if suffix else f" {piece}"
            for piece, suffix in zip(pieces, is_suffix, strict=True)
        ]
        self._surfaces = tf.constant(surfaces)
        self._word_starts = tf.constant([i > EOS_ID and not suffix for i, suffix in enumerate(is_suffix)])
        self._page_of, self._row_of, self._outputs = map(tf.constant, character_table(normalizer))
        # No text spells a suffix or a control piece here, because "#" and "[" are words of their own.
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            [piece if _is_usable(piece) else f" {index}" for index, piece in enumerate(pieces)],
            suffix_indicator=SUFFIX_MARK,
            max_bytes_per_word=2**31 - 1,
            token_out_type=tf.int32,
            unknown_token=BERT_CONTROL_PIECES[UNK_ID],
            no_pretokenization=True,
        )

    @property
    def vocab_size(self) -> int:
        return self._pieces.shape[0]

    @property
    def word_starts(self) -> tf.Tensor:
        return self._word_starts

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._pieces, ids)

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Replaces each character by what stands for it, with spaces around words: tf.string [B] -> tf.string [B]."""
        codes = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")  # int32 [B, (characters)]
        flat = codes.flat_values
        cells = tf.gather(self._page_of, flat // PAGE) * PAGE + flat % PAGE
        outputs = tf.gather(self._outputs, tf.gather(self._row_of, cells))  # [characters, MAX_OUTPUTS]
        outputs = tf.where(outputs >= ABSOLUTE, outputs - ABSOLUTE, outputs + flat[:, tf.newaxis])
        outputs = tf.reshape(outputs, [-1])
        is_output = outputs >= 0
        before = tf.concat([[0], tf.cumsum(tf.cast(is_output, tf.int64))], axis=0)  # outputs before each
        splits = tf.gather(before, codes.row_splits * MAX_OUTPUTS)
        normal = tf.RaggedTensor.from_row_splits(tf.boolean_mask(outputs, is_output), splits, validate=False)
        return tf.strings.unicode_encode(normal, "UTF-8")

    def _encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(self.normalize(texts))  # [B, (words)]
        is_long = tf.strings.length(words.flat_values, unit="UTF8_CHAR") > MAX_WORD_CHARACTERS
        words = words.with_flat_values(tf.where(is_long, BERT_CONTROL_PIECES[UNK_ID], words.flat_values))
        return self._wordpiece.tokenize(words).merge_dims(-2, -1)  # [B, (words), (pieces)] -> [B, (tokens)]

    def _decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        pieces = tf.ragged.map_flat_values(lambda flat: tf.gather(self._surfaces, flat), ids)
        return tf.strings.strip(tf.strings.reduce_join(pieces, axis=-1))


def _is_usable(piece: str) -> bool:
    """Returns whether a word may have the piece and FastWordpieceTokenizer accepts it."""
    return piece != SUFFIX_MARK and not set(piece) & set(" \0")


def vocabulary_order(vocabulary: Sequence[str]) -> list[int]:
    """Returns the row of each id in a vocabulary that was made elsewhere: control pieces first, then the other rows.

    An embedding matrix [V, D] in the order of `vocabulary` becomes one in the order of the ids by `matrix[order]`.

    Args:
        vocabulary: the pieces, row by row.
    Raises:
        ValueError: control pieces are missing.
    """
    rows = {piece: row for row, piece in enumerate(vocabulary)}
    if missing := [piece for piece in BERT_CONTROL_PIECES if piece not in rows]:
        raise ValueError(f"the vocabulary lacks {', '.join(missing)}")
    control = [rows[piece] for piece in BERT_CONTROL_PIECES]
    return control + [row for row in range(len(vocabulary)) if row not in control]


def bert_settings(pieces: Sequence[str], normalizer: BertNormalizer) -> dict[str, Any]:
    """Returns what `tokenizer.json` of a Tokenizer artifact holds."""
    return {"kind": "bert", "vocab_size": len(pieces), **dataclasses.asdict(normalizer)}


def bert_tokenizer(settings: dict[str, Any], vocabulary: bytes) -> BertTokenizer:
    """Creates the tokenizer of an artifact.

    Args:
        settings: see `bert_settings`.
        vocabulary: content of `vocab.txt`, a piece a line in the order of the ids.
    Raises:
        ValueError: a setting is missing, or the vocabulary is not one of ours.
    """
    names = [field.name for field in dataclasses.fields(BertNormalizer)]
    if missing := [name for name in names if name not in settings]:
        raise ValueError(f"tokenizer.json lacks {', '.join(missing)}")
    return BertTokenizer(
        vocabulary.decode().removesuffix("\n").split("\n"), BertNormalizer(**{name: settings[name] for name in names})
    )
