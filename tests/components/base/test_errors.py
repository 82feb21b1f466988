"""Errors carry a code, fields and an exit code, which stay the same when a component's name is added."""

import pytest

from seq2serve.components.base.errors import ComponentError, NotBlessedError, Seq2ServeError, UserError


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(Seq2ServeError, 1), (ComponentError, 1), (UserError, 2), (NotBlessedError, 3)]
)
def test_a_component_adds_its_name_to_the_message_only(kind, exit_code):
    error = kind("the file is empty", code="file-empty", path="a.tsv").in_component("ExampleGen")
    assert type(error) is kind
    assert str(error) == "ExampleGen: the file is empty"
    assert (error.code, error.fields, error.exit_code) == ("file-empty", {"path": "a.tsv"}, exit_code)
