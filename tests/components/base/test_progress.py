"""Progress is an occasional line, or on a terminal a bar that is removed at the end."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seq2serve.components.base import progress
from seq2serve.components.base.progress import Reporter

HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


@pytest.fixture
def wait(monkeypatch):
    """Returns a function that advances the clock by some seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_line_shows_progress_rate_note_and_time_left(wait, capsys):
    reporter = Reporter("Trainer", 1000, "steps")
    wait(20)
    reporter.update(200, "loss 1.234")
    assert capsys.readouterr() == ("", "Trainer 200/1000 10.0 steps/s, loss 1.234, 80 s left\n")


def test_lines_are_printed_at_intervals(wait, capsys):
    reporter = Reporter("Trainer", 1000, "steps")
    for done in range(1, 1000):
        wait(0.1)
        reporter.update(done)
    reporter.close()
    assert len(capsys.readouterr().err.splitlines()) == int(1000 * 0.1 / progress.PLAIN_SECONDS)


def test_short_work_prints_nothing(wait, capsys):
    with progress.progress("Evaluator", 10, "examples") as reporter:
        wait(1)
        reporter.update(10)
    assert capsys.readouterr() == ("", "")


def test_progress_never_exceeds_an_estimated_total(wait, capsys):
    reporter = Reporter("Trainer", 1017, "steps")
    wait(100)
    reporter.update(1018, total=1017)
    assert capsys.readouterr().err == "Trainer 1018/1018 10.2 steps/s, 0 s left\n"


def test_work_without_a_unit_has_no_rate(wait, capsys):
    reporter = Reporter("InfraValidator", 11, "")
    wait(20)
    reporter.update(5, "load")
    assert capsys.readouterr().err == "InfraValidator 5/11 load\n"


def test_earlier_work_does_not_count_towards_the_rate(wait, capsys):
    reporter = Reporter("Trainer", 1000, "steps", start=900)
    wait(20)
    reporter.update(920)
    assert capsys.readouterr().err == "Trainer 920/1000 1.0 steps/s, 80 s left\n"


def test_an_update_without_elapsed_time_has_a_rate(wait, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0)
    Reporter("Trainer", 2, "steps").update(0)
    assert "Trainer 0/2 0.0 steps/s" in capsys.readouterr().err


def test_a_terminal_shows_a_bar_and_gets_its_cursor_back_after_an_error():
    code = """
from seq2serve.components.base.progress import progress
import time
with progress("Trainer", 100, "steps", 10) as reporter:
    for done in range(11, 40):
        reporter.update(done, "loss 1.234")
        time.sleep(0.02)
    raise KeyboardInterrupt
"""
    output = terminal_output(code)
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", output).decode()  # without colours
    assert re.search(r"Trainer .*\d\d/100 \d+\.\d steps/s, loss 1\.234", text)
    assert output.count(HIDE_CURSOR) == output.count(SHOW_CURSOR) == 1
    assert output.index(SHOW_CURSOR) < output.index(b"KeyboardInterrupt")


def terminal_output(code: str) -> bytes:
    """Runs Python code with a terminal as standard error and returns the bytes that the terminal received."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=terminal, env=environment):
        os.close(terminal)
        output = b""
        while True:
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # Linux raises it when the other end is closed
                chunk = b""
            if not chunk:
                break
            output += chunk
    os.close(controller)
    return output
