"""Fingerprints: everything that shapes a result changes them, nothing else does, and every change is described."""

import dataclasses
import importlib.metadata
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2serve.components.base.artifact import Examples, RawFiles
from seq2serve.components.base.component import Input, Output, component, raw_files
from seq2serve.pipeline.running.fingerprint import changes, execution_parts, fingerprint


@dataclasses.dataclass(frozen=True)
class Inner:
    """A setting."""

    size: int = 1


@dataclasses.dataclass(frozen=True)
class Outer:
    """Settings in settings."""

    inner: Inner = Inner()
    names: tuple[str, ...] = ("a",)


@component
def Step(files: Input[RawFiles], examples: Output[Examples], outer: Outer = Outer(), rate: float = 0.5) -> None:
    """Does nothing."""


def parts(artifact: RawFiles | None = None, **parameters) -> dict:
    """Returns the parts of an execution of Step."""
    artifact = artifact or RawFiles("data.tsv", fingerprint="aa")
    return execution_parts(Step(files=raw_files("data.tsv"), **parameters), {"files": artifact})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_two_values_have_the_same_fingerprint_exactly_if_they_are_equal(one, other):
    # Compared as text: True equals 1 in Python, but not in JSON.
    assert (fingerprint(one) == fingerprint(other)) == (sorted_text(one) == sorted_text(other))


def sorted_text(value) -> str:
    """Returns a JSON value as text, independent of the order of its keys."""
    if isinstance(value, dict):
        return f"{{{sorted((key, sorted_text(child)) for key, child in value.items())}}}"
    return f"[{[sorted_text(child) for child in value]}]" if isinstance(value, list) else repr(value)


def test_the_order_of_keys_does_not_matter():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_the_parts_contain_everything_that_shapes_the_result():
    step = parts()
    assert step["component"] == "Step"
    assert step["inputs"] == {"files": "aa"}
    assert step["parameters"] == {"outer": {"inner": {"size": 1}, "names": ["a"]}, "rate": 0.5}
    assert {"seq2serve/components/base/artifact.py", "seq2serve/components/base/component.py"} <= step["code"].keys()
    assert step["versions"]["hypothesis"] == importlib.metadata.version("hypothesis")
    assert step["versions"]["Python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("changed", "phrases"),
    [
        ({"rate": 0.25}, ["parameter rate: 0.5 -> 0.25"]),
        ({"outer": Outer(Inner(2))}, ["parameter outer.inner.size: 1 -> 2"]),
        ({"outer": Outer(names=("a", "b"))}, ["parameter outer.names: with b"]),
        ({"artifact": RawFiles("data.tsv", fingerprint="bb")}, ["input files changed"]),
        ({"artifact": RawFiles("other.tsv", {"files": []}, "aa")}, []),
    ],
)
def test_changed_inputs_and_parameters_are_described(changed, phrases):
    before, after = parts(), parts(**changed)
    assert changes(before, after) == phrases
    assert (fingerprint(before) == fingerprint(after)) == (phrases == [])


def test_changed_code_and_versions_are_described():
    before = {
        **parts(),
        "versions": {"tensorflow": "2.21.0", "old": "1"},
        "code": {"a.py": "1", "b.py": "1", "c.py": "1"},
    }
    after = {**parts(), "versions": {"tensorflow": "2.21.1", "new": "2"}, "code": {"a.py": "1", "b.py": "2"}}
    assert changes(before, after) == [
        "code changed: b.py, c.py",
        "new not used -> 2",
        "old 1 -> not used",
        "tensorflow 2.21.0 -> 2.21.1",
    ]


def test_long_values_are_shortened():
    (phrase,) = changes(parts(), parts(outer=Outer(names=("x" * 100,))))
    assert len(phrase) < 100


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), Path("x"), b"x"])
def test_a_parameter_that_does_not_serialise_is_named(value):
    with pytest.raises(TypeError, match=r"^Step's parameter 'rate' "):
        parts(rate=value)


def test_the_error_lists_the_types_that_serialise():
    with pytest.raises(TypeError, match=r"^\S+ \S+ \S+ must consist of JSON values and dataclasses of them: asdict"):
        parts(rate=object())


@pytest.mark.parametrize(
    ("before", "after", "phrase"),
    [
        (["a", "b", "c"], ["a", "c"], "without b"),
        (["a"], ["a", "b", "c"], "with b, c"),
        (["a", "b"], ["c", "a"], "without b and with c"),
        (["a", "b"], ["b", "a"], "['a', 'b'] -> ['b', 'a']"),
    ],
)
def test_a_list_is_described_by_what_it_lost_and_gained(before, after, phrase):
    old, new = ({**parts(), "parameters": {"names": names}} for names in (before, after))
    assert changes(old, new) == [f"parameter names: {phrase}"]
