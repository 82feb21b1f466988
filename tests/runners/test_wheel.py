"""The project shipped as a wheel: a worker needs only the wheel and the libraries."""

import pathlib
import site
import subprocess
import sys

import pytest

JOB_SERVICE = ("--runner=PortableRunner", "--job_endpoint=embed")
pytestmark = pytest.mark.runners


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Returns a function that makes Beam options for workers in an environment with some wheels.

    The libraries are those of this environment, added as a path. Its .pth files are not read, so an editable install,
    such as that of the project, is not included.
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


def test_a_worker_without_the_wheel_fails_with_the_name_of_the_package(run_components, worker):
    with pytest.raises(RuntimeError, match="No module named 'seq2serve'"):
        run_components(*worker())
