"""TensorFlow Serving's REST API and a demo page, as an ASGI application.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import asyncio
import pathlib
from collections.abc import Callable

import grpc
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from seq2serve.pipeline.serving.model import ServedModel, ServingError, VersionSpec
from seq2serve.pipeline.serving.rest_json import (
    dump,
    parse_classify,
    parse_predict,
    write_classifications,
    write_predictions,
)

MAX_BODY_BYTES = 32 * 2**20
BODY_SECONDS = 30  # time limit for receiving a body

_HTTP_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_PAGE = pathlib.Path(__file__).with_name("page.html")


def make_app(model: ServedModel) -> Starlette:
    """Makes the application.

    Args:
        model: a started ServedModel.
    """
    page = _PAGE.read_text(encoding="utf-8").replace("{{model}}", dump(model.name).decode().replace("<", "\\u003c"))
    handlers = _Handlers(model)

    def show_page(_: Request) -> Response:
        return HTMLResponse(page)

    routes = [Route("/", show_page)]
    for version in ("", "/versions/{version:int}", "/labels/{label}"):
        base = f"/v1/models/{{name}}{version}"
        routes += [
            Route(f"{base}:predict", handlers.predict, methods=["POST"]),
            Route(f"{base}:classify", handlers.classify, methods=["POST"]),
            Route(f"{base}/metadata", handlers.metadata),
            Route(base, handlers.status),
        ]
    return Starlette(routes=routes, exception_handlers={ServingError: _serving_error, HTTPException: _http_error})


class _Handlers:
    """One method per kind of request."""

    def __init__(self, model: ServedModel):
        self._model = model

    async def predict(self, request: Request) -> Response:
        """Returns "predictions" or "outputs"."""
        return await self._respond(request, self._predict)

    async def classify(self, request: Request) -> Response:
        """Returns "results"."""
        return await self._respond(request, self._classify)

    def status(self, request: Request) -> Response:
        """Returns the versions and their states."""
        status = self._model.status(self._version_spec(request))
        fields = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return _json(dump(json_format.MessageToDict(status, **fields)))

    def metadata(self, request: Request) -> Response:
        """Returns the signatures."""
        fields = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        with self._model.use(self._version_spec(request)) as loaded:
            model_spec = {"name": self._model.name, "signature_name": "", "version": str(loaded.number)}
            signatures = json_format.MessageToDict(loaded.signatures, **fields)
        return _json(dump({"model_spec": model_spec, "metadata": {"signature_def": signatures}}))

    async def _respond(self, request: Request, handle: Callable[[VersionSpec, bytes], bytes]) -> Response:
        spec, body = self._version_spec(request), await _read_body(request)
        try:
            return _json(await run_in_threadpool(handle, spec, body))
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    def _predict(self, spec: VersionSpec, body: bytes) -> bytes:
        with self._model.use(spec) as loaded:
            request = parse_predict(body, loaded.runtime.signatures)
            outputs = loaded.run(request.signature, request.inputs)
        return write_predictions(outputs, request.by_row)

    def _classify(self, spec: VersionSpec, body: bytes) -> bytes:
        signature, examples = parse_classify(body)
        _, outputs = self._model.classify(spec, signature, examples)
        return write_classifications(outputs)

    def _version_spec(self, request: Request) -> VersionSpec:
        path = request.path_params
        if path["name"] != self._model.name:
            message = f"Servable not found for request: Latest({path['name']})"
            raise ServingError(grpc.StatusCode.NOT_FOUND, message)
        return VersionSpec(path.get("version"), path.get("label", ""))


async def _read_body(request: Request) -> bytes:
    """Reads a body, with limits on its size and on the time.

    Raises:
        HTTPException: the body exceeds a limit, or the client disconnects.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive in {BODY_SECONDS} seconds") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client disconnected") from error
    return bytes(body)


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
