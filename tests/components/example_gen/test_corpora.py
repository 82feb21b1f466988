"""Texts that name several corpora: what is a file, what a weight and what a name; what is wrong is one message."""

import glob
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2serve.components.base.errors import UserError
from seq2serve.components.example_gen.corpora import corpus_weights, data_text, parse_data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with some files."""
    monkeypatch.chdir(tmp_path)
    for name in ("own.tsv", "general.tsv.gz", "a,b.tsv", "c:2", "c", "x/train.tsv", "y/train.tsv", "b/1.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    return tmp_path


def short(text):
    return [(role.split, role.column, role.pattern, role.corpus, role.weight) for role in parse_data(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("own.tsv:3,general.tsv.gz:1", [("", "own.tsv", "own", 3.0), ("", "general.tsv.gz", "general", 1.0)]),
        ("own.tsv:.5, general.tsv.gz", [("", "own.tsv", "own", 0.5), ("", "general.tsv.gz", "general", 1.0)]),
        ("own.tsv,general.tsv.gz", [("", "own.tsv", "own", None), ("", "general.tsv.gz", "general", None)]),
        ("train=own.tsv:3,train=c", [("train", "own.tsv", "own", 3.0), ("train", "c", "c", 1.0)]),
        ("train=own.tsv:3,c", [("train", "own.tsv", "own", 3.0), ("train", "c", "c", 1.0)]),
        (
            "own.tsv:3,c,test=t.tsv",
            [("train", "own.tsv", "own", 3.0), ("train", "c", "c", 1.0), ("test", "t.tsv", "t", None)],
        ),
        (
            "train=own.tsv,test=c,test=t.tsv",
            [("train", "own.tsv", "own", None), ("test", "c", "c", None), ("test", "t.tsv", "t", None)],
        ),
        # Two files of the same name have that of their folder, too.
        ("x/train.tsv,y/train.tsv", [("", "x/train.tsv", "x/train", None), ("", "y/train.tsv", "y/train", None)]),
        # Commas and colons in names of files that exist, and in those of none.
        ("a,b.tsv:3,c:2", [("", "a,b.tsv", "a,b", 3.0), ("", "c:2", "c:2", 1.0)]),
        ("a,b.tsv:3,c:2:5", [("", "a,b.tsv", "a,b", 3.0), ("", "c:2", "c:2", 5.0)]),
        ("b/*.txt:2,own.tsv", [("", "b/*.txt", "b", 2.0), ("", "own.tsv", "own", 1.0)]),
        ("n.tsv:3,own.tsv:1", [("", "n.tsv", "n", 3.0), ("", "own.tsv", "own", 1.0)]),
        (
            "gs://b/n,o.tsv:3,gs://b/shards-*.tsv",
            [("", "gs://b/n,o.tsv", "n,o", 3.0), ("", "gs://b/shards-*.tsv", "shards", 1.0)],
        ),
        ("gs://b/n:m/o.tsv:3,own.tsv", [("", "gs://b/n:m/o.tsv", "o", 3.0), ("", "own.tsv", "own", 1.0)]),
    ],
)
def test_corpora_have_names_and_weights(folder, text, expected):
    assert short(text) == [(split, "", pattern, corpus, weight) for split, pattern, corpus, weight in expected]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("own.tsv", "own.tsv"),
        ("a,b.tsv", "a,b.tsv"),
        ("a,*.tsv", "a,*.tsv"),
        ("c:2", "c:2"),
        ("n,o.tsv", "n,o.tsv"),
        ("n:o.tsv", "n:o.tsv"),
        ("gs://b/n,o.tsv", "gs://b/n,o.tsv"),
        ("gs://b:m/o", "gs://b:m/o"),
        ("b/*.txt", "b/*.txt"),
    ],
)
def test_one_corpus_has_neither(folder, text, pattern):
    assert short(text) == [("", "", pattern, "", None)]
    assert not corpus_weights(text)


def test_one_training_corpus_with_a_test_file_is_as_before(folder):
    assert short("train=own.tsv,test=c") == [("train", "", "own.tsv", "", None), ("test", "", "c", "", None)]


def test_the_nth_files_of_the_columns_are_a_corpus():
    roles = short("source=own.en:3,target=own.de,source=web.en,target=web.de")
    assert [role[1:] for role in roles] == [
        ("source", "own.en", "own", 3.0),
        ("target", "own.de", "own", 3.0),
        ("source", "web.en", "web", 1.0),
        ("target", "web.de", "web", 1.0),
    ]
    with pytest.raises(UserError, match=r"own.en and own.de are parallel files of one corpus and have different weigh"):
        parse_data("source=own.en:3,target=own.de:2,source=web.en,target=web.de")


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e999", "-0.0", "three", "3x", "1e-300", "0.0009", "1e9"])
def test_a_wrong_weight_is_refused(folder, weight):
    message = r"^'own.tsv:.*': the weight of a corpus must be a number between 0.001 and 1000, got .*, such as own"
    with pytest.raises(UserError, match=message) as error:
        parse_data(f"own.tsv:{weight},c:1")
    assert error.value.fields["weight"] == weight


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own.tsv,,c", r"^'own.tsv,,c' has a comma without a file on each side; remove it, or name a file there$"),
        ("own.tsv,", r"^'own.tsv,' has a comma without a file"),
        (" , own.tsv", r"^' , own.tsv' has a comma without a file"),
        (",", r"^',' has a comma without a file"),
        ("train=own.tsv,,train=c", r"^'train=own.tsv,,train=c' has a comma without a file"),
        ("source=own.en,target=own.de,", r"own.de,' has a comma without a file"),
        (" ", r"^' ' names no file$"),
        ("train=,test=c", r"^'train=' has no file after train=; write train=FILE$"),
        ("source=", r"^'source=' has no file after source=; write source=FILE$"),
        ("own.tsv:", r"^'own.tsv:': there is no weight after the colon; write FILE:WEIGHT, such as own.tsv:3$"),
        ("n.tsv: ,c", r"^'n.tsv:': there is no weight after the colon"),
        ("gs://b/n.tsv:,c", r"^'gs://b/n.tsv:': there is no weight after the colon; .* such as gs://b/n.tsv:3$"),
        (":3", r"^':3': there is no file before the colon; write FILE:WEIGHT, such as own.tsv:3$"),
        ("own.tsv,:3", r"^':3': there is no file before the colon"),
        ("own.tsv:3:2,c", r"^'own.tsv:3:2': there are two weights; write FILE:WEIGHT, such as own.tsv:3$"),
    ],
)
def test_a_missing_name_or_weight_is_refused_with_the_place(folder, text, message):
    with pytest.raises(UserError, match=message):
        parse_data(text)


def test_spaces_around_names_and_weights_have_no_meaning(folder):
    assert short(" own.tsv : 3 , b/*.txt : 2 ") == short("own.tsv:3,b/*.txt:2")


def test_weights_that_would_hide_a_corpus_are_refused(folder):
    assert corpus_weights("own.tsv:1,c:1000") == {"own": 1.0, "c": 1000.0}
    message = r"^the weights of own.tsv \(0.5\) and c \(1000\) differ by more than a factor of 1,000, so training would"
    with pytest.raises(UserError, match=message):
        parse_data("own.tsv:0.5,general.tsv.gz:7,c:1000")


def test_a_weight_of_a_test_file_is_refused(folder):
    with pytest.raises(UserError, match=r"own.tsv: weights apply only to training; remove.* file for test"):
        parse_data("train=c,test=own.tsv:2")


@pytest.mark.parametrize("text", ["own.tsv:3", "train=own.tsv:3,test=c", "source=own.en:3,target=own.de:3"])
def test_a_weight_of_the_only_corpus_is_refused(folder, text):
    with pytest.raises(UserError, match=r"own.*: a weight compares corpora, and train has only one; remove it, or add"):
        parse_data(text)


def test_weights_are_those_of_train(folder):
    assert corpus_weights("own.tsv:3,c,test=t.tsv") == {"own": 3.0, "c": 1.0}
    assert not corpus_weights("own.tsv,c,test=t.tsv")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=2, max_size=4), st.floats(1e-3, 1e3))
def test_any_text_is_parsed_or_refused_with_a_message(tmp_path, names, weight):
    text = ",".join([f"{names[0]}:{weight}", *names[1:]])
    try:
        roles = parse_data(text, str(tmp_path))
    except UserError:
        return
    named = [role.corpus for role in roles if not role.column]
    assert len(set(named)) == len(named) or named == [""]


SAFE = st.text("ab,:[*.3 ", min_size=1, max_size=6).filter(lambda name: name.strip(". ") == name)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(SAFE, min_size=2, max_size=3, unique=True), st.floats(1e-3, 1e3))
def test_the_text_of_existing_files_means_the_same(tmp_path, names, weight):
    """In a folder with a comma, and with names of commas, colons and digits."""
    folder = tmp_path / "my,folder:1"
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("text")
    text = ",".join(f"train={folder / name}:{weight}" for name in names)
    try:
        roles = parse_data(text)
        if [role.pattern for role in roles] != [str(folder / name) for name in names]:
            return  # together, two of the names are that of a third file
        assert [(role.split, role.weight) for role in roles] == [("train", weight)] * len(names)
        again = data_text(roles)
        assert [role.pattern for role in parse_data(again)] == [role.pattern for role in roles]
        assert parse_data(again) == roles
    finally:
        for path in glob.glob(f"{glob.escape(str(folder))}/*"):
            os.remove(path)
