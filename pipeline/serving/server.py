"""The server of `seq2serve serve`: REST, gRPC and a demo page, on TensorFlow's C++ runtime."""

import asyncio
import contextlib
import ctypes
import ipaddress
import os
import resource
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import grpc
import uvicorn

from seq2serve.components.base.errors import UserError
from seq2serve.pipeline.serving.connection import Connection
from seq2serve.pipeline.serving.grpc_api import make_server
from seq2serve.pipeline.serving.inference import Inference
from seq2serve.pipeline.serving.limits import GRACE_SECONDS, IDLE_SECONDS, MAX_CONNECTIONS
from seq2serve.pipeline.serving.local_only import is_loopback
from seq2serve.pipeline.serving.metrics import Metrics
from seq2serve.pipeline.serving.model import ServedModel, ServingError, VersionSpec
from seq2serve.pipeline.serving.rest import make_app
from seq2serve.pipeline.serving.workers import Workers

_M_ARENA_MAX = -8  # of glibc's malloc.h


def run_server(name: str, folder: str, host: str, port: int, grpc_port: int) -> None:
    """Serves a model until the process gets SIGINT or SIGTERM, and lets requests in progress finish.

    Args:
        name: name of the model in requests.
        folder: a serving folder, or a SavedModel.
        host: the address to listen on; 0.0.0.0 and :: mean all addresses, IPv4 and IPv6.
        port, grpc_port: ports of REST and gRPC; 0 for any free port.
    Raises:
        UserError: there is nothing to serve, or the server cannot listen on a port.
    """
    if not os.path.isdir(folder):
        raise UserError(f"cannot serve {folder}: the folder does not exist", code="folder-missing", path=folder)
    _limit_memory_pools()
    _raise_file_limit()
    metrics, workers = Metrics(), Workers()
    model = ServedModel(name, folder, metrics)
    try:
        model.start()
    except (ServingError, OSError) as error:
        raise UserError(f"cannot serve {folder}: {error}", code="model-unservable", path=folder) from error
    inference = Inference(model, workers, metrics)
    try:
        with _listen(host, port) as listener:
            asyncio.run(_serve(inference, listener, host, grpc_port))
    finally:
        is_idle = model.close(timeout=1) and not workers.busy
    if not is_idle:  # a graph still runs or loads; it cannot be interrupted, and Python would wait for it
        sys.stdout.flush()
        os._exit(0)


async def _serve(inference: Inference, listener: socket.socket, host: str, grpc_port: int) -> None:
    address = listener.getsockname()[0]  # gRPC gets the address, because a name may have several
    rpc = make_server(inference)
    try:
        grpc_port = rpc.add_insecure_port(_address(address, grpc_port))
    except RuntimeError as error:
        raise UserError(
            f"cannot listen on {_address(host, grpc_port)}; choose another port with --grpc-port",
            code="address-unavailable",
            host=host,
            port=grpc_port,
        ) from error
    await rpc.start()
    app = make_app(inference, local_only=is_loopback(address))
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="warning",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    rest_url = f"http://{_address(host, listener.getsockname()[1])}"

    def announce() -> None:
        _announce(inference.model, rest_url, _address(host, grpc_port))

    await _Server(config, rpc, inference.workers, announce).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn's server, which stops the gRPC server too."""

    def __init__(
        self, config: uvicorn.Config, rpc: grpc.aio.Server, workers: Workers, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._rpc, self._workers, self._announce = rpc, workers, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and announces the server: from now on, a signal stops it cleanly."""
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts to stop; uvicorn's own method would end the process by the same signal in the end."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses new requests at once, and waits for those in progress, at most GRACE_SECONDS."""
        if self._workers.requests:
            message = f"stopping: {self._workers.requests} requests in progress have {GRACE_SECONDS} seconds to finish"
            print(f"seq2serve: {message}", file=sys.stderr, flush=True)
        await asyncio.gather(super().shutdown(sockets), self._rpc.stop(GRACE_SECONDS))


def _limit_memory_pools() -> None:
    """Limits glibc to two memory pools. With one per thread, memory grows as versions are loaded and freed."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a libc other than glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _raise_file_limit() -> None:
    """Allows more open files, so that the limits on connections apply before the one on files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, 8 * MAX_CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
    """Listens on an address, or on all addresses, IPv4 and IPv6, for each of the two addresses that mean all."""
    is_any = host in ("0.0.0.0", "::")
    try:
        if is_any and socket.has_dualstack_ipv6():
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
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
