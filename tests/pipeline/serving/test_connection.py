"""Connection: slow, silent and too many clients lose their connection, and others are answered."""

import asyncio
import contextlib

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from seq2serve.pipeline.serving import connection
from seq2serve.pipeline.serving.connection import Connection

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def limits(monkeypatch):
    """Sets short limits."""
    for name, value in {"HEADER_SECONDS": 0.3, "WRITE_SECONDS": 0.3, "MAX_CONNECTIONS": 4}.items():
        monkeypatch.setattr(connection, name, value)


@contextlib.asynccontextmanager
async def serving(body=b"ok"):
    """Runs a server; yields its port."""

    async def show(_):
        return Response(body)

    app = Starlette(routes=[Route("/", show)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Connection, log_level="critical", timeout_keep_alive=60))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


async def is_closed(reader):
    """Returns whether the server closes a connection within two seconds; ends without reading what it sends."""
    try:
        async with asyncio.timeout(2):
            while await reader.read(4096):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc", GET + b"GET / HT"])
def test_a_connection_is_closed_if_the_headers_of_a_request_do_not_arrive(limits, sent):
    async def check():
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            closing = asyncio.create_task(is_closed(reader))
            for _ in range(20):  # one more byte now and then does not extend the limit
                await asyncio.sleep(0.05)
                if sent and not closing.done():
                    writer.write(b"x")
            assert await closing

    asyncio.run(check())


def test_a_connection_stays_open_between_two_requests(limits):
    async def check():
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):
                writer.write(GET)
                assert await reader.readuntil(b"ok")
                await asyncio.sleep(0.5)

    asyncio.run(check())


def test_a_connection_is_closed_if_the_response_is_not_read(limits):
    async def check():
        async with serving(b"x" * 2**25) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(GET)
            await asyncio.sleep(1)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(2**25)

    asyncio.run(check())


def test_beyond_the_limit_the_connection_that_waits_longest_is_closed(limits, monkeypatch):
    monkeypatch.setattr(connection, "HEADER_SECONDS", 60)

    async def check():
        async with serving() as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            assert await reader.readuntil(b"ok")
            assert await is_closed(silent[0][0])
            assert not any(reader.at_eof() for reader, _ in silent[1:])

    asyncio.run(check())
