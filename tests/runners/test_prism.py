"""Prism, Beam's runner in Go: the same bytes as on the local runner, with workers here and in other processes."""

import json
import os
import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
PRISM, BOOT = (os.environ.get(f"SEQ2SERVE_{name}", "") for name in ("PRISM", "BOOT"))
RUNNER = ("--runner=PrismRunner", f"--prism_location={PRISM}", "--prism_log_kind=text", "--prism_log_level=error")
pytestmark = [pytest.mark.runners, pytest.mark.skipif(not PRISM, reason="make test-runners builds Prism")]


def test_loopback(run_components):
    assert run_components(*RUNNER, "--environment_type=LOOPBACK") == run_components()


def test_processes(run_components, tmp_path):
    """What starts a worker in Beam's containers starts one here, in this environment instead of one that it makes."""
    boot = tmp_path / "boot"
    # It leaves a file where it is started; Prism 2.77 puts quotes around the worker's id.
    boot.write_text(f'#!/bin/bash\ncd {tmp_path}\nexec {BOOT} "${{@//\\\'/}}"\n')
    boot.chmod(0o755)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    here = {"PATH": path, "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1", "PYTHONPATH": str(REPOSITORY)}
    config = f"--environment_config={json.dumps({'command': str(boot), 'env': here})}"
    assert run_components(*RUNNER, "--environment_type=PROCESS", config) == run_components()
