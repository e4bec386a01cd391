"""Uploads: streamed without being held, sent again byte for byte, or not at all once they were pulled."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import socket
import tracemalloc

import pytest

from aragora_transport.events import RetryRefused, RetryScheduled
from aragora_transport.testing import (
    Answer,
    FaultServer,
    Wire,
    close_before_headers,
    echo,
    reset_while_reading_request,
)

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

MB = 1_000_000
FINE = Answer(body=b"fine")
BUSY = Answer(status=503, body=b"busy")


async def test_a_streamed_upload_of_100_mb_is_never_held_in_memory(sockets):
    piece = bytes(MB)
    with FaultServer(FINE) as server:
        async with sockets.caller() as caller:
            gc.collect()
            tracemalloc.start()
            try:
                answer = await caller.request("POST", server.url, content=sockets.body(*[piece] * 100))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert answer.content == b"fine"
        assert server.requests[0].body_size == 100 * MB
        assert peak < 10 * MB


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_streamed_upload_arrives_while_it_is_still_being_made(sockets, tools, method):
    def in_step():
        """Yields the second piece only when the server has the first one."""
        yield b"first"
        server.wait_until(lambda: [request.body_size for request in server.requests] == [5])
        yield b"second"

    async def in_step_async():
        for piece in in_step():
            yield piece

    with FaultServer(echo) as server:
        async with sockets.caller() as caller:
            content = in_step() if sockets.blocking else in_step_async()
            assert (await caller.request(method, server.url, content=content)).content == b"firstsecond"


BROKEN = {"ReadError", "RemoteProtocolError"}  # which of them depends on how far the client had come
ONE_SHOT_FAULTS = {
    "refused": (BUSY, {503}),
    "refused_before_it_was_read": (Wire(reads=0, pieces=BUSY.wire("PUT").pieces), {503, *BROKEN}),
    "closed": (close_before_headers(), {"RemoteProtocolError"}),
    "reset": (reset_while_reading_request(), BROKEN),
}


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize(("fault", "outcomes"), ONE_SHOT_FAULTS.values(), ids=ONE_SHOT_FAULTS.keys())
async def test_a_body_that_was_pulled_is_never_sent_again(sockets, method, fault, outcomes):
    content = sockets.body(b"one", b"two")
    with FaultServer(fault, FINE) as server:
        async with sockets.caller() as caller:
            request = caller.client.build_request(method, server.url, content=content)
            stream = request.stream
            try:
                outcome = (await caller.send(request)).status_code
            except sockets.httpx.TransportError as raised:
                assert raised.request is request  # noqa: PT017  # an answer would do as well
                outcome = type(raised).__name__
            assert request.stream is stream
        assert outcome in outcomes
        assert len(server.requests) == 1
    assert [event.reason for event in sockets.events if isinstance(event, RetryRefused)] == [
        "body_not_replayable"
    ]


async def test_the_failed_answer_to_a_pulled_body_can_be_read(sockets):
    with FaultServer(BUSY, FINE) as server:
        async with sockets.caller() as caller:
            answer = await caller.request("PUT", server.url, content=sockets.body(b"one"))
            assert (answer.status_code, answer.content) == (503, b"busy")
            assert caller.taken == []


async def test_a_body_that_nobody_pulled_is_sent_when_the_connection_succeeds(sockets):
    """The port refuses the first attempt; the second one finds a server there."""
    with contextlib.ExitStack() as later:
        refusing = later.enter_context(socket.socket())
        refusing.bind(("127.0.0.1", 0))  # taken, but nobody listens
        port = refusing.getsockname()[1]
        servers = []

        def observe(event):
            if isinstance(event, RetryScheduled):
                refusing.close()
                servers.append(later.enter_context(FaultServer(echo, port=port)))

        async with sockets.caller(on_event=observe) as caller:
            content = sockets.body(b"one", b"two")
            answer = await caller.request("POST", f"http://127.0.0.1:{port}/", content=content)
            assert answer.content == b"onetwo"
        assert [len(server.requests) for server in servers] == [1]


REPLAYABLE = {
    "bytes": {"content": b"all of it"},
    "json": {"json": {"all": "of it"}},
    "form": {"data": {"all": "of it"}},
    "fields": {"data": {"all": "of it"}, "files": {"file": b"in memory"}},
}


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("body", REPLAYABLE.values(), ids=REPLAYABLE.keys())
async def test_a_body_in_memory_is_sent_again_byte_for_byte(sockets, method, body):
    with FaultServer(BUSY, BUSY, FINE) as server:
        async with sockets.caller() as caller:
            assert (await caller.request(method, server.url, **body)).content == b"fine"
        first, *others = server.requests
        assert first.body
        assert [again.body for again in others] == [first.body] * 2


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_multipart_upload_of_files_is_sent_again_byte_for_byte(sockets, method, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    with FaultServer(BUSY, BUSY, FINE) as server, path.open("rb") as file:
        async with sockets.caller() as caller:
            files = {"file": file, "other": io.BytesIO(b"y" * 1000)}
            answer = await caller.request(method, server.url, data={"a": "field"}, files=files)
            assert answer.content == b"fine"
        assert len(server.requests) == 3
        assert len({request.body_sha256 for request in server.requests}) == 1
        assert b"x" * 100_000 in server.requests[-1].body
        assert b"y" * 1000 in server.requests[-1].body


class Pipe(io.RawIOBase):
    """A file that can be read once: what a process or a socket gives."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self.data.read(size)

    def seekable(self):
        return False


async def test_a_multipart_upload_from_a_pipe_is_not_sent_again_empty(sockets):
    """httpx itself would send an empty file the second time, and the caller would see a success."""
    with FaultServer(BUSY, FINE) as server:
        async with sockets.caller() as caller:
            answer = await caller.request("PUT", server.url, files={"file": Pipe(b"only once")})
            assert answer.status_code == 503
        assert len(server.requests) == 1
        assert b"only once" in server.requests[0].body


async def test_an_error_of_the_bodys_own_reaches_the_caller_as_it_is(sockets, tools):
    error = KeyError("the caller's own")

    def failing():
        yield b"one"
        raise error

    async def failing_async():
        yield b"one"
        raise error

    with FaultServer(FINE) as server:
        async with sockets.caller() as caller:
            content = failing() if sockets.blocking else failing_async()
            with pytest.raises(KeyError) as caught:
                await caller.request("PUT", server.url, content=content)
            assert caught.value is error
            assert caller.taken == []
            assert (await caller.get(server.url)).content == b"fine"
            assert caller.stack.circuits()["test"]["failures"] == 0


async def test_a_large_answer_to_a_large_upload_is_streamed_too(sockets):
    """Both ways: neither side is held as a whole."""
    piece = bytes(MB)
    whole = hashlib.sha256(piece * 5).hexdigest()
    with FaultServer(Answer(body=(piece,) * 5)) as server:
        async with sockets.caller() as caller:
            response = await caller.open("PUT", server.url, content=sockets.body(*[piece] * 5))
            digest = hashlib.sha256()
            async for chunk in caller.chunks(response):
                assert len(chunk) <= MB
                digest.update(chunk)
            await caller.close(response)
        assert digest.hexdigest() == whole
        assert server.requests[0].body_sha256 == whole
