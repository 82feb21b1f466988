"""The tokenizers of OPUS-MT (Tiedemann and Thottingal 2020): two SentencePiece models, and one vocabulary for both.

A text is split by the model of its language, and its pieces are looked up in `vocab.json`. The ids are those of
MarianTokenizer in transformers 5: a piece outside the vocabulary is unknown, and so is a run of characters that the
model does not know, unless it is a piece of the vocabulary, perhaps of the other language. As there, punctuation is not
normalised (sacremoses), and decoding skips unknown pieces; it ignores `clean_up_tokenization_spaces`.

A language tag such as `>>fr<<` is looked up whole if the text begins with it, so an unknown tag is one unknown piece.
Elsewhere, and after white space, it is text. The one difference: a control piece that is spelled out in a text, such as
`</s>`, is text.
"""

import json

import sentencepiece
import tensorflow as tf

from seq2serve.models.tokenizers.base import (
    CONTROL_PIECES,
    EOS_ID,
    PAD_ID,
    UNK_ID,
    read_file,
    read_json,
    write_file,
)
from seq2serve.models.tokenizers.sentencepiece import (
    SentencePieceTokenizer,
    sentencepiece_ops,
    write_sentencepiece,
)
from seq2serve.models.tokenizers.sentencepiece_proto import with_vocabulary

OPUS_MT = "opus-mt"  # the kind in tokenizer.json
SPLITTERS = ("source.spm", "target.spm")
_VOCABULARY, _CONFIG = "vocab.json", "tokenizer_config.json"
_PAD, _UNK, _EOS = (CONTROL_PIECES[index] for index in (PAD_ID, UNK_ID, EOS_ID))
_TAG = r"(?s)\A>>.*?<<"
_SPACES = r"\A[\s\p{Z}]+"


class OpusMtTokenizer(SentencePieceTokenizer):
    """The tokenizer of one language.

    Args:
        vocabulary: a serialised SentencePiece model whose pieces are those of both languages, by ids.
        splitter: the serialised SentencePiece model of the language.
    """

    def __init__(self, vocabulary: bytes, splitter: bytes):
        super().__init__(vocabulary)
        self._splitter = sentencepiece_ops(splitter, tf.string)

    def split_tag(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rest = tf.strings.regex_replace(texts, _TAG, "", replace_global=False)
        size = tf.strings.length(texts) - tf.strings.length(rest)
        tags = tf.strings.substr(texts, tf.zeros_like(size), size)
        return tags, tf.where(size > 0, tf.strings.regex_replace(rest, _SPACES, ""), texts)

    def _encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        tags, rest = self.split_tag(texts)
        has_tag = tags != ""
        tag = tf.RaggedTensor.from_row_lengths(tf.boolean_mask(tags, has_tag), tf.cast(has_tag, tf.int64))
        pieces = tf.concat([tag, self._splitter.tokenize(rest)], 1)
        ids = self._sentencepiece.string_to_id(pieces.flat_values)
        # A run of unknown characters may spell a control piece.
        return pieces.with_flat_values(tf.where(ids > EOS_ID, ids, UNK_ID))

    def _decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        return tf.strings.strip(super()._decode(ids))


def import_opus_mt_tokenizer(folder: str, directory: str) -> list[int]:
    """Imports the tokenizers of an OPUS-MT model in Hugging Face's layout.

    Args:
        folder: holds `source.spm`, `target.spm` and `vocab.json`, perhaps `tokenizer_config.json`.
        directory: an existing folder that receives `tokenizer.json`, `spm.model` (the vocabulary), `source.spm`,
            `target.spm` and `vocabulary.tsv` of a Tokenizer artifact.
    Returns:
        The id in `vocab.json` of each of our ids; for the begin marker, which they lack, that of `<pad>`.
    Raises:
        ValueError: a file is missing or damaged, or its options are not supported.
    """
    _check_config(folder)
    vocabulary = _read_vocabulary(folder)
    splitters = [_read_splitter(folder, name) for name in SPLITTERS]
    pieces = sorted(vocabulary.keys() - {_PAD, _UNK, _EOS}, key=vocabulary.__getitem__)
    size = write_sentencepiece(with_vocabulary(splitters[1], pieces), directory)
    for name, splitter in zip(SPLITTERS, splitters, strict=True):
        write_file(directory, name, splitter)
    settings = {"kind": OPUS_MT, "vocab_size": size}
    write_file(directory, "tokenizer.json", json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n")
    return [vocabulary[piece] for piece in (_PAD, _UNK, _PAD, _EOS, *pieces)]


def _read_vocabulary(folder: str) -> dict[str, int]:
    vocabulary = read_json(folder, _VOCABULARY)
    if vocabulary is None:
        raise ValueError(f"file not found: {folder}/{_VOCABULARY}")
    if missing := [piece for piece in (_PAD, _UNK, _EOS) if piece not in vocabulary]:
        raise ValueError(f"{_VOCABULARY} lacks the control piece {missing[0]}")
    if set(vocabulary.values()) != set(range(len(vocabulary))):
        raise ValueError(f"the ids in {_VOCABULARY} are not 0 to {len(vocabulary) - 1}")
    return vocabulary


def _read_splitter(folder: str, name: str) -> bytes:
    splitter = read_file(folder, name)
    if splitter is None:
        raise ValueError(f"file not found: {folder}/{name}")
    try:
        sentencepiece.SentencePieceProcessor(model_proto=splitter)
    except RuntimeError as error:
        raise ValueError(f"{name} is not a SentencePiece model: {error}") from error
    return splitter


def _check_config(folder: str) -> None:
    """Refuses options that change the ids."""
    config = read_json(folder, _CONFIG) or {}
    for name in ("separate_vocabs", "sp_model_kwargs"):
        if config.get(name):
            raise ValueError(f"{_CONFIG} has {name}={config[name]!r}, which is not supported")
    for role, expected in (("pad_token", _PAD), ("unk_token", _UNK), ("eos_token", _EOS)):
        token = config.get(role) or expected
        content = token["content"] if isinstance(token, dict) else token
        if content != expected:
            raise ValueError(f"{_CONFIG}: {role} is {content!r}, not {expected!r}")
    for token in (config.get("added_tokens_decoder") or {}).values():
        if token["content"] not in CONTROL_PIECES:
            raise ValueError(f"{_CONFIG} adds the token {token['content']!r}, which is not supported")
