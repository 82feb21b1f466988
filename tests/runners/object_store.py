"""An object store in memory, on loopback, with the parts of Google Cloud Storage's API that Beam uses.

The API: https://cloud.google.com/storage/docs/json_api/v1

As in Google Cloud Storage, an upload is atomic: the object appears with the last byte.
"""

import base64
import email.parser
import hashlib
import http.server
import json
import pathlib
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

import google_crc32c
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_TOKEN = "of-a-test"
_PAGE = 50  # objects per page of a listing; few, so that tests have several pages
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)(?:/(?:copyTo|rewriteTo)/b/([^/]+)/o/([^/]+))?")


class ObjectStore(http.server.ThreadingHTTPServer):
    """Buckets of objects.

    `objects`: (bucket, name) -> content; `denied`: buckets without access; `watch` is called with the (bucket, name) of
    each new object.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *buckets: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets, self.denied = set(buckets), set()
        self.objects: dict[tuple[str, str], bytes] = {}
        self.times: dict[tuple[str, str], float] = {}
        self.watch = lambda key: None
        self.lock = threading.RLock()
        self.uploads: dict[str, tuple[tuple[str, str], bytearray]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that disconnect."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def put(self, key: tuple[str, str], content: bytes) -> None:
        with self.lock:
            self.times[key] = time.time()
            self.objects[key] = content
            self.watch(key)

    def environment(self, folder: pathlib.Path) -> dict[str, str]:
        """Returns the environment variables for clients, which then authenticate with a token.

        Args:
            folder: for the file of a service account, with a new key.
        """
        key = rsa.generate_private_key(65537, 2048)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        secret = key.private_bytes(*form)
        account = {"type": "service_account", "project_id": "a-project", "client_email": "a@b", "client_id": "a"}
        account |= {"private_key": secret.decode(), "private_key_id": "1", "token_uri": f"{self.url}/token"}
        path = folder / "account.json"
        path.write_text(json.dumps(account), encoding="ascii")
        return {"STORAGE_EMULATOR_HOST": self.url, "GOOGLE_APPLICATION_CREDENTIALS": str(path)}

    def under(self, uri: str) -> dict[str, bytes]:
        """Returns name -> content of the objects under a URL, names relative to it."""
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        with self.lock:
            objects = {name: content for (b, name), content in self.objects.items() if b == bucket}
        return {n.removeprefix(f"{prefix}/"): c for n, c in objects.items() if n.startswith(f"{prefix}/")}

    def described(self, key: tuple[str, str]) -> dict:
        content = self.objects[key]
        return {
            "kind": "storage#object",
            "bucket": key[0],
            "name": key[1],
            "size": str(len(content)),
            "generation": "1",
            "updated": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.times[key])),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "crc32c": base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode(),
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handles one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: ObjectStore

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _respond(self) -> None:
        body = b"".join(self._body())
        if self.path.endswith("/token"):
            self._send(200, {"access_token": _TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        elif self.headers["Authorization"] != f"Bearer {_TOKEN}":
            self._send(*_error(401, "invalid token"))
        elif self.path.startswith("/batch"):
            self._send(200, self._batch(body), {"Content-Type": "multipart/mixed; boundary=one"})
        elif self.path.startswith("/upload"):
            self._send(*self._upload(body))
        else:
            self._send(*self._answer(self.command, self.path))

    do_GET = do_POST = do_PUT = do_DELETE = _respond

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, content: object = b"", headers: dict[str, str] | None = None) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, method: str, target: str) -> tuple:
        """Handles a request without a body. Returns status, content and headers."""
        with self.server.lock:
            return self._answer_locked(method, target)

    def _answer_locked(self, method: str, target: str) -> tuple:
        path, _, query = target.partition("?")
        query = dict(urllib.parse.parse_qsl(query))
        bucket = path.partition("/b/")[2].partition("/")[0]
        if refusal := self._refusal(bucket):
            return refusal
        if not (match := _OBJECT.fullmatch(path)):
            return self._list(bucket, query)
        names = tuple(urllib.parse.unquote(part) for part in match.groups() if part)
        key, objects = names[:2], self.server.objects
        if key not in objects:
            return _error(404, f"No such object: {'/'.join(key)}")
        if len(names) == 4:  # a copy
            self.server.put(names[2:], objects[key])
            return 200, self.server.described(names[2:]) | {"done": True}
        if method == "DELETE":
            del objects[key]
            return 204, b""
        return self._content(objects[key]) if query.get("alt") == "media" else (200, self.server.described(key))

    def _refusal(self, bucket: str) -> tuple | None:
        if bucket in self.server.denied:
            return _error(403, "the caller does not have storage.objects access")
        return None if bucket in self.server.buckets else _error(404, "The specified bucket does not exist.")

    def _content(self, content: bytes) -> tuple:
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not requested:
            return 200, content, {"Content-Type": "application/octet-stream"}
        first, last = int(requested[1]), min(int(requested[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return _error(416, "the range is not in the object")
        span = f"bytes {first}-{last}/{len(content)}"
        return 206, content[first : last + 1], {"Content-Type": "application/octet-stream", "Content-Range": span}

    def _list(self, bucket: str, query: dict[str, str]) -> tuple:
        keys = sorted(key for key in self.server.objects if key[0] == bucket and key[1] > query.get("pageToken", ""))
        keys = [key for key in keys if key[1].startswith(query.get("prefix", ""))]
        items, folders = [], set()
        for key in keys[:_PAGE]:
            start = len(query.get("prefix", ""))
            end = key[1].find(query["delimiter"], start) if "delimiter" in query else -1
            folders.update([key[1][: end + 1]] if end >= 0 else [])
            items += [self.server.described(key)] if end < 0 else []
        page = {"items": items, "prefixes": sorted(folders)}
        return 200, page | ({"nextPageToken": keys[_PAGE - 1][1]} if keys[_PAGE:] else {})

    def _upload(self, body: bytes) -> tuple:
        """Handles an upload: a simple one, the start of a resumable one, or a part of that."""
        path, _, query = self.path.partition("?")
        bucket, query = path.split("/")[5], dict(urllib.parse.parse_qsl(query))
        if refusal := self._refusal(bucket):
            return refusal
        if query["uploadType"] == "media":
            self.server.put((bucket, query["name"]), body)
            return 200, self.server.described((bucket, query["name"]))
        if "upload_id" not in query:
            number = f"{time.monotonic_ns()}-{threading.get_ident()}"
            name = query.get("name") or json.loads(body)["name"]
            self.server.uploads[number] = (bucket, name), bytearray()
            return 200, b"", {"Location": f"{self.server.url}{path}?uploadType=resumable&upload_id={number}"}
        key, received = self.server.uploads[query["upload_id"]]
        received += body
        if (self.headers["Content-Range"] or "").endswith("/*"):
            return 308, b"", {"Range": f"bytes=0-{len(received) - 1}"}
        self.server.put(key, bytes(received))
        return 200, self.server.described(key)

    def _batch(self, body: bytes) -> bytes:
        """Handles a batch of requests, each a part of a MIME message."""
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        answers = []
        for part in email.parser.BytesParser().parsebytes(kind + body).get_payload():
            method, target, _ = part.get_payload().split(maxsplit=2)
            status, content, *_ = self._answer(method, target.partition(self.server.url)[2] or target)
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            head = f"--one\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} X\r\n"
            head += "Content-Type: application/json\r\n"
            answers.append(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text + b"\r\n")
        return b"".join(answers) + b"--one--\r\n"


def _error(status: int, message: str) -> tuple:
    return status, {"error": {"code": status, "message": message}}
