"""The programs that measure speed, which are run by hand: each can be imported, so no rename breaks one unnoticed."""

import pathlib

import pytest

PROGRAMS = sorted((pathlib.Path(__file__).parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=[path.stem for path in PROGRAMS])
def test_a_benchmark_can_be_imported(load_script, path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)  # as Python does for a script
    assert callable(load_script(path).main)
