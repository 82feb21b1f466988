"""What README.md shows under "Serve it" works as it stands there: by curl and by Python, against `seq2serve serve`.

Comes in: README.md. Goes out: its blocks, run on the small demo's model.
Read next: pipeline/test_serving_rest.py and test_serving_grpc.py for everything else that the server takes.
"""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from components.serving_client import ServingClient, free_port

README = pathlib.Path(__file__).parents[1] / "README.md"
HEADING = "## Serve it"


def blocks(language):
    """Returns the code blocks in a language under the heading."""
    section = README.read_text(encoding="utf-8").partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def at_our_ports(house):
    """Serves the small demo's model; yields a function that puts its ports in the place of the README's."""
    rest, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "pipeline", "serve", house.serving, "--name", "translation"]
    command += ["--port", str(rest), "--grpc-port", str(rpc)]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=house.folder, env=house.environment, **output)
    with contextlib.ExitStack() as stack:
        stack.callback(server.wait)
        stack.callback(server.terminate)
        client = stack.enter_context(ServingClient("translation", rest, rpc))
        assert client.wait_until_ready(120, lambda: server.poll() is None)
        yield lambda text: text.replace("localhost:8501", f"localhost:{rest}").replace(
            "localhost:8500", f"localhost:{rpc}"
        )


def curls():
    """Returns the commands that begin with curl, each on one line."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_readmes_curl_is_answered(at_our_ports):
    assert curls(), f"no curl under {HEADING!r}"
    for command in curls():
        done = subprocess.run(["sh", "-c", at_our_ports(f"{command} -s")], capture_output=True, text=True, check=True)
        (answer,) = json.loads(done.stdout)["predictions"]
        assert answer, command


@pytest.mark.skipif(not blocks("python"), reason="the README shows no Python there")
def test_the_readmes_python_is_answered(at_our_ports):
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", at_our_ports(block)], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
