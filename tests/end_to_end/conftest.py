"""Fixtures of the end-to-end tests: what a run printed, what it pushed, and whether it left anything half-written."""

import re

import pytest


@pytest.fixture(scope="session")
def components():
    """Returns a function that reads what a run printed.

    It returns component -> ("ran" or "reused", reason) for the components that the run reported, in order.
    """

    def components(stdout):
        lines = (re.match(r"(\w+) +(ran|reused) +\d+\.\d s  (.*)", line) for line in stdout.splitlines())
        return {line[1]: (line[2], line[3]) for line in lines if line}

    return components


@pytest.fixture(scope="session")
def versions():
    """Returns a function that lists the versions of a run that a model server loads: numeric folders."""

    def versions(run):
        return sorted(path.name for path in (run.folder / run.serving).glob("*") if path.name.isdecimal())

    return versions


@pytest.fixture(scope="session")
def assert_nothing_half_written(versions):
    """Returns a function that asserts on a run.

    No staged or scratch files are left, and every version that the server loads is complete.
    """

    def assert_nothing_half_written(run):
        root, serving = run.folder / run.root, run.folder / run.serving
        assert not list((root / ".staging").glob("*"))
        assert not [path for path in (root / ".scratch").rglob("*") if path.is_file()]
        assert not list(serving.glob(".pushing-*"))
        assert all((serving / version / "saved_model.pb").is_file() for version in versions(run))

    return assert_nothing_half_written
