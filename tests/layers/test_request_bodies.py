"""Request bodies: sent again byte for byte, or not at all; and never held in memory by us."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from aragora_transport import RetryPolicy
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

PIECES = (b"one ", b"two ", b"three")
MEGABYTE = 1_000_000


class Connecting:
    """A network that looks at no body of the first attempts: they fail before."""

    def __init__(self, below, *errors):
        self.below = below
        self.flavor = below.flavor
        self.errors = list(errors)

    def fail(self, request):
        if self.errors:
            raise self.errors.pop(0)("no connection", request=request)

    async def handle_async_request(self, request):
        self.fail(request)
        return await self.below.handle_async_request(request)

    def handle_request(self, request):
        self.fail(request)
        return self.below.handle_request(request)


class AsyncFile:
    """Something to read bytes from, as async file libraries have it."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    async def aread(self, size):
        return self.file.read(size)

    def __aiter__(self):
        raise AssertionError("httpx reads it by aread()")


class Unseekable(io.BytesIO):
    """A file that can be read once, such as a pipe."""

    def seekable(self):
        return False

    def seek(self, *args):
        raise io.UnsupportedOperation("seek")


def generator(world, pieces=PIECES, error=None):
    def chunks():
        yield from pieces
        if error is not None:
            raise error

    async def async_chunks():
        for chunk in chunks():
            yield chunk

    return chunks() if world.blocking else async_chunks()


def stream_of(world, pieces=PIECES):
    """A stream class of somebody else, as caching or signing libraries put around bodies."""
    body = generator(world, pieces)

    class Once(world.httpx.SyncByteStream):
        def __iter__(self):
            yield from body

    class AsyncOnce(world.httpx.AsyncByteStream):
        async def __aiter__(self):
            async for chunk in body:
                yield chunk

    return Once() if world.blocking else AsyncOnce()


def one_shot(world, kind):
    if kind == "generator":
        return generator(world)
    if kind == "file":
        return io.BytesIO(b"".join(PIECES)) if world.blocking else AsyncFile(b"".join(PIECES))
    return stream_of(world)


def layer(world, network):
    return world.layer(RetryTransport, network, policy=RetryPolicy(base_delay=0))


ONE_SHOTS = ["generator", "file", "stream"]
CHUNKED = {"transfer-encoding": "chunked"}


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("kind", ONE_SHOTS)
async def test_a_body_that_can_be_read_once_is_not_sent_again_and_the_answer_is_the_real_one(
    world, kind, method
):
    network = world.scripted(Reply(status=503, body=b"down"), 200)
    content = one_shot(world, kind)
    answer = await world.request(layer(world, network), method, content=content, headers=CHUNKED)
    assert (answer.status_code, answer.content) == (503, b"down")
    assert [sent.body for sent in network.sent] == [b"one two three"]


@pytest.mark.parametrize("kind", ONE_SHOTS)
async def test_a_body_that_can_be_read_once_is_not_sent_again_and_the_error_is_the_real_one(world, kind):
    error = world.httpx.ReadError("lost")
    network = world.scripted(error, 200)
    content = one_shot(world, kind)
    with pytest.raises(world.httpx.ReadError) as caught:
        await world.request(layer(world, network), "PUT", content=content, headers=CHUNKED)
    assert caught.value is error
    assert len(network.sent) == 1


@pytest.mark.parametrize("name", ["ConnectError", "ConnectTimeout", "PoolTimeout", "ReadTimeout"])
@pytest.mark.parametrize("kind", ONE_SHOTS)
async def test_a_body_that_nobody_has_pulled_yet_is_still_sent(world, kind, name):
    network = world.scripted(200)
    connecting = Connecting(network, *[getattr(world.httpx, name)] * 2)
    content = one_shot(world, kind)
    answer = await world.request(layer(world, connecting), "PUT", content=content, headers=CHUNKED)
    assert answer.status_code == 200
    assert [sent.body for sent in network.sent] == [b"one two three"]


async def test_a_body_that_was_pulled_by_an_attempt_in_the_middle_is_gone(world):
    network = world.scripted(503)
    connecting = Connecting(network, world.httpx.ConnectError)
    answer = await world.request(layer(world, connecting), "PUT", content=generator(world))
    assert answer.status_code == 503
    assert len(network.sent) == 1


async def test_a_body_that_was_pulled_in_part_is_gone(world):
    error = KeyError("the caller's own")
    network = world.scripted(200)
    with pytest.raises(KeyError) as caught:
        await world.request(layer(world, network), "PUT", content=generator(world, error=error))
    assert caught.value is error
    assert len(network.sent) == 1


