"""Tokenizers that live in the graph: the same ops in Beam's workers, in training and on the server.

Comes in: words with their counts, or the files of a tokenizer. Goes out: a Tokenizer: strings to ragged ids and back.
Read next: tokenizer_base.py for what a Tokenizer does; components/transform.py, which learns it; export.py, which
carries it.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf

from models.config import TokenizerConfig
from models.sentencepiece_proto import with_control_pieces
from models.tokenizer_base import Tokenizer, write_file
from models.tokenizer_sentencepiece import SPM_MODEL, SentencePieceTokenizer, learn_sentencepiece, write_sentencepiece
from models.tokenizer_wordpiece import WORDPIECES, WordPieceTokenizer, learn_wordpiece

_SETTINGS = "tokenizer.json"
# SentencePiece takes about 100 bytes of memory for each time that a word occurs, counted or not; what counts is how
# often words occur beside each other, and of more than this the counts are scaled down.
_MAX_WORDS = 2_000_000
# SentencePiece leaves out longer "words" (4192 bytes); languages written without spaces have them.
_MAX_WORD_CHARACTERS = 1000


def load_tokenizer(directory: str) -> Tokenizer:
    """Loads what `learn_tokenizer` or `adopt_tokenizer` wrote.

    Args:
        directory: a folder, on any of TensorFlow's file systems.
    Returns:
        The tokenizer; make it eagerly, outside any `tf.function`.
    """
    settings = json.loads(_read(os.path.join(directory, _SETTINGS)))
    if settings["kind"] == "wordpiece":
        pieces = json.loads(_read(os.path.join(directory, WORDPIECES)))
        return WordPieceTokenizer(pieces["words"], pieces["suffixes"], settings["lowercase"])
    return SentencePieceTokenizer(_read(os.path.join(directory, SPM_MODEL)))


def load_tokenizers(directory: str, columns: Sequence[str]) -> dict[str, Tokenizer]:
    """Loads the tokenizer of each column: one for all, or where the folder has a folder for each, those in them.

    Args:
        directory: a folder, on any of TensorFlow's file systems.
        columns: names of text columns.
    Returns:
        column -> its tokenizer.
    """
    if tf.io.gfile.exists(os.path.join(directory, _SETTINGS)):
        return dict.fromkeys(columns, load_tokenizer(directory))
    return {column: load_tokenizer(os.path.join(directory, column)) for column in columns}


def learn_tokenizer(word_counts: Iterable[tuple[str, int]], config: TokenizerConfig, directory: str) -> int:
    """Learns a tokenizer from counted words and writes it as a Tokenizer artifact.

    The same counts, in any order, give the same bytes. A corpus too small for `config.vocab_size` gives fewer pieces.

    Args:
        word_counts: words, without spaces, and how often each occurs.
        config: kind and size.
        directory: an existing folder, which receives the model, `tokenizer.json` and `vocabulary.tsv`.
    Returns:
        The number of pieces learned.
    Raises:
        ValueError: there are no words, or `config.vocab_size` is too small for the characters in them.
    """
    words = sorted(word_counts)
    total = sum(count for _, count in words)
    if total > _MAX_WORDS:
        words = [(word, max(1, count * _MAX_WORDS // total)) for word, count in words]
    rows = [f"{part}\t{count}" for word, count in words for part in _parts(word)]
    if not rows:
        raise ValueError("there are no words to learn a vocabulary from")
    learn = learn_wordpiece if config.kind == "wordpiece" else learn_sentencepiece
    size = learn(rows, config, directory)
    _write_settings({**dataclasses.asdict(config), "vocab_size": size}, directory)
    return size


def adopt_tokenizer(paths: Sequence[str], directory: str) -> dict:
    """Takes over a tokenizer that was made elsewhere.

    Args:
        paths: the files of a Tokenizer artifact, or a SentencePiece model, whose control pieces move to the front.
        directory: as for `learn_tokenizer`.
    Returns:
        Its settings, `kind` and `vocab_size` at least.
    Raises:
        ValueError: the files are neither.
    """
    files = {os.path.basename(path): path for path in paths}
    models = [name for name in files if name.endswith(".model")]
    if _SETTINGS in files and (SPM_MODEL in files or WORDPIECES in files):
        for name in files.keys() & {_SETTINGS, SPM_MODEL, WORDPIECES, "vocabulary.tsv"}:
            write_file(directory, name, _read(files[name]))
        settings = json.loads(_read(files[_SETTINGS]))
        if load_tokenizer(directory).vocab_size != settings["vocab_size"]:
            raise ValueError("its tokenizer.json and its model are not each other's")
        return settings
    if len(models) != 1:
        raise ValueError(f"neither a tokenizer's folder nor a SentencePiece model: {', '.join(sorted(files))}")
    size = write_sentencepiece(with_control_pieces(_read(files[models[0]])), directory)
    settings = {"kind": "sentencepiece", "vocab_size": size}
    _write_settings(settings, directory)
    return settings


def same_vocabulary(one: str, other: str) -> bool:
    """Returns whether two folders hold the same tokenizer(s), and so turn every text into the same ids."""
    return _vocabulary(one) == _vocabulary(other)


def _vocabulary(directory: str) -> tuple:
    """Returns what decides the ids. SentencePiece's model knows itself whether text is read in lower case."""
    if not tf.io.gfile.exists(os.path.join(directory, _SETTINGS)):
        columns = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(directory))
        return tuple((column, _vocabulary(os.path.join(directory, column))) for column in columns)
    settings = json.loads(_read(os.path.join(directory, _SETTINGS)))
    if settings["kind"] == "wordpiece":
        return _read(os.path.join(directory, WORDPIECES)), settings["lowercase"]
    return (_read(os.path.join(directory, SPM_MODEL)),)


def _write_settings(settings: dict, directory: str) -> None:
    write_file(directory, _SETTINGS, json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n")


def _parts(word: str) -> Iterable[str]:
    """Yields a word in pieces that SentencePiece will read: not too long, and without NUL."""
    word = word.replace("\0", "")
    return (word[i : i + _MAX_WORD_CHARACTERS] for i in range(0, len(word), _MAX_WORD_CHARACTERS))


def _read(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()
