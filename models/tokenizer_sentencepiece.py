"""SentencePiece as TensorFlow ops: unigram, byte-pair encoding, characters or bytes.

Comes in: a model, or counted words. Goes out: a Tokenizer, or its files.
Read next: tokenizer.py, which loads it.
"""

import hashlib
import io
import itertools
import unicodedata
from collections.abc import Iterable

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from models.config import TokenizerConfig
from models.sentencepiece_proto import BYTE, CONTROL, UNKNOWN, keep_pieces
from models.tokenizer_base import Tokenizer, write_file

SPM_MODEL = "spm.model"
# SentencePiece adds up floats thread by thread, so the number of threads is part of the result: never the machine's.
_NUM_THREADS = 16
# No character beyond has a canonical decomposition: the last is U+2FA1D.
_LAST_DECOMPOSABLE = 0x2FA1F
SPACE_PIECE = "\u2581"
_BYTE_ORDER_MARK = "\ufeff"


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226).

    Args:
        model: a serialised SentencePiece model whose first four pieces are `CONTROL_PIECES`.
    """

    def __init__(self, model: bytes):
        super().__init__()
        # TensorFlow keeps the model as a resource under the name of the op that made it: without one of their own, two
        # tokenizers that Python loads from SavedModels would share whichever came first.
        name = f"sentencepiece_{hashlib.sha256(model).hexdigest()}"
        self._sentencepiece = tf_text.SentencepieceTokenizer(model=model, out_type=tf.int32, name=name)
        self._vocab_size = int(self._sentencepiece.vocab_size())

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._sentencepiece.tokenize(texts)

    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        texts = self._sentencepiece.detokenize(self._text_ids(ids))
        # A model may write byte pieces that are no character; the server's JSON must not see them.
        return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False)

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        return self._sentencepiece.id_to_string(ids)


def learn_sentencepiece(rows: list[str], config: TokenizerConfig, directory: str) -> int:
    """Learns a SentencePiece model and writes it.

    Characters and bytes are SentencePiece models, too, so they share its normalisation: every character is a piece, or
    none but the space is, and all others are written as their UTF-8 bytes (Xue et al. 2022, arXiv:2105.13626).

    Args:
        rows: `word<TAB>count`.
        config: kind, algorithm and size.
        directory: receives `spm.model` and `vocabulary.tsv`.
    Returns:
        The number of pieces.
    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    if config.kind == "bytes":
        one = train_sentencepiece(["a\t1"], config, "char", byte_fallback=True)
        model = keep_pieces(one, lambda piece, kind: piece == SPACE_PIECE or kind in (UNKNOWN, CONTROL, BYTE))
    elif config.kind == "characters":
        model = train_sentencepiece(rows, config, "char", config.byte_fallback)
    else:
        model = train_sentencepiece(rows, config, config.model_type, config.byte_fallback)
    return write_sentencepiece(model, directory)


def write_sentencepiece(model: bytes, directory: str) -> int:
    """Writes a model as files of a Tokenizer artifact and returns the number of its pieces.

    Raises:
        ValueError: it is no SentencePiece model.
    """
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(f"not a SentencePiece model: {error}") from error
    vocabulary = [f"{processor.id_to_piece(i)}\t{i}\n" for i in range(processor.get_piece_size())]
    write_file(directory, SPM_MODEL, model)
    write_file(directory, "vocabulary.tsv", "".join(vocabulary).encode())
    return processor.get_piece_size()


def train_sentencepiece(rows: list[str], config: TokenizerConfig, model_type: str, byte_fallback: bool) -> bytes:
    """Returns the model that SentencePiece learns from `word<TAB>count` rows.

    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    model = io.BytesIO()
    sentencepiece.set_min_log_level(2)  # the normalizer takes no level of its own
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(rows),
            input_format="tsv",
            model_writer=model,
            model_type=model_type,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            byte_fallback=byte_fallback,
            hard_vocab_limit=False,
            normalizer=sentencepiece.SentencePieceNormalizer(norm_map=_normalization(config.lowercase)),
            num_threads=_NUM_THREADS,
            minloglevel=2,
            **{f"{name}_id": index for index, name in enumerate(("pad", "unk", "bos", "eos"))},
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"SentencePiece could not learn {config.vocab_size} pieces: {error}") from error
    return model.getvalue()


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
    rules |= {SPACE_PIECE: " ", _BYTE_ORDER_MARK: ""}
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
