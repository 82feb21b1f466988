"""An imported OPUS-MT model tokenizes, computes and translates as transformers does with the same files.

It runs where torch is installed: `make test-peers`. transformers runs in a process of its own: its import aborts after
TensorFlow's. The model has random weights and the options of Helsinki-NLP/opus-mt-en-de, with fewer and narrower layers
and the vocabularies of two SentencePiece models that are trained on the demo corpus.

The searches have settings that mean the same in both libraries: no length penalty (theirs divides by another function
of the length), no limit on repetition, one maximum length for all texts, and no forced end marker. transformers forbids
padding after it has normalised the probabilities; with `renormalize_logits` they are those of the other pieces, as ours
are.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from seq2serve.components.tasks.translation.demo import fetch_pairs
from seq2serve.models.config import DecodingConfig
from seq2serve.models.decoding.beam_search import BeamSearch, LengthLimits
from seq2serve.models.decoding.fold import FoldedDecoder
from seq2serve.models.decoding.loop import generate
from seq2serve.models.export.inputs import read_texts
from seq2serve.models.export.translation import TranslationServingModule
from seq2serve.models.importing.importer import import_model
from seq2serve.models.tokenizers.tokenizer import load_tokenizers
from seq2serve.models.training.saving import load_model

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "transformers"))), reason="torch is not installed: make test-peers"
)

NUM_TEXTS, NUM_PIECES, MAX_TOKENS = 500, 800, 24
TAGS = [">>deu<<", ">>ltz<<"]
UNUSUAL = [
    "",
    ">>deu<< Turn on the light.",
    ">>deu<<Turn on the light.",
    ">>ltz<<   Turn\ton\u3000the light. ",
    " >>deu<< Turn on the light.",
    "Turn on >>deu<< the light.",
    ">>fra<< Turn on the light.",
    ">>deu<<>>ltz<< Turn on",
    ">>deu<<",
    ">> quoted << text << here",
    ">>open",
    "ß Straße ÄÖÜ ẞ",
    "漢字 and ☃ and \u200b",
    "\uff37ide \ufb01 m²",
]
SIZES = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
# Writes a model with random weights and its tokenizer into a folder, and returns what transformers makes of texts.
THEIRS = """
import json, sys
import numpy as np, torch, transformers
folder, options, texts, targets, max_tokens = map(json.loads, sys.argv[1:])
torch.manual_seed(1)
model = transformers.MarianMTModel(transformers.MarianConfig(**options)).eval()
with torch.no_grad():  # different translations, some of which end early
    model.model.shared.weight *= 0.5
    model.final_logits_bias.normal_()
    model.final_logits_bias[:, options["eos_token_id"]] = 3.5
    model.final_logits_bias[:, options["pad_token_id"]] = 0
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.normal_()
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.Linear)) and module.bias is not None:
            module.bias.normal_(0, 0.2)
model.save_pretrained(folder)
tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
target_ids = tokenizer(text_target=targets)["input_ids"]
batch = tokenizer(texts, padding=True, return_tensors="pt")
search = {"max_new_tokens": max_tokens, "length_penalty": 0.0, "do_sample": False, "forced_eos_token_id": None,
    "bad_words_ids": [[options["pad_token_id"]]], "renormalize_logits": True}
answers = {"source_ids": [tokenizer(text)["input_ids"] for text in texts], "target_ids": target_ids}
with torch.no_grad():
    for name, beams in (("greedy", 1), ("beam", 4)):
        ids = model.generate(**batch, num_beams=beams, **search)
        answers[name] = ids[:, 1:].tolist()
        answers[name + "_text"] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in target_ids[:20]], True, -100)
    logits = model(**{name: values[:20] for name, values in batch.items()}, labels=labels).logits
