"""TensorFlow Serving's REST API and a demo page, as an ASGI application.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import asyncio
import functools
import pathlib
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from seq2serve.pipeline.serving import metrics
from seq2serve.pipeline.serving.inference import Inference
from seq2serve.pipeline.serving.limits import BODY_SECONDS, MAX_BODY_BYTES, VALUE_BYTES
from seq2serve.pipeline.serving.local_only import LocalOnly
from seq2serve.pipeline.serving.model import ServingError, VersionSpec
from seq2serve.pipeline.serving.rest_json import (
    dump,
    parse_examples,
    parse_predict,
    write_classifications,
    write_predictions,
)
from seq2serve.pipeline.serving.workers import Job

_HTTP_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_PAGE = pathlib.Path(__file__).with_name("page.html")
_GZIP = 31  # zlib's window bits for the gzip format
_PROTO_FIELDS = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}

_Handle = Callable[[Job, VersionSpec, bytes], Coroutine[Any, Any, bytes]]


def make_app(inference: Inference, local_only: bool) -> Starlette:
    """Makes the application.

    Args:
        inference: answers the requests.
        local_only: accept requests only from this machine and from the page itself.
    """
    name = inference.model.name
    page = _PAGE.read_text(encoding="utf-8").replace("{{model}}", dump(name).decode().replace("<", "\\u003c"))
    handlers = _Handlers(inference)

    async def show_page(_: Request) -> Response:
        return HTMLResponse(page)

    async def show_metrics(_: Request) -> Response:
        return PlainTextResponse(inference.metrics.render())

    routes = [Route("/", show_page), Route(metrics.PATH, show_metrics)]
    for version in ("", "/versions/{version:int}", "/labels/{label}"):
        base = f"/v1/models/{{name}}{version}"
        routes += [
            Route(f"{base}:predict", handlers.predict, methods=["POST"]),
            Route(f"{base}:classify", handlers.classify, methods=["POST"]),
            Route(f"{base}:regress", handlers.regress, methods=["POST"]),
            Route(f"{base}/metadata", handlers.metadata),
            Route(base, handlers.status),
        ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(LocalOnly)] if local_only else [],
        exception_handlers={ServingError: _serving_error, HTTPException: _http_error},
    )


class _Handlers:
    """One method per kind of request."""

    def __init__(self, inference: Inference):
        self._inference, self._model = inference, inference.model

    async def predict(self, request: Request) -> Response:
        """Returns "predictions" or "outputs"."""
        return await self._respond(request, "Predict", self._predict)

    async def classify(self, request: Request) -> Response:
        """Returns "results"."""
        return await self._respond(request, "Classify", self._classify)

    async def regress(self, request: Request) -> Response:
        """Refuses the request."""
        return await self._respond(request, "Regress", self._regress)

    async def status(self, request: Request) -> Response:
        """Returns the versions and their states, also while all workers are busy."""
        status = self._model.status(self._version_spec(request))
        return _json(dump(json_format.MessageToDict(status, **_PROTO_FIELDS)))

    async def metadata(self, request: Request) -> Response:
        """Returns the signatures."""
        with self._model.use(self._version_spec(request)) as loaded:
            model_spec = {"name": self._model.name, "signature_name": "", "version": str(loaded.number)}
            signatures = json_format.MessageToDict(loaded.signatures, **_PROTO_FIELDS)
        return _json(dump({"model_spec": model_spec, "metadata": {"signature_def": signatures}}))

    async def _respond(self, request: Request, api: str, handle: _Handle) -> Response:
        spec = self._version_spec(request)
        try:
            with self._inference.answer(api, "REST") as job:
                body = await _read_body(request, job)
                job.admit()
                job.reserve(VALUE_BYTES * sum(map(body.count, (b",", b"[", b"{"))))
                content = await _while_connected(request, handle(job, spec, body))
                job.reserve(len(content))
                return _json(content)
        except asyncio.CancelledError:  # the grace period of a stopping server has ended
            return _error("the server is stopping", 503)

    async def _predict(self, job: Job, spec: VersionSpec, body: bytes) -> bytes:
        with self._model.use(spec) as loaded:
            request = await job.run(functools.partial(parse_predict, body, loaded.runtime.signatures))
            outputs = await self._inference.run(job, loaded, request.signature, request.inputs)
        return await job.run(functools.partial(write_predictions, outputs, request.by_row))

    async def _classify(self, job: Job, spec: VersionSpec, body: bytes) -> bytes:
        signature, examples = await job.run(functools.partial(parse_examples, body, "classify"))
        with self._model.use(spec) as loaded:
            outputs = await self._inference.classify(job, loaded, signature, examples)
        return await job.run(functools.partial(write_classifications, outputs))

    async def _regress(self, job: Job, spec: VersionSpec, body: bytes) -> bytes:
        signature, _ = await job.run(functools.partial(parse_examples, body, "regress"))
        with self._model.use(spec) as loaded:
            self._inference.regress(loaded, signature)
        return b""

    def _version_spec(self, request: Request) -> VersionSpec:
        path = request.path_params
        if path["name"] != self._model.name:
            message = f"Servable not found for request: Latest({path['name']})"
            raise ServingError(grpc.StatusCode.NOT_FOUND, message)
        return VersionSpec(path.get("version"), path.get("label", ""))


async def _read_body(request: Request, job: Job) -> bytes:
    """Reads a body, with limits on its size and on the time.

    Raises:
        HTTPException: the body exceeds a limit, or the client disconnects.
        ValueError: the body is not in the gzip format, but the headers say that it is.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                job.reserve(len(chunk))
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive in {BODY_SECONDS} seconds") from error
    except ClientDisconnect as error:
        raise ServingError(grpc.StatusCode.CANCELLED, "the client disconnected") from error
    if "gzip" not in request.headers.get("content-encoding", ""):
        return bytes(body)
    unpacked = await job.run(functools.partial(_gunzip, body))
    job.reserve(len(unpacked))
    return unpacked


def _gunzip(body: bytes) -> bytes:
    stream = zlib.decompressobj(_GZIP)
    try:
        unpacked = stream.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"the body cannot be decompressed: {error}") from error
    if len(unpacked) > MAX_BODY_BYTES:
        raise _too_large()
    if not stream.eof:
        raise ValueError("the body cannot be decompressed: the gzip stream is incomplete")
    if stream.unused_data:  # the model server refuses it, too; otherwise a part of the request would be ignored
        raise ValueError("the body cannot be decompressed: data follows the gzip stream")
    return unpacked


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")


async def _while_connected(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
    """Returns the result of work, which is cancelled when the client disconnects.

    Raises:
        ServingError: the client disconnected.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ServingError(grpc.StatusCode.CANCELLED, "the client disconnected")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client of a request, whose body has been read, disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _error(message: str, status: int) -> Response:
    response = _json(dump({"error": message}), status)
    if status in (408, 413):  # the rest of the body is not read
        response.headers["connection"] = "close"
    return response


async def _serving_error(_: Request, error: ServingError) -> Response:
    return _error(str(error), _HTTP_CODES.get(error.code, 500))


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Returns the model server's error for unknown paths under /v1."""
    if error.status_code in (404, 405) and request.url.path.startswith("/v1/"):
        return _error(f"Malformed request: {request.method} {request.url.path}", 400)
    return _error(error.detail, error.status_code)
