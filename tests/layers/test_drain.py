"""A failed answer is read, a little and briefly, and closed before the wait that follows it."""

from __future__ import annotations

import gzip

import pytest

from aragora_transport import Policy, RetryPolicy
from aragora_transport._flavor import flavor
from aragora_transport.layers import RetryTransport, TimeoutTransport
from aragora_transport.sync import Driver
from aragora_transport.testing import ManualClock, Reply

pytestmark = pytest.mark.anyio

KIB = 1024
PLENTY = (b"x" * 4 * KIB,) * 64  # 256 KiB


class Noting(ManualClock):
    """Notes how many answers are open whenever somebody begins to wait."""

    network = None
    noted = ()

    async def park(self, waiter, bell, until):
        self.noted = (*self.noted, self.network.open_responses)
        await super().park(waiter, bell, until)


def refused(world):
    """What a circuit that has opened meanwhile does to the next attempt: the call ends with what it had."""
    error = flavor(world.flavor_name).CircuitOpenError
    return error(platform="test", operation="GET", key="test", retry_after=9.0)


async def opened(world, transport):
    """An answer whose body nobody has read yet."""
    client = world.client(transport)
    request = client.build_request("GET", "http://platform.test/")
    return client.send(request, stream=True) if world.blocking else await client.send(request, stream=True)


async def chunks(world, answer):
    """The body of an answer as far as it comes, and the error that ends it."""
    read = bytearray()
    try:
        if world.blocking:
            for chunk in answer.iter_raw():
                read += chunk
        else:
            async for chunk in answer.aiter_raw():
                read += chunk
    except Exception as error:  # noqa: BLE001  # the test looks at it
        return bytes(read), error
    return bytes(read), None


async def sent_bare(world, layer, request):
    """Send it without a client, which would add timeouts."""
    return (
        Driver(layer).handle_request(request) if world.blocking else await layer.handle_async_request(request)
    )


FAILED = {
    "empty": Reply(status=503),
    "short": Reply(status=503, body=(b"not ", b"yet")),
    "plenty": Reply(status=503, body=PLENTY),
    "dying": Reply(status=503, body=b"not ", then=ConnectionError("died")),
}


@pytest.mark.parametrize("body", FAILED)
async def test_a_failed_answer_is_closed_before_the_wait(world, body):
    world.clock = Noting()
    network = world.clock.network = world.scripted(FAILED[body], FAILED[body], 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert world.clock.noted == (0, 0)


async def test_a_short_body_is_read_to_its_end_so_that_its_connection_can_be_used_again(world):
    network = world.scripted(FAILED["short"], 200)
    await world.get(world.layer(RetryTransport, network))
    assert network.sent[0].consumed


@pytest.mark.parametrize("reply", [Reply(status=503), Reply(status=429, headers={"retry-after": "1"})])
async def test_an_answer_that_is_final_is_not_touched(world, reply):
    network = world.scripted(reply)
    policy = Policy(retry=RetryPolicy(max_attempts=2))
    answer = await opened(world, world.stack(network, policy=policy))
    assert [sent.closed for sent in network.sent] == [True, False]
    assert not network.sent[1].consumed
    answer.close() if world.blocking else await answer.aclose()
    assert network.open_responses == 0


# --- bodies that would hold the retry up ---


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(status=503, body=b"not ", stall=True), id="stalls"),
        pytest.param(Reply(status=503, body=(b"x",) * 1000, between=0.4), id="drips"),
        pytest.param(Reply(status=503, body=b"late", between=0.9), id="late"),
    ],
)
@pytest.mark.parametrize("base_delay", [0.0, 1.0, 5.0])
async def test_a_slow_body_takes_nothing_of_the_wait_and_hardly_longer(world, reply, base_delay):
    network = world.scripted(reply, 200)
    retry = world.layer(RetryTransport, network, policy=RetryPolicy(base_delay=base_delay))
    answer = await world.get(retry)
    assert answer.status_code == 200
    assert network.open_responses == 0
    # A thread's last read may begin just before the second is over.
    assert network.sent[1].at <= max(base_delay * 1.1, 1.3)
    assert network.sent[1].at >= base_delay


