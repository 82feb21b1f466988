"""WordPiece tokenizers as TensorFlow ops: longest match first, within the words between spaces."""

import json

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.base import CONTROL_PIECES, UNK_ID, Tokenizer, write_file
from seq2serve.models.tokenizers.placeholders import count_placeholders, placeholder_characters
from seq2serve.models.tokenizers.sentencepiece import SPACE_PIECE, train_sentencepiece

WORDPIECES = "wordpieces.json"
# Prefixes of suffixes and control pieces inside the graph. Normalised text never contains them, so a literal "##a" or
# "<unk>" in a text is plain text.
_SUFFIX_MARK, _CONTROL_MARK = "\x02", "\x01"
# All Unicode white space, and SentencePiece's symbol for a space.
_SPACES = "[\t-\r\x1c-\x1f\x85\\p{Z}\u2581]+"
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
    """

    def __init__(self, words: list[str], suffixes: list[str], lowercase: bool):
        number = count_placeholders(words)
        super().__init__(number, (len(CONTROL_PIECES), len(CONTROL_PIECES) + len(words)))
        self._lowercase = lowercase
        self._pieces = tf.constant([*CONTROL_PIECES, *words, *(f"##{suffix}" for suffix in suffixes)])
        self._surfaces = tf.constant([*(f" {piece}" for piece in (*CONTROL_PIECES, *words)), *suffixes])
        controls = [_CONTROL_MARK + piece for piece in CONTROL_PIECES]
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            [*controls, *words, *(_SUFFIX_MARK + suffix for suffix in suffixes)],
            suffix_indicator=_SUFFIX_MARK,
            max_bytes_per_word=2**31 - 1,
            token_out_type=tf.int32,
            unknown_token=controls[UNK_ID],
            no_pretokenization=True,
        )

    @property
    def vocab_size(self) -> int:
        return self._pieces.shape[0]

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Composes texts (Unicode NFC), collapses white space, removes control characters and byte order marks."""
        valid = tf.strings.unicode_transcode(
            texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False
        )
        composed = tf_text.normalize_utf8(tf.strings.regex_replace(valid, _DROPPED, ""), "NFC")
        spaced = tf.strings.strip(tf.strings.regex_replace(composed, _SPACES, " "))
        return tf.strings.lower(spaced, encoding="utf-8") if self._lowercase else spaced

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(self.normalize(texts))  # [B, (words)]
        return self._wordpiece.tokenize(words).merge_dims(-2, -1)  # [B, (words), (pieces)] -> [B, (tokens)]

    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        pieces = tf.ragged.map_flat_values(lambda flat: tf.gather(self._surfaces, flat), self._text_ids(ids))
        return tf.strings.strip(tf.strings.reduce_join(pieces, axis=-1))

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._pieces, ids)


def learn_wordpiece(rows: list[str], config: TokenizerConfig, directory: str) -> int:
    """Trains a WordPiece vocabulary and writes it.

    WordPiece does not define how pieces are found. As is common, they come from byte-pair encoding. Every character is
    in the vocabulary twice, to begin a word and to continue one.

    Args:
        rows: `word<TAB>count`.
        config: sizes.
        directory: an existing folder that receives `wordpieces.json` and `vocabulary.tsv`.
    Returns:
        The number of pieces.
    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    model = train_sentencepiece(rows, config, "bpe", byte_fallback=False)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    learned = [processor.id_to_piece(i) for i in range(len(CONTROL_PIECES), processor.get_piece_size())]
    placeholders = placeholder_characters(config.placeholders)
    characters = sorted({character for piece in learned for character in piece} - {SPACE_PIECE, *placeholders})
    characters = placeholders + characters
    required = len(CONTROL_PIECES) + 2 * len(characters)
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
    pieces = [*CONTROL_PIECES, *words, *(f"##{suffix}" for suffix in suffixes)]
    write_file(directory, "vocabulary.tsv", "".join(f"{p}\t{i}\n" for i, p in enumerate(pieces)).encode())
    return len(pieces)
