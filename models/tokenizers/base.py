"""The tokenizer interface and the ids of the control pieces."""

import abc
import json
import os
import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from seq2serve.models.tokenizers import whitespace

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
CONTROL_PIECES = ("<pad>", "<unk>", "<s>", "</s>")

_BYTE_PIECE = re.compile(rb"<0x[0-9A-F]{2}>")


class Tokenizer(tf.Module, abc.ABC):
    """Converts texts to ids and back with TensorFlow ops that include the vocabulary.

    `tf.saved_model.save` saves a tokenizer with the `tf.Module` or Keras model that has it as an attribute. No other
    code makes ids, so training and serving agree.

    Args:
        keeps_whitespace: whether line ends, tabs and single spaces are text, instead of one space for all white space.
        has_words: whether a piece may be a word with the space before it; if not, a space is a piece of its own.
        num_placeholders: M, the number of placeholder pieces; see placeholders.py.
        first_placeholders: ids of the first placeholder, of which M consecutive ids are the pieces of the M
            placeholders; several if a piece that begins a word differs from one inside it.
    """

    pad_id, unk_id, bos_id, eos_id = PAD_ID, UNK_ID, BOS_ID, EOS_ID

    def __init__(
        self,
        keeps_whitespace: bool = False,
        has_words: bool = True,
        num_placeholders: int = 0,
        first_placeholders: tuple[int, ...] = (),
    ):
        super().__init__(name="tokenizer")
        self.num_placeholders, self.first_placeholders = num_placeholders, first_placeholders
        self._marks_lines = keeps_whitespace and has_words
        # At the end of a prompt; empty if a space is a piece of its own.
        space = whitespace.SPACE if has_words else ""
        self._gap = space if keeps_whitespace else f"{whitespace.ANY}+"

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Returns the number of pieces, including control pieces; all ids are smaller."""

    @property
    @abc.abstractmethod
    def word_starts(self) -> tf.Tensor:
        """Returns whether each piece begins with a space, bool [V]."""

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Normalises texts and converts them to ids, without begin and end markers.

        Args:
            texts: tf.string [B], any bytes of any length. Invalid UTF-8 becomes U+FFFD. A control piece that is spelled
                out in a text is plain text.
        Returns:
            int32 [B, (tokens)].
        """
        return self._encode(self._marked(texts))

    def split_tag(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Splits off what the beginning of a text says about all of its sentences, such as the language to write.

        Args:
            texts: tf.string [B].
        Returns:
            The tags and the texts after them, tf.string [B] each. A tag is "" where a text has none; most tokenizers
            know no tags.
        """
        return tf.zeros_like(texts), texts

    def tokenize_prompt(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Converts the beginnings of texts to ids, for a model to continue.

        A space at the end of a prompt is part of the next piece ("\u2581word"), so it is left out. Otherwise the last
        piece would be a lone space, after which the model has never seen a word.

        Args:
            texts: as for `tokenize`.
        Returns:
            int32 [B, (tokens)]; and bool [B], whether a space was left out, so that one of `word_starts` must follow.
        """
        marked = self._marked(texts)
        prompts = tf.strings.regex_replace(marked, rf"{self._gap}\z", "")
        ids = self._encode(prompts)
        return ids, (tf.strings.length(prompts) < tf.strings.length(marked)) & (ids.row_lengths() > 0)

    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Converts ids to texts.

        Args:
            ids: int32 [B, T], ragged or padded. Control pieces other than `<unk>` and ids outside the vocabulary are
                skipped.
        Returns:
            tf.string [B], always valid UTF-8.
        """
        texts = self._decode(self._text_ids(ids))
        return whitespace.unmark_lines(texts) if self._marks_lines else texts

    @abc.abstractmethod
    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the pieces of int32 `ids`, tf.string of the same shape."""

    def pieces(self) -> list[str]:
        """Returns the vocabulary; call it eagerly."""
        return [piece.decode() for piece in self.id_to_piece(tf.range(self.vocab_size)).numpy()]

    def placeholder_index(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns which placeholder a piece is, or -1 if it is none: int32 to int32 of the same shape."""
        index = tf.fill(tf.shape(ids), -1)
        for first in self.first_placeholders:
            index = tf.where((ids >= first) & (ids < first + self.num_placeholders), ids - first, index)
        return index

    @property
    def is_character_level(self) -> bool:
        """Returns whether no piece stands for more than one character, spaces aside."""
        with tf.init_scope():  # eagerly, even if a graph is being built
            pieces = self.id_to_piece(tf.range(EOS_ID + 1, self.vocab_size)).numpy()
        return all(_BYTE_PIECE.fullmatch(piece) or len(piece.decode().strip("\u2581")) <= 1 for piece in pieces)

    @abc.abstractmethod
    def _encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns the ids of texts whose lines are marked: tf.string [B] -> int32 [B, (tokens)]."""

    @abc.abstractmethod
    def _decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Returns the texts, with marked lines, of ids that stand for text: int32 [B, (tokens)] -> tf.string [B]."""

    def _marked(self, texts: tf.Tensor) -> tf.Tensor:
        return whitespace.mark_lines(texts) if self._marks_lines else texts

    def _text_ids(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns only the ids that stand for text: `<unk>` and the pieces after the control pieces."""
        ragged = ids if isinstance(ids, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(ids)
        flat = ragged.flat_values
        is_text = (flat == UNK_ID) | ((flat > EOS_ID) & (flat < self.vocab_size))
        return tf.ragged.boolean_mask(ragged, ragged.with_flat_values(is_text))


def write_file(directory: str, name: str, content: bytes) -> None:
    """Writes one file of a tokenizer."""
    with open(os.path.join(directory, name), "wb") as file:
        file.write(content)


def read_file(directory: str, name: str) -> bytes | None:
    """Returns the content of a file; None if there is no such file."""
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def read_json(directory: str, name: str) -> dict[str, Any] | None:
    """Returns the content of a file with a JSON object; None if there is no such file.

    Raises:
        ValueError: it is not a JSON object.
    """
    content = read_file(directory, name)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def vocabulary_tsv(pieces: Iterable[str]) -> bytes:
    """Returns `piece<TAB>id` lines for people; a line end or tab in a piece is written as in Python."""
    escaped = (piece.replace("\n", r"\n").replace("\t", r"\t") for piece in pieces)
    return "".join(f"{piece}\t{index}\n" for index, piece in enumerate(escaped)).encode()
