"""Fingerprints: what shapes a result changes them, nothing else does, and every change has words."""

import dataclasses
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.artifact import Examples, RawFiles
from components.component import Component, Input, Output, component, raw_files
from components.errors import UserError
from pipeline.fingerprint import changes, execution_parts, fingerprint, resolve_raw_files


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
def Step(files: Input[RawFiles], made: Output[Examples], outer: Outer = Outer(), rate: float = 0.5) -> None:
    """Does nothing."""


def parts(artifact: RawFiles | None = None, **parameters) -> dict:
    artifact = artifact or RawFiles("data.tsv", fingerprint="aa")
    return execution_parts(Step(files=raw_files("data.tsv"), **parameters), {"files": artifact})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equal_values_and_only_they_have_equal_fingerprints(one, other):
    # Python holds True == 1; JSON does not.
    assert (fingerprint(one) == fingerprint(other)) == (repr_sorted(one) == repr_sorted(other))


def repr_sorted(value) -> str:
    if isinstance(value, dict):
        return f"{{{sorted((key, repr_sorted(child)) for key, child in value.items())}}}"
    return f"[{[repr_sorted(child) for child in value]}]" if isinstance(value, list) else repr(value)


def test_keys_have_no_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_parts_name_everything_that_shapes_the_result():
    found = parts()
    assert found["component"] == "Step"
    assert found["inputs"] == {"files": "aa"}
    assert found["parameters"] == {"outer": {"inner": {"size": 1}, "names": ["a"]}, "rate": 0.5}
    assert {"components/artifact.py", "components/component.py", "components/__init__.py"} <= found["code"].keys()
    assert found["versions"]["hypothesis"] == importlib.metadata.version("hypothesis")
    assert found["versions"]["Python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rate": 0.25}, ["parameter rate: 0.5 -> 0.25"]),
        ({"outer": Outer(Inner(2))}, ["parameter outer.inner.size: 1 -> 2"]),
        ({"outer": Outer(names=("a", "b"))}, ["parameter outer.names: ['a'] -> ['a', 'b']"]),
        ({"artifact": RawFiles("data.tsv", fingerprint="bb")}, ["input files changed"]),
        ({"artifact": RawFiles("other.tsv", {"files": []}, "aa")}, []),
    ],
)
def test_changes_in_words(changed, words):
    before, after = parts(), parts(**changed)
    assert changes(before, after) == words
    assert (fingerprint(before) == fingerprint(after)) == (words == [])


def test_changes_of_versions_and_code_in_words():
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


def test_long_values_are_cut():
    (words,) = changes(parts(), parts(outer=Outer(names=("x" * 100,))))
    assert len(words) < 100


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), Path("x"), b"x"])
def test_a_parameter_that_is_no_json_is_named(value):
    with pytest.raises(TypeError, match="Step's parameter 'rate' must be made of JSON values"):
        parts(rate=value)


# Code, followed through imports.

MODULES = {
    "shop/__init__.py": "",
    "shop/steps.py": """
from components.artifact import Model
from components.component import Output, component

@component
def Build(model: Output[Model]) -> None:
    from . import wheels
    from shop.deep import engine
    import single
    import sacrebleu, json, google.protobuf.text_format
    import rich.progress
    import not_installed_anywhere
    import apache_beam as beam
""",
    "shop/wheels.py": "from .deep.axle import AXLE\n",
    "shop/deep/__init__.py": "'deep'\n",
    "shop/deep/engine.py": "import shop.wheels\nfrom .. import wheels\n",
    "shop/deep/axle.py": "AXLE = 1\n",
    "shop/unused.py": "",
    "single.py": "if False:\n    import portalocker\n",
}


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Component:
    """A component whose package lies in a temporary folder."""
    for name, source in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shop.steps").Build
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "single")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def forget_folders():
    """Where modules lie is looked up once a process; here it changes."""
    from pipeline import fingerprint as module

    yield
    for cached in (module._spec, module._first_party_folder):
        cached.cache_clear()


def test_code_is_followed_without_importing_it(build):
    found = execution_parts(build(), {})
    own = {name for name in found["code"] if not name.startswith("components/")}
    assert own == set(MODULES) - {"shop/unused.py"}
    assert found["versions"].keys() == {"Python", "sacrebleu", "protobuf", "portalocker", "apache-beam"}
    assert "shop.wheels" not in sys.modules
    assert "single" not in sys.modules


@pytest.mark.parametrize("name", [name for name in MODULES if name != "shop/unused.py"])
def test_a_changed_module_is_named(build, tmp_path, name):
    before = execution_parts(build(), {})
    (tmp_path / name).write_text(MODULES[name] + "\nCHANGED = True\n")
    assert changes(before, execution_parts(build(), {})) == [f"code changed: {name}"]


def test_an_unused_module_changes_nothing(build, tmp_path):
    before = execution_parts(build(), {})
    (tmp_path / "shop/unused.py").write_text("CHANGED = True\n")
    assert changes(before, execution_parts(build(), {})) == []


# Raw files.


def test_raw_files_are_known_by_content_alone(tmp_path):
    for name, content in {"a.tsv": "1", "b.tsv": "2"}.items():
        (tmp_path / name).write_text(content)
    both = resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))
    (tmp_path / "a.tsv").rename(tmp_path / "z.tsv")
    renamed = resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))
    assert both.fingerprint == renamed.fingerprint
    assert [Path(file["path"]).name for file in renamed.properties["files"]] == ["b.tsv", "z.tsv"]
    (tmp_path / "z.tsv").write_text("3")
    assert resolve_raw_files(RawFiles(str(tmp_path / "*.tsv"))).fingerprint != both.fingerprint


def test_the_role_the_order_of_parallel_files_and_the_format_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {"a.tsv": "1", "b.tsv": "2", "a.csv": "1"}.items():
        (tmp_path / name).write_text(content)
    uris = ("a.tsv", "a.csv", "train=a.tsv", "train=a.tsv,test=b.tsv", "train=b.tsv,test=a.tsv", "source=a.tsv")
    found = [resolve_raw_files(RawFiles(uri)) for uri in (*uris, "source=*.tsv", "source=b.tsv,source=a.tsv")]
    assert len({files.fingerprint for files in found}) == len(found)
    assert [file["column"] for file in found[-1].properties["files"]] == ["source", "source"]


def test_a_name_with_brackets_is_a_name(tmp_path):
    (tmp_path / "a[1].tsv").write_text("1")
    assert len(resolve_raw_files(RawFiles(str(tmp_path / "a[1].tsv"))).properties["files"]) == 1


def test_a_pattern_may_stand_in_a_folder_with_brackets(tmp_path):
    for folder in ("my [old]", "my o"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tsv").write_text("1")
    (file,) = resolve_raw_files(RawFiles(str(tmp_path / "my [old]" / "*.tsv"))).properties["files"]
    assert file["path"] == str(tmp_path / "my [old]" / "a.tsv")


def test_a_pattern_passes_over_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.tsv").write_text("1")
    assert len(resolve_raw_files(RawFiles(str(tmp_path / "**"))).properties["files"]) == 1


def test_one_empty_file_among_many_is_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("1")
    (tmp_path / "b.tsv").write_text("")
    with pytest.raises(UserError, match=r"b\.tsv is empty"):
        resolve_raw_files(RawFiles(str(tmp_path / "*.tsv")))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.tsv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        resolve_raw_files(RawFiles(str(tmp_path / "a.tsv")))
