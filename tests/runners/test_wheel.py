"""Our code shipped as a wheel: a worker whose environment holds only that and the libraries does the work."""

import pathlib
import site
import subprocess
import sys

import pytest

JOB_SERVICE = ("--runner=PortableRunner", "--job_endpoint=embed")
pytestmark = pytest.mark.runners


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Returns a function that makes Beam options for workers in an environment with these wheels.

    The libraries are those of this environment, reached by a path, for which no .pth file of theirs is read: what is
    installed to be edited, such as our own code, is not among them.
    """

    def make(*wheels: pathlib.Path) -> tuple[str, ...]:
        folder = tmp_path / f"environment-{len(wheels)}"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
        options = ("--quiet", "--no-deps", "--no-index", f"--target={packages}")
        for wheel in wheels:
            subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
        command = f"cd {tmp_path} && {folder}/bin/python -I -m apache_beam.runners.worker.sdk_worker_main"
        return (
            *JOB_SERVICE,
            "--environment_type=beam:env:harness_subprocess_python:v1",
            f"--environment_config={command}",
        )

    return make


def test_a_worker_with_the_wheel_writes_the_same_bytes(run_components, worker, wheel):
    assert run_components(*worker(wheel)) == run_components()


def test_a_worker_without_it_says_what_it_lacks(run_components, worker):
    with pytest.raises(RuntimeError, match="No module named 'components'"):
        run_components(*worker())
