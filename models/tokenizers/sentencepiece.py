"""SentencePiece tokenizers as TensorFlow ops: unigram, byte-pair encoding, characters and bytes."""

import hashlib
import io
import itertools
import unicodedata
from collections.abc import Iterator

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.base import (
    BOS_ID,
    CONTROL_PIECES,
    EOS_ID,
    PAD_ID,
    UNK_ID,
    Tokenizer,
    vocabulary_tsv,
    write_file,
)
from seq2serve.models.tokenizers.placeholders import count_placeholders, placeholder_characters
from seq2serve.models.tokenizers.sentencepiece_proto import (
    BYTE,
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    keep_pieces,
    merge_spaces_last,
)
from seq2serve.models.tokenizers.whitespace import LINE_ENDS, SPACE_PIECE

SPM_MODEL = "spm.model"
# SentencePiece sums floats per thread, so the number of threads affects the result. A fixed number makes the result
# independent of the machine.
_NUM_THREADS = 16
# The last character with a canonical decomposition is U+2FA1D.
_LAST_DECOMPOSABLE = 0x2FA1F
BYTE_ORDER_MARK = "\ufeff"


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226).

    Args:
        model: a serialised SentencePiece model whose first four pieces are `CONTROL_PIECES`, followed by those of
            placeholders, if any.
        keeps_whitespace, has_words: as for Tokenizer.
    """

    def __init__(self, model: bytes, keeps_whitespace: bool = False, has_words: bool = True):
        processor, first = sentencepiece.SentencePieceProcessor(model_proto=model), len(CONTROL_PIECES)
        number = count_placeholders(map(processor.id_to_piece, range(first, len(processor))))
        super().__init__(keeps_whitespace, has_words, number, (first,))
        self._sentencepiece = sentencepiece_ops(model, tf.int32)
        self._vocab_size = int(self._sentencepiece.vocab_size())
        pieces = self._sentencepiece.id_to_string(tf.range(self._vocab_size))
        self._word_starts = tf.strings.regex_full_match(pieces, f"(?s){SPACE_PIECE}.*")

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def word_starts(self) -> tf.Tensor:
        return self._word_starts

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        return self._sentencepiece.id_to_string(ids)

    def _encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._sentencepiece.tokenize(texts)

    def _decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        texts = self._sentencepiece.detokenize(ids)
        # A model can generate byte pieces that are not valid UTF-8, which must not reach the server's JSON.
        return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False)


def sentencepiece_ops(model: bytes, out_type: tf.DType) -> tf_text.SentencepieceTokenizer:
    """Returns the ops of a serialised SentencePiece model, which splits texts into ids (int32) or pieces (string)."""
    # TensorFlow names the resource that holds the model after the op that creates it. Without a unique name, two
    # tokenizers that are loaded from SavedModels in one Python process would both use the first one's model.
    name = f"sentencepiece_{hashlib.sha256(model).hexdigest()}"
    return tf_text.SentencepieceTokenizer(model=model, out_type=out_type, name=name)


def learn_sentencepiece(rows: list[str], config: TokenizerConfig, directory: str) -> int:
    """Trains a SentencePiece model and writes it.

    Character and byte tokenizers are SentencePiece models, too, and so share its normalisation. In a character model
    every character is a piece. A byte model has a piece for the space only and writes all other characters as their
    UTF-8 bytes (Xue et al. 2022, arXiv:2105.13626).

    Args:
        rows: `word<TAB>count`.
        config: kind, algorithm and size.
        directory: an existing folder that receives `spm.model` and `vocabulary.tsv`.
    Returns:
        The number of pieces.
    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    if config.kind == "bytes":
        kept = (UNKNOWN, CONTROL, USER_DEFINED, BYTE)
        # Any word will do: the pieces of its characters are removed.
        trained = train_sentencepiece(["a\t1"], config, "char", True, config.placeholders)
        model = keep_pieces(trained, lambda piece, kind: piece == SPACE_PIECE or kind in kept)
    elif config.kind == "characters":
        model = train_sentencepiece(rows, config, "char", config.byte_fallback, config.placeholders)
    else:
        model = train_sentencepiece(rows, config, config.model_type, config.byte_fallback, config.placeholders)
    return write_sentencepiece(model, directory)


