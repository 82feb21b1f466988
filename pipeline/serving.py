"""The server behind `seq2serve serve`: REST, gRPC and a page, on the C++ runtime.

Comes in: a serving folder. Goes out: answers, until Ctrl-C.
Read next: served_model.py for versions, serving_rest.py and serving_grpc.py for the two interfaces.
"""

import contextlib
import ctypes
import ipaddress
import os
import shlex
import socket
import sys

import uvicorn

from components.errors import UserError
from pipeline.served_model import Choice, ServedModel, ServingError
from pipeline.serving_grpc import make_server
from pipeline.serving_rest import make_app

_GRACE_SECONDS = 5  # for requests under way when the server is stopped
_M_ARENA_MAX = -8  # of glibc's malloc.h


def run_server(name: str, folder: str, host: str, port: int, grpc_port: int) -> None:
    """Serves until it is interrupted.

    Args:
        name: the model's, in requests.
        folder: a serving folder, or a SavedModel.
        host: the address to listen at.
        port, grpc_port: of REST and gRPC; 0 for any.
    Raises:
        UserError: there is nothing to serve, or a port is taken.
    """
    if not os.path.isdir(folder):
        raise UserError(f"cannot serve {folder}: there is no such folder")
    _share_memory_pools()
    model = ServedModel(name, folder)
    try:
        model.start()
    except (ServingError, OSError) as error:
        raise UserError(f"cannot serve {folder}: {error}") from error
    with contextlib.closing(model), _listen(host, port) as listener:
        rpc = make_server(model)
        try:
            grpc_port = rpc.add_insecure_port(_address(host, grpc_port))
        except RuntimeError as error:
            raise UserError(f"cannot listen at {_address(host, grpc_port)}; choose a port with --grpc-port") from error
        rpc.start()
        config = uvicorn.Config(
            make_app(model), http="h11", ws="none", log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS
        )
        _announce(model, f"http://{_address(host, listener.getsockname()[1])}", _address(host, grpc_port))
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        rpc.stop(_GRACE_SECONDS).wait()


def _share_memory_pools() -> None:
    """Keeps memory flat while versions come and go: else each thread has a pool, with holes, of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a libc other than glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _announce(model: ServedModel, rest: str, rpc: str) -> None:
    with model.use(Choice()) as newest:
        print(f"Serving {model.name}, version {newest.number}, until Ctrl-C.")
    print(f"  Try it:  {rest}/")
    print(f'  REST:    curl -d \'{{"instances": ["a text"]}}\' {rest}/v1/models/{model.name}:predict')
    print(f"  gRPC:    {rpc}")
    if os.path.isfile(os.path.join(model.folder, "compose.yaml")):
        print(f"In production: docker compose -f {shlex.quote(f'{model.folder}/compose.yaml')} up", flush=True)
    else:
        print("In production: TensorFlow Serving.", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(f"cannot listen at {_address(host, port)}: {error.strerror}; choose --host, --port") from error


def _is_ipv6(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).version == 6
    return False


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if _is_ipv6(host) else f"{host}:{port}"
