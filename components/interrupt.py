"""Ctrl-C that is never lost.

Comes in: SIGINT. Goes out: KeyboardInterrupt, at once or at the next `check`.
Read next: pipeline/runner.py, which listens while components run; progress.py, which checks after each piece of work.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a destructor, or under a library's bare
`except`, it vanishes there, and hours of training would go on.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

_pressed = threading.Event()


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


def check() -> None:
    """Raises KeyboardInterrupt if Ctrl-C was pressed since `listening` began and the exception was lost."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def _note(number: int, frame: object) -> None:
    _pressed.set()
    signal.default_int_handler(number, frame)
