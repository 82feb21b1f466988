"""CTranslate2 with our weights generates the same outputs as our beam search; runs where it is installed.

Install it with `make test-peers`. Both prune by log probability, so a length penalty only ranks complete hypotheses.
CTranslate2's penalty is |Y| ** alpha, applied when K hypotheses are complete; ours is GNMT's. In tests with a penalty,
CTranslate2 runs to the last step and returns all complete hypotheses, which are then ranked by GNMT's formula. So the
same hypotheses are ranked under the same penalty, and no stopping rule can hide what our search misses.
"""

import numpy as np
import pytest

from seq2serve.models.decoding.beam_search import BeamSearch
from seq2serve.models.transformer.layers import sinusoids

ctranslate2 = pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: make test-peers")

MAXIMUM = 20  # tokens
INPUTS = 500
TOKENS = ["<pad>", "<unk>", "<s>", "</s>", *(f"t{i}" for i in range(4, 20))]
EOS = 3


def copy_linear(spec, kernel, bias) -> None:
    spec.weight, spec.bias = np.ascontiguousarray(kernel.T), bias


def copy_norm(spec, norm) -> None:
    spec.gamma, spec.beta = norm.gamma.numpy(), norm.beta.numpy()


def copy_self_attention(spec, attention, norm) -> None:
    copy_norm(spec.layer_norm, norm)
    copy_linear(spec.linear[0], attention.in_kernel.numpy(), attention.in_bias.numpy())
    copy_linear(spec.linear[1], attention.out_kernel.numpy(), attention.out_bias.numpy())


def copy_cross_attention(spec, attention, norm) -> None:
    copy_norm(spec.layer_norm, norm)
    copy_linear(spec.linear[0], attention.query_kernel.numpy(), attention.query_bias.numpy())
    copy_linear(spec.linear[1], attention.memory_kernel.numpy(), attention.memory_bias.numpy())
    copy_linear(spec.linear[2], attention.out_kernel.numpy(), attention.out_bias.numpy())


def copy_layer(spec, layer) -> None:
    copy_self_attention(spec.self_attention, layer.self_attention, layer.self_residual.norm)
    if hasattr(layer, "cross_attention"):
        copy_cross_attention(spec.attention, layer.cross_attention, layer.cross_residual.norm)
    feed = layer.feed_forward
    copy_norm(spec.ffn.layer_norm, layer.feed_residual.norm)
    copy_linear(spec.ffn.linear_0, feed.kernel_1.numpy(), feed.bias_1.numpy())
    copy_linear(spec.ffn.linear_1, feed.kernel_2.numpy(), feed.bias_2.numpy())


def convert(model, folder: str) -> "ctranslate2.Translator":
    """Loads a pre-norm or post-norm Transformer with sinusoidal positions and ReLU into CTranslate2."""
    config = model.config
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (config.num_encoder_layers, config.num_decoder_layers), config.num_heads, pre_norm=config.norm_first
    )
    spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    matrix = model.target_embedding.matrix.numpy()
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = spec.decoder.projection.weight = matrix
    spec.decoder.projection.bias = np.zeros(len(matrix), np.float32)
    for side, ours in ((spec.encoder, model.encoder), (spec.decoder, model.decoder)):
        side.position_encodings.encodings = sinusoids(np.arange(64), config.d_model).numpy()
        if config.norm_first:
            copy_norm(side.layer_norm, ours.norm)
        for layer_spec, layer in zip(side.layer, ours.layers, strict=True):
            copy_layer(layer_spec, layer)
    spec.register_source_vocabulary(TOKENS)
    spec.register_target_vocabulary(TOKENS)
    spec.validate()
    spec.save(folder)
    return ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)


def to_ids(tokens: list[str]) -> tuple[int, ...]:
    return tuple(TOKENS.index(token) for token in tokens)


def translate(translator, source, beams: int, **options) -> list[list[tuple[float, tuple[int, ...]]]]:
    """Returns the complete hypotheses of CTranslate2 for each row: (score, ids)."""
    rows = [[TOKENS[token] for token in row if token] for row in source]
    results = translator.translate_batch(
        rows,
        beam_size=beams,
        length_penalty=0,
        max_decoding_length=MAXIMUM,
        min_decoding_length=0,
        return_scores=True,
        **options,
    )
    return [list(zip(result.scores, map(to_ids, result.hypotheses), strict=True)) for result in results]


def gnmt_best(completed, alpha: float) -> tuple[float, tuple[int, ...]]:
    """Returns the best hypothesis under ((5 + |Y|) / 6) ** alpha; |Y| includes the end marker, which a truncated
    hypothesis does not have."""
    return max((log_prob / ((5 + min(len(ids) + 1, MAXIMUM)) / 6) ** alpha, ids) for log_prob, ids in completed)


def check_agreement(ours, expected) -> None:
    """Asserts that 99 % of the rows have the same best sequence, and that equal sequences have equal scores to 1e-3."""
    best_ids = [tuple(row[0, : lengths[0]]) for row, lengths in zip(ours.ids, ours.lengths, strict=True)]
    same = np.array([ids == best for ids, (_, best) in zip(best_ids, expected, strict=True)])
    scores = np.array([score for score, _ in expected])
    assert same.mean() >= 0.99
    np.testing.assert_allclose(ours.scores[same, 0], scores[same], atol=1e-3)


@pytest.fixture(scope="module", params=[True, False], ids=["pre_norm", "post_norm"])
def model(request, train_noisy_reverser):
    return train_noisy_reverser(norm_first=request.param)


@pytest.fixture(scope="module")
def translator(model, tmp_path_factory):
    return convert(model, str(tmp_path_factory.mktemp("ctranslate2")))


@pytest.fixture(scope="module")
def source(random_ids):
    return random_ids([1 + row % 8 for row in range(INPUTS)], seed=11, end=(EOS,))


@pytest.mark.parametrize("beams", [1, 4, 8])
def test_the_best_hypotheses_agree_without_length_penalty(model, translator, decode, source, beams):
    ours = decode(model, source, BeamSearch(beams, length_penalty=0.0), MAXIMUM)
    check_agreement(ours, [completed[0] for completed in translate(translator, source, beams)])


@pytest.mark.parametrize("beams", [1, 4, 8])
@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_the_best_hypotheses_agree_with_length_penalty(model, translator, decode, source, beams, alpha):
    ours = decode(model, source, BeamSearch(beams, length_penalty=alpha), MAXIMUM)
    all_complete = {} if beams == 1 else {"patience": MAXIMUM, "num_hypotheses": beams * MAXIMUM}
    completed = translate(translator, source, beams, **all_complete)
    check_agreement(ours, [gnmt_best(row, alpha) for row in completed])


def test_the_four_best_hypotheses_agree(model, translator, decode, source):
    """Without a length penalty, not only the best hypothesis but the first four of both lists are the same."""
    ours = decode(model, source, BeamSearch(4, n_best=4, length_penalty=0.0), MAXIMUM)
    completed = translate(translator, source, 4, patience=MAXIMUM, num_hypotheses=4 * MAXIMUM)
    same = 0
    for row, hypotheses in enumerate(completed):
        n_best = [tuple(ours.ids[row, rank, : ours.lengths[row, rank]]) for rank in range(4)]
        same += n_best == [ids for _, ids in sorted(hypotheses, reverse=True)[:4]]
    assert same >= 0.99 * len(source)
