"""The ways in which a command can fail, as exceptions that carry the exit code of the process."""

import difflib
from collections.abc import Iterable
from typing import Any, Self


class Seq2ServeError(Exception):
    """A failure that is reported to the user as one message, without a stack trace.

    Args:
        message: what is wrong, where, and how to fix it.
        code: a short, stable name for this kind of failure, such as "file-empty"; programs and tests rely on it.
        **fields: the subject of the message, such as path, line, column, setting or name.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, code: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.code, self.fields = code, fields

    def in_component(self, name: str) -> Self:
        """Returns the same failure with a message that begins with the name of a component."""
        return type(self)(f"{name}: {self}", code=self.code, **self.fields)


class UserError(Seq2ServeError):
    """The input or the command is wrong. The message states what, where (file and line or row), and how to fix it."""

    exit_code = 2


class StorageError(Seq2ServeError, OSError):
    """Files in an object store cannot be read or written. It is an OSError, as the same failure of local files is."""


class ComponentError(Seq2ServeError):
    """A component failed while it ran; the message names it."""


class NotBlessedError(Seq2ServeError):
    """A model was not blessed and therefore not pushed; the message names the component and the reason."""

    exit_code = 3


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns a hint at the known name that is most similar to an unknown one; empty if none is similar."""
    by_case = {known.casefold(): known for known in names}
    nearest = difflib.get_close_matches(name.casefold(), by_case, n=1)
    return f" (did you mean {by_case[nearest[0]]}?)" if nearest else ""
