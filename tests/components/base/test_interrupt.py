"""Ctrl-C raises KeyboardInterrupt at once, or at the next check if the exception was lost."""

import signal
import sys
import threading

import pytest

from seq2serve.components.base import interrupt
from seq2serve.components.base.progress import Reporter


class Destructor:
    """Raises SIGINT where Python drops every exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


class Failing:
    """Fails where Python drops every exception."""

    def __del__(self):
        raise ZeroDivisionError


def test_ctrl_c_is_raised_at_once(heeds_ctrl_c):
    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_lost_interrupt_is_raised_at_the_next_update_and_only_other_lost_exceptions_are_reported(
    heeds_ctrl_c, monkeypatch
):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reports.append(lost.exc_type))
    reporter = Reporter("Trainer", 10, "steps")
    with interrupt.listening():
        reporter.update(1)
        Destructor()
        Failing()
        with pytest.raises(KeyboardInterrupt):
            reporter.update(2)
    assert reports == [ZeroDivisionError]


def test_a_deferred_interrupt_is_raised_by_check_and_a_second_one_at_once(heeds_ctrl_c):
    with interrupt.listening(), interrupt.put_off():
        signal.raise_signal(signal.SIGINT)
        assert interrupt.pressed()
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_interrupt_does_not_affect_the_next_run(heeds_ctrl_c):
    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    interrupt.check()
    with interrupt.listening():
        interrupt.check()


def test_the_previous_handler_is_restored(heeds_ctrl_c):
    with interrupt.listening():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_sigint_stays_ignored(heeds_ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupt.listening():
        signal.raise_signal(signal.SIGINT)
        interrupt.check()


def test_listening_works_outside_the_main_thread(heeds_ctrl_c):
    results = []

    def work():
        with interrupt.listening():
            results.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [True]
