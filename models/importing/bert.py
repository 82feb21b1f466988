"""BERT (Devlin et al. 2019), MiniLM and other encoders of the same architecture, in Hugging Face's layout."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seq2serve.models.importing.family import Source, supported_options
from seq2serve.models.importing.pytorch_layers import feed_forward, linear, norm
from seq2serve.models.importing.safetensors_files import read_safetensors

# Their option -> the values that ours can stand for, first the usual one.
_SUPPORTED = {
    "hidden_act": ("gelu", "relu"),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
# Those of pretraining (masked words, the next sentence) and of other tasks, unless a classifier uses them.
_HEADS = ("cls.", "pooler.", "classifier.", "qa_outputs.")


class Bert:
    """The Family of BERT.

    Texts are read alone, so their token type is always 0: its vector is added to every position.
    """

    model_type, config_name, model_class, tokenizer_kind = "bert", "config.json", "EncoderClassifier", "bert"
    parts: tuple[str, ...] = ("encoder",)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        options = supported_options(config, _SUPPORTED, self.config_name)
        return {
            "num_encoder_layers": config["num_hidden_layers"],
            "d_model": config["hidden_size"],
            "num_heads": config["num_attention_heads"],
            "dff": config["intermediate_size"],
            "dropout": config.get("hidden_dropout_prob", 0.1),
            "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
            "activation": options["hidden_act"],
            "norm_first": False,
            "positions": "learned",
            "embedding_norm": True,
            "scale_embeddings": False,
            "layer_norm_epsilon": config.get("layer_norm_eps", 1e-12),
            "max_positions": config["max_position_embeddings"],
            "begin_marker": True,
            "pooling": "pooler" if self.labels(config) else "mean",
        }

    def labels(self, config: Mapping[str, Any]) -> list[str]:
        if "BertForSequenceClassification" not in (config.get("architectures") or ()):
            return []
        names = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(config.get("num_labels", 2))}
        return [names[index] for index in sorted(names, key=int)]

    def tensors(self, folder: str) -> Iterator[tuple[str, np.ndarray]]:
        return read_safetensors(folder)

    def canonical_name(self, name: str) -> str:
        name = name.removeprefix("bert.")
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def sources(self, config: Mapping[str, Any], orders: list[list[int]]) -> dict[str, Source]:
        (order,) = orders
        positions, types = (f"embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
        sources = {
            "embedding.matrix": Source(("embeddings.word_embeddings.weight",), lambda matrix: matrix[order]),
            "encoder.positions.table": Source((positions, types), lambda table, kinds: table + kinds[0]),
            **norm("encoder.embedding_norm", "embeddings.LayerNorm"),
        }
        for number in range(config["num_hidden_layers"]):
            sources |= _layer(f"encoder.layers.{number}", f"encoder.layer.{number}")
        if labels := self.labels(config):
            # Ours are in alphabetical order.
            outputs = sorted(range(len(labels)), key=labels.__getitem__)

            def reordered(weights: np.ndarray) -> np.ndarray:
                if len(weights) != len(labels):
                    raise ValueError(f"{len(weights)} outputs, {len(labels)} labels in id2label")
                return weights[outputs].T

            sources |= linear("pooler.kernel", "pooler.bias", "pooler.dense")
            sources["head.kernel"] = Source(("classifier.weight",), reordered)
            sources["head.bias"] = Source(("classifier.bias",), reordered)
        return sources

    def ignored(self, name: str) -> bool:
        return name.startswith(_HEADS) or name == "embeddings.position_ids"

    def import_tokenizer(self, folder: str, directory: str) -> list[list[int]]:
        # TensorFlow, which `settings` does not need.
        from seq2serve.models.tokenizers.bert import vocabulary_order
        from seq2serve.models.tokenizers.bert_import import import_bert_tokenizer, read_bert_vocabulary

        import_bert_tokenizer(folder, directory)
        return [vocabulary_order(read_bert_vocabulary(folder))]


def _layer(ours: str, theirs: str) -> dict[str, Source]:
    attention = f"{ours}.self_attention"
    parts = tuple(f"{theirs}.attention.self.{part}" for part in ("query", "key", "value"))
    return {
        **linear(f"{attention}.in_kernel", f"{attention}.in_bias", *parts),
        **linear(f"{attention}.out_kernel", f"{attention}.out_bias", f"{theirs}.attention.output.dense"),
        **norm(f"{ours}.self_residual.norm", f"{theirs}.attention.output.LayerNorm"),
        **feed_forward(f"{ours}.feed_forward", f"{theirs}.intermediate.dense", f"{theirs}.output.dense"),
        **norm(f"{ours}.feed_residual.norm", f"{theirs}.output.LayerNorm"),
    }
