"""What libraries write over the user's shoulder is put aside, unless they fail or the user wants to see it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import logs

REPOSITORY = Path(__file__).parents[2]

LOUD_IMPORT = """
import importlib.util, os, sys
sys.path.insert(0, sys.argv[1])
from pipeline.logs import set_up_logs
set_up_logs(verbose=sys.argv[2] == "verbose")
importlib.util.find_spec("tensorflow")  # as fingerprints do; it imports nothing
try:
    import tensorflow
except ImportError:
    print("refused")
else:
    os.write(2, b"after ")
    print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""


@pytest.mark.parametrize(
    ("how", "then", "out", "err"),
    [
        ("quiet", "", "3", "after "),
        ("verbose", "", "0", "loud after "),
        ("quiet", "raise ImportError", "refused", "loud "),
    ],
)
def test_what_an_import_writes_to_the_descriptor_is_put_aside(tmp_path, how, then, out, err):
    (tmp_path / "tensorflow.py").write_text(f"import os; os.write(2, b'loud ')\n{then}")
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    command = [sys.executable, "-c", LOUD_IMPORT, str(tmp_path), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (out, err)


def test_stderr_comes_back(capfd):
    with logs._stderr_aside():
        os.write(2, b"aside")
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"
