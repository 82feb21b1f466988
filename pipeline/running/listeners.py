"""Receivers of the events of a run: the console of the command line, or a caller from Python."""

import shutil
import sys

from seq2serve.components.base.progress import clear_line, note
from seq2serve.pipeline.running.pipeline import NodeResult


class RunListener:
    """Receives the events of a run; this one ignores them."""

    def begin(self, run_id: int, components: list[str]) -> None:
        """A run begins; `components` are those that it will run or reuse, in order."""

    def update(self, component: str, state: str, reason: str) -> None:
        """A component is `running` or `waiting` for another run, for some reason."""

    def end(self, component: str, result: NodeResult) -> None:
        """A component completed, or its earlier result is reused."""


class ConsoleListener(RunListener):
    """Prints one line per component to standard output; on a terminal, also which one is running.

    If a result is reused, a note repeats the settings that the component chose from the data.
    """

    def begin(self, run_id: int, components: list[str]) -> None:
        self._width = max(map(len, components), default=0)

    def update(self, component: str, state: str, reason: str) -> None:
        if sys.stdout.isatty():  # the line of the result replaces it
            line = f"{component:{self._width}}  {state:7}  {reason}"
            print(clear_line(sys.stdout) + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)

    def end(self, component: str, result: NodeResult) -> None:
        state = "reused" if result.reused else "ran"
        line = f"{component:{self._width}}  {state:6}  {result.seconds:7.1f} s  {result.reason}"
        print(f"{clear_line(sys.stdout)}{line}", flush=True)
        if result.reused:  # a component that runs says itself what it chooses
            for properties in (artifact.properties for artifact in result.outputs.values()):
                if "settings" in properties and "reason" in properties:
                    note(f"{component} chose earlier: {properties['reason']}")
