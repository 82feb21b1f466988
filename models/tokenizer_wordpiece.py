"""WordPiece as TensorFlow ops: the longest piece first, over the words between spaces.

Comes in: pieces, or counted words. Goes out: a Tokenizer, or its files.
Read next: tokenizer.py, which loads it.
"""

import json

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from models.config import TokenizerConfig
from models.tokenizer_base import CONTROL_PIECES, UNK_ID, Tokenizer, write_file
from models.tokenizer_sentencepiece import SPACE_PIECE, train_sentencepiece

WORDPIECES = "wordpieces.json"
# Marks of pieces inside the graph. No normalised text holds them, so a written out "##a" or "<unk>" is plain text.
_SUFFIX_MARK, _CONTROL_MARK = "\x02", "\x01"
# All white space of Unicode, and what SentencePiece writes for a space; control characters and byte order marks.
_SPACES = "[\t-\r\x1c-\x1f\x85\\p{Z}\u2581]+"
_DROPPED = "[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]"


class WordPieceTokenizer(Tokenizer):
    """WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019, arXiv:1810.04805), made so that text comes back.

    BERT sets punctuation apart and forgets the spaces around it. Here a word is what stands between spaces, and
    punctuation is a piece like any other. A word with a character that the vocabulary lacks is `<unk>` as a whole.

    Args:
        words: pieces that begin a word.
        suffixes: pieces that go on with one, without "##".
        lowercase: whether case is given up.
    """

    def __init__(self, words: list[str], suffixes: list[str], lowercase: bool):
        super().__init__()
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
        """Returns texts composed (Unicode NFC), single-spaced, without control characters and byte order marks."""
        valid = tf.strings.unicode_transcode(
            texts, "UTF-8", "UTF-8", errors="replace", replace_control_characters=False
        )
        composed = tf_text.normalize_utf8(tf.strings.regex_replace(valid, _DROPPED, ""), "NFC")
        spaced = tf.strings.strip(tf.strings.regex_replace(composed, _SPACES, " "))
        return tf.strings.lower(spaced, encoding="utf-8") if self._lowercase else spaced

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(self.normalize(texts))
        return self._wordpiece.tokenize(words).merge_dims(-2, -1)

    def detokenize(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
        pieces = tf.ragged.map_flat_values(lambda flat: tf.gather(self._surfaces, flat), self._text_ids(ids))
        return tf.strings.strip(tf.strings.reduce_join(pieces, axis=-1))

    def id_to_piece(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._pieces, ids)


def learn_wordpiece(rows: list[str], config: TokenizerConfig, directory: str) -> int:
    """Learns WordPieces and writes them.

    The pieces are those that byte-pair encoding finds, as is common: how they are found is what WordPiece leaves open.
    Each character is there both to begin a word and to go on with one.

    Args:
        rows: `word<TAB>count`.
        config: sizes.
        directory: receives `wordpieces.json` and `vocabulary.tsv`.
    Returns:
        The number of pieces.
    Raises:
        ValueError: `config.vocab_size` is too small for the characters in the words.
    """
    model = train_sentencepiece(rows, config, "bpe", byte_fallback=False)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    learned = [processor.id_to_piece(i) for i in range(len(CONTROL_PIECES), processor.get_piece_size())]
    characters = sorted({character for piece in learned for character in piece} - {SPACE_PIECE})
    room = config.vocab_size - len(CONTROL_PIECES) - 2 * len(characters)
    if room < 0:
        raise ValueError(f"{config.vocab_size} pieces cannot hold {len(characters)} characters twice (x and ##x)")
    joined = [piece for piece in learned if len(piece.removeprefix(SPACE_PIECE)) > 1][:room]
    words = characters + [piece[1:] for piece in joined if piece.startswith(SPACE_PIECE)]
    suffixes = characters + [piece for piece in joined if not piece.startswith(SPACE_PIECE)]
    content = json.dumps({"words": words, "suffixes": suffixes}, ensure_ascii=False, indent=0)
    write_file(directory, WORDPIECES, content.encode())
    pieces = [*CONTROL_PIECES, *words, *(f"##{suffix}" for suffix in suffixes)]
    write_file(directory, "vocabulary.tsv", "".join(f"{p}\t{i}\n" for i, p in enumerate(pieces)).encode())
    return len(pieces)
