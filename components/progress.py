"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere.

Comes in: how much is done. Goes out: lines on standard error.
Read next: trainer.py, evaluator.py and infra_validator.py, which are long.
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
        unit: name of a unit, plural; empty where units take unlike times, so that a rate and the time left say nothing.
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
            left = (TimeRemainingColumn(),) if unit else ()
            self._bar = Progress(*columns, *left, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=start, note="")

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Says that `done` units are done in all, with a note beside them; raises KeyboardInterrupt after Ctrl-C.

        `total` is how many there will be, where that has changed; where it was estimated, more may be done already.
        """
        interrupt.check()
        self._total = max(self._total if total is None else total, done)
        now = time.monotonic()
        rate = (done - self._start) / max(now - self._began, 1e-6)
        parts = {"rate": f"{rate:.1f} {self._unit}/s" * bool(self._unit), "note": note}
        if self._bar:
            self._bar.update(
                self._task, completed=done, total=self._total, note=", ".join(filter(None, parts.values()))
            )
        elif now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            left = (self._total - done) / max(rate, 1e-6)
            parts["left"] = f"{left:.0f} s left" * bool(self._unit)
            text = ", ".join(filter(None, parts.values()))
            print(f"{self._label} {done}/{self._total} {text}", file=sys.stderr, flush=True)

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
