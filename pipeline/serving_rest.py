"""TF Serving's REST interface and a page to try the model, as an ASGI application.

Comes in: HTTP requests. Goes out: JSON with TF Serving's names, error bodies and codes.
Read next: serving_json.py for the bodies, served_model.py for the answers, serving_page.html for the page.
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

from pipeline.served_model import Choice, ServedModel, ServingError
from pipeline.serving_json import (
    dump,
    parse_classify,
    parse_predict,
    write_classifications,
    write_predictions,
)

MAX_BODY_BYTES = 32 * 2**20
BODY_SECONDS = 30  # a client has to send a body in

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
_PAGE = pathlib.Path(__file__).with_name("serving_page.html")


def make_app(model: ServedModel) -> Starlette:
    """Makes the application.

    Args:
        model: started.
    """
    page = _PAGE.read_text(encoding="utf-8").replace("{{model}}", dump(model.name).decode().replace("<", "\\u003c"))
    handlers = _Handlers(model)

    def show_page(_: Request) -> Response:
        return HTMLResponse(page)

    routes = [Route("/", show_page)]
    for which in ("", "/versions/{version:int}", "/labels/{label}"):
        base = f"/v1/models/{{name}}{which}"
        routes += [
            Route(f"{base}:predict", handlers.predict, methods=["POST"]),
            Route(f"{base}:classify", handlers.classify, methods=["POST"]),
            Route(f"{base}/metadata", handlers.metadata),
            Route(base, handlers.status),
        ]
    return Starlette(routes=routes, exception_handlers={ServingError: _refuse, HTTPException: _refuse_http})


class _Handlers:
    """One method a kind of request."""

    def __init__(self, model: ServedModel):
        self._model = model

    async def predict(self, request: Request) -> Response:
        """Answers with "predictions" or "outputs"."""
        return await self._compute(request, self._predict)

    async def classify(self, request: Request) -> Response:
        """Answers with "results"."""
        return await self._compute(request, self._classify)

    def status(self, request: Request) -> Response:
        """Says which versions there are."""
        status = self._model.status(self._choice(request))
        fields = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return _json(dump(json_format.MessageToDict(status, **fields)))

    def metadata(self, request: Request) -> Response:
        """Describes the signatures."""
        fields = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        with self._model.use(self._choice(request)) as loaded:
            spec = {"name": self._model.name, "signature_name": "", "version": str(loaded.number)}
            signatures = json_format.MessageToDict(loaded.signatures, **fields)
        return _json(dump({"model_spec": spec, "metadata": {"signature_def": signatures}}))

    async def _compute(self, request: Request, answer: Callable[[Choice, bytes], bytes]) -> Response:
        choice, body = self._choice(request), await _read_body(request)
        try:
            return _json(await run_in_threadpool(answer, choice, body))
        except ValueError as error:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    def _predict(self, choice: Choice, body: bytes) -> bytes:
        with self._model.use(choice) as loaded:
            request = parse_predict(body, loaded.runtime.signatures)
            outputs = loaded.run(request.signature, request.inputs)
        return write_predictions(outputs, request.by_row)

    def _classify(self, choice: Choice, body: bytes) -> bytes:
        signature, examples = parse_classify(body)
        _, outputs = self._model.classify(choice, signature, examples)
        return write_classifications(outputs)

    def _choice(self, request: Request) -> Choice:
        path = request.path_params
        if path["name"] != self._model.name:
            message = f"Servable not found for request: Latest({path['name']})"
            raise ServingError(grpc.StatusCode.NOT_FOUND, message)
        return Choice(path.get("version"), path.get("label", ""))


async def _read_body(request: Request) -> bytes:
    """Reads a body of bounded size in bounded time."""
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
        raise HTTPException(400, "the client went away") from error
    return bytes(body)


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _error(message: str, status: int) -> Response:
    response = _json(dump({"error": message}), status)
    if status in (408, 413):  # what is still to come of the body is not read
        response.headers["connection"] = "close"
    return response


async def _refuse(_: Request, error: ServingError) -> Response:
    return _error(str(error), _HTTP_CODES.get(error.code, 500))


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    """Says what the model server says of paths below /v1 that it does not know."""
    if error.status_code in (404, 405) and request.url.path.startswith("/v1/"):
        return _error(f"Malformed request: {request.method} {request.url.path}", 400)
    return _error(error.detail, error.status_code)
