"""Executes the notebooks from top to bottom, each in its own kernel: `make notebooks`.

They work in a temporary folder. If a notebook is committed with outputs, it must print the same again; `--keep`
replaces the outputs.
"""

import argparse
import hashlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterable

HERE = pathlib.Path(__file__).parent
WITH_OUTPUTS = ("01_attention.ipynb",)  # the others print times, ports and paths, which differ each time
SECONDS = 300  # time limit of a cell


def digest(cells: Iterable[dict]) -> str:
    """Returns a hash of the code, stored with committed outputs so that a test can tell when they are stale."""
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def execute(path: pathlib.Path, folder: str) -> dict:
    """Executes a notebook in a folder and returns it with its outputs.

    Raises:
        CellExecutionError: a cell failed; the message shows it.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None) if cell.cell_type != "code" else cell.update(outputs=[], execution_count=None)
    resources = {"metadata": {"path": folder}}
    options = {"timeout": SECONDS, "kernel_name": "python3", "resources": resources, "coalesce_streams": True}
    NotebookClient(notebook, extra_arguments=["--log-level=ERROR"], **options).execute()
    return notebook


def printed(notebook: dict) -> list[str]:
    """Returns the printed output of each cell; figures may differ between machines."""
    cells = [cell.get("outputs", ()) for cell in notebook["cells"]]
    return ["".join(o["text"] for o in outputs if o.get("name") == "stdout") for outputs in cells]


def keep(notebook: dict, path: pathlib.Path) -> None:
    """Writes a notebook with its outputs, without metadata that differ each time."""
    import nbformat

    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                del output["data"]["text/plain"]
    notebook["metadata"].pop("language_info", None)
    notebook["metadata"]["code_sha256"] = digest(notebook["cells"])
    nbformat.write(notebook, path)


def check(path: pathlib.Path, folder: str, write: bool) -> str:
    """Executes a notebook and returns the problem; empty if there is none."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    try:
        executed = execute(path, folder)
    except CellExecutionError as error:
        return str(error)
    if path.name in WITH_OUTPUTS and write:
        keep(executed, path)
    elif path.name in WITH_OUTPUTS and printed(executed) != printed(nbformat.read(path, as_version=4)):
        return "its output differs from the committed one; look at it, then run: make notebooks ARGS=--keep"
    return ""


def main() -> int:
    """Executes the notebooks of the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description="Executes notebooks from top to bottom.")
    parser.add_argument("notebooks", nargs="*", type=pathlib.Path, default=sorted(HERE.glob("*.ipynb")))
    parser.add_argument("--keep", action="store_true", help=f"replace the outputs of {', '.join(WITH_OUTPUTS)}")
    arguments = parser.parse_args()
    # The kernel needs this folder's helpers and this environment's `seq2serve`.
    os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], os.path.dirname(sys.executable)))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.notebooks:
            start = time.monotonic()
            problem = check(path, folder, arguments.keep)
            print(f"{path.name:22} {time.monotonic() - start:6.1f} s  {problem or 'executed'}", flush=True)
            failed += bool(problem)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
