"""Progress is a plain line now and then, or on a terminal a bar that leaves nothing behind."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components import progress
from components.progress import Reporter

HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


@pytest.fixture
def clock(monkeypatch):
    """Returns a function that lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_line_says_how_much_how_fast_and_how_long_yet(clock, capsys):
    reporter = Reporter("Trainer", 1000, "steps")
    clock(20)
    reporter.update(200, "loss 1.234")
    assert capsys.readouterr() == ("", "Trainer 200/1000 10.0 steps/s, loss 1.234, 80 s left\n")


def test_lines_keep_their_distance(clock, capsys):
    reporter = Reporter("Trainer", 1000, "steps")
    for done in range(1, 1000):
        clock(0.1)
        reporter.update(done)
    reporter.close()
    assert len(capsys.readouterr().err.splitlines()) == int(1000 * 0.1 / progress.PLAIN_SECONDS)


def test_short_work_is_done_without_a_word(clock, capsys):
    with progress.progress("Evaluator", 10, "examples") as reporter:
        clock(1)
        reporter.update(10)
    assert capsys.readouterr() == ("", "")


def test_a_total_that_was_estimated_too_low_is_never_passed(clock, capsys):
    reporter = Reporter("Trainer", 1017, "steps")
    clock(100)
    reporter.update(1018, total=1017)
    assert capsys.readouterr().err == "Trainer 1018/1018 10.2 steps/s, 0 s left\n"


def test_unlike_pieces_of_work_have_no_rate(clock, capsys):
    reporter = Reporter("InfraValidator", 11, "")
    clock(20)
    reporter.update(5, "load")
    assert capsys.readouterr().err == "InfraValidator 5/11 load\n"


def test_what_was_done_before_does_not_count_for_the_rate(clock, capsys):
    reporter = Reporter("Trainer", 1000, "steps", start=900)
    clock(20)
    reporter.update(920)
    assert capsys.readouterr().err == "Trainer 920/1000 1.0 steps/s, 80 s left\n"


def test_the_very_first_moment_has_a_rate(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0)
    Reporter("Trainer", 2, "steps").update(0)
    assert "Trainer 0/2 0.0 steps/s" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_and_its_cursor_back_whatever_happens():
    code = """
from components.progress import progress
import time
with progress("Trainer", 100, "steps", 10) as reporter:
    for done in range(11, 40):
        reporter.update(done, "loss 1.234")
        time.sleep(0.02)
    raise KeyboardInterrupt
"""
    shown = on_a_terminal(code)
    # Colours are set in between, so the text alone is looked at.
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    assert re.search(r"Trainer .*\d\d/100 \d+\.\d steps/s, loss 1\.234", text)
    assert shown.count(HIDE_CURSOR) == shown.count(SHOW_CURSOR) == 1
    assert shown.index(SHOW_CURSOR) < shown.index(b"KeyboardInterrupt")


def on_a_terminal(code: str) -> bytes:
    """Runs Python code with a terminal for standard error and returns what the terminal got."""
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=its, env=environment):
        os.close(its)
        shown = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # how Linux tells that nobody is at the other end any more
                read = b""
            if not read:
                break
            shown += read
    os.close(ours)
    return shown
