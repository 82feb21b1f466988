"""Imports BERT's tokenizers from the files that Hugging Face's libraries write.

What a file says is applied or refused, because ids that differ in silence would ruin the weights they belong to.
"""

import json
from collections.abc import Mapping
from typing import Any

from seq2serve.models.tokenizers.base import read_file, read_json, vocabulary_tsv, write_file
from seq2serve.models.tokenizers.bert import (
    BERT_CONTROL_PIECES,
    BERT_VOCABULARY,
    MAX_WORD_CHARACTERS,
    SUFFIX_MARK,
    bert_settings,
    vocabulary_order,
)
from seq2serve.models.tokenizers.bert_characters import BertNormalizer

_FAST, _CONFIG, _ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
_MODEL = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": SUFFIX_MARK,
    "max_input_chars_per_word": MAX_WORD_CHARACTERS,
}
_ROLES = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), BERT_CONTROL_PIECES, strict=True))
# Classes whose vocab.txt is read as BERT's. Others with a file of this name split words differently.
_CLASSES = ("Bert", "ConvBert", "DistilBert", "Electra", "LayoutLM", "MobileBert", "RetriBert", "SqueezeBert")
_SPECIAL = {*BERT_CONTROL_PIECES, "[MASK]"}


def import_bert_tokenizer(folder: str, directory: str) -> dict[str, Any]:
    """Imports the tokenizer of a BERT in Hugging Face's layout.

    Args:
        folder: holds `vocab.txt` or `tokenizer.json`, perhaps `tokenizer_config.json`. If `tokenizer.json` has a
            normalizer, it is used, and `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of
            `tokenizer_config.json` must agree with it, because transformers uses these.
        directory: an existing folder that receives `tokenizer.json`, `vocab.txt` and `vocabulary.tsv` of a Tokenizer
            artifact.
    Returns:
        The tokenizer's settings: `kind`, `vocab_size`, `lowercase` and the other fields of BertNormalizer.
    Raises:
        ValueError: the files describe another tokenizer than BERT's, contradict each other, or lack control pieces.
    """
    vocabulary = read_bert_vocabulary(folder)
    normalizer = _read_normalizer(folder, vocabulary)
    pieces = [vocabulary[row] for row in vocabulary_order(vocabulary)]
    settings = bert_settings(pieces, normalizer)
    write_file(directory, BERT_VOCABULARY, "".join(f"{piece}\n" for piece in pieces).encode())
    write_file(directory, "tokenizer.json", json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n")
    write_file(directory, "vocabulary.tsv", vocabulary_tsv(pieces))
    return settings


def read_bert_vocabulary(folder: str) -> list[str]:
    """Returns the pieces of a BERT in Hugging Face's layout, by rows of its embedding matrix.

    Of equal lines in `vocab.txt` the last is the piece, as in Hugging Face's libraries. The other lines, empty
    ones and rows without a piece are named `[row N]`, which no text produces.

    Args:
        folder: as for `import_bert_tokenizer`.
    Raises:
        ValueError: there is no vocabulary, or it is not that of a WordPiece tokenizer.
    """
    fast, listed = _read_fast(folder), _read_lines(folder)
    if fast is None and listed is None:
        raise ValueError(f"{folder} has neither {BERT_VOCABULARY} nor {_FAST}")
    if fast is None:
        _check_config(folder)
        return _by_rows(listed or {})
    added = {token["content"]: token["id"] for token in fast.get("added_tokens") or ()}
    rows = {**fast["model"]["vocab"], **added}
    for piece, row in (listed or {}).items():
        if rows.get(piece) != row:
            raise ValueError(f"{BERT_VOCABULARY} has {piece!r} in row {row}, {_FAST} has it in row {rows.get(piece)}")
    return _by_rows(rows)


def _by_rows(rows: Mapping[str, int]) -> list[str]:
    pieces = {row: piece for piece, row in rows.items() if piece}
    size = 1 + max(rows.values(), default=-1)
    if len(pieces) < len(rows) - ("" in rows) or size > 2 * len(rows):
        raise ValueError(f"the ids of the vocabulary are not 0 to {len(rows) - 1}")
    if broken := [piece for piece in rows if "\n" in piece]:
        raise ValueError(f"the vocabulary has pieces with line ends: {broken[0]!r}")
    return [pieces.get(row, f"[row {row}]") for row in range(size)]


def _read_lines(folder: str) -> dict[str, int] | None:
    """Returns the last row of each line of vocab.txt; None if there is no such file."""
    content = read_file(folder, BERT_VOCABULARY)
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{BERT_VOCABULARY} is not UTF-8: byte {error.start}") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    return {line: row for row, line in enumerate(lines)}


def _read_fast(folder: str) -> dict[str, Any] | None:
    """Returns the content of tokenizer.json, which is that of a BERT tokenizer; None if there is no such file."""
    fast = read_json(folder, _FAST)
    if fast is None:
        return None
    try:
        _check_fast(fast)
    except (AttributeError, KeyError, StopIteration, TypeError) as error:
        raise ValueError(f"{_FAST} is not a tokenizer in Hugging Face's format: {error!r}") from error
    return fast


def _check_fast(fast: dict[str, Any]) -> None:
    model = fast.get("model") or {}
    for key, expected in _MODEL.items():  # earlier releases left out the type
        if model.get(key, expected) != expected:
            raise ValueError(f"{_FAST}: model.{key} is {model[key]!r}, not {expected!r}")
    added = fast.get("added_tokens") or ()
    if not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{_FAST}: model.vocab is missing")
    for row in (*model["vocab"].values(), *(token["id"] for token in added)):
        if not isinstance(row, int) or row < 0:
            raise ValueError(f"{_FAST}: an id is {row!r}")
    for part, expected in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        kind = (fast.get(part) or {}).get("type")
        if kind != expected:
            raise ValueError(f"{_FAST}: {part} is {kind}, not {expected}")
    _check_markers(fast.get("post_processor"))
    _check_added(_FAST, added)


def _check_markers(post_processor: dict[str, Any] | None) -> None:
    """Checks that a text is put between [CLS] and [SEP]."""
    if post_processor is None or post_processor["type"] == "BertProcessing":
        return
    parts = [next(iter(part.values()))["id"] for part in post_processor.get("single", ())]
    if parts != ["[CLS]", "A", "[SEP]"]:
        raise ValueError(f"{_FAST}: post_processor is {post_processor['type']} with {parts}, not [CLS] A [SEP]")


def _check_added(file: str, tokens: Any) -> None:
    """Refuses tokens that are cut out of texts before anything else is done."""
    for token in tokens:
        if not token.get("special") and token["content"] not in _SPECIAL:
            raise ValueError(f"{file} adds the token {token['content']!r}, which is not supported")


def _check_config(folder: str) -> None:
    """Checks what is said about a vocab.txt without tokenizer.json."""
    config = read_json(folder, _CONFIG) or {}
    name = config.get("tokenizer_class") or "BertTokenizer"
    if name.removesuffix("Fast").removesuffix("Tokenizer") not in _CLASSES:
        raise ValueError(f"{_CONFIG}: tokenizer_class is {name}, which does not split words as BERT does")
    for role, expected in _ROLES.items():
        token = config.get(role) or expected
        content = token["content"] if isinstance(token, dict) else token
        if content != expected:
            raise ValueError(f"{_CONFIG}: {role} is {content!r}, not {expected!r}")
    _check_added(_CONFIG, (config.get("added_tokens_decoder") or {}).values())
    _check_added(_ADDED, [{"content": content} for content in read_json(folder, _ADDED) or ()])


def _read_normalizer(folder: str, vocabulary: list[str]) -> BertNormalizer:
    config, fast = read_json(folder, _CONFIG) or {}, _read_fast(folder)
    values = fast["normalizer"] if fast else _config_values(config, vocabulary)
    values = {"lowercase": None, "handle_chinese_chars": None, "clean_text": None, **values}
    lowercase, chinese, clean = values["lowercase"], values["handle_chinese_chars"], values["clean_text"]
    strip = lowercase if values.get("strip_accents") is None else values["strip_accents"]
    if not all(isinstance(flag, bool) for flag in (lowercase, strip, chinese, clean)):
        file = _FAST if fast else _CONFIG
        raise ValueError(f"{file}: the settings of the normalizer are not true or false: {values}")
    for key, flag in (("do_lower_case", lowercase), ("strip_accents", strip), ("tokenize_chinese_chars", chinese)):
        if config.get(key) not in (None, flag):  # libraries differ in which of the two they use
            raise ValueError(
                f"{_CONFIG}: {key} is {config[key]!r}, but the normalizer of {_FAST} has {flag}; change one"
            )
    return BertNormalizer(lowercase, strip, chinese, clean)


def _config_values(config: dict[str, Any], vocabulary: list[str]) -> dict[str, Any]:
    """Returns the settings of a normalizer that tokenizer_config.json has, or their defaults."""
    lowercase = config.get("do_lower_case")
    if lowercase is None and (capitals := [piece for piece in vocabulary if _has_capitals(piece)]):
        raise ValueError(
            f"{BERT_VOCABULARY} has pieces with capitals, such as {capitals[0]!r}, and no {_CONFIG} says whether "
            'texts become lower case. Create one: {"do_lower_case": false}'
        )
    return {
        "lowercase": lowercase is None or lowercase,
        "strip_accents": config.get("strip_accents"),
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "clean_text": True,
    }


def _has_capitals(piece: str) -> bool:
    return piece != piece.lower() and not piece.startswith("[")
