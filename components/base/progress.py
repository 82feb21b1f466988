"""Progress of long work: a bar with rate and time left on a terminal or in a notebook, an occasional line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seq2serve.components.base import interrupt

PLAIN_SECONDS = 15  # between two lines without a terminal
_BAR_WIDTH = 40  # of the bar in a notebook, in characters
_NOTEBOOK_SECONDS = 0.2  # between two updates in a notebook

Mode = Literal["visible", "notebook", "hidden"]
_mode: Mode = "visible"


@contextmanager
def display(mode: Mode) -> Iterator[None]:
    """Sets how progress is shown inside the `with`: on standard error, in the output of a notebook's cell, or not."""
    global _mode
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def current_mode() -> Mode:
    """Returns how progress is shown now."""
    return _mode


class _View:
    """How progress is shown; this one shows nothing."""

    def show(self, done: int, total: int, note: str, seconds_left: float | None) -> None:
        pass

    def close(self) -> None:
        pass


class Reporter:
    """Reports the progress of a piece of work.

    Args:
        label: name of the work.
        total: number of units.
        unit: plural name of a unit; empty if units differ so much in duration that rate and time left would mislead.
        start: units that were done earlier; they do not count towards the rate.
    """

    def __init__(self, label: str, total: int, unit: str, start: int = 0):
        self._total, self._unit, self._start = total, unit, start
        self._start_time = time.monotonic()
        self._view = _make_view(label, total, start, bool(unit))

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Shows that `done` units are complete, with a note. Raises KeyboardInterrupt after Ctrl-C.

        Args:
            done: units completed so far, including `start`.
            note: text to show with the numbers, such as the loss.
            total: new number of units, if it has changed. If it was estimated too low, `done` is shown instead.
        """
        interrupt.check()
        self._total = max(self._total if total is None else total, done)
        rate = (done - self._start) / max(time.monotonic() - self._start_time, 1e-6)
        text = ", ".join(filter(None, [f"{rate:.1f} {self._unit}/s" if self._unit else "", note]))
        seconds_left = (self._total - done) / max(rate, 1e-6) if self._unit else None
        self._view.show(done, self._total, text, seconds_left)

    def close(self) -> None:
        """Removes the bar."""
        self._view.close()


@contextmanager
def progress(label: str, total: int, unit: str, start: int = 0) -> Iterator[Reporter]:
    """Yields a Reporter and closes it, also after an exception; see Reporter for the arguments."""
    reporter = Reporter(label, total, unit, start)
    try:
        yield reporter
    finally:
        reporter.close()


def note(text: str) -> None:
    """Prints a line on standard error; on a terminal it replaces the current line, such as a progress bar."""
    if _mode == "hidden":
        return
    print(f"{clear_line(sys.stderr)}{text}", file=sys.stderr, flush=True)


def clear_line(stream: TextIO) -> str:
    """Returns what clears the current line of a terminal; empty if the stream is not a terminal."""
    return "\r\x1b[2K" if stream.isatty() else ""


def _make_view(label: str, total: int, start: int, has_rate: bool) -> _View:
    if _mode == "hidden":
        return _View()
    if _mode == "notebook":
        return _Cell(label)
    return _Bar(label, total, start, has_rate) if sys.stderr.isatty() else _Lines(label)


class _Lines(_View):
    """A line now and then, for logs."""

    def __init__(self, label: str):
        self._label, self._last_time = label, time.monotonic()

    def show(self, done: int, total: int, note: str, seconds_left: float | None) -> None:
        now = time.monotonic()
        if now - self._last_time >= PLAIN_SECONDS:
            self._last_time = now
            print(f"{self._label} {done}/{total} {_with_time(note, seconds_left)}", file=sys.stderr, flush=True)


class _Bar(_View):
    """A bar on a terminal."""

    def __init__(self, label: str, total: int, start: int, has_rate: bool):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        time_left = (TimeRemainingColumn(),) if has_rate else ()
        self._bar = Progress(*columns, *time_left, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(label, total=total, completed=start, note="")

    def show(self, done: int, total: int, note: str, seconds_left: float | None) -> None:
        self._bar.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        self._bar.stop()


class _Cell(_View):
    """A bar in the output of a notebook's cell, without widgets, so that it works in every front end."""

    def __init__(self, label: str):
        self._label, self._last_time = label, float("-inf")
        self._handle: Any = None

    def show(self, done: int, total: int, note: str, seconds_left: float | None) -> None:
        now = time.monotonic()
        if now - self._last_time < _NOTEBOOK_SECONDS and done < total:
            return
        self._last_time = now
        filled = _BAR_WIDTH * done // max(total, 1)
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        self._print(f"{self._label} {bar} {done}/{total} {_with_time(note, seconds_left)}")

    def close(self) -> None:
        if self._handle:
            self._print("")

    def _print(self, text: str) -> None:
        # Only a process inside Jupyter gets here, and it has loaded IPython.
        from IPython.display import display as show_in_cell

        data = {"text/plain": text}
        if self._handle:
            self._handle.update(data, raw=True)
        else:
            self._handle = show_in_cell(data, raw=True, display_id=True)


def _with_time(note: str, seconds_left: float | None) -> str:
    return ", ".join(filter(None, [note, "" if seconds_left is None else f"{seconds_left:.0f} s left"]))
