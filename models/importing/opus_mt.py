"""OPUS-MT (Tiedemann and Thottingal 2020): translators of Marian in Hugging Face's layout, those of MarianMTModel."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seq2serve.models.importing.family import NEVER, Source, supported_options
from seq2serve.models.importing.pytorch_layers import feed_forward, linear, norm
from seq2serve.models.importing.safetensors_files import read_safetensors

# The values of options that a configuration leaves out, as in transformers' MarianConfig.
_DEFAULTS = {
    "vocab_size": 58101,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 12),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 4096),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 16),
    "d_model": 1024,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
    "decoder_start_token_id": 58100,
    "pad_token_id": 58100,
    "eos_token_id": 0,
}
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu", "swish", "silu", "relu"),
    "share_encoder_decoder_embeddings": (True,),
    "tie_word_embeddings": (True,),
}
_ACTIVATIONS = {"swish": "silu"}  # where their name differs from ours
_EPSILON = 1e-5  # of PyTorch's LayerNorm
_EMBEDDINGS = "model.shared.weight"
_TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")


class OpusMt:
    """The Family of OPUS-MT.

    Their decoder begins with the padding piece, whose embedding is here that of the begin marker. Neither is ever
    generated (`bad_words_ids`). Other settings of generation are ours, not those of their `generation_config.json`.
    """

    model_type, config_name, model_class, tokenizer_kind = "marian", "config.json", "Transformer", "opus-mt"
    parts: tuple[str, ...] = ("encoder", "decoder")

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        config = {**_DEFAULTS, **config}
        activation = supported_options(config, _SUPPORTED, self.config_name)["activation_function"]
        for name in ("ffn_dim", "attention_heads"):
            encoder, decoder = config[f"encoder_{name}"], config[f"decoder_{name}"]
            if encoder != decoder:
                raise ValueError(
                    f"{self.config_name} has encoder_{name}={encoder} and decoder_{name}={decoder}; only equal values "
                    "are supported"
                )
        return {
            "num_encoder_layers": config["encoder_layers"],
            "num_decoder_layers": config["decoder_layers"],
            "d_model": config["d_model"],
            "num_heads": config["encoder_attention_heads"],
            "dff": config["encoder_ffn_dim"],
            "dropout": config["dropout"],
            "attention_dropout": config["attention_dropout"],
            "activation_dropout": config["activation_dropout"],
            "activation": _ACTIVATIONS.get(activation, activation),
            "output_bias": True,
            "norm_first": False,
            "positions": "sinusoidal",
            "sinusoids": "halves",
            "tie_embeddings": True,
            "scale_embeddings": config["scale_embedding"],
            "layer_norm_epsilon": _EPSILON,
        }

    def labels(self, config: Mapping[str, Any]) -> list[str]:
        return []

    def tensors(self, folder: str) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the matrix of the embeddings once, whichever of its names a file uses."""
        embeddings = None
        for name, tensor in read_safetensors(folder):
            if name not in (_EMBEDDINGS, *_TIED):
                yield name, tensor
            elif embeddings is None:
                embeddings = tensor
                yield _EMBEDDINGS, tensor
            elif not np.array_equal(embeddings, tensor):
                raise ValueError(f"{name} differs from the other embeddings, but the configuration has one matrix")

    def canonical_name(self, name: str) -> str:
        return name

    def sources(self, config: Mapping[str, Any], orders: list[list[int]]) -> dict[str, Source]:
        (order,) = orders
        config = {**_DEFAULTS, **config}
        sources = _embeddings(config, order)
        for number in range(config["encoder_layers"]):
            sources |= _layer(f"encoder.layers.{number}", f"model.encoder.layers.{number}")
        for number in range(config["decoder_layers"]):
            ours, theirs = f"decoder.layers.{number}", f"model.decoder.layers.{number}"
            sources |= {**_layer(ours, theirs), **_cross_attention(ours, theirs)}
        return sources

    def ignored(self, name: str) -> bool:
        return name.endswith("embed_positions.weight")  # sinusoids

    def import_tokenizer(self, folder: str, directory: str) -> list[list[int]]:
        # TensorFlow, which `settings` does not need.
        from seq2serve.models.tokenizers.opus_mt import import_opus_mt_tokenizer

        return [import_opus_mt_tokenizer(folder, directory)]


def _embeddings(config: Mapping[str, Any], order: list[int]) -> dict[str, Source]:
    """Returns the sources of the embeddings and of the output bias.

    Raises:
        ValueError: the ids in config.json are not those in vocab.json.
    """
    from seq2serve.models.tokenizers.base import BOS_ID, EOS_ID, PAD_ID

    size = len(order) - 1  # they have no begin marker
    for name, value in (("vocab_size", size), ("pad_token_id", order[PAD_ID]), ("eos_token_id", order[EOS_ID])):
        if config[name] != value:
            raise ValueError(f"config.json has {name}={config[name]}, but that of vocab.json is {value}")
    rows = np.array(order)
    rows[BOS_ID] = config["decoder_start_token_id"]

    def bias(theirs: np.ndarray) -> np.ndarray:
        biases = theirs.ravel()[rows]
        biases[[PAD_ID, BOS_ID]] = NEVER
        return biases

    return {
        "target_embedding.matrix": Source((_EMBEDDINGS,), lambda theirs: theirs[rows]),
        "target_embedding.bias": Source(("final_logits_bias",), bias),
    }


def _layer(ours: str, theirs: str) -> dict[str, Source]:
    """Returns the sources of what the layers of encoder and decoder have in common."""
    attention, projections = f"{ours}.self_attention", tuple(f"{theirs}.self_attn.{part}_proj" for part in "qkv")
    return {
        **linear(f"{attention}.in_kernel", f"{attention}.in_bias", *projections),
        **linear(f"{attention}.out_kernel", f"{attention}.out_bias", f"{theirs}.self_attn.out_proj"),
        **norm(f"{ours}.self_residual.norm", f"{theirs}.self_attn_layer_norm"),
        **feed_forward(f"{ours}.feed_forward", f"{theirs}.fc1", f"{theirs}.fc2"),
        **norm(f"{ours}.feed_residual.norm", f"{theirs}.final_layer_norm"),
    }


def _cross_attention(ours: str, theirs: str) -> dict[str, Source]:
    attention, projection = f"{ours}.cross_attention", f"{theirs}.encoder_attn.{{}}_proj".format
    return {
        **linear(f"{attention}.query_kernel", f"{attention}.query_bias", projection("q")),
        **linear(f"{attention}.memory_kernel", f"{attention}.memory_bias", projection("k"), projection("v")),
        **linear(f"{attention}.out_kernel", f"{attention}.out_bias", projection("out")),
        **norm(f"{ours}.cross_residual.norm", f"{theirs}.encoder_attn_layer_norm"),
    }
