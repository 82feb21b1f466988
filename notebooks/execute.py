"""Executes the notebooks from top to bottom, each in a kernel of its own: `make notebooks`.

Comes in: names of notebooks, or none for all. Goes out: a line for each; the cell that fails, and exit code 1.
Read next: README.md for which of them keep their outputs, and why.

They work in a temporary folder, so nothing is left behind. Where a notebook is committed with its outputs, what it
prints now must be what it printed then; `--keep` writes them anew.
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
KEPT = ("01_attention.ipynb",)  # the others tell of times, ports and places, which are new each time
SECONDS = 300  # a cell may take


def digest(cells: Iterable[dict]) -> str:
    """Returns a hash of what the cells say, written beside kept outputs so that a test can tell when they are stale."""
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
    """Returns what each cell prints; figures may differ from machine to machine."""
    cells = [cell.get("outputs", ()) for cell in notebook["cells"]]
    return ["".join(o["text"] for o in outputs if o.get("name") == "stdout") for outputs in cells]


def keep(notebook: dict, path: pathlib.Path) -> None:
    """Writes a notebook with its outputs, but without what is new each time."""
    import nbformat

    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                del output["data"]["text/plain"]
    notebook["metadata"].pop("language_info", None)
    notebook["metadata"]["made_from"] = digest(notebook["cells"])
    nbformat.write(notebook, path)


def check(path: pathlib.Path, folder: str, write: bool) -> str:
    """Executes a notebook; returns what is wrong with it, or nothing."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    try:
        now = execute(path, folder)
    except CellExecutionError as error:
        return str(error)
    if path.name in KEPT and write:
        keep(now, path)
    elif path.name in KEPT and printed(now) != printed(nbformat.read(path, as_version=4)):
        return "it no longer prints what it is committed with; look at it, then: make notebooks ARGS=--keep"
    return ""


def main() -> int:
    """Executes what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="Executes notebooks from top to bottom.")
    parser.add_argument("notebooks", nargs="*", type=pathlib.Path, default=sorted(HERE.glob("*.ipynb")))
    parser.add_argument("--keep", action="store_true", help=f"write the outputs of {', '.join(KEPT)} anew")
    arguments = parser.parse_args()
    # The kernel finds this folder's helpers, the project, and this environment's `seq2serve`.
    os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], os.path.dirname(sys.executable)))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")))
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
