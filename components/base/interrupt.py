"""Handling of Ctrl-C (SIGINT) that survives swallowed exceptions and can be deferred until work is saved.

Python raises KeyboardInterrupt at whatever the main thread is executing. Inside a destructor, or under a library's bare
`except`, the exception is lost, and hours of training would continue. So the signal is also recorded here: the runner
records while components run, progress.py checks after each unit of work, and the trainer defers the exception until the
current step is done.
"""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_pressed, _deferring = threading.Event(), threading.Event()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Records Ctrl-C in addition to raising it. Does nothing if SIGINT is ignored or outside the main thread.

    Python would print a stack trace where the exception is lost; it is recorded, so nothing is printed.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _record)
    report = sys.unraisablehook
    sys.unraisablehook = functools.partial(_report_others, report)
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pressed.clear()


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Defers Ctrl-C inside `listening`: the first is recorded for `check` to raise, a second one is raised at once."""
    _deferring.set()
    try:
        yield
    finally:
        _deferring.clear()


def pressed() -> bool:
    """Returns whether Ctrl-C was pressed since `listening` began."""
    return _pressed.is_set()


def check() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed since `listening` began, even if its exception was lost."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def _report_others(report: "Callable[[sys.UnraisableHookArgs], None]", lost: "sys.UnraisableHookArgs") -> None:
    """Reports an exception that is lost, unless it is that of a recorded Ctrl-C."""
    if lost.exc_type is not KeyboardInterrupt:
        report(lost)


def _record(number: int, frame: FrameType | None) -> None:
    is_deferred = _deferring.is_set() and not _pressed.is_set()
    _pressed.set()
    if not is_deferred:
        signal.default_int_handler(number, frame)
