"""Imported models compute what transformers computes with the same files; runs where torch is installed.

Install it with `make test-peers`. transformers runs in a process of its own: its import aborts after TensorFlow's.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from seq2serve.models.importing.importer import import_model
from seq2serve.models.tokenizers.tokenizer import load_tokenizer
from seq2serve.models.training.saving import load_model

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))), reason="torch is not installed: make test-peers"
)

CONTROLS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*CONTROLS, *"abcdefghijklmnopqrstuvwxyz.,!?'", *map("##{}".format, "aeiounst")]
TEXTS = ["A cat sat, on a mat.", "", "Ünusable? Nonsense!", "see " * 20]
SIZES = {
    "vocab_size": len(PIECES),
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 80,
    "initializer_range": 0.4,  # the default would hide differences
}
# Saves a model with random weights, and what it computes for the texts.
THEIRS = """
import json, sys
import numpy as np, torch, transformers
folder, kind, options, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
torch.manual_seed(1)
model = getattr(transformers, kind)(transformers.BertConfig(**options)).eval()
model.save_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
batch = tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    output = model(**batch)[0].numpy()
np.savez(f"{folder}/outputs.npz", output=output, mask=batch["attention_mask"].numpy())
"""


@pytest.fixture
def imported(tmp_path):
    """Returns a function that imports a model of transformers; it returns ours, the ids of TEXTS and their outputs."""

    def imported(kind, **options):
        folder, ours, tokenizer_folder = (tmp_path / name for name in ("theirs", "ours", "tokenizer"))
        for path in (folder, ours, tokenizer_folder):
            path.mkdir()
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
        arguments = [str(folder), kind, json.dumps(SIZES | options), json.dumps(TEXTS)]
        subprocess.run([sys.executable, "-c", THEIRS, *arguments], check=True)
        import_model(str(folder), str(ours), str(tokenizer_folder))
        tokenizer = load_tokenizer(str(tokenizer_folder))
        ids = tokenizer.tokenize(tf.constant(TEXTS))
        ids = tf.concat([ids, tf.fill([len(TEXTS), 1], tokenizer.eos_id)], 1).to_tensor()
        return load_model(str(ours)), ids, np.load(folder / "outputs.npz")

    return imported


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_the_mean_of_the_outputs_is_that_of_transformers(imported, activation):
    model, ids, theirs = imported("BertModel", hidden_act=activation)
    mask = theirs["mask"][..., np.newaxis]
    expected = (theirs["output"] * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(model.pool(ids), expected, rtol=1e-4, atol=1e-4)


def test_the_logits_of_a_classifier_are_those_of_transformers(imported):
    model, ids, theirs = imported("BertForSequenceClassification", id2label={0: "z", 1: "y", 2: "x"})
    np.testing.assert_allclose(model(ids), theirs["output"][:, ::-1], rtol=1e-4, atol=1e-4)
