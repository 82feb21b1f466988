"""Draws the README's picture, a terminal in which the demo has just run: `make picture`.

Comes in: nothing; the demo runs anew, so it takes minutes. Goes out: demo.svg beside this file.
Read next: execute.py, which runs the notebooks.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

HERE = pathlib.Path(__file__).parent
WIDTH = 116
SHOWN = "~/seq2serve"  # stands for the folder in which it ran


def record() -> str:
    """Runs the demo in a folder of its own and returns what it prints."""
    command = [sys.executable, "-m", "pipeline", "demo"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.replace(os.path.realpath(folder), SHOWN)


def draw(output: str, path: pathlib.Path) -> None:
    """Writes a terminal's text as a picture that needs no font from elsewhere."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi(output), soft_wrap=False)
    picture = console.export_svg(title="seq2serve: English to German, from nothing", theme=DIMMED_MONOKAI)
    picture = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", picture, flags=re.DOTALL)
    path.write_text(picture.replace("Fira Code", "ui-monospace, Menlo, Consolas"), encoding="utf-8")


if __name__ == "__main__":
    draw(record(), HERE / "demo.svg")
