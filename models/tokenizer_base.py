"""What all tokenizers share: the ids of the control pieces, and the methods that models and servers call.

Comes in: nothing. Goes out: `Tokenizer`, to be inherited from.
Read next: tokenizer_sentencepiece.py and tokenizer_wordpiece.py, the kinds there are.
"""

import abc
import os

import tensorflow as tf

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
CONTROL_PIECES = ("<pad>", "<unk>", "<s>", "</s>")


class Tokenizer(tf.Module, abc.ABC):
    """Text to ids and back as TensorFlow ops, vocabulary included.

    Kept as an attribute of a `tf.Module` or Keras model, it is carried by `tf.saved_model.save`. Ids agree between
    training and serving because nothing else ever makes them.
    """

    pad_id, unk_id, bos_id, eos_id = PAD_ID, UNK_ID, BOS_ID, EOS_ID

    def __init__(self):
        super().__init__(name="tokenizer")

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Returns the number of pieces, control pieces included; ids are below it."""

    @abc.abstractmethod
    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns texts into ids, normalised, without begin and end markers.

        Args:
            texts: tf.string [B]; any bytes and any length. What is not UTF-8 counts as U+FFFD, and control pieces
                written out in a text are plain text.
        Returns:
            int32 [B, (tokens)].
        """

    @abc.abstractmethod
    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Turns ids into texts.

        Args:
            ids: int32 [B, T], ragged or padded. Control pieces other than `<unk>`, and ids the vocabulary does not
                hold, are passed over.
        Returns:
            tf.string [B], always valid UTF-8.
        """

    @abc.abstractmethod
    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the pieces, tf.string, in the shape of `ids`, int32."""

    def _text_ids(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.RaggedTensor:
        """Returns the ids that stand for text."""
        ragged = ids if isinstance(ids, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(ids)
        flat = ragged.flat_values
        is_text = (flat == UNK_ID) | ((flat > EOS_ID) & (flat < self.vocab_size))
        return tf.ragged.boolean_mask(ragged, ragged.with_flat_values(is_text))


def write_file(directory: str, name: str, content: bytes) -> None:
    """Writes a file of a tokenizer, on any of TensorFlow's file systems."""
    with tf.io.gfile.GFile(os.path.join(directory, name), "wb") as file:
        file.write(content)
