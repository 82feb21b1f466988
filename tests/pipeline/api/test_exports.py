"""The names of `import seq2serve`: listed, typed, and free until they are used."""

import ast
import pathlib
import subprocess
import sys

import pytest

import seq2serve

NAMES = [
    *("Artifact", "ComponentError", "Context", "Evaluation", "Input", "LoadedModel", "Output", "Pipeline", "Run"),
    *("Runner", "Seq2ServeError", "Task", "UserError", "component", "evaluate", "load", "raw_files", "run"),
]


def test_these_names_are_exported():
    assert sorted(seq2serve.__all__) == NAMES
    assert set(NAMES) <= set(dir(seq2serve))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves_to_a_documented_object(name):
    value = getattr(seq2serve, name)
    assert getattr(value, "__doc__", None) or name in ("Input", "Output")


def test_the_stub_has_the_same_names_from_the_same_modules():
    stub = ast.parse(pathlib.Path(seq2serve.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = {
        alias.asname: statement.module
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert imports == seq2serve._EXPORTS


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'seq2serve' has no attribute 'translate'"):
        _ = seq2serve.translate


@pytest.mark.parametrize(
    ("use", "slow"),
    [
        ("seq2serve", {"numpy", "sqlalchemy", "rich", "typer"}),
        ("seq2serve.component, seq2serve.Task, seq2serve.Pipeline", {"numpy", "sqlalchemy"}),
        ("seq2serve.load", {"sqlalchemy"}),
        ("seq2serve.run", set()),
        ("seq2serve.evaluate, seq2serve.Evaluation", set()),
    ],
)
def test_nothing_slow_is_imported_before_it_is_needed(use, slow):
    code = f"import sys, seq2serve; {use}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not ({"tensorflow", "keras", "apache_beam", *slow} & set(done.stdout.split()))
