"""Workers and Job: limits on requests and memory, and work that is cancelled before it starts."""

import asyncio
import threading

import grpc
import pytest

from seq2serve.pipeline.serving import workers as module
from seq2serve.pipeline.serving.model import ServingError
from seq2serve.pipeline.serving.workers import Workers


def code_of(call, *arguments):
    """Returns the status of a call that raises a ServingError."""
    with pytest.raises(ServingError) as error:
        call(*arguments)
    return error.value.code


def test_a_request_beyond_the_limit_is_refused_until_another_one_ends(monkeypatch):
    monkeypatch.setattr(module, "MAX_REQUESTS", 2)
    workers = Workers()
    with workers.job() as first, workers.job() as third:
        first.admit()
        with workers.job() as second:
            second.admit()
            assert code_of(third.admit) == grpc.StatusCode.UNAVAILABLE
        third.admit()
    assert workers.requests == 0


def test_memory_is_limited_for_one_request_and_for_all_and_is_free_again_afterwards(monkeypatch):
    monkeypatch.setattr(module, "MAX_REQUEST_BYTES", 100)
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 150)
    workers = Workers()
    with workers.job() as first, workers.job() as second:
        first.reserve(60)
        assert code_of(first.reserve, 41) == grpc.StatusCode.INVALID_ARGUMENT
        second.reserve(90)
        assert code_of(first.reserve, 1) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert workers.reserved == 0


def test_work_whose_request_is_cancelled_never_starts_and_ends_once(monkeypatch):
    monkeypatch.setattr(module, "WORKERS", 1)
    workers, started, release, ended = Workers(), threading.Event(), threading.Event(), []

    def block():
        started.set()
        release.wait(10)

    async def check():
        with workers.job() as job:
            running = asyncio.create_task(job.run_graph(block, lambda: ended.append("running")))
            await asyncio.to_thread(started.wait, 10)
            waiting = asyncio.create_task(job.run_graph(lambda: ended.append("work"), lambda: ended.append("waiting")))
            await asyncio.sleep(0)
            assert await job.run(lambda: "text") == "text"  # a response does not wait for batches
            running.cancel()
            waiting.cancel()
            await asyncio.wait([running, waiting])
            assert (ended, workers.busy) == (["waiting"], True)  # a running batch holds its version until it ends
            release.set()
        while workers.busy:
            await asyncio.sleep(0.01)
        assert ended == ["waiting", "running"]

    asyncio.run(check())
