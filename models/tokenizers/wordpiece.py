"""WordPiece tokenizers as TensorFlow ops: longest match first, within the words between spaces."""

import dataclasses
import json
from collections.abc import Sequence

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.base import CONTROL_PIECES, UNK_ID, Tokenizer, vocabulary_tsv, write_file
from seq2serve.models.tokenizers.placeholders import count_placeholders, placeholder_characters
from seq2serve.models.tokenizers.sentencepiece import train_sentencepiece
from seq2serve.models.tokenizers.whitespace import ANY, LINE_ENDS, SPACE, SPACE_PIECE

WORDPIECES = "wordpieces.json"
# Prefixes of suffixes and control pieces inside the graph. Normalised text never contains them, so a literal "##a" or
# "<unk>" in a text is plain text.
_SUFFIX_MARK, _CONTROL_MARK = "\x02", "\x01"
# Pieces of their own if white space is kept. The space before a word belongs to the word.
_SEPARATORS = ("\n", "\t", " ")
# Control characters and byte order marks.
_DROPPED = "[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]"


class WordPieceTokenizer(Tokenizer):
    """WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019, arXiv:1810.04805) with reversible spacing.

    BERT splits off punctuation and loses the spaces around it. Here words are split at spaces only, and punctuation
    forms pieces like other characters. A word with a character outside the vocabulary becomes one `<unk>`.

    Args:
        words: pieces that begin a word.
        suffixes: pieces that continue a word, without "##".
        lowercase: whether to lowercase texts.
        keeps_whitespace: as for Tokenizer. If true, line ends, tabs and extra spaces are pieces, too.
    """

    def __init__(self, words: list[str], suffixes: list[str], lowercase: bool, keeps_whitespace: bool = False):
        separators = _SEPARATORS if keeps_whitespace else ()
        first = len(CONTROL_PIECES) + len(separators)
        super().__init__(keeps_whitespace, True, count_placeholders(words), (first, first + len(words)))
        self._lowercase, self._keeps_whitespace = lowercase, keeps_whitespace
        self._pieces = tf.constant(_pieces(separators, words, suffixes))
        surfaces = [*separators, *(f" {word}" for word in words), *suffixes]
        self._surfaces = tf.constant([*(f" {piece}" for piece in CONTROL_PIECES), *surfaces])
        is_control = [False] * len(CONTROL_PIECES)
        self._word_starts = tf.constant([*is_control, *(surface.startswith(" ") for surface in surfaces)])
        controls = [_CONTROL_MARK + piece for piece in CONTROL_PIECES]
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            [*controls, *separators, *words, *(_SUFFIX_MARK + suffix for suffix in suffixes)],
            suffix_indicator=_SUFFIX_MARK,
            max_bytes_per_word=2**31 - 1,
            token_out_type=tf.int32,
            unknown_token=controls[UNK_ID],
            no_pretokenization=True,
        )

    @property
    def vocab_size(self) -> int:
        return self._pieces.shape[0]

    @property
    def word_starts(self) -> tf.Tensor:
        return self._word_starts

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Composes texts (Unicode NFC), folds or keeps white space, removes control characters and byte order marks."""
        texts = tf.strings.unicode_transcode(
            texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False
        )
        if self._keeps_whitespace:
            texts = tf.strings.regex_replace(texts, f"\r\n|[{LINE_ENDS}]", "\n")
        texts = tf_text.normalize_utf8(tf.strings.regex_replace(texts, _DROPPED, ""), "NFC")
        texts = tf.strings.regex_replace(texts, SPACE if self._keeps_whitespace else f"{ANY}+", " ")
        texts = texts if self._keeps_whitespace else tf.strings.strip(texts)
        return tf.strings.lower(texts, encoding="utf-8") if self._lowercase else texts

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._pieces, ids)

    def _encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        texts = self.normalize(texts)
        words = self._split(texts) if self._keeps_whitespace else tf.strings.split(texts)  # [B, (words)]
        return self._wordpiece.tokenize(words).merge_dims(-2, -1)  # [B, (words), (pieces)] -> [B, (tokens)]

    def _decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        pieces = tf.ragged.map_flat_values(lambda flat: tf.gather(self._surfaces, flat), ids)
        texts = tf.strings.reduce_join(pieces, axis=-1)
        return texts if self._keeps_whitespace else tf.strings.strip(texts)

    def _split(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Splits texts into words without the space before them, and separators: tf.string [B] -> [B, (words)]."""
        word_or_separator = " [^ \n\t]+|[ \n\t]"
        words = tf_text.regex_split(texts, word_or_separator, word_or_separator)
        return tf.ragged.map_flat_values(lambda flat: tf.strings.regex_replace(flat, "^ (.)", r"\1"), words)


def learn_wordpiece(rows: list[str], config: TokenizerConfig, directory: str) -> int:
    """Trains a WordPiece vocabulary and writes it.

    WordPiece does not define how pieces are found. As is common, they come from byte-pair encoding. Every character is
    in the vocabulary twice, to begin a word and to continue one.

    Args:
        rows: `word<TAB>count`; runs of spaces are ignored.
        config: sizes.
        directory: an existing folder that receives `wordpieces.json` and `vocabulary.tsv`.
    Returns:
        The number of pieces.
    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    rows = [row for row in rows if not row.startswith(" ")]
    model = train_sentencepiece(rows, dataclasses.replace(config, whitespace="fold"), "bpe", byte_fallback=False)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    learned = [processor.id_to_piece(i) for i in range(len(CONTROL_PIECES), processor.get_piece_size())]
    placeholders = placeholder_characters(config.placeholders)
    characters = sorted({character for piece in learned for character in piece} - {SPACE_PIECE, *placeholders})
    characters = placeholders + characters
    separators = _SEPARATORS if config.whitespace == "keep" else ()
    required = len(CONTROL_PIECES) + len(separators) + 2 * len(characters)
    if config.vocab_size < required:
        raise ValueError(
            f"a vocabulary of {config.vocab_size} pieces is too small: the control pieces and {len(characters)} "
            f"characters and placeholders, each as x and ##x, need {required}"
        )
    longer = [piece for piece in learned if len(piece.removeprefix(SPACE_PIECE)) > 1][: config.vocab_size - required]
    words = characters + [piece[1:] for piece in longer if piece.startswith(SPACE_PIECE)]
    suffixes = characters + [piece for piece in longer if not piece.startswith(SPACE_PIECE)]
    content = json.dumps({"words": words, "suffixes": suffixes}, ensure_ascii=False, indent=0)
    write_file(directory, WORDPIECES, content.encode())
    pieces = _pieces(separators, words, suffixes)
    write_file(directory, "vocabulary.tsv", vocabulary_tsv(pieces))
    return len(pieces)


def _pieces(separators: Sequence[str], words: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    return [*CONTROL_PIECES, *separators, *words, *(f"##{suffix}" for suffix in suffixes)]
