"""Packages are downloaded once; a failed download or a damaged file is an error with a fix."""

import hashlib
import os
import pathlib

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.storage import packages
from seq2serve.components.storage.packages import Package, extracted

TOY = Package("toy", "1.0", "toy-1.0-py3-none-any.whl", hashlib.sha256(b"content").hexdigest())


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("SEQ2SERVE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def extract() -> pathlib.Path:
    return extracted(TOY, "text.tsv", __file__, lambda path: path.write_bytes(TOY.fetch().read_bytes()))


def test_a_file_is_extracted_once_under_the_name_of_package_and_rules(cache):
    (cache / TOY.file).write_bytes(b"content")
    path = extract()
    rules = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:8]
    assert path == cache / f"toy-1.0-text-{rules}.tsv"
    assert path.read_bytes() == b"content"
    (cache / TOY.file).unlink()
    assert extract() == path


def test_a_damaged_package_is_an_error(cache):
    path = cache / TOY.file
    path.write_bytes(b"other content")
    with pytest.raises(UserError, match=r"\.whl is damaged: .*; delete it and run again") as error:
        extract()
    assert (error.value.code, error.value.fields) == ("file-damaged", {"path": str(path)})
    assert list(cache.iterdir()) == [path]


def test_a_failed_download_is_an_error_and_leaves_no_files(cache, monkeypatch):
    for name, value in {
        "INDEX_URL": "http://127.0.0.1:9",
        "RETRIES": "0",
        "NO_CACHE_DIR": "1",
        "CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(UserError, match=r"cannot download .*connect to the network") as error:
        extract()
    assert error.value.code == "download-failed"
    assert list(cache.iterdir()) == []


def test_a_missing_pip_is_an_error_with_a_fix(cache, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="-m ensurepip") as error:
        extract()
    assert error.value.code == "pip-missing"


def test_an_unwritable_cache_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SEQ2SERVE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write the corpus to the cache .*file/cache: Not a directory") as error:
        extract()
    assert (error.value.code, error.value.fields) == ("cache-unwritable", {"path": str(tmp_path / "file" / "cache")})
