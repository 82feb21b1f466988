"""A small OPUS-MT model with random weights, in Hugging Face's layout, and what transformers computes with it."""

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
import sentencepiece

from tests.models.importing.small_marian import WORDS, MarianReference

GERMAN = ["das", "Licht", "Küche", "öffne", "Tür", "Fenster", "schalte", "an", "aus", "jetzt", "light"]
TAGS = [">>deu<<", ">>nld<<"]


@functools.cache
def splitter(words: tuple[str, ...]) -> bytes:
    """Trains a SentencePiece model as OPUS-MT does."""
    model = io.BytesIO()
    rows = [f"{word}\t{10 + number}" for number, word in enumerate(words)]
    sentencepiece.set_min_log_level(2)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(rows), input_format="tsv", model_writer=model, vocab_size=50, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def joint_vocabulary(models: Sequence[bytes], tags: Sequence[str] = TAGS) -> dict[str, int]:
    """Returns the content of vocab.json: the pieces of all models in any order, then tags and padding."""
    processors = [sentencepiece.SentencePieceProcessor(model_proto=model) for model in models]
    names = {processor.id_to_piece(index) for processor in processors for index in range(len(processor))}
    pieces = ["</s>", "<unk>", *sorted(names - {"</s>", "<unk>", "<s>"}), *tags, "<pad>"]
    return {piece: index for index, piece in enumerate(pieces)}


MODELS = (splitter(tuple(WORDS)), splitter(tuple(GERMAN)))
VOCABULARY = joint_vocabulary(MODELS)
PAD = VOCABULARY["<pad>"]
OPUS_MT = {
    "architectures": ["MarianMTModel"],
    "model_type": "marian",
    "vocab_size": len(VOCABULARY),
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
    "bad_words_ids": [[PAD]],
}


def opus_mt_tensors(config: Mapping) -> dict[str, np.ndarray]:
    """Returns random tensors with the names and the shapes of PyTorch's MarianMTModel."""
    rng, width, size = np.random.default_rng(1), config["d_model"], config["vocab_size"]
    shapes = {"model.shared.weight": (size, width), "final_logits_bias": (1, size)}
    for stack, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
        for prefix in (f"model.{stack}.layers.{number}" for number in range(config[f"{stack}_layers"])):
            hidden = config[f"{stack}_ffn_dim"]
            sizes = {f"{name}.{part}_proj": (width, width) for name in attentions for part in ("q", "k", "v", "out")}
            sizes |= {"fc1": (hidden, width), "fc2": (width, hidden)}
            for name, shape in sizes.items():
                shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
            for name in (*(f"{name}_layer_norm" for name in attentions), "final_layer_norm"):
                shapes |= {f"{prefix}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    tensors = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["model.shared.weight"][config["pad_token_id"]] = 0
    return tensors


def write_opus_mt(
    folder: Path, config: Mapping = {}, tensors: Mapping = {}, vocabulary: Mapping[str, int] = VOCABULARY
) -> Path:
    """Writes a small model into a folder, with changes to its config or other tensors, and returns the folder."""
    config = {**OPUS_MT, **config}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    for name, model in zip(("source.spm", "target.spm"), MODELS, strict=True):
        (folder / name).write_bytes(model)
    safetensors.numpy.save_file(dict(tensors or opus_mt_tensors(config)), folder / "model.safetensors")
    return folder


class OpusMtReference(MarianReference):
    """Computes a model as modeling_marian.py of transformers does, in float64, one sentence at a time."""

    epsilon = 1e-5

    def __init__(self, config: Mapping, tensors: Mapping[str, np.ndarray]):
        options = {
            "enc-depth": config["encoder_layers"],
            "dec-depth": config["decoder_layers"],
            "transformer-heads": config["encoder_attention_heads"],
            "transformer-decoder-autoreg": "self-attention",
            "transformer-ffn-activation": config["activation_function"],
        }
        super().__init__(options, {_marian_name(name): tensor.T for name, tensor in tensors.items()})
        self.tensors["Wemb"] = self.tensors["Wemb"].T
        self.tensors["decoder_ff_logit_out_b"] = self.tensors["decoder_ff_logit_out_b"].T
        self._scale = config["d_model"] ** 0.5 if config["scale_embedding"] else 1.0

    def _positions(self, embedded: np.ndarray) -> np.ndarray:
        width = embedded.shape[1]
        angles = np.arange(len(embedded))[:, np.newaxis] / 10_000 ** (np.arange(0, width, 2) / width)
        return embedded * self._scale + np.concatenate([np.sin(angles), np.cos(angles)], 1)


def _marian_name(name: str) -> str:
    """Returns the name of a tensor in Marian's own files."""
    if name in ("model.shared.weight", "final_logits_bias"):
        return {"model.shared.weight": "Wemb"}.get(name, "decoder_ff_logit_out_b")
    _, stack, _, number, *parts, kind = name.split(".")
    prefix, module = f"{stack}_l{int(number) + 1}", ".".join(parts)
    if module.endswith("layer_norm"):
        block = {"self_attn": "self_Wo", "encoder_attn": "context_Wo", "final": "ffn_ffn"}[module[:-11]]
        return f"{prefix}_{block}_ln_{'scale' if kind == 'weight' else 'bias'}"
    if module in ("fc1", "fc2"):
        return f"{prefix}_ffn_{kind[0].replace('w', 'W')}{module[-1]}"
    block = "self" if parts[0] == "self_attn" else "context"
    return f"{prefix}_{block}_{kind[0].replace('w', 'W')}{parts[1][0]}"
