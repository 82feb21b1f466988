"""A tokenizer that lives in the graph: the same ops in Beam's workers, in training and on the server.

Comes in: strings, and for learning, words with their counts. Goes out: ragged token ids, and strings again.
Read next: components/transform.py, which learns it; transformer.py, which reads its ids; export.py, which carries it.
"""

import dataclasses
import io
import itertools
import json
import os
import unicodedata
from collections.abc import Iterable

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from models.config import TokenizerConfig

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
CONTROL_PIECES = ("<pad>", "<unk>", "<s>", "</s>")

# SentencePiece adds up floats thread by thread, so the number of threads is part of the result: never the machine's.
_NUM_THREADS = 16
# SentencePiece leaves out longer "words" (4192 bytes); languages written without spaces have them.
_MAX_WORD_CHARACTERS = 1000
# No character beyond has a canonical decomposition: the last is U+2FA1D.
_LAST_DECOMPOSABLE = 0x2FA1F
_SPACE_PIECE = "\u2581"
_BYTE_ORDER_MARK = "\ufeff"


class SentencePieceTokenizer(tf.Module):
    """SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226) as TensorFlow ops, vocabulary included.

    Kept as an attribute of a `tf.Module` or Keras model, it is carried by `tf.saved_model.save`. Ids agree between
    training and serving because nothing else ever makes them.

    Args:
        model: a serialised SentencePiece model whose first four pieces are `CONTROL_PIECES`.
    """

    pad_id, unk_id, bos_id, eos_id = PAD_ID, UNK_ID, BOS_ID, EOS_ID

    def __init__(self, model: bytes):
        super().__init__(name="tokenizer")
        self._sentencepiece = tf_text.SentencepieceTokenizer(model=model, out_type=tf.int32)
        self._vocab_size = int(self._sentencepiece.vocab_size())

    @property
    def vocab_size(self) -> int:
        """Returns the number of pieces, control pieces included; ids are below it."""
        return self._vocab_size

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns texts into ids, normalised as the model says, without begin and end markers.

        Args:
            texts: tf.string [B]; any bytes and any length. What is not UTF-8 counts as U+FFFD, and control pieces
                written out in a text are plain text.
        Returns:
            int32 [B, (tokens)].
        """
        return self._sentencepiece.tokenize(texts)

    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        """Turns ids into texts.

        Args:
            ids: int32 [B, T], ragged or padded. Control pieces other than `<unk>`, and ids the vocabulary does not
                hold, are passed over.
        Returns:
            tf.string [B], always valid UTF-8.
        """
        ragged = ids if isinstance(ids, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(ids)
        flat = ragged.flat_values
        is_text = (flat == UNK_ID) | ((flat > EOS_ID) & (flat < self.vocab_size))
        texts = self._sentencepiece.detokenize(tf.ragged.boolean_mask(ragged, ragged.with_flat_values(is_text)))
        # A model may write byte pieces that are no character; the server's JSON must not see them.
        return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False)

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the pieces, tf.string, in the shape of `ids`, int32."""
        return self._sentencepiece.id_to_string(ids)


def load_tokenizer(directory: str) -> SentencePieceTokenizer:
    """Loads what `learn_sentencepiece` wrote.

    Args:
        directory: a folder with `spm.model`, on any of TensorFlow's file systems.
    Returns:
        The tokenizer; make it eagerly, outside any `tf.function`.
    """
    with tf.io.gfile.GFile(os.path.join(directory, "spm.model"), "rb") as file:
        return SentencePieceTokenizer(file.read())


def learn_sentencepiece(word_counts: Iterable[tuple[str, int]], config: TokenizerConfig, directory: str) -> int:
    """Learns a SentencePiece model from counted words and writes it as a Tokenizer artifact.

    The same counts, in any order, give the same bytes. A corpus too small for `config.vocab_size` gives fewer pieces.

    Args:
        word_counts: words, without spaces, and how often each occurs.
        config: algorithm and size.
        directory: an existing folder, which receives `spm.model`, `tokenizer.json` and `vocabulary.tsv`.
    Returns:
        The number of pieces learned.
    Raises:
        ValueError: there are no words, or `config.vocab_size` is too small for the characters in them.
    """
    rows = [f"{part}\t{count}" for word, count in sorted(word_counts) for part in _parts(word)]
    if not rows:
        raise ValueError("there are no words to learn a vocabulary from")
    model = _train(rows, config)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    settings = {**dataclasses.asdict(config), "vocab_size": processor.get_piece_size()}
    vocabulary = [f"{processor.id_to_piece(i)}\t{i}\n" for i in range(processor.get_piece_size())]
    _write(directory, "spm.model", model)
    _write(directory, "tokenizer.json", json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n")
    _write(directory, "vocabulary.tsv", "".join(vocabulary).encode())
    return processor.get_piece_size()


def _train(rows: list[str], config: TokenizerConfig) -> bytes:
    model = io.BytesIO()
    sentencepiece.set_min_log_level(2)  # the normalizer takes no level of its own
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(rows),
            input_format="tsv",
            model_writer=model,
            model_type=config.model_type,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            byte_fallback=config.byte_fallback,
            hard_vocab_limit=False,
            normalizer=sentencepiece.SentencePieceNormalizer(norm_map=_normalization(config.lowercase)),
            num_threads=_NUM_THREADS,
            minloglevel=2,
            **{f"{name}_id": index for index, name in enumerate(("pad", "unk", "bos", "eos"))},
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"SentencePiece could not learn {config.vocab_size} pieces: {error}") from error
    return model.getvalue()


def _parts(word: str) -> Iterable[str]:
    """Yields a word in pieces that SentencePiece will read: not too long, and without NUL."""
    word = word.replace("\0", "")
    return (word[i : i + _MAX_WORD_CHARACTERS] for i in range(0, len(word), _MAX_WORD_CHARACTERS))


def _normalization(lowercase: bool) -> list[tuple[str, str]]:
    """Returns the rules (from, to) that every text goes through before it is cut into pieces, sorted.

    Canonical composition (Unicode NFC), all white space to a space, control characters and byte order marks dropped.
    SentencePiece's own rule is NFKC, which a translation should not use: it writes "m2" for "m²".
    """
    rules = {}
    for character in map(chr, range(1, _LAST_DECOMPOSABLE + 1)):
        if character.isspace():
            rules[character] = " "
        elif unicodedata.category(character) == "Cc":
            rules[character] = ""
        else:
            composed = unicodedata.normalize("NFC", character)
            written = composed.lower() if lowercase else composed
            rules.update((spelling, written) for spelling in _spellings(character, composed))
    rules |= {_SPACE_PIECE: " ", _BYTE_ORDER_MARK: ""}
    return sorted((source, target) for source, target in rules.items() if source != target)


def _spellings(character: str, composed: str) -> Iterable[str]:
    """Yields the sequences that are canonically the same as `character`: marks apart, in any order, or half joined."""
    yield character
    base, *marks = unicodedata.normalize("NFD", character)
    for order in itertools.permutations(marks):
        apart = base + "".join(order)
        if unicodedata.normalize("NFC", apart) == composed:
            yield apart
            yield unicodedata.normalize("NFC", apart[:-1]) + apart[-1]


def _write(directory: str, name: str, content: bytes) -> None:
    with tf.io.gfile.GFile(os.path.join(directory, name), "wb") as file:
        file.write(content)