@pytest.mark.parametrize("error", ["ReadError", "ReadTimeout", "RemoteProtocolError"])
async def test_a_dying_body_does_not_stop_the_retry(world, error):
    reply = Reply(status=503, body=b"not ", then=getattr(world.httpx, error))
    network = world.scripted(reply, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200


async def test_a_stream_that_raises_what_it_should_not_does_not_stop_the_retry(world):
    network = world.scripted(Reply(status=503, body=b"x", then=ValueError("from a stream")), 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200


class BadClose:
    """Answers whose closing fails."""

    def __init__(self, below):
        self.below = below
        self.flavor = below.flavor

    def spoil(self, answer):
        def close():
            raise self.flavor.module.CloseError("already gone")

        async def aclose():
            close()

        answer.stream.close, answer.stream.aclose = close, aclose
        return answer

    async def handle_async_request(self, request):
        answer = await self.below.handle_async_request(request)
        return self.spoil(answer) if answer.status_code == 503 else answer

    def handle_request(self, request):
        answer = self.below.handle_request(request)
        return self.spoil(answer) if answer.status_code == 503 else answer


async def test_a_connection_that_cannot_be_closed_in_order_does_not_stop_the_retry(world):
    network = world.scripted(FAILED["short"], 200)
    answer = await world.get(world.layer(RetryTransport, BadClose(network)))
    assert answer.status_code == 200


# --- the call ends during the wait: its answer is read as if nobody had ---


async def test_what_was_drained_is_handed_back(world):
    network = world.scripted(FAILED["short"], refused(world))
    answer = await world.get(world.layer(RetryTransport, network))
    assert (answer.status_code, answer.content) == (503, b"not yet")


async def test_what_was_drained_is_handed_back_through_the_whole_stack(world):
    network = world.scripted(FAILED["short"], refused(world))
    answer = await world.get(world.stack(network))
    assert (answer.status_code, answer.content) == (503, b"not yet")
    assert len(answer.extensions["aragora_transport"].attempts) == 1


async def test_what_was_drained_is_decoded_as_usual(world):
    packed = gzip.compress(b'{"error": "down"}')
    reply = Reply(status=503, headers={"content-encoding": "gzip"}, body=(packed[:9], packed[9:]))
    network = world.scripted(reply, refused(world))
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.json() == {"error": "down"}


async def test_64_kib_are_drained_and_the_rest_is_missed_by_an_error(world):
    network = world.scripted(FAILED["plenty"], refused(world))
    answer = await opened(world, world.layer(RetryTransport, network))
    assert network.open_responses == 0
    body, error = await chunks(world, answer)
    assert 64 * KIB <= len(body) <= 68 * KIB
    assert type(error) is world.httpx.ReadError
    assert error.request.url.host == "platform.test"
    assert "503" in str(error)


async def test_what_stalled_is_missed_by_an_error(world):
    network = world.scripted(Reply(status=503, body=b"not ", stall=True), refused(world))
    answer = await opened(world, world.layer(RetryTransport, network))
    body, error = await chunks(world, answer)
    assert body == b"not "
    assert isinstance(error, world.httpx.ReadError | world.httpx.ReadTimeout)


async def test_what_died_dies_again_as_it_did(world):
    died = world.httpx.RemoteProtocolError("died")
    network = world.scripted(Reply(status=503, body=b"not ", then=died), refused(world))
    answer = await opened(world, world.layer(RetryTransport, network))
    body, error = await chunks(world, answer)
    assert body == b"not "
    assert error is died


# --- httpx's timeouts ---


@pytest.mark.parametrize("theirs", [None, 0.5, 7.0])
async def test_draining_leaves_httpxs_timeouts_as_they_were(world, theirs):
    network = world.scripted(Reply(status=503, body=b"x", stall=True), 200)
    layer = world.layer(RetryTransport, world.layer(TimeoutTransport, network))
    client = world.client(layer, timeout=theirs)
    request = client.build_request("GET", "http://platform.test/")
    before = dict(request.extensions["timeout"])
    answer = client.send(request) if world.blocking else await client.send(request)
    assert answer.status_code == 200
    assert request.extensions["timeout"] == before


async def test_a_request_without_timeouts_has_none_afterwards(world):
    network = world.scripted(Reply(status=503, body=b"x", stall=True), 200)
    layer = world.layer(RetryTransport, world.layer(TimeoutTransport, network))
    request = world.httpx.Request("GET", "http://platform.test/")
    answer = await sent_bare(world, layer, request)
    assert answer.status_code == 200
    assert "timeout" not in request.extensions


async def test_a_read_timeout_of_the_callers_ends_draining_sooner(world):
    network = world.scripted(Reply(status=503, body=b"x", stall=True), 200)
    client = world.client(
        world.layer(RetryTransport, network, policy=RetryPolicy(base_delay=0.0)), timeout=0.25
    )
    answer = client.get("http://platform.test/")
    answer = answer if world.blocking else await answer
    assert answer.status_code == 200
    assert world.clock.monotonic() < 0.5
