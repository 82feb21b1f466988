"""How a command ends: one message and an exit code.

Comes in: an exception. Goes out: a line on standard error and 1 (failed), 2 (bad input), 3 (not blessed), 130 (Ctrl-C).
Read next: components/errors.py for the exceptions, __main__.py and serving_commands.py for the commands.
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator

import typer

from components.errors import NotBlessedError, Seq2ServeError


@contextlib.contextmanager
def explained(verbose: bool = False) -> Iterator[None]:
    """Ends the process with one message and the exit code of what went wrong; a stack trace only when asked for."""
    try:
        yield
    except Seq2ServeError as error:
        if verbose:
            traceback.print_exception(error)
        hint = "; look at `seq2serve report`" if isinstance(error, NotBlessedError) else ""
        print(f"seq2serve: {error}{hint}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        print("seq2serve: interrupted; run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from error
