"""Imported models compute what transformers computes with the same files; runs where torch is installed.

Install it with `make test-peers`.
"""

import json

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.importing.importer import import_model
from seq2serve.models.tokenizers.tokenizer import load_tokenizer
from seq2serve.models.training.saving import load_model

torch = pytest.importorskip("torch", reason="torch is not installed: make test-peers")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make test-peers")

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz.,!?'",
    *map("##{}".format, "aeiounst"),
]
TEXTS = ["A cat sat, on a mat.", "", "Ünusable? Nonsense!", "see " * 60]
SIZES = {
    "vocab_size": len(PIECES),
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 80,
    "initializer_range": 0.4,  # the default would hide differences
}


@pytest.fixture
def imported(tmp_path):
    """Returns a function that saves a model of transformers, imports it, and returns ours and both tokenizers."""

    def imported(model):
        folder, ours, tokenizer = (tmp_path / name for name in ("theirs", "ours", "tokenizer"))
        for path in (ours, tokenizer):
            path.mkdir()
        model.save_pretrained(folder)
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
        import_model(str(folder), str(ours), str(tokenizer))
        theirs = transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), do_lower_case=True)
        return load_model(str(ours)), load_tokenizer(str(tokenizer)), theirs

    return imported


def ids_of(tokenizer):
    ids = tokenizer.tokenize(tf.constant(TEXTS))
    return tf.concat([ids, tf.fill([len(TEXTS), 1], tokenizer.eos_id)], 1).to_tensor()


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_the_mean_of_the_outputs_is_that_of_transformers(imported, activation):
    torch.manual_seed(1)
    theirs = transformers.BertModel(transformers.BertConfig(**SIZES, hidden_act=activation)).eval()
    model, tokenizer, their_tokenizer = imported(theirs)
    batch = their_tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = theirs(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = (outputs * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(model.pool(ids_of(tokenizer)), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_the_logits_of_a_classifier_are_those_of_transformers(imported):
    torch.manual_seed(2)
    config = transformers.BertConfig(**SIZES, id2label={0: "z", 1: "y", 2: "x"})
    theirs = transformers.BertForSequenceClassification(config).eval()
    model, tokenizer, their_tokenizer = imported(theirs)
    with torch.no_grad():
        expected = theirs(**their_tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(model(ids_of(tokenizer)), expected.numpy()[:, ::-1], rtol=1e-4, atol=1e-4)
