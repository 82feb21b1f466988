"""A small BERT with random weights, in Hugging Face's layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 10,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
PIECES = ["[PAD]", "the", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "sat", "on", "##s", "mat", "a"]


def bert_tensors(config: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns random tensors with the names and the shapes of PyTorch's BertModel."""
    rng, width, hidden = np.random.default_rng(1), config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for number in range(config["num_hidden_layers"]):
        sizes = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        sizes |= {"attention.output.dense": (width, width)}
        sizes |= {"intermediate.dense": (hidden, width), "output.dense": (width, hidden)}
        for name, (rows, columns) in sizes.items():
            shapes |= {f"encoder.layer.{number}.{name}.weight": (rows, columns)}
            shapes |= {f"encoder.layer.{number}.{name}.bias": (rows,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"encoder.layer.{number}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    return {prefix + name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_bert(folder: Path, config: Mapping = {}, tensors: Mapping = {}, pieces: Sequence[str] = PIECES) -> Path:
    """Writes a small BERT into a folder, with changes to its config or other tensors, and returns the folder."""
    config = {**BERT, **config}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    safetensors.numpy.save_file(dict(tensors or bert_tensors(config)), folder / "model.safetensors")
    return folder