async def test_the_request_has_its_own_body_again_after_the_call(world):
    client = world.client(layer(world, world.scripted(503)))
    request = client.build_request("PUT", "http://platform.test/", content=generator(world))
    stream = request.stream
    client.send(request) if world.blocking else await client.send(request)
    assert request.stream is stream


# --- multipart ---


def upload(file):
    return {"data": {"name": "value"}, "files": {"file": ("a.txt", file, "text/plain")}}


@pytest.mark.parametrize("make", [bytes, str, io.BytesIO])
async def test_a_multipart_body_is_sent_again_byte_for_byte(world, make):
    network = world.scripted(503, 503, 200)
    file = "content" if make is str else make(b"content")
    answer = await world.request(layer(world, network), "PUT", **upload(file))
    assert answer.status_code == 200
    first, *others = [sent.body for sent in network.sent]
    assert b"content" in first
    assert b"value" in first
    assert others == [first, first]


async def test_a_multipart_body_with_a_file_that_cannot_seek_is_not_sent_again(world):
    network = world.scripted(503, 200)
    answer = await world.request(layer(world, network), "PUT", **upload(Unseekable(b"content")))
    assert answer.status_code == 503
    assert [b"content" in sent.body for sent in network.sent] == [True]


async def test_one_file_of_several_that_cannot_seek_is_enough(world):
    network = world.scripted(503, 200)
    files = {"a": io.BytesIO(b"first"), "b": Unseekable(b"second")}
    answer = await world.request(layer(world, network), "PUT", files=files)
    assert answer.status_code == 503
    assert len(network.sent) == 1


async def test_a_file_that_cannot_seek_is_still_sent_if_nobody_has_pulled_it(world):
    network = world.scripted(200)
    connecting = Connecting(network, world.httpx.ConnectError)
    answer = await world.request(layer(world, connecting), "PUT", **upload(Unseekable(b"content")))
    assert answer.status_code == 200
    assert [b"content" in sent.body for sent in network.sent] == [True]


# --- no body at all ---


@pytest.mark.parametrize("headers", [{}, {"content-length": "0"}])
async def test_no_body_is_what_the_headers_say_whatever_stream_somebody_put_there(world, headers):
    network = world.scripted(503, 503, 200)
    client = world.client(layer(world, network))
    request = world.httpx.Request(
        "GET", "http://platform.test/", headers=headers, stream=stream_of(world, ())
    )
    answer = client.send(request) if world.blocking else await client.send(request)
    assert answer.status_code == 200
    assert [sent.body for sent in network.sent] == [b"", b"", b""]


@pytest.mark.parametrize("headers", [{"content-length": "13"}, {"transfer-encoding": "chunked"}])
async def test_a_body_is_what_the_headers_announce(world, headers):
    network = world.scripted(503, 200)
    client = world.client(layer(world, network))
    request = world.httpx.Request("PUT", "http://platform.test/", headers=headers, stream=stream_of(world))
    answer = client.send(request) if world.blocking else await client.send(request)
    assert answer.status_code == 503
    assert len(network.sent) == 1


# --- the first send ---


class Swallow:
    """A network that takes a body chunk by chunk and keeps nothing of it but its size."""

    def __init__(self, world, status):
        self.flavor = world.scripted(200).flavor
        self.answer = world.httpx.Response
        self.status = status
        self.size = 0

    async def handle_async_request(self, request):
        async for chunk in request.stream:
            self.size += len(chunk)
        return self.answer(self.status, content=b"")

    def handle_request(self, request):
        for chunk in request.stream:
            self.size += len(chunk)
        return self.answer(self.status, content=b"")


@pytest.mark.parametrize("status", [200, 503])
async def test_an_upload_of_100_mb_is_never_held_in_memory(world, status):
    def pieces():
        for number in range(100):
            yield bytes([number]) * MEGABYTE

    network = Swallow(world, status)
    transport = world.stack(network)
    await world.request(transport, "PUT", content=generator(world, (b"",)))  # whatever loads, loads now
    tracemalloc.start()
    try:
        answer = await world.request(transport, "PUT", content=generator(world, pieces()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == status
    assert network.size == 100 * MEGABYTE
    assert peak < 10 * MEGABYTE


async def test_the_body_is_not_pulled_before_the_network_asks_for_it(world):
    pulled = []

    def pieces():
        pulled.append("body")
        yield b"x"

    class Watch(Connecting):
        def fail(self, request):
            pulled.append("network")

    network = Watch(world.scripted(200))
    await world.request(world.stack(network), "PUT", content=generator(world, pieces()))
    assert pulled == ["network", "body"]
