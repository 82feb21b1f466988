"""A small translator with random weights in Marian's own files, and what Marian computes with it."""

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import yaml

# Options of a Firefox student that the weights depend on.
MARIAN = {
    "type": "transformer",
    "dec-cell": "ssru",
    "dec-depth": 2,
    "dim-emb": 8,
    "enc-depth": 2,
    "output-omit-bias": False,
    "tied-embeddings": False,
    "tied-embeddings-all": True,
    "transformer-decoder-autoreg": "rnn",
    "transformer-dim-ffn": 16,
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "transformer-heads": 2,
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-preprocess": "",
    "transformer-tied-layers": [],
}
WORDS = ["the", "light", "kitchen", "open", "door", "window", "turn", "on", "off", "now"]
TYPES = {"bytes": 0x0101, "float32": 0x0404, "intgemm8": 0x4101}


def vocabulary(bos_id: int = -1, words: Sequence[str] = WORDS) -> bytes:
    """Trains a vocabulary as Marian does: the end marker is piece 0, the unknown piece 1, and usually no other one."""
    model = io.BytesIO()
    rows = [f"{word}\t{10 + number}" for number, word in enumerate(words)]
    ids = {"eos_id": 0, "unk_id": 1, "bos_id": bos_id, "pad_id": -1}
    sentencepiece.set_min_log_level(2)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(rows), input_format="tsv", model_writer=model, vocab_size=40, hard_vocab_limit=False,
        minloglevel=2, **ids,
    )  # fmt: skip
    return model.getvalue()


VOCABULARY = vocabulary()
SEPARATE = VOCABULARY, vocabulary(words=["luz", "cozinha", "porta", "janela", "agora", "abra", "ligue"])
SEPARATE_CONFIG = {"tied-embeddings-all": False, "tied-embeddings": True}  # of Firefox's models with two vocabularies


def marian_tensors(config: Mapping, vocabularies: Sequence[bytes] = (VOCABULARY,)) -> dict[str, np.ndarray]:
    """Returns random tensors with the names and the shapes of Marian's."""
    rng, width, hidden = np.random.default_rng(1), config["dim-emb"], config["transformer-dim-ffn"]
    sizes = [len(sentencepiece.SentencePieceProcessor(model_proto=model)) for model in vocabularies]
    shapes = {"decoder_ff_logit_out_b": (1, sizes[-1])}
    is_tied = config["tied-embeddings-all"]
    names = {"Wemb": sizes[0]} if is_tied else {"encoder_Wemb": sizes[0], "decoder_Wemb": sizes[-1]}
    shapes |= {name: (size, width) for name, size in names.items()}
    if not (is_tied or config["tied-embeddings"]):
        shapes["decoder_ff_logit_out_W"] = (width, sizes[-1])
    is_recurrent = config["transformer-decoder-autoreg"] == "rnn"
    for stack, depth in (("encoder", config["enc-depth"]), ("decoder", config["dec-depth"])):
        attentions = ["self"] if stack == "encoder" else ["context"] if is_recurrent else ["self", "context"]
        for prefix in (f"{stack}_l{number + 1}" for number in range(depth)):
            norms = [f"{prefix}_{name}_Wo" for name in attentions] + [f"{prefix}_ffn_ffn"]
            if stack == "decoder" and is_recurrent:
                norms.append(f"{prefix}_rnn_ffn")
                shapes |= {f"{prefix}_rnn_{name}": (width, width) for name in ("W", "Wf")}
                shapes[f"{prefix}_rnn_bf"] = (1, width)
            for name in attentions:
                shapes |= {f"{prefix}_{name}_W{part}": (width, width) for part in "qkvo"}
                shapes |= {f"{prefix}_{name}_b{part}": (1, width) for part in "qkvo"}
            shapes |= {f"{prefix}_ffn_W1": (width, hidden), f"{prefix}_ffn_b1": (1, hidden)}
            shapes |= {f"{prefix}_ffn_W2": (hidden, width), f"{prefix}_ffn_b2": (1, width)}
            shapes |= {f"{norm}_ln_{kind}": (1, width) for norm in norms for kind in ("scale", "bias")}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_marian(
    folder: Path,
    config: Mapping = {},
    file: str = "model.bin",
    quantised: bool = False,
    tensors: Mapping[str, np.ndarray] = {},
    vocabularies: Sequence[bytes] = (VOCABULARY,),
) -> Path:
    """Writes a small translator into a folder, with changes to its config or other tensors, and returns the folder."""
    config = {**MARIAN, **config}
    tensors = tensors or marian_tensors(config, vocabularies)
    folder.mkdir(exist_ok=True)
    names = ["vocab.enpt.spm"] if len(vocabularies) == 1 else ["srcvocab.enpt.spm", "trgvocab.enpt.spm"]
    for name, model in zip(names, vocabularies, strict=True):
        (folder / name).write_bytes(model)
    options = np.frombuffer(yaml.safe_dump(config).encode() + b"\0", np.int8)
    if file.endswith(".npz"):
        np.savez(folder / file, **tensors, **{"special:model.yml": options})
    else:
        items = [
            _quantised(name, tensor) if quantised and "_W" in f"_{name}" else _plain(name, tensor)
            for name, tensor in tensors.items()
        ]
        items.append(("special:model.yml", "bytes", options.shape, options.tobytes()))
        (folder / file).write_bytes(binary_file(items))
    return folder


def _plain(name: str, tensor: np.ndarray) -> tuple[str, str, tuple[int, ...], bytes]:
    return name, "float32", tensor.shape, tensor.tobytes()


