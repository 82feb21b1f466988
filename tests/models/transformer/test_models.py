"""The three models: no leaks from the future or from padding, the paper's sizes, saving and loading."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.config import ModelConfig, TrainingConfig
from seq2serve.models.training.loss import MaskedCrossEntropy
from seq2serve.models.training.optimizer import make_optimizer
from seq2serve.models.transformer.attention import padding_mask
from seq2serve.models.transformer.models import DecoderLanguageModel, EncoderClassifier, Transformer
from seq2serve.models.transformer.train_step import loss_sums
from seq2serve.pipeline.config import PRESETS

TINY = ModelConfig(num_encoder_layers=2, num_decoder_layers=2, d_model=16, num_heads=2, dff=32, dropout=0.0)


def make(kind: type, *args, seed: int = 1, **changes) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = kind(dataclasses.replace(TINY, **changes), 20, *args)
    model.build()
    return model


shared = functools.cache(make)  # for tests that do not change the model

MODELS = {
    "transformer": (lambda **changes: make(Transformer, **changes), lambda s, t: {"source": s, "target": t}),
    "classifier": (lambda **changes: make(EncoderClassifier, 3, **changes), lambda s, t: s),
    "classifier_with_ngrams": (
        lambda **changes: make(EncoderClassifier, 3, ngram_buckets=50, **changes),
        lambda s, t: s,
    ),
    "language_model": (lambda **changes: make(DecoderLanguageModel, **changes), lambda s, t: t),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


@EVERY_MODEL
def test_logits_are_float32_of_the_documented_shape(name, random_ids):
    build, inputs = MODELS[name]
    logits = build()(inputs(random_ids([5, 3]), random_ids([4, 2], seed=1)))
    assert logits.shape == ((2, 3) if name.startswith("classifier") else (2, 4, 20))
    assert logits.dtype == tf.float32


def test_logits_have_no_gradient_from_future_positions(translator_kind, random_ids):
    model = shared(Transformer, **translator_kind)
    memory, mask = model.encode(random_ids([6]))
    x = tf.Variable(np.random.default_rng(0).normal(size=(1, 5, 16)).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        logits = model.output_embedding.logits(model.decoder(x, memory, mask))
        steps = [tf.reduce_sum(logits[:, t] ** 2) for t in range(5)]
    for t, step in enumerate(steps):
        gradient = tape.gradient(step, x).numpy()[0]
        assert not gradient[t + 1 :].any()
        assert gradient[: t + 1].any(axis=1).all()


def test_encodings_have_no_gradient_from_padding(kind, random_ids):
    model, source = shared(Transformer, **kind), random_ids([3, 6])
    embedded = tf.Variable(model.source_embedding(source))
    mask = model.encode(source)[1]
    with tf.GradientTape() as tape:
        memory = model.encoder(embedded, mask)
        is_token = tf.cast(source != 0, tf.float32)[:, :, tf.newaxis]
        total = tf.reduce_sum((memory * is_token) ** 2)
    gradient = tape.gradient(total, embedded).numpy()
    np.testing.assert_array_equal(gradient.any(axis=2), source != 0)


def test_a_row_does_not_depend_on_its_batch_or_on_padding(kind, random_ids):
    model, source, target = shared(Transformer, **kind), random_ids([3, 7, 5]), random_ids([4, 2, 6], seed=1)
    together = model({"source": source, "target": target}).numpy()
    padded = model({"source": np.pad(source, [(0, 0), (0, 9)]), "target": np.pad(target, [(0, 0), (0, 5)])}).numpy()
    for row, (s, t) in enumerate([(3, 4), (7, 2), (5, 6)]):
        alone = model({"source": source[row : row + 1, :s], "target": target[row : row + 1, :t]})[0]
        np.testing.assert_allclose(together[row, :t], alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(padded[row, :t], alone, rtol=1e-4, atol=1e-5)


def test_a_classifier_does_not_depend_on_padding(kind, random_ids):
    model, source = shared(EncoderClassifier, 3, **kind), random_ids([3, 7])
    alone = model(source[:1, :3])[0]
    np.testing.assert_allclose(model(np.pad(source, [(0, 0), (0, 4)]))[0], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_a_begin_marker_and_pooling_are_as_if_the_text_began_with_the_marker(pooling, random_ids):
    model = make(EncoderClassifier, 3, begin_marker=True, pooling=pooling)
    ids = random_ids([3, 7])
    marked = np.pad(ids, [(0, 0), (1, 0)], constant_values=2)
    x = model.encoder(model.embedding(marked), padding_mask(marked)).numpy()
    expected = (
        [row[: 1 + length].mean(0) for row, length in zip(x, [3, 7], strict=True)] if pooling == "mean" else x[:, 0]
    )
    if pooling == "pooler":
        expected = np.tanh(expected @ model.pooler.kernel.numpy())
    np.testing.assert_allclose(model.pool(ids), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(ids), model.pool(ids) @ model.head.kernel.value, rtol=1e-4, atol=1e-5)


def test_the_logits_of_a_row_without_tokens_are_the_classifiers_bias():
    model = make(EncoderClassifier, 3)
    model.head.bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(model(np.zeros((2, 4), np.int32)), [[1, 2, 3]] * 2)


def test_a_language_model_does_not_depend_on_future_tokens(kind, random_ids):
    model, ids = shared(DecoderLanguageModel, **kind), random_ids([6])
    changed = np.where(np.arange(6) < 4, ids, 4 + (ids - 3) % 16)
    before, after = model(ids).numpy()[0], model(changed).numpy()[0]
    np.testing.assert_array_equal(before[:4], after[:4])
    assert (before[4:] != after[4:]).any(axis=1).all()


@pytest.fixture(params=["float32", "mixed_float16", "mixed_bfloat16"])
def precision(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@EVERY_MODEL
def test_all_precisions_have_finite_losses_and_gradients(name, precision, random_ids):
    build, inputs = MODELS[name]
    model, ids = build(dropout=0.1), random_ids([6, 3, 1])
    ids[2] = 0  # a row of padding
    with tf.GradientTape() as tape:
        logits = model(inputs(ids, ids), training=True)
        labels = tf.constant(ids[:, 0] % 3 if name.startswith("classifier") else ids)
        loss = loss_sums(MaskedCrossEntropy(0.1), labels, logits).loss
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    assert np.isfinite(loss)
    for weight, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_weights), strict=True):
        assert weight.dtype == gradient.dtype == "float32"
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), weight.path


def test_mixed_precision_computes_in_16_bits(precision, random_ids):
    memory, _ = make(Transformer).encode(random_ids([4]))
    assert memory.dtype == {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}.get(precision, "float32")


@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
def test_float16_trains_with_loss_scaling(precision, random_ids):
    model, ids = make(Transformer, num_encoder_layers=1, num_decoder_layers=1), random_ids([6, 3])
    optimizer = make_optimizer(TrainingConfig(warmup_steps=1))
    model.compile(optimizer, MaskedCrossEntropy(0.1), jit_compile=False)
    losses = model.fit({"source": ids, "target": ids}, ids, epochs=6, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@EVERY_MODEL
def test_models_can_be_saved_and_loaded(name, tmp_path, random_ids):
    build, inputs = MODELS[name]
    ids = inputs(random_ids([5, 3]), random_ids([4, 2], seed=1))
    model = build(positions="learned", activation="swiglu", norm_first=False, dropout=0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(ids), model(ids))
    assert loaded.get_config() == model.get_config()
    model.save_weights(tmp_path / "model.weights.h5")
    rebuilt = type(model).from_config(model.get_config())
    rebuilt.build()
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(rebuilt(ids), model(ids))


@EVERY_MODEL
def test_initial_weights_depend_only_on_the_seed(name):
    build, _ = MODELS[name]
    first, again, other_seed = (build(seed=seed, dropout=0.1).get_weights() for seed in (1, 1, 2))
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any((left != right).any() for left, right in zip(first, other_seed, strict=True))


def test_dropout_depends_on_the_seed_and_differs_between_calls(random_ids):
    ids = {"source": random_ids([5, 3]), "target": random_ids([4, 2], seed=1)}
    first, again, other_seed = (make(Transformer, seed=seed, dropout=0.3)(ids, training=True) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other_seed)
    model = make(Transformer, dropout=0.3)
    assert not np.allclose(model(ids, training=True), model(ids, training=True))
    np.testing.assert_array_equal(model(ids), model(ids))


def test_tied_embeddings_are_one_matrix_and_untied_ones_three():
    def matrices(tied):
        return sum(weight.name == "matrix" for weight in make(Transformer, tie_embeddings=tied).weights)

    assert (matrices(True), matrices(False)) == (1, 3)


def test_a_separate_source_vocabulary_needs_untied_embeddings():
    config = dataclasses.replace(TINY, tie_embeddings=False)
    model = Transformer(config, 20, source_vocab_size=30)
    assert model({"source": np.array([[29]]), "target": np.array([[2]])}).shape == (1, 1, 20)
    with pytest.raises(ValueError, match="tied embeddings need one vocabulary, not 30 and 20"):
        Transformer(TINY, 20, source_vocab_size=30)


@pytest.mark.parametrize(("preset", "millions"), [("base", 65), ("big", 213)])
def test_presets_have_the_papers_sizes(preset, millions):
    """Vaswani et al. 2017, table 3. In a StatelessScope, variables have shapes but no values, so little memory."""
    with keras.StatelessScope(initialize_variables=False):
        model = Transformer(PRESETS[preset].model, 37_000)
        model.build()
    assert model.count_params() / 1e6 == pytest.approx(millions, rel=0.04)


def test_a_language_model_refuses_a_recurrent_decoder():
    with pytest.raises(ValueError, match=r"^a language model needs model.decoder=attention, not ssru$"):
        make(DecoderLanguageModel, decoder="ssru")


def test_a_document_in_a_packed_row_does_not_depend_on_earlier_documents(kind):
    """With relative positions its logits are those of the document alone; otherwise its position in the row matters."""
    model = shared(DecoderLanguageModel, **kind)
    prefixes, document = ([2, 5, 6, 7, 3], [2, 9, 8, 4, 3]), [2, 10, 11, 12]
    logits = [model(tf.constant([[*before, *document]]))[0, len(before) :].numpy() for before in prefixes]
    np.testing.assert_allclose(*logits, atol=1e-5)
    if kind["positions"] == "rotary":
        np.testing.assert_allclose(logits[0], model(tf.constant([document]))[0].numpy(), atol=1e-4)
    unmarked = [model(tf.constant([[*before, 13, *document[1:]]]))[0, -1].numpy() for before in prefixes]
    assert np.abs(unmarked[0] - unmarked[1]).max() > 1e-3
