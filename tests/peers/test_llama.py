"""A decoder with Llama's options computes the logits of transformers; runs where torch is installed.

These are RMS normalisation, grouped heads of keys and values, rotary positions with another base, SwiGLU, projections
without biases, and an output of its own. Install torch with `make test-peers`. transformers runs in a process of its
own: its import aborts after TensorFlow's.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import ModelConfig
from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.transformer.models import DecoderLanguageModel

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))), reason="torch is not installed: make test-peers"
)

VOCAB_SIZE, LAYERS, BOS = 40, 3, 2
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "initializer_range": 0.3,  # the default would hide differences
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
# Writes a model's weights with its logits for some ids, and a greedy continuation of the first row.
THEIRS = """
import json, sys
import numpy as np, torch, transformers
path, options = sys.argv[1], json.loads(sys.argv[2])
torch.manual_seed(1)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**options)).eval()
for name, weight in model.named_parameters():
    if "norm" in name:
        torch.nn.init.normal_(weight, 1.0, 0.2)
ids = torch.randint(4, options["vocab_size"], (3, 12))
ids[:, 0] = options["bos_token_id"]
with torch.no_grad():
    logits = model(ids).logits
    text = model.generate(ids[:1], max_new_tokens=20, min_new_tokens=20, do_sample=False)
weights = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
np.savez(path, **weights, ids=ids.numpy(), logits=logits.numpy(), text=text.numpy())
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The weights, ids, logits and text of transformers' model."""
    path = tmp_path_factory.mktemp("llama") / "theirs.npz"
    subprocess.run([sys.executable, "-c", THEIRS, str(path), json.dumps(SIZES)], check=True)
    return np.load(path)


@pytest.fixture(scope="module")
def model(theirs):
    """Our model with the same weights."""
    config = ModelConfig(
        num_decoder_layers=LAYERS,
        d_model=32,
        num_heads=4,
        num_kv_heads=2,
        dff=48,
        dropout=0.0,
        activation="swiglu",
        norm="rms",
        use_bias=False,
        positions="rotary",
        rotary_base=500.0,
        tie_embeddings=False,
        scale_embeddings=False,
        layer_norm_epsilon=1e-5,
    )
    model = DecoderLanguageModel(config, VOCAB_SIZE)
    model.build()
    model.target_embedding.matrix.assign(theirs["model.embed_tokens.weight"])
    model.output_embedding.matrix.assign(theirs["lm_head.weight"])
    model.decoder.norm.gamma.assign(theirs["model.norm.weight"])
    for number, layer in enumerate(model.decoder.layers):

        def weight(name, number=number):
            return theirs[f"model.layers.{number}.{name}.weight"].T

        attention, feed = layer.self_attention, layer.feed_forward
        attention.in_kernel.assign(np.concatenate([weight(f"self_attn.{part}_proj") for part in "qkv"], 1))
        attention.out_kernel.assign(weight("self_attn.o_proj"))
        feed.kernel_1.assign(np.concatenate([weight("mlp.gate_proj"), weight("mlp.up_proj")], 1))
        feed.kernel_2.assign(weight("mlp.down_proj"))
        layer.self_residual.norm.gamma.assign(weight("input_layernorm"))
        layer.feed_residual.norm.gamma.assign(weight("post_attention_layernorm"))
    return model


def test_the_logits_agree(model, theirs):
    np.testing.assert_allclose(model(tf.constant(theirs["ids"], tf.int32)), theirs["logits"], atol=1e-4, rtol=1e-5)


def test_cached_decoding_generates_the_same_text(model, theirs):
    prompt = tf.constant(theirs["ids"][:1, 1:], tf.int32)
    limits = LengthLimits(tf.constant([20]), tf.constant([20]))
    result = generate(FoldedDecoder(model), prompt, BeamSearch(1), limits)
    assert result.ids[0, 0, :20].numpy().tolist() == theirs["text"][0, 12:].tolist()
