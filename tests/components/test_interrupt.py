"""Ctrl-C is raised at once, or at the next check if what it was raised in lost it."""

import signal
import threading

import pytest

from components import interrupt
from components.progress import Reporter


class Destructor:
    """Is interrupted in the one place where Python drops every exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_raised_at_once(heeds_ctrl_c):
    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_was_lost_is_raised_at_the_next_step_of_long_work(heeds_ctrl_c):
    reporter = Reporter("Trainer", 10, "steps")
    with interrupt.listening():
        reporter.update(1)
        Destructor()
        with pytest.raises(KeyboardInterrupt):
            reporter.update(2)


def test_an_old_one_is_not_held_against_the_next_run(heeds_ctrl_c):
    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    interrupt.check()
    with interrupt.listening():
        interrupt.check()


def test_what_was_in_force_before_is_so_again(heeds_ctrl_c):
    with interrupt.listening():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_sigint_is_ignored_it_stays_so(heeds_ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupt.listening():
        signal.raise_signal(signal.SIGINT)
        interrupt.check()


def test_a_thread_may_listen(heeds_ctrl_c):
    ended = []

    def work():
        with interrupt.listening():
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