def _quantised(name: str, matrix: np.ndarray) -> tuple[str, str, tuple[int, ...], bytes]:
    values, multiplier = quantise(matrix)
    stored = values if "Wemb" in name else values.T
    return name, "intgemm8", matrix.shape, stored.tobytes() + struct.pack("<f", multiplier)


def quantise(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the int8 values of a matrix and their multiplier, as intgemm computes them."""
    multiplier = np.float32(127) / np.abs(matrix).max()
    return np.rint(matrix * multiplier).astype(np.int8), float(multiplier)


def binary_file(items: list[tuple[str, str, tuple[int, ...], bytes]]) -> bytes:
    """Returns Marian's binary format of items (name, type, shape, bytes), as `saveItems` in binary.cpp writes it."""
    padded = [content + bytes(-len(content) % 256) for *_, content in items]
    head = struct.pack("<2Q", 1, len(items))
    for (name, kind, shape, _), content in zip(items, padded, strict=True):
        head += struct.pack("<4Q", len(name) + 1, TYPES[kind], len(shape), len(content))
    head += b"".join(name.encode() + b"\0" for name, *_ in items)
    head += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in items)
    gap = ((len(head) + 8) // 256 + 1) * 256 - len(head) - 8
    return head + struct.pack("<Q", gap) + bytes(gap) + b"".join(padded)


class MarianReference:
    """Computes a translator as transformer.h and cells.h of Marian do, in float64, one sentence at a time."""

    epsilon = 1e-6

    def __init__(self, config: Mapping, tensors: Mapping[str, np.ndarray]):
        self.config, self.tensors = {**MARIAN, **config}, {name: np.float64(t) for name, t in tensors.items()}
        is_tied = self.config["tied-embeddings-all"]
        self.source, self.target = ("Wemb", "Wemb") if is_tied else ("encoder_Wemb", "decoder_Wemb")

    def logits(self, source: list[int], target: list[int]) -> np.ndarray:
        """Returns the logits after the start and after each token of the target, [T + 1, V], from Marian's ids."""
        memory = self._positions(self.tensors[self.source][source])
        for number in range(self.config["enc-depth"]):
            prefix = f"encoder_l{number + 1}"
            memory = self._norm(memory + self._attention(f"{prefix}_self", memory, memory), f"{prefix}_self_Wo")
            memory = self._feed_forward(prefix, memory)
        embedded = self.tensors[self.target][target]
        x = self._positions(np.concatenate([np.zeros((1, embedded.shape[1])), embedded]))
        for number in range(self.config["dec-depth"]):
            prefix = f"decoder_l{number + 1}"
            if self.config["transformer-decoder-autoreg"] == "rnn":
                x = self._norm(x + self._ssru(f"{prefix}_rnn", x), f"{prefix}_rnn_ffn")
            else:
                mask = np.where(np.tri(len(x), dtype=bool), 0, -1e9)
                x = self._norm(x + self._attention(f"{prefix}_self", x, x, mask), f"{prefix}_self_Wo")
            x = self._norm(x + self._attention(f"{prefix}_context", x, memory), f"{prefix}_context_Wo")
            x = self._feed_forward(prefix, x)
        output = self.tensors.get("decoder_ff_logit_out_W", self.tensors[self.target].T)
        return x @ output + self.tensors["decoder_ff_logit_out_b"]

    def _positions(self, embedded: np.ndarray) -> np.ndarray:
        width = embedded.shape[1]
        angles = np.arange(len(embedded))[:, np.newaxis] * 1e-4 ** (np.arange(width // 2) / (width // 2 - 1))
        return embedded * width**0.5 + np.concatenate([np.sin(angles), np.cos(angles)], 1)

    def _dense(self, x: np.ndarray, prefix: str, part: str) -> np.ndarray:
        return x @ self.tensors[f"{prefix}_W{part}"] + self.tensors[f"{prefix}_b{part}"]

    def _attention(
        self, prefix: str, query: np.ndarray, memory: np.ndarray, mask: np.ndarray | float = 0
    ) -> np.ndarray:
        heads, width = self.config["transformer-heads"], query.shape[1] // self.config["transformer-heads"]
        rows = (self._dense(x, prefix, part) for x, part in ((query, "q"), (memory, "k"), (memory, "v")))
        q, k, v = (x.reshape(len(x), heads, width).transpose(1, 0, 2) for x in rows)
        scores = np.exp(q @ k.transpose(0, 2, 1) / width**0.5 + mask)
        joined = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(query), -1)
        return self._dense(joined, prefix, "o")

    def _ssru(self, prefix: str, x: np.ndarray) -> np.ndarray:
        forget = 1 / (1 + np.exp(-self._dense(x, prefix, "f")))
        state, outputs = np.zeros(x.shape[1]), []
        for f, candidate in zip(forget, x @ self.tensors[f"{prefix}_W"], strict=True):
            state = f * state + (1 - f) * candidate
            outputs.append(np.maximum(state, 0))
        return np.array(outputs)

    def _feed_forward(self, prefix: str, x: np.ndarray) -> np.ndarray:
        hidden = self._dense(x, f"{prefix}_ffn", "1")
        is_relu = self.config["transformer-ffn-activation"] == "relu"
        hidden = np.maximum(hidden, 0) if is_relu else hidden / (1 + np.exp(-hidden))
        return self._norm(x + self._dense(hidden, f"{prefix}_ffn", "2"), f"{prefix}_ffn_ffn")

    def _norm(self, x: np.ndarray, prefix: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return normal * self.tensors[f"{prefix}_ln_scale"] + self.tensors[f"{prefix}_ln_bias"]
