"""Ctrl-C that is never lost, and may be put off until work is saved.

Comes in: SIGINT. Goes out: KeyboardInterrupt, at once or at the next `check`.
Read next: pipeline/runner.py, which listens while components run; progress.py, which checks after each piece of work;
trainer.py, which puts it off until a step is done.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a destructor, or under a library's bare
`except`, it vanishes there, and hours of training would go on.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

_pressed, _putting_off = threading.Event(), threading.Event()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Notes a Ctrl-C as well as raising it. Where SIGINT is ignored, or outside the main thread, nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pressed.clear()


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Within it a first Ctrl-C is only noted where `listening`, to be raised by `check`; a second is raised at once."""
    _putting_off.set()
    try:
        yield
    finally:
        _putting_off.clear()


def pressed() -> bool:
    """Returns whether Ctrl-C was pressed since `listening` began."""
    return _pressed.is_set()


def check() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed since `listening` began and the exception was lost."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def _note(number: int, frame: object) -> None:
    may_wait = _putting_off.is_set() and not _pressed.is_set()
    _pressed.set()
    if not may_wait:
        signal.default_int_handler(number, frame)
