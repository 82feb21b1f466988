"""PyTorch's Transformer with our weights computes the same outputs, loss and gradients; runs where torch is installed.

Install it with `make test-peers`.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.transformer.attention import (
    CrossAttention,
    Rotary,
    SelfAttention,
    causal_mask,
    padding_mask,
    rotate,
)
from seq2serve.models.transformer.layers import FeedForward, LayerNormalization, TokenEmbedding
from seq2serve.models.transformer.models import EncoderClassifier

torch = pytest.importorskip("torch", reason="torch is not installed: make test-peers")


def GELU_TANH(x):
    return torch.nn.functional.gelu(x, approximate="tanh")


def tensor(array) -> "torch.Tensor":
    return torch.tensor(tf.convert_to_tensor(array).numpy())


def copy_attention(ours: SelfAttention | CrossAttention, theirs) -> None:
    kernel, bias = (
        (ours.in_kernel, ours.in_bias)
        if isinstance(ours, SelfAttention)
        else (tf.concat([ours.query_kernel, ours.memory_kernel], 1), tf.concat([ours.query_bias, ours.memory_bias], 0))
    )
    theirs.in_proj_weight.data = tensor(kernel).T.contiguous()
    theirs.in_proj_bias.data = tensor(bias)
    theirs.out_proj.weight.data = tensor(ours.out_kernel).T.contiguous()
    theirs.out_proj.bias.data = tensor(ours.out_bias)


def copy_norm(ours, theirs) -> None:
    theirs.weight.data, theirs.bias.data = tensor(ours.gamma), tensor(ours.beta)


def copy_layer(ours, theirs) -> None:
    copy_attention(ours.self_attention, theirs.self_attn)
    residuals, norms = [ours.self_residual, ours.feed_residual], [theirs.norm1, theirs.norm2]
    if hasattr(theirs, "multihead_attn"):
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        residuals.insert(1, ours.cross_residual)
        norms.append(theirs.norm3)
    for residual, norm in zip(residuals, norms, strict=True):
        copy_norm(residual.norm, norm)
    feed = ours.feed_forward
    for linear, kernel, bias in (
        (theirs.linear1, feed.kernel_1, feed.bias_1),
        (theirs.linear2, feed.kernel_2, feed.bias_2),
    ):
        linear.weight.data, linear.bias.data = tensor(kernel).T.contiguous(), tensor(bias)


def torch_transformer(model) -> "torch.nn.Transformer":
    """Returns a torch.nn.Transformer with our weights; with post-norm, without the final norms that torch would add."""
    config = model.config
    sizes = {"d_model": config.d_model, "nhead": config.num_heads, "dim_feedforward": config.dff, "dropout": 0.0}
    activations = {"gelu_tanh": GELU_TANH, "silu": torch.nn.functional.silu}
    activation = activations.get(config.activation, config.activation)
    options = {"activation": activation, "layer_norm_eps": config.layer_norm_epsilon, "batch_first": True}
    options["norm_first"] = config.norm_first

    def final_norm():
        return torch.nn.LayerNorm(config.d_model, config.layer_norm_epsilon) if config.norm_first else None

    encoder = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(**sizes, **options),
        config.num_encoder_layers,
        final_norm(),
        enable_nested_tensor=False,
    )
    decoder = torch.nn.TransformerDecoder(
        torch.nn.TransformerDecoderLayer(**sizes, **options), config.num_decoder_layers, final_norm()
    )
    peer = torch.nn.Transformer(  # initialises all weights
        config.d_model, config.num_heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
    )
    for ours, theirs in ((model.encoder, encoder), (model.decoder, decoder)):
        for our_layer, their_layer in zip(ours.layers, theirs.layers, strict=True):
            copy_layer(our_layer, their_layer)
        if config.norm_first:
            copy_norm(ours.norm, theirs.norm)
    return peer


@pytest.fixture
def make_perturbed(make_transformer):
    """Returns a function that builds a Transformer whose biases and norms differ from their initial zeros and ones."""

    def make(**changes):
        model, rng = make_transformer(**changes), np.random.default_rng(0)
        for weight in model.weights:
            if any(kind in weight.name for kind in ("bias", "gamma", "beta")):
                weight.assign(weight + rng.normal(scale=0.2, size=weight.shape))
        return model

    return make


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_agrees(causal):
    keras.utils.set_random_seed(1)
    ours = SelfAttention(32, 4) if causal else CrossAttention(32, 4)
    theirs = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    ours.build(None)
    for number, weight in enumerate(ours.weights):
        if "bias" in weight.name:
            weight.assign(np.random.default_rng(number).normal(size=weight.shape))
    copy_attention(ours, theirs)
    rng = np.random.default_rng(0)
    query, memory = (tf.constant(rng.normal(size=(3, length, 32)), tf.float32) for length in (6, 9))
    memory = query if causal else memory
    visible = np.arange(memory.shape[1]) < np.array([[memory.shape[1]], [4], [1]])  # [B, S]
    mask = tf.constant(visible)[:, tf.newaxis, tf.newaxis]  # [B, 1, 1, S]
    if causal:
        mask &= causal_mask(6)
    y, weights = theirs(
        tensor(query),
        tensor(memory),
        tensor(memory),
        key_padding_mask=tensor(~visible),
        attn_mask=tensor(~np.tri(6, dtype=bool)) if causal else None,
        average_attn_weights=False,
    )
    inputs = (query,) if causal else (query, memory)
    our_y, our_weights = ours(*inputs, attention_mask=mask, return_weights=True)
    np.testing.assert_allclose(our_y, y.detach(), atol=1e-5)
    np.testing.assert_allclose(our_weights, weights.detach(), atol=1e-5)


def test_interleaved_rotary_positions_are_products_of_complex_numbers():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype(np.float32)
    angle = torch.outer(torch.arange(5.0), 500.0 ** (-torch.arange(0, 8, 2) / 8))
    pairs = torch.view_as_complex(torch.tensor(x).reshape(2, 3, 5, 4, 2))
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
    np.testing.assert_allclose(rotate(tf.constant(x), tf.range(5), Rotary(500.0, "interleaved")), expected, atol=1e-5)


def test_rms_normalisation_agrees():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    ours, theirs = LayerNormalization(1e-5, "rms"), torch.nn.RMSNorm(8, eps=1e-5)
    ours.build(x.shape)
    ours.gamma.assign(x[0, 0])
    theirs.weight.data = torch.tensor(x[0, 0])
    np.testing.assert_allclose(ours(tf.constant(x)), theirs(torch.tensor(x)).detach(), atol=1e-5)


def test_projections_without_biases_agree():
    ours = FeedForward(8, 12, "silu", use_bias=False)
    ours.build(None)
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    first, second = (torch.nn.Linear(*sizes, bias=False) for sizes in ((8, 12), (12, 8)))
    first.weight.data, second.weight.data = tensor(ours.kernel_1).T, tensor(ours.kernel_2).T
    expected = second(torch.nn.functional.silu(first(torch.tensor(x)))).detach()
    np.testing.assert_allclose(ours(tf.constant(x)), expected, atol=1e-5)
    assert len(ours.weights) == 2


def test_logits_with_a_bias_agree():
    ours = TokenEmbedding(20, 8, output_bias=True)
    ours.build(None)
    x, bias = (np.random.default_rng(0).normal(size=size).astype(np.float32) for size in ((2, 3, 8), (20,)))
    ours.bias.assign(bias)
    expected = torch.nn.functional.linear(torch.tensor(x), tensor(ours.matrix), torch.tensor(bias))
    np.testing.assert_allclose(ours.logits(tf.constant(x)), expected, atol=1e-5)


def test_attention_pooling_agrees(make_model, random_ids):
    model = make_model(functools.partial(EncoderClassifier, num_classes=3), pooling="attention")
    source = random_ids([7, 3, 5])
    mask = tensor(source == 0)
    states = tensor(model.encoder(model.embedding(source), padding_mask(tf.constant(source))))
    pooling = model.attention_pooling
    scores = (states @ tensor(pooling.kernel))[..., 0] + tensor(pooling.bias)
    weights = torch.softmax(scores.masked_fill(mask, -torch.inf), 1)
    np.testing.assert_allclose(model.pool(source), torch.einsum("bs,bsd->bd", weights, states), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_and_decoder_agree(make_perturbed, random_ids, norm_first, activation):
    model = make_perturbed(norm_first=norm_first, activation=activation, d_model=32, dff=64, num_heads=4)
    peer = torch_transformer(model).eval()
    source, target = random_ids([7, 3, 5]), random_ids([4, 6, 2], seed=1)
    x = tensor(model.encoder.start(model.source_embedding(source)))
    y = tensor(model.decoder.start(model.target_embedding(target)))
    padding = tensor(source == 0)
    with torch.no_grad():
        memory = peer.encoder(x, src_key_padding_mask=padding)
        output = peer(
            x,
            y,
            tgt_mask=tensor(~np.tri(6, dtype=bool)),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
    our_memory, mask = model.encode(source)
    np.testing.assert_array_equal(mask, padding_mask(tf.constant(source)))
    np.testing.assert_allclose(our_memory[source != 0], memory[source != 0], atol=1e-5)
    our_output = model.decoder(model.target_embedding(target), our_memory, mask)
    np.testing.assert_allclose(our_output[target != 0], output[target != 0], atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_loss_and_gradients_agree(make_perturbed, random_ids, norm_first):
    """The gradients of our fused layer norm, loss and projections are those of torch's autograd."""
    model = make_perturbed(norm_first=norm_first)
    peer = torch_transformer(model)
    source, target = random_ids([7, 3]), random_ids([4, 6], seed=1)
    with tf.GradientTape() as tape:
        logits = model({"source": source, "target": target})
        loss = MaskedCrossEntropy(0.1)(target, logits)
    weights = [layer.self_attention.in_kernel for layer in (*model.encoder.layers, *model.decoder.layers)]
    weights += [layer.feed_residual.norm.gamma for layer in (*model.encoder.layers, *model.decoder.layers)]
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    output = peer(
        tensor(model.encoder.start(model.source_embedding(source))),
        tensor(model.decoder.start(model.target_embedding(target))),
        tgt_mask=tensor(~np.tri(6, dtype=bool)),
        src_key_padding_mask=tensor(source == 0),
        memory_key_padding_mask=tensor(source == 0),
    )
    their_loss = torch.nn.functional.cross_entropy(
        (output @ tensor(model.output_embedding.matrix).T).flatten(0, 1),
        tensor(target).long().flatten(),
        ignore_index=0,
        label_smoothing=0.1,
    )
    their_loss.backward()
    layers = [*peer.encoder.layers, *peer.decoder.layers]
    theirs = [layer.self_attn.in_proj_weight.grad.T for layer in layers]
    theirs += [(layer.norm3 if hasattr(layer, "norm3") else layer.norm2).weight.grad for layer in layers]
    assert float(loss) == pytest.approx(their_loss.item(), abs=1e-5)
    for ours, their in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(ours, their, atol=1e-5)
