"""Protects a server on this machine from the web pages that its user visits."""

import contextlib
import ipaddress
import urllib.parse

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class LocalOnly:
    """Middleware that answers 403 to requests from pages of other sites.

    A site can point its own name to 127.0.0.1 (DNS rebinding), and then counts as the same origin in a browser; but the
    browser still sends that name as Host. Origin is the site of the page that sent the request.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on a request with a local Host and no foreign Origin."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        host, origin = headers.get("host", ""), headers.get("origin")
        app: ASGIApp = self._app
        if scope["type"] == "http" and not (is_loopback(_host_name(host)) and origin in (None, f"http://{host}")):
            error = f"the server answers only this machine and its own page: Host is {host!r}, Origin is {origin!r}"
            app = JSONResponse({"error": error}, 403, {"connection": "close"})
        await app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Returns whether a host name or address is this machine's own."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _host_name(host: str) -> str:
    """Returns the name or address in a Host header, without port and brackets."""
    with contextlib.suppress(ValueError):
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    return ""
