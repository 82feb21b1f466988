"""Translators of Marian (Junczys-Dowmunt et al. 2018) in its own files, such as those of Firefox and Bergamot.

See also marian_files.py for the files.
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seq2serve.models.importing.family import NEVER, Source, supported_options
from seq2serve.models.importing.marian_files import CONFIG, find_marian_model, read_marian_tensors

# Their option -> the values that ours can stand for, first that of a file without the option.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "type": ("transformer",),
    "transformer-preprocess": ("",),
    "transformer-postprocess": ("dan",),
    "transformer-postprocess-emb": ("d", ""),
    "transformer-postprocess-top": ("",),
    "transformer-decoder-autoreg": ("self-attention", "rnn"),
    "transformer-ffn-depth": (2,),
    "transformer-decoder-ffn-depth": (0, 2),
    "transformer-ffn-activation": ("swish", "relu"),  # its gelu is x sigmoid(1.702 x)
    "transformer-no-projection": (False,),
    "transformer-rnn-projection": (False,),
    "transformer-train-position-embeddings": (False,),
    "transformer-tied-layers": ([], None),
    "layer-normalization": (False,),
    "lemma-dim-emb": (0,),
    "right-left": (False,),
    "tied-embeddings-src": (False,),
    "ulr": (False,),
}
_ACTIVATIONS = {"swish": "silu", "relu": "relu"}
_EPSILON = 1e-6  # of layer normalisation, in layers/generic.h
_DROPOUT = 0.0  # students (Kim et al. 2019) are trained without, and lose 10 BLEU in 50 steps of fine-tuning with 0.1
_NO_ROW = -1
_SIDES = {"source": "src", "target": "trg"}  # column -> start of the name of its vocabulary, if both have one


class Marian:
    """The Family of Marian.

    Marian has no begin marker: its decoder begins with a vector of zeros, which is here the embedding of the begin
    marker.
    """

    model_type, config_name, model_class, tokenizer_kind = "marian-nmt", CONFIG, "Transformer", "sentencepiece"
    parts: tuple[str, ...] = ("encoder", "decoder")

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        options = supported_options(config, _SUPPORTED, CONFIG)
        is_recurrent = options["transformer-decoder-autoreg"] == "rnn"
        if is_recurrent and config["dec-cell"] != "ssru":
            raise ValueError(f"{CONFIG} has dec-cell={config['dec-cell']!r}, which is not supported, only 'ssru'")
        width = config["transformer-dim-ffn"]
        if config.get("transformer-decoder-dim-ffn") not in (None, 0, width):
            raise ValueError(f"{CONFIG} has another transformer-dim-ffn for the decoder, which is not supported")
        return {
            "num_encoder_layers": config["enc-depth"],
            "num_decoder_layers": config["dec-depth"],
            "d_model": config["dim-emb"],
            "num_heads": config["transformer-heads"],
            "dff": width,
            "dropout": _DROPOUT,
            "decoder": "ssru" if is_recurrent else "attention",
            "activation": _ACTIVATIONS[options["transformer-ffn-activation"]],
            "output_bias": True,
            "norm_first": False,
            "positions": "sinusoidal",
            "sinusoids": "tensor2tensor",
            "tie_embeddings": bool(config.get("tied-embeddings-all")),
            "scale_embeddings": True,
            "layer_norm_epsilon": _EPSILON,
        }

    def labels(self, config: Mapping[str, Any]) -> list[str]:
        return []

    def tensors(self, folder: str) -> Iterator[tuple[str, np.ndarray]]:
        return read_marian_tensors(find_marian_model(folder))

    def canonical_name(self, name: str) -> str:
        return name

    def sources(self, config: Mapping[str, Any], orders: list[list[int]]) -> dict[str, Source]:
        sources = _embeddings(config, orders)
        for number in range(config["enc-depth"]):
            sources |= _encoder_layer(f"encoder.layers.{number}", f"encoder_l{number + 1}")
        is_recurrent = config.get("transformer-decoder-autoreg") == "rnn"
        for number in range(config["dec-depth"]):
            sources |= _decoder_layer(f"decoder.layers.{number}", f"decoder_l{number + 1}", is_recurrent)
        return sources

    def ignored(self, name: str) -> bool:
        return False

    def import_tokenizer(self, folder: str, directory: str) -> list[list[int]]:
        paths = _vocabularies(folder)
        if len(paths) == 1:
            return [_import_vocabulary(paths[0], directory)]
        folders = [os.path.join(directory, column) for column in _SIDES]
        for path in folders:
            os.mkdir(path)
        return [_import_vocabulary(*pair) for pair in zip(paths, folders, strict=True)]


def _import_vocabulary(path: str, directory: str) -> list[int]:
    """Writes a tokenizer into an existing folder, and returns for each of its ids the row of their embeddings."""
    import sentencepiece

    # TensorFlow, which `settings` does not need.
    from seq2serve.models.tokenizers.base import BOS_ID, EOS_ID, PAD_ID, UNK_ID
    from seq2serve.models.tokenizers.tokenizer import adopt_tokenizer, load_tokenizer

    adopt_tokenizer([path], directory)
    theirs = sentencepiece.SentencePieceProcessor(model_file=path)
    rows = {theirs.id_to_piece(row): row for row in range(len(theirs))}
    if min(theirs.unk_id(), theirs.eos_id()) < 0:
        raise ValueError(f"{path} has no end marker or no unknown piece, so it is not a vocabulary of Marian")
    order = [rows.get(piece, _NO_ROW) for piece in load_tokenizer(directory).pieces()]
    order[PAD_ID] = order[BOS_ID] = _NO_ROW
    order[UNK_ID], order[EOS_ID] = theirs.unk_id(), theirs.eos_id()
    return order


def _vocabularies(folder: str) -> list[str]:
    """Returns the path of the vocabulary of both languages, or those of source and target."""
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".spm")]
    if not paths:
        raise ValueError(f"file not found: {folder}/*.spm, the vocabulary")
    digests = set()
    for path in paths:
        with open(path, "rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
    if len(digests) == 1:
        return paths[:1]
    names = [os.path.basename(path) for path in paths]
    if [name[:3] for name in names] != list(_SIDES.values()):  # the names are sorted
        raise ValueError(
            f"{' and '.join(names)} differ; leave one for both languages, or srcvocab*.spm and trgvocab*.spm"
        )
    return paths


def _embeddings(config: Mapping[str, Any], orders: list[list[int]]) -> dict[str, Source]:
    """Returns the sources of embeddings, output matrix and output bias."""
    from seq2serve.models.tokenizers.base import UNK_ID

    if len(orders) == 2 and config.get("tied-embeddings-all"):
        raise ValueError(f"{CONFIG} has tied-embeddings-all, which needs one vocabulary, not one for each language")
    rows = np.array(orders[-1])
    is_generated = rows != _NO_ROW
    is_generated[UNK_ID] = False  # --allow-unk is off by default

    source_matrix, matrix = (functools.partial(_embedding_matrix, order) for order in (orders[0], orders[-1]))

    def bias(theirs: np.ndarray) -> np.ndarray:
        return np.where(is_generated, theirs.ravel()[rows], NEVER)

    def zeros(theirs: np.ndarray) -> np.ndarray:
        return np.where(is_generated, 0.0, NEVER)

    target, output, is_tied = "decoder_Wemb", "decoder_ff_logit_out_W", False
    if config.get("tied-embeddings-all"):
        target, is_tied = "Wemb", True
    elif config.get("tied-embeddings"):
        output, is_tied = target, True
    sources = {"target_embedding.matrix": Source((target,), matrix)}
    if not config.get("tied-embeddings-all"):
        sources["source_embedding.matrix"] = Source(("encoder_Wemb",), source_matrix)
        sources["output_embedding.matrix"] = Source((output,), matrix if is_tied else lambda theirs: matrix(theirs.T))
    owner = "target_embedding" if config.get("tied-embeddings-all") else "output_embedding"
    has_bias = not config.get("output-omit-bias")
    sources[f"{owner}.bias"] = Source(("decoder_ff_logit_out_b",), bias) if has_bias else Source((target,), zeros)
    return sources


def _embedding_matrix(order: list[int], theirs: np.ndarray) -> np.ndarray:
    """Returns the rows of their matrix in our order; zeros where there is none."""
    if max(order) >= len(theirs):
        raise ValueError(f"a matrix of {len(theirs)} rows, but a vocabulary of {max(order) + 1} pieces")
    return np.where(np.array(order)[:, np.newaxis] != _NO_ROW, theirs[order], 0.0)


def _encoder_layer(ours: str, theirs: str) -> dict[str, Source]:
    return {
        **_self_attention(f"{ours}.self_attention", f"{theirs}_self"),
        **_norm(f"{ours}.self_residual.norm", f"{theirs}_self_Wo"),
        **_feed_forward(ours, theirs),
    }


def _decoder_layer(ours: str, theirs: str, is_recurrent: bool) -> dict[str, Source]:
    cross, context = f"{ours}.cross_attention", f"{theirs}_context"
    if is_recurrent:
        first = {**_ssru(f"{ours}.ssru", f"{theirs}_rnn"), **_norm(f"{ours}.self_residual.norm", f"{theirs}_rnn_ffn")}
    else:
        first = _self_attention(f"{ours}.self_attention", f"{theirs}_self")
        first |= _norm(f"{ours}.self_residual.norm", f"{theirs}_self_Wo")
    return {
        **first,
        **_joined(f"{cross}.query_kernel", f"{cross}.query_bias", context, "q"),
        **_joined(f"{cross}.memory_kernel", f"{cross}.memory_bias", context, "kv"),
        **_joined(f"{cross}.out_kernel", f"{cross}.out_bias", context, "o"),
        **_norm(f"{ours}.cross_residual.norm", f"{context}_Wo"),
        **_feed_forward(ours, theirs),
    }


def _self_attention(ours: str, theirs: str) -> dict[str, Source]:
    return {
        **_joined(f"{ours}.in_kernel", f"{ours}.in_bias", theirs, "qkv"),
        **_joined(f"{ours}.out_kernel", f"{ours}.out_bias", theirs, "o"),
    }


def _ssru(ours: str, theirs: str) -> dict[str, Source]:
    """Their candidate has no bias."""
    return {
        f"{ours}.in_kernel": Source((f"{theirs}_W", f"{theirs}_Wf"), _side_by_side),
        f"{ours}.in_bias": Source((f"{theirs}_bf",), lambda bias: np.concatenate([np.zeros(bias.size), bias.ravel()])),
    }


def _feed_forward(ours: str, theirs: str) -> dict[str, Source]:
    layers = {number: f"{ours}.feed_forward.{{}}_{number}" for number in "12"}
    return {
        **_joined(layers["1"].format("kernel"), layers["1"].format("bias"), f"{theirs}_ffn", "1"),
        **_joined(layers["2"].format("kernel"), layers["2"].format("bias"), f"{theirs}_ffn", "2"),
        **_norm(f"{ours}.feed_residual.norm", f"{theirs}_ffn_ffn"),
    }


def _joined(kernel: str, bias: str, theirs: str, parts: str) -> dict[str, Source]:
    """Joins the matrices [D_in, D_out] and the biases [1, D_out] of projections, each named by one letter."""
    return {
        kernel: Source(tuple(f"{theirs}_W{part}" for part in parts), _side_by_side),
        bias: Source(tuple(f"{theirs}_b{part}" for part in parts), _flat),
    }


def _norm(ours: str, theirs: str) -> dict[str, Source]:
    return {
        f"{ours}.gamma": Source((f"{theirs}_ln_scale",), _flat),
        f"{ours}.beta": Source((f"{theirs}_ln_bias",), _flat),
    }


def _side_by_side(*matrices: np.ndarray) -> np.ndarray:
    return np.concatenate(matrices, 1)


def _flat(*rows: np.ndarray) -> np.ndarray:
    return np.concatenate([row.ravel() for row in rows])
