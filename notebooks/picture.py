"""Draws the picture of README.md as demo.svg, a terminal after COMMANDS, which it runs: `make picture`."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

HERE = pathlib.Path(__file__).parent
WIDTH = 116
SHOWN = "~/seq2serve"  # replaces the temporary folder
COMMANDS = (
    "seq2serve demo --language pt-BR --from firefox-en-pt",
    "seq2serve predict --model serving/en-pt-BR 'Turn on the light in the kitchen when the door opens.'",
)


def record(command: str, folder: str) -> str:
    """Runs a command in a folder and returns its output."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.replace(os.path.realpath(folder), SHOWN)


def draw(path: pathlib.Path) -> None:
    """Writes the text of the terminal as a picture that needs no web font."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(record(command, folder)), soft_wrap=False)
    picture = console.export_svg(title="seq2serve: a translator of Firefox and one's own text", theme=DIMMED_MONOKAI)
    picture = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", picture, flags=re.DOTALL)
    path.write_text(picture.replace("Fira Code", "ui-monospace, Menlo, Consolas"), encoding="utf-8")


if __name__ == "__main__":
    draw(HERE / "demo.svg")
