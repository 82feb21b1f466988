"""Trains, imports and loads tokenizers.

A tokenizer consists of TensorFlow ops, so the same graph runs in Beam's workers, in training and on the server.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from seq2serve.models.config import TokenizerConfig
from seq2serve.models.tokenizers.base import Tokenizer, write_file
from seq2serve.models.tokenizers.bert import BERT_VOCABULARY, bert_tokenizer
from seq2serve.models.tokenizers.opus_mt import OPUS_MT, SPLITTERS, OpusMtTokenizer
from seq2serve.models.tokenizers.placeholders import placeholder_characters
from seq2serve.models.tokenizers.sentencepiece import (
    SPM_MODEL,
    SentencePieceTokenizer,
    learn_sentencepiece,
    write_sentencepiece,
)
from seq2serve.models.tokenizers.sentencepiece_proto import with_control_pieces
from seq2serve.models.tokenizers.wordpiece import WORDPIECES, WordPieceTokenizer, learn_wordpiece

_SETTINGS = "tokenizer.json"
_MODELS = {SPM_MODEL, WORDPIECES, BERT_VOCABULARY, *SPLITTERS}
# SentencePiece uses about 100 bytes of memory per occurrence of a word, even if words are counted beforehand. Only the
# relative frequencies of words matter, so larger counts are scaled down to this total.
_MAX_WORDS = 2_000_000
# SentencePiece ignores longer "words" (4192 bytes), which occur in languages written without spaces.
_MAX_WORD_CHARACTERS = 1000


def load_tokenizer(directory: str) -> Tokenizer:
    """Loads a tokenizer that `learn_tokenizer`, `adopt_tokenizer` or a function that imports tokenizers wrote.

    Call it eagerly, outside any `tf.function`.

    Args:
        directory: a local folder. Of a pair with one vocabulary, such as that of OPUS-MT, it is the source's.
    """
    settings = json.loads(_read(os.path.join(directory, _SETTINGS)))
    keeps_whitespace = _whitespace(settings) == "keep"
    if settings["kind"] == "bert":
        return bert_tokenizer(settings, _read(os.path.join(directory, BERT_VOCABULARY)))
    if settings["kind"] == OPUS_MT:
        return _opus_mt_tokenizer(directory, SPLITTERS[0])
    if settings["kind"] == "wordpiece":
        pieces = json.loads(_read(os.path.join(directory, WORDPIECES)))
        return WordPieceTokenizer(pieces["words"], pieces["suffixes"], settings["lowercase"], keeps_whitespace)
    has_words = settings["kind"] == "sentencepiece"
    return SentencePieceTokenizer(_read(os.path.join(directory, SPM_MODEL)), keeps_whitespace, has_words)


def load_tokenizers(directory: str, columns: Sequence[str]) -> dict[str, Tokenizer]:
    """Loads the tokenizer of each column.

    Args:
        directory: a local folder. It holds one tokenizer for all columns, a pair with one vocabulary for source and
            target, or a folder with a tokenizer for each column.
        columns: names of text columns.
    Returns:
        column -> its tokenizer.
    """
    if os.path.exists(path := os.path.join(directory, _SETTINGS)):
        if json.loads(_read(path))["kind"] == OPUS_MT:
            pair = (_opus_mt_tokenizer(directory, splitter) for splitter in SPLITTERS)
            return dict(zip(columns, pair, strict=False))  # a task with one text column reads that of the source
        return dict.fromkeys(columns, load_tokenizer(directory))
    return {column: load_tokenizer(os.path.join(directory, column)) for column in columns}


def learn_tokenizer(word_counts: Iterable[tuple[str, int]], config: TokenizerConfig, directory: str) -> int:
    """Trains a tokenizer on counted words and writes it as a Tokenizer artifact.

    The result is deterministic to the byte and does not depend on the order of the counts. A corpus too small for
    `config.vocab_size` yields fewer pieces.

    Args:
        word_counts: words, without spaces, and the number of times each occurs. If white space is kept, also runs of
            spaces.
        config: kind and size.
        directory: an existing folder that receives the model, `tokenizer.json` and `vocabulary.tsv`.
    Returns:
        The number of pieces.
    Raises:
        ValueError: there are no words, or `config.vocab_size` is too small for their characters.
    """
    words = sorted(word_counts)
    total = sum(count for _, count in words)
    if total > _MAX_WORDS:
        words = [(word, max(1, count * _MAX_WORDS // total)) for word, count in words]
    rows = [f"{part}\t{count}" for word, count in words for part in _parts(word)]
    if not rows:
        raise ValueError("the text has no words to learn a vocabulary from")
    learn = learn_wordpiece if config.kind == "wordpiece" else learn_sentencepiece
    size = learn(rows, config, directory)
    _write_settings({**dataclasses.asdict(config), "vocab_size": size}, directory)
    return size


def adopt_tokenizer(paths: Sequence[str], directory: str, placeholders: int = 0) -> dict[str, Any]:
    """Imports an existing tokenizer.

    Args:
        paths: the files of a Tokenizer artifact, or one SentencePiece model. The control pieces of a SentencePiece
            model are moved to the front.
        directory: an existing folder that receives the same files as in `learn_tokenizer`.
        placeholders: number of placeholder pieces that a SentencePiece model is given.
    Returns:
        The tokenizer's settings, at least `kind` and `vocab_size`.
    Raises:
        ValueError: the files are neither a Tokenizer artifact nor a SentencePiece model.
    """
    files = {os.path.basename(path): path for path in paths}
    models = [name for name in files if name.endswith((".model", ".spm"))]
    if _SETTINGS in files and files.keys() & _MODELS:
        settings = json.loads(_read(files[_SETTINGS]))
        if "kind" not in settings:
            raise ValueError("tokenizer.json has no kind: it is a file of another library")
        for name in files.keys() & {_SETTINGS, *_MODELS, "vocabulary.tsv"}:
            write_file(directory, name, _read(files[name]))
        size = load_tokenizer(directory).vocab_size
        if size != settings["vocab_size"]:
            raise ValueError(f"tokenizer.json has vocab_size {settings['vocab_size']}, but its model has {size} pieces")
        return settings
    if len(models) != 1:
        raise ValueError(f"neither a tokenizer folder nor one SentencePiece model: {', '.join(sorted(files))}")
    model = with_control_pieces(_read(files[models[0]]), placeholder_characters(placeholders))
    size = write_sentencepiece(model, directory)
    settings = {"kind": "sentencepiece", "vocab_size": size}
    _write_settings(settings, directory)
    return settings


def is_lowercase(tokenizer: Tokenizer) -> bool:
    """Returns whether a tokenizer lowercases texts, so that a model of it writes lower case only.

    It is tried out: the settings of an imported SentencePiece model don't say it. Call it eagerly.
    """
    capitals = [chr(code) for code in range(0x530) if chr(code).lower() != chr(code)]  # Latin, Greek, Cyrillic
    after = [text.decode() for text in tokenizer.detokenize(tokenizer.tokenize(tf.constant(capitals))).numpy()]
    lower = [text == capital.lower() for capital, text in zip(capitals, after, strict=True)]
    return any(lower) and not set(capitals) & set(after)


def same_vocabulary(one: str, other: str) -> bool:
    """Returns whether the tokenizers in two folders convert every text to the same ids."""
    return _vocabulary(one) == _vocabulary(other)


def _opus_mt_tokenizer(directory: str, splitter: str) -> OpusMtTokenizer:
    return OpusMtTokenizer(*(_read(os.path.join(directory, name)) for name in (SPM_MODEL, splitter)))


def _vocabulary(directory: str) -> tuple:
    """Returns everything that the ids depend on. For SentencePiece, lowercasing is part of the model."""
    if not os.path.exists(os.path.join(directory, _SETTINGS)):
        columns = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        return tuple((column, _vocabulary(os.path.join(directory, column))) for column in columns)
    settings = json.loads(_read(os.path.join(directory, _SETTINGS)))
    if settings["kind"] == "bert":
        return _read(os.path.join(directory, BERT_VOCABULARY)), *sorted(settings.items())
    if settings["kind"] == "wordpiece":
        return _read(os.path.join(directory, WORDPIECES)), _whitespace(settings), settings["lowercase"]
    names = (SPM_MODEL, *SPLITTERS) if settings["kind"] == OPUS_MT else (SPM_MODEL,)
    return *(_read(os.path.join(directory, name)) for name in names), _whitespace(settings)


def _whitespace(settings: dict[str, Any]) -> str:
    return settings.get("whitespace", "fold")  # earlier versions and imported models lack the setting


def _write_settings(settings: dict[str, Any], directory: str) -> None:
    write_file(directory, _SETTINGS, json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n")


def _parts(word: str) -> Iterable[str]:
    """Splits a word into parts that SentencePiece accepts: not too long, and without NUL."""
    word = word.replace("\0", "")
    return (word[i : i + _MAX_WORD_CHARACTERS] for i in range(0, len(word), _MAX_WORD_CHARACTERS))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
