"""Connection: messages between two machines, JSON objects on lines, over TCP."""

import contextlib
import json
import socket
from typing import Any

MAX_BYTES = 16 * 2**20  # of a message; the properties of artifacts can have many labels
# The connection to a machine without power breaks in 20 s, before the chief stops to wait for a cause (CAUSE_SECONDS).
_LIMITS = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}


class Connection:
    """A connection to another machine.

    Args:
        sock: connected; it is closed with the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._buffer = sock, b""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in _LIMITS.items():
            if hasattr(socket, name):  # not every operating system lets a program choose
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, **message: Any) -> None:
        """Sends a message; does nothing if the connection is broken, which `receive` reports."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """Waits for a message.

        Args:
            seconds: limit of the wait; None for none.
        Returns:
            The message; empty if the connection is broken, if there is no answer in time, or from another program.
        """
        try:
            self._socket.settimeout(seconds)
            while b"\n" not in self._buffer:
                received = self._socket.recv(65536)
                if not received or len(self._buffer) > MAX_BYTES:
                    return {}
                self._buffer += received
            line, _, self._buffer = self._buffer.partition(b"\n")
            message = json.loads(line)
        except (OSError, ValueError):
            return {}
        return message if isinstance(message, dict) else {}

    def close(self) -> None:
        """Closes the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
