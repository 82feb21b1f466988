"""The output of library imports is hidden, unless the import fails or --verbose is set."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seq2serve.pipeline.running.quiet import held_stderr, quiet_import

REPOSITORY = Path(__file__).parents[3]

LOUD_IMPORT = """
import importlib.util, os, sys
sys.path.insert(0, sys.argv[1])
from seq2serve.pipeline.commands.logs import set_up_logs
set_up_logs(verbose=sys.argv[2] == "verbose")
importlib.util.find_spec("tensorflow")  # as fingerprints do; it imports nothing
try:
    import tensorflow
except ImportError:
    print("failed")
else:
    os.write(2, b"after ")
    print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""


@pytest.mark.parametrize(
    ("verbosity", "statement", "out", "err"),
    [
        ("quiet", "", "3", "after "),
        ("verbose", "", "0", "loud after "),
        ("quiet", "raise ImportError", "failed", "loud "),
    ],
)
def test_the_standard_error_of_an_import_is_hidden_unless_verbose_or_failed(tmp_path, verbosity, statement, out, err):
    (tmp_path / "tensorflow.py").write_text(f"import os; os.write(2, b'loud ')\n{statement}")
    environment = {"PATH": ""}
    command = [sys.executable, "-c", LOUD_IMPORT, str(tmp_path), verbosity]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (out, err)


def test_standard_error_is_restored(capfd):
    with held_stderr():
        os.write(2, b"hidden")
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


def test_the_finder_of_a_quiet_import_is_inserted_once(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    quiet_import("a_package")
    quiet_import("a_package")
    assert len(sys.meta_path) == before + 1


def test_an_import_does_not_find_the_hidden_packages_which_can_be_imported_later(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("optional", "loaded"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "a_package.py").write_text(
        "import loaded\ntry:\n    import optional\nexcept ImportError:\n    optional = None\n"
    )
    loaded = importlib.import_module("loaded")
    quiet_import("a_package", without=("optional", "loaded"))
    package = importlib.import_module("a_package")
    assert (package.optional, package.loaded) == (None, loaded)
    assert importlib.import_module("optional").__file__ == str(tmp_path / "optional.py")