np.save(f"{folder}/logits.npy", logits.numpy())
print(json.dumps(answers))
"""


def train_splitter(folder: pathlib.Path, name: str, texts: list[str]) -> list[str]:
    """Trains a SentencePiece model as OPUS-MT does, and returns its pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(folder / name), vocab_size=NUM_PIECES, minloglevel=2
    )
    (folder / f"{name}.model").rename(folder / f"{name}.spm")
    (folder / f"{name}.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
    return [pieces.id_to_piece(index) for index in range(3, len(pieces))]


@pytest.fixture(scope="module")
def pairs():
    """Pairs of the demo corpus, spread over it, after texts that are tokenized in an unusual way."""
    _, *rows = pathlib.Path(fetch_pairs("de")).read_text(encoding="utf-8").splitlines()
    pairs = [row.split("\t") for row in rows[:: len(rows) // NUM_TEXTS]]
    tags = ["", *(f"{tag} " for tag in TAGS)]
    tagged = [(tags[index % len(tags)] + source, target) for index, (source, target) in enumerate(pairs)]
    return [*((text, text) for text in UNUSUAL), *tagged][:NUM_TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tokenizers of a model: vocab.json has the pieces of both languages in an order of its own."""
    folder = tmp_path_factory.mktemp("opus") / "model"
    folder.mkdir()
    _, *rows = pathlib.Path(fetch_pairs("de")).read_text(encoding="utf-8").splitlines()
    sides = zip(*(row.split("\t") for row in rows[::7]), strict=True)
    names = zip(("source", "target"), sides, strict=True)
    pieces = {piece for name, texts in names for piece in train_splitter(folder, name, list(texts))}
    listed = ["</s>", "<unk>", *sorted(pieces, key=lambda piece: piece[::-1]), *TAGS, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(listed)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "eng", "target_lang": "deu"}))
    return folder


@pytest.fixture(scope="module")
def theirs(folder, pairs):
    """What transformers answers; the folder then has the model's files."""
    size = len(json.loads((folder / "vocab.json").read_text()))
    options = {
        **SIZES,
        "vocab_size": size,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "activation_function": "swish",
        "scale_embedding": True,
        "max_position_embeddings": 512,
        "decoder_start_token_id": size - 1,
        "pad_token_id": size - 1,
        "eos_token_id": 0,
        "init_std": 0.3,  # the default would hide differences
    }
    texts, targets = zip(*pairs, strict=True)
    arguments = [json.dumps(value) for value in (str(folder), options, texts, targets, MAX_TOKENS)]
    done = subprocess.run([sys.executable, "-c", THEIRS, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ours(theirs, folder, tmp_path_factory):
    """Our model, its tokenizers, and the id in vocab.json of each of our ids."""
    folders = [tmp_path_factory.mktemp(name) for name in ("model", "tokenizer")]
    import_model(str(folder), *map(str, folders))
    tokenizers = load_tokenizers(str(folders[1]), ("source", "target"))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    rows = [vocabulary.get(piece, -1) for piece in tokenizers["source"].pieces()]
    return load_model(str(folders[0])), tokenizers, np.array(rows)


def their_rows(ids: list[int]) -> list[int]:
    """Returns ids before the end marker."""
    return ids[: ids.index(0)] if 0 in ids else ids


@pytest.mark.parametrize("column", ["source", "target"])
def test_every_text_has_the_ids_of_transformers(ours, theirs, pairs, column):
    _, tokenizers, rows = ours
    texts = [pair[column == "target"] for pair in pairs]
    ids = [[*rows[row], 0] for row in tokenizers[column].tokenize(tf.constant(texts)).to_list()]
    expected = theirs[f"{column}_ids"]
    assert [case for case in zip(texts, ids, expected, strict=True) if case[1] != case[2]] == []


def test_the_logits_are_those_of_transformers(ours, theirs, folder, pairs):
    model, tokenizers, rows = ours
    sources, targets = zip(*pairs[:20], strict=True)
    source, _ = read_texts(tokenizers["source"], tf.constant(sources), 500)
    target, _ = read_texts(tokenizers["target"], tf.constant(targets), 500)
    before = tf.pad(target, [[0, 0], [1, 0]], constant_values=tokenizers["target"].bos_id)[:, :-1]
    is_text = rows != -1
    is_text[0] = False  # padding, which both never generate
    logits = model({"source": source, "target": before}).numpy()[..., is_text]
    expected = np.load(folder / "logits.npy")[..., rows[is_text]]
    is_token = (target != 0).numpy()
    assert np.abs(expected[is_token]).max() > 5
    np.testing.assert_allclose(logits[is_token], expected[is_token], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("search", "beams"), [("greedy", 1), ("beam", 4)])
def test_both_searches_find_the_ids_of_transformers(ours, theirs, pairs, search, beams):
    model, tokenizers, rows = ours
    source, _ = read_texts(tokenizers["source"], tf.constant([source for source, _ in pairs]), 500)
    decoder, strategy = FoldedDecoder(model), BeamSearch(beams, length_penalty=0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def decode(source):
        limits = LengthLimits(*(tf.fill(tf.shape(source)[:1], length) for length in (0, MAX_TOKENS)))
        return generate(decoder, source, strategy, limits)

    result = decode(source)
    found = [
        rows[ids[:length]].tolist()
        for ids, length in zip(result.ids[:, 0].numpy(), result.lengths[:, 0].numpy(), strict=True)
    ]
    expected = list(map(their_rows, theirs[search]))
    assert len(set(map(tuple, expected))) > NUM_TEXTS / 4
    assert len(set(map(len, expected))) > 3
    different = [pair for pair, ids, other in zip(pairs, found, expected, strict=True) if ids != other]
    assert different == []


@pytest.mark.parametrize(("search", "beams"), [("greedy", 1), ("beam", 4)])
def test_texts_become_the_texts_of_transformers(ours, theirs, pairs, search, beams):
    model, tokenizers, _ = ours
    decoding = DecodingConfig(
        beam_size=beams,
        length_penalty=0.0,
        max_length_ratio=0.0,
        max_length_extra=MAX_TOKENS,
        split_sentences=False,
        no_repeat_ngram=0,
    )
    module = TranslationServingModule(model, tokenizers["target"], decoding, 500, tokenizers["source"])
    texts = [source for source, _ in pairs]
    found = [text.decode() for text in module.serving_default(tf.constant(texts))["translation"].numpy()]
    rows = list(zip(texts, found, theirs[f"{search}_text"], strict=True))
    assert [row for row in rows if row[1] != row[2] and row[0]] == []  # we leave out an empty text
