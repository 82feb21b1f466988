"""Prism, Beam's runner in Go: the same bytes as on the local runner, with workers in this and in other processes."""

import os

import pytest

PRISM = os.environ.get("SEQ2SERVE_PRISM", "")
RUNNER = ("--runner=PrismRunner", f"--prism_location={PRISM}", "--prism_log_kind=text", "--prism_log_level=error")
pytestmark = [pytest.mark.runners, pytest.mark.skipif(not PRISM, reason="make test-runners builds Prism")]


def test_workers_in_this_process_write_the_same_bytes(run_components):
    assert run_components(*RUNNER, "--environment_type=LOOPBACK") == run_components()


def test_workers_in_other_processes_write_the_same_bytes(run_components, process_workers):
    assert run_components(*RUNNER, *process_workers) == run_components()
