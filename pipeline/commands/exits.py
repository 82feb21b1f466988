"""Turns the failure of a command into one message on standard error and an exit code."""

import contextlib
import sys
import traceback
from collections.abc import Iterator

import typer

from seq2serve.components.base.errors import NotBlessedError, Seq2ServeError


@contextlib.contextmanager
def explained(verbose: bool = False) -> Iterator[None]:
    """Ends the process on a failure: 1 (failed), 2 (bad input), 3 (not blessed) or 130 (Ctrl-C), with one message.

    Args:
        verbose: also print the stack trace.
    """
    try:
        yield
    except Seq2ServeError as error:
        if verbose:
            traceback.print_exception(error)
        hint = "; see `seq2serve report`" if isinstance(error, NotBlessedError) else ""
        print(f"seq2serve: {error}{hint}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        print("seq2serve: interrupted; run the same command again to resume", file=sys.stderr)
        raise typer.Exit(130) from error
