"""Draws the picture of README.md, a terminal after the demo, as demo.svg: `make picture`; it runs the demo."""

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
SHOWN = "~/seq2serve"  # replaces the temporary folder


def record() -> str:
    """Runs the demo in a temporary folder and returns its output."""
    command = [sys.executable, "-m", "seq2serve", "demo"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.replace(os.path.realpath(folder), SHOWN)


def draw(output: str, path: pathlib.Path) -> None:
    """Writes the text of a terminal as a picture that needs no web font."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi(output), soft_wrap=False)
    picture = console.export_svg(title="seq2serve: English to German, from nothing", theme=DIMMED_MONOKAI)
    picture = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", picture, flags=re.DOTALL)
    path.write_text(picture.replace("Fira Code", "ui-monospace, Menlo, Consolas"), encoding="utf-8")


if __name__ == "__main__":
    draw(record(), HERE / "demo.svg")
