"""The demo corpora by task. ExampleGen reads their files like a user's own."""

import pathlib

from seq2serve.components.base.errors import UserError
from seq2serve.components.tasks.classification.demo import SENTENCES
from seq2serve.components.tasks.corpus import Corpus
from seq2serve.components.tasks.language_model.demo import SPEECHES
from seq2serve.components.tasks.translation.demo import PAIRS

CORPORA = {"translation": PAIRS, "classification": SENTENCES, "language_model": SPEECHES}


def get_corpus(task: str) -> Corpus:
    """Returns the demo corpus of a task.

    Raises:
        UserError: the task has none.
    """
    if task not in CORPORA:
        raise UserError(
            f"no demo corpus for the task {task!r}; there are demos for {', '.join(CORPORA)}",
            code="demo-missing",
            task=task,
        )
    return CORPORA[task]


def licence_of(path: str) -> str:
    """Returns the licence and the package of a file of a demo corpus; empty for any other file."""
    for corpus in CORPORA.values():
        package = corpus.package
        if f"/{package.name}-{package.version}-" in pathlib.Path(path).as_posix():
            return f"{corpus.licence} (the package {package.name} {package.version})"
    return ""
