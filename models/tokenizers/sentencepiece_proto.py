"""Edits serialised SentencePiece models: adds control pieces, removes pieces and changes scores.

The protobuf classes in the sentencepiece package need a newer protobuf than TensorFlow supports. The messages here
declare only the fields that are used, with the numbers of sentencepiece_model.proto. Protobuf preserves all others as
unknown fields.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from seq2serve.models.tokenizers.base import CONTROL_PIECES
from seq2serve.models.tokenizers.whitespace import SPACE_PIECE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "Piece": [("piece", 1, _FIELD.TYPE_STRING), ("score", 2, _FIELD.TYPE_FLOAT), ("type", 3, _FIELD.TYPE_INT32)],
    "TrainerSpec": [
        ("vocab_size", 4, _FIELD.TYPE_INT32),
        ("unk_surface", 44, _FIELD.TYPE_STRING),
        *((f"{name}_id", 40 + i, _FIELD.TYPE_INT32) for i, name in enumerate(("unk", "bos", "eos", "pad"))),
        *((f"{name}_piece", 45 + i, _FIELD.TYPE_STRING) for i, name in enumerate(("unk", "bos", "eos", "pad"))),
    ],
}


@functools.cache
def _model_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="models/sentencepiece_proto", package="seq2serve", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    model = file.message_type.add(name="Model")
    for field, number, label, kind in (
        ("pieces", 1, _FIELD.LABEL_REPEATED, "Piece"),
        ("trainer_spec", 2, _FIELD.LABEL_OPTIONAL, "TrainerSpec"),
    ):
        model.field.add(
            name=field, number=number, label=label, type=_FIELD.TYPE_MESSAGE, type_name=f".seq2serve.{kind}"
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("seq2serve.Model"))


def with_control_pieces(model: bytes, placeholders: Sequence[str] = ()) -> bytes:
    """Replaces a model's own control pieces by `CONTROL_PIECES`, as its first four pieces; the rest keep their order.

    The pieces of `placeholders` follow the control pieces.

    Raises:
        ValueError: the bytes are not a SentencePiece model.
    """
    parsed = _parse(model)
    spec = parsed.trainer_spec
    original = {spec.pad_piece or "<pad>", spec.unk_piece or "<unk>", spec.bos_piece or "<s>", spec.eos_piece or "</s>"}
    controls = original | {*CONTROL_PIECES, *placeholders}
    text_pieces = [piece for piece in parsed.pieces if piece.piece not in controls and piece.type != UNKNOWN]
    if not text_pieces:
        raise ValueError("not a SentencePiece model: it has no pieces")
    added = [{"piece": piece, "score": 0, "type": USER_DEFINED} for piece in placeholders]
    _replace_pieces(parsed, [*added, *text_pieces])
    return parsed.SerializeToString(deterministic=True)


def with_vocabulary(model: bytes, pieces: Sequence[str]) -> bytes:
    """Replaces all pieces of a model, for a model that converts ids and pieces but splits no texts.

    Args:
        model: its bytes and control pieces keep their type. The text of an unknown piece becomes "".
        pieces: those after `CONTROL_PIECES`, in the order of their ids. One with the name of a control piece is put in
            brackets, and stands for no text.
    Raises:
        ValueError: the bytes are not a SentencePiece model.
    """
    parsed = _parse(model)
    types = {piece.piece: piece.type for piece in parsed.pieces if piece.type in (CONTROL, BYTE)}
    types |= dict.fromkeys(CONTROL_PIECES, CONTROL)
    names = [f"[{piece}]" if piece in CONTROL_PIECES else piece for piece in pieces]
    added = [
        {"piece": name, "score": 0, "type": types.get(piece, NORMAL)} for name, piece in zip(names, pieces, strict=True)
    ]
    _replace_pieces(parsed, added)
    parsed.trainer_spec.unk_surface = ""
    return parsed.SerializeToString(deterministic=True)


def _replace_pieces(parsed: Message, pieces: Sequence[Message | dict[str, Any]]) -> None:
    """Replaces the pieces of a model by `CONTROL_PIECES` and those that follow them."""
    spec, controls = parsed.trainer_spec, []
    for index, (name, short) in enumerate(zip(CONTROL_PIECES, ("pad", "unk", "bos", "eos"), strict=True)):
        controls.append({"piece": name, "score": 0, "type": UNKNOWN if short == "unk" else CONTROL})
        setattr(spec, f"{short}_id", index)
        setattr(spec, f"{short}_piece", name)
    replaced = _model_class()(pieces=[*controls, *pieces])
    del parsed.pieces[:]
    parsed.pieces.extend(replaced.pieces)
    spec.vocab_size = len(parsed.pieces)


def keep_pieces(model: bytes, is_kept: Callable[[str, int], bool]) -> bytes:
    """Returns the model with only the pieces for which `is_kept(piece, type)` is true."""
    parsed = _parse(model)
    pieces = [piece for piece in parsed.pieces if is_kept(piece.piece, piece.type or NORMAL)]
    del parsed.pieces[:]
    parsed.pieces.extend(pieces)
    parsed.trainer_spec.vocab_size = len(pieces)
    return parsed.SerializeToString(deterministic=True)


def merge_spaces_last(model: bytes) -> bytes:
    """Gives runs of spaces the lowest scores, so that byte-pair encoding first merges a space with the next word."""
    parsed = _parse(model)
    for piece in parsed.pieces:
        if len(piece.piece) > 1 and not piece.piece.strip(SPACE_PIECE):
            piece.score -= len(parsed.pieces)
    return parsed.SerializeToString(deterministic=True)


def _parse(model: bytes) -> Message:
    try:
        return _model_class().FromString(model)
    except DecodeError as error:
        raise ValueError("not a SentencePiece model: it cannot be parsed") from error
