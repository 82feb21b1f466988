"""The ways a run may end badly, as exceptions that carry the process's exit code.

Comes in: what went wrong, where, and how to mend it. Goes out: an exception that the command line prints on its own.
Read next: pipeline/runner.py, which turns everything else into ComponentError.
"""


class Seq2ServeError(Exception):
    """A failure that is explained to the user in one message, with no stack trace. `exit_code`: the process's."""

    exit_code = 1


class UserError(Seq2ServeError):
    """The input or the command is at fault: says what, where (file and line or row), and how to mend it."""

    exit_code = 2


class ComponentError(Seq2ServeError):
    """A component failed while it ran; the message names it."""

    exit_code = 1


class NotBlessedError(Seq2ServeError):
    """A model lacks a blessing, so it was not pushed; the message says which one and why."""

    exit_code = 3
