"""Threads that do the work of requests, and the limits on all requests together.

The objects here belong to the event loop: only the work itself runs in other threads.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

import grpc

from seq2serve.pipeline.serving.limits import (
    MAX_REQUEST_BYTES,
    MAX_REQUESTS,
    MAX_TOTAL_BYTES,
    MIB,
    TEXT_WORKERS,
    TRIM_BYTES,
    WORKERS,
)
from seq2serve.pipeline.serving.model import ServingError, trim_heap

_T = TypeVar("_T")


class Workers:
    """Two pools of threads: one runs the graph, the other parses requests and writes responses.

    A request queues again for each of its batches, so a request of many batches takes turns with all others, and stops
    at the next batch if its client is gone. Responses are written by other threads, so that an answer that is ready
    does not wait for the batches of others.
    """

    def __init__(self) -> None:
        self._graph_pool = futures.ThreadPoolExecutor(WORKERS, "graph")
        self._text_pool = futures.ThreadPoolExecutor(TEXT_WORKERS, "text")
        self._pending: set[futures.Future] = set()
        self.requests = 0  # admitted and not finished
        self.reserved = 0  # bytes, estimated

    @property
    def busy(self) -> bool:
        """Returns whether a thread runs, or a piece of work waits for one."""
        return bool(self._pending)

    @contextlib.contextmanager
    def job(self) -> Iterator["Job"]:
        """Yields the job of a request; its memory is free again when the context ends."""
        job = Job(self)
        try:
            yield job
        finally:
            self.requests -= job.is_admitted
            self.reserved -= job.reserved
            if job.reserved >= TRIM_BYTES:
                self.submit(trim_heap)

    def submit(
        self, work: Callable[[], _T], is_graph: bool = False, on_end: Callable[[], None] = lambda: None
    ) -> "futures.Future[_T]":
        """Queues work. `on_end` is called once, when the work has ended or was cancelled before it started."""
        try:
            future = (self._graph_pool if is_graph else self._text_pool).submit(work)
        except BaseException:
            on_end()
            raise
        self._pending.add(future)

        def end(future: futures.Future) -> None:
            self._pending.discard(future)
            on_end()

        future.add_done_callback(end)
        return future


class Job:
    """One request: it runs work and reserves memory."""

    def __init__(self, workers: Workers):
        self._workers = workers
        self.deadline = math.inf  # when its client stops waiting, on the monotonic clock
        self.is_admitted = False
        self.reserved = 0

    def admit(self) -> None:
        """Counts the request as in progress; called when it has arrived, so that slow clients do not count.

        Raises:
            ServingError: too many requests are in progress.
        """
        if self._workers.requests >= MAX_REQUESTS:
            message = f"{MAX_REQUESTS} requests are in progress; try again"
            raise ServingError(grpc.StatusCode.UNAVAILABLE, message)
        self._workers.requests += 1
        self.is_admitted = True

    async def run(self, work: Callable[[], _T]) -> _T:
        """Runs work on text in a thread. If this coroutine is cancelled, work that still waits never starts."""
        return await asyncio.wrap_future(self._workers.submit(work))

    async def run_graph(self, work: Callable[[], _T], on_end: Callable[[], None]) -> _T:
        """Runs one batch, like `run`.

        Args:
            work: the function; it cannot be interrupted.
            on_end: see `Workers.submit`.
        """
        return await asyncio.wrap_future(self._workers.submit(work, is_graph=True, on_end=on_end))

    def reserve(self, size: int) -> None:
        """Reserves memory until the request ends.

        Args:
            size: estimated bytes.
        Raises:
            ServingError: the request, or all requests together, need more memory than they may take.
        """
        if self.reserved + size > MAX_REQUEST_BYTES:
            message = f"the request needs more than {MAX_REQUEST_BYTES // MIB} MiB of memory; send fewer rows or values"
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
        if self._workers.reserved + size > MAX_TOTAL_BYTES:
            message = f"all requests together need more than {MAX_TOTAL_BYTES // MIB} MiB of memory; try again"
            raise ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self.reserved += size
        self._workers.reserved += size
