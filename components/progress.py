"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere.

Comes in: how much is done. Goes out: lines on standard error.
Read next: trainer.py and evaluator.py, which are long.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from components import interrupt

PLAIN_SECONDS = 15  # between two lines where there is no terminal


class Reporter:
    """Tells how far a piece of work is.

    Args:
        label: what is being done.
        total: units in all.
        unit: name of a unit, plural.
        start: units that were done before, which do not count for the rate.
    """

    def __init__(self, label: str, total: int, unit: str, start: int = 0):
        self._label, self._total, self._unit, self._start = label, total, unit, start
        self._began = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=start, note="")

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Says that `done` units are done in all, with a note beside them; raises KeyboardInterrupt after Ctrl-C.

        `total` is how many there will be, where that has changed.
        """
        interrupt.check()
        self._total = self._total if total is None else total
        now = time.monotonic()
        rate = (done - self._start) / max(now - self._began, 1e-6)
        text = f"{rate:.1f} {self._unit}/s{', ' + note if note else ''}"
        if self._bar:
            self._bar.update(self._task, completed=done, total=self._total, note=text)
        elif now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            left = (self._total - done) / max(rate, 1e-6)
            print(f"{self._label} {done}/{self._total} {text}, {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()


@contextmanager
def progress(label: str, total: int, unit: str, start: int = 0) -> Iterator[Reporter]:
    """Gives a Reporter and closes it whatever happens; see Reporter for the arguments."""
    reporter = Reporter(label, total, unit, start)
    try:
        yield reporter
    finally:
        reporter.close()


def note(text: str) -> None:
    """Says something in a line of its own on standard error; on a terminal in the place of the line shown meanwhile."""
    clear = "\r\x1b[2K" if sys.stderr.isatty() else ""
    print(f"{clear}{text}", file=sys.stderr, flush=True)