def write_sentencepiece(model: bytes, directory: str) -> int:
    """Writes a model as the files of a Tokenizer artifact and returns its number of pieces.

    Raises:
        ValueError: the bytes are not a SentencePiece model.
    """
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(f"not a SentencePiece model: {error}") from error
    write_file(directory, SPM_MODEL, model)
    write_file(
        directory, "vocabulary.tsv", vocabulary_tsv(map(processor.id_to_piece, range(processor.get_piece_size())))
    )
    return processor.get_piece_size()


def train_sentencepiece(
    rows: list[str], config: TokenizerConfig, model_type: str, byte_fallback: bool, placeholders: int = 0
) -> bytes:
    """Trains a SentencePiece model on `word<TAB>count` rows and returns it serialised.

    After the control pieces come those of `placeholders`.

    If white space is kept, tokenizers mark the beginnings of texts and lines (whitespace.py), so the model adds no
    space, and a row may be a run of spaces instead of a word.

    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    model = io.BytesIO()
    folds = config.whitespace == "fold"
    if not folds:
        rows = [row if row.startswith(" ") else f" {row}" for row in rows]
    sentencepiece.set_min_log_level(2)  # the normalizer has no log level of its own
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(rows),
            input_format="tsv",
            model_writer=model,
            model_type=model_type,
            vocab_size=config.vocab_size,
            character_coverage=config.character_coverage,
            byte_fallback=byte_fallback,
            user_defined_symbols=placeholder_characters(placeholders),
            hard_vocab_limit=False,
            normalizer=sentencepiece.SentencePieceNormalizer(
                norm_map=_normalization(config), add_dummy_prefix=folds, remove_extra_whitespaces=folds
            ),
            required_chars="" if folds else "\n\t",
            allow_whitespace_only_pieces=not folds,
            num_threads=_NUM_THREADS,
            minloglevel=2,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"SentencePiece cannot learn {config.vocab_size} pieces from these words: {error}") from error
    return merge_spaces_last(model.getvalue()) if model_type == "bpe" and not folds else model.getvalue()


def _normalization(config: TokenizerConfig) -> list[tuple[str, str]]:
    """Returns the sorted normalisation rules (from, to), applied to every text before it is split into pieces.

    Text is composed canonically (Unicode NFC), white space becomes a space, and control characters and byte order marks
    are removed. If white space is kept, tabs are unchanged and line ends become "\\n". SentencePiece's default is NFKC,
    which is wrong for translation: it turns "m²" into "m2".
    """
    rules = {}
    for character in map(chr, range(1, _LAST_DECOMPOSABLE + 1)):
        if character.isspace():
            rules[character] = " "
        elif unicodedata.category(character) == "Cc":
            rules[character] = ""
        else:
            composed = unicodedata.normalize("NFC", character)
            normal = composed.lower() if config.lowercase else composed
            rules.update((spelling, normal) for spelling in _spellings(character, composed))
    rules |= {SPACE_PIECE: " ", BYTE_ORDER_MARK: ""}
    if config.whitespace == "keep":
        rules |= {"\t": "\t", "\r\n": "\n", **dict.fromkeys(LINE_ENDS, "\n")}
    return sorted((source, target) for source, target in rules.items() if source != target)


def _spellings(character: str, composed: str) -> Iterator[str]:
    """Yields all canonically equivalent spellings of `character`: decomposed, in any order of marks, or half composed.

    Args:
        character: one character.
        composed: the character in NFC.
    """
    yield character
    decomposed = unicodedata.normalize("NFD", character)
    base, marks = decomposed[0], decomposed[1:]
    for order in itertools.permutations(marks):
        spelling = base + "".join(order)
        if unicodedata.normalize("NFC", spelling) == composed:
            yield spelling
            yield unicodedata.normalize("NFC", spelling[:-1]) + spelling[-1]
