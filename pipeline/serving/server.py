"""The server of `seq2serve serve`: REST, gRPC and a demo page, on TensorFlow's C++ runtime."""

import contextlib
import ctypes
import ipaddress
import os
import shlex
import socket
import sys

import uvicorn

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.serving.grpc_api import make_server
from seq2serve.pipeline.serving.model import ServedModel, ServingError, VersionSpec
from seq2serve.pipeline.serving.rest import make_app

_GRACE_SECONDS = 5  # for requests in progress when the server stops
_M_ARENA_MAX = -8  # of glibc's malloc.h


def run_server(name: str, folder: str, host: str, port: int, grpc_port: int) -> None:
    """Serves a model until the process is interrupted.

    Args:
        name: name of the model in requests.
        folder: a serving folder, or a SavedModel.
        host: the address to listen on.
        port, grpc_port: ports of REST and gRPC; 0 for any free port.
    Raises:
        UserError: there is nothing to serve, or the server cannot listen on a port.
    """
    if not os.path.isdir(folder):
        raise UserError(f"cannot serve {folder}: the folder does not exist", code="folder-missing", path=folder)
    _limit_memory_pools()
    model = ServedModel(name, folder)
    try:
        model.start()
    except (ServingError, OSError) as error:
        raise UserError(f"cannot serve {folder}: {error}", code="model-unservable", path=folder) from error
    with contextlib.closing(model), _listen(host, port) as listener:
        rpc = make_server(model)
        try:
            grpc_port = rpc.add_insecure_port(_address(host, grpc_port))
        except RuntimeError as error:
            raise UserError(
                f"cannot listen on {_address(host, grpc_port)}; choose another port with --grpc-port",
                code="address-unavailable",
                host=host,
                port=grpc_port,
            ) from error
        rpc.start()
        config = uvicorn.Config(
            make_app(model), http="h11", ws="none", log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS
        )
        _announce(model, f"http://{_address(host, listener.getsockname()[1])}", _address(host, grpc_port))
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        rpc.stop(_GRACE_SECONDS).wait()


def _limit_memory_pools() -> None:
    """Limits glibc to two memory pools. With one per thread, memory grows as versions are loaded and freed."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a libc other than glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _announce(model: ServedModel, rest: str, rpc: str) -> None:
    with model.use(VersionSpec()) as newest:
        print(f"Serving {model.name}, version {newest.number}. Press Ctrl-C to stop.")
    print(f"  Page:  {rest}/")
    print(f'  REST:  curl -d \'{{"instances": ["a text"]}}\' {rest}/v1/models/{model.name}:predict')
    print(f"  gRPC:  {rpc}")
    if os.path.isfile(os.path.join(model.folder, "compose.yaml")):
        print(f"In production: docker compose -f {shlex.quote(f'{model.folder}/compose.yaml')} up", flush=True)
    else:
        print("In production, use TensorFlow Serving.", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python appends the address again
        raise UserError(
            f"cannot listen on {_address(host, port)}: {reason}; choose another --host or --port",
            code="address-unavailable",
            host=host,
            port=port,
        ) from error


def _is_ipv6(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).version == 6
    return False


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if _is_ipv6(host) else f"{host}:{port}"
