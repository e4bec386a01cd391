"""The limit on a whole call: waits, gates, every attempt, backoff and the body."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aragora_transport import (
    DeadlineExceededError,
    Policy,
    RateLimitedError,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
)
from aragora_transport.layers import DeadlineTransport, LogTransport, RetryTransport, TracingTransport
from aragora_transport.sync import Driver
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio

DOWN = Reply(status=503, body=b"down")


def stack(world, network, total, **fields):
    fields.setdefault("breaker", None)
    fields.setdefault("retry", RetryPolicy(max_attempts=5))
    return world.stack(network, policy=Policy(timeout=TimeoutPolicy(total=total), **fields))


async def failure(world, transport, **keywords):
    with pytest.raises(world.httpx.TimeoutException) as caught:
        await world.get(transport, **keywords)
    assert isinstance(caught.value, DeadlineExceededError)
    return caught.value


async def test_a_call_without_an_answer_ends_at_its_limit(world):
    policy = TimeoutPolicy(total=12.0)
    error = await failure(world, world.layer(DeadlineTransport, world.scripted(Hang()), policy=policy))
    assert (error.limit, error.seconds, error.attempt, error.last) == ("total", 12.0, 1, None)
    assert error.elapsed == pytest.approx(12.0)
    assert error.request.url.host == "platform.test"
    assert "total limit of 12 s" in str(error)
    assert world.clock.monotonic() == pytest.approx(12.0)


def test_a_thread_s_request_that_came_without_timeouts_leaves_without(blocking_world):
    world = blocking_world
    network = world.scripted(200)
    layer = world.layer(DeadlineTransport, network, policy=TimeoutPolicy(total=12.0))
    request = world.httpx.Request("GET", "http://platform.test/")
    assert Driver(layer).handle_request(request).status_code == 200
    assert set(network.sent[0].extensions["timeout"].values()) == {12.0}
    assert request.extensions == {}


async def test_there_is_no_limit_unless_one_is_given(world):
    network = world.scripted(Reply(after=100_000.0))
    answer = await world.get(world.layer(DeadlineTransport, network))
    assert answer.status_code == 200


async def test_a_call_can_set_its_own_limit(world):
    layer = world.layer(DeadlineTransport, world.scripted(Hang()), policy=TimeoutPolicy(total=50.0))
    assert (await failure(world, layer, extensions=call_options(total_timeout=3.0))).seconds == 3.0
    assert world.clock.monotonic() == pytest.approx(3.0)


@pytest.mark.parametrize("outside", [None, LogTransport, TracingTransport])
async def test_a_call_can_set_a_limit_where_the_policy_has_none(world, outside):
    layer = world.layer(DeadlineTransport, world.scripted(Reply(after=100.0)))
    if outside is not None:
        layer = world.layer(outside, layer)
    await failure(world, layer, extensions=call_options(total_timeout=3.0))
    assert world.clock.monotonic() == pytest.approx(3.0)


async def test_attempts_and_waits_together_are_limited(world):
    network = world.scripted(Reply(status=503, after=2.0), Reply(status=502, after=2.0), Hang())
    error = await failure(world, stack(world, network, 12.0))
    assert (error.limit, error.attempt, error.last) == ("total", 3, "502")
    assert world.clock.monotonic() == pytest.approx(12.0)


async def test_the_limit_counts_from_the_call_and_ends_with_it(world):
    transport = stack(world, world.scripted(Reply(after=9.0)), 10.0)
    for _ in range(3):
        assert (await world.get(transport)).status_code == 200
    assert world.clock.monotonic() == pytest.approx(27.0)


# --- nothing begins that cannot end in time ---


async def test_a_wait_that_cannot_end_in_time_returns_the_answer_at_once(world):
    network = world.scripted(Reply(status=503, body=b"down"), 200)
    answer = await world.get(stack(world, network, 0.9))
    assert (answer.status_code, answer.content) == (503, b"down")
    assert world.clock.monotonic() == 0.0
    assert network.open_responses == 0


async def test_a_wait_that_cannot_end_in_time_raises_the_error_at_once(world):
    lost = world.httpx.ReadError("lost")
    with pytest.raises(world.httpx.ReadError) as caught:
        await world.get(stack(world, world.scripted(lost), 0.9))
    assert caught.value is lost
    assert world.clock.monotonic() == 0.0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_told_wait_past_the_limit_returns_the_answer_at_once_with_the_wait(world, status):
    network = world.scripted(Reply(status=status, headers={"retry-after": "20"}, body=b"later"), 200)
    answer = await world.get(stack(world, network, 15.0))
    assert (answer.status_code, answer.content) == (status, b"later")
    assert world.clock.monotonic() == 0.0
    assert answer.extensions["aragora_transport"].retry_after == 20.0


async def test_the_last_wait_that_fits_is_waited(world):
    network = world.scripted(503, 503, 503, 200)
    answer = await world.get(stack(world, network, 5.0))
    assert answer.status_code == 503
    assert len(network.sent) == 3  # 1 s and 2 s fit, 4 s more do not
    assert 3.0 <= world.clock.monotonic() <= 3.3


async def test_a_gate_that_opens_too_late_is_refused_at_once(world):
    network = world.scripted(Reply(status=429, headers={"retry-after": "20"}))
    transport = stack(world, network, 15.0)
    await world.get(transport)
    with pytest.raises(RateLimitedError) as caught:
        await world.get(transport)
    assert (caught.value.reason, caught.value.retry_after) == ("deadline", 20.0)
    assert world.clock.monotonic() == 0.0
    assert len(network.sent) == 1


async def test_a_stalled_answer_leaves_time_for_the_next_attempt_or_is_returned_in_time(world):
    stalled = Reply(status=503, body=b"down", stall=True)
    network = world.scripted(stalled, 200)
    assert (await world.get(stack(world, network, 1.5))).status_code == 200
    assert world.clock.monotonic() < 1.5
    began = world.clock.monotonic()
    network = world.scripted(stalled)
    retry = RetryPolicy(base_delay=0.0, max_attempts=8, budget=None)
    with pytest.raises(world.httpx.TransportError):  # what is missing of the body
        await world.get(stack(world, network, 1.5, retry=retry))
    assert world.clock.monotonic() - began <= 1.5 + 0.002  # httpx's timeouts are never cut below 1 ms
    assert len(network.sent) == 8
    assert network.open_responses == 0


async def test_no_attempt_begins_when_an_answer_could_not_be_drained_in_time(world):
    class Overruns(world.httpx.ByteStream):
        """It comes when it likes, whatever it was given."""

        def __iter__(self):
            world.clock.advance(50.0)
            yield b"down"

        async def __aiter__(self):
            for chunk in self:
                yield chunk

    class Network:
        flavor = world.scripted(200).flavor
        sends = 0

        async def handle_async_request(self, request):
            self.sends += 1
            return world.httpx.Response(503, stream=Overruns(b""))

    network = Network()
    policy = TimeoutPolicy(total=10.0)
    layer = world.layer(DeadlineTransport, world.layer(RetryTransport, network), policy=policy)
    request = world.httpx.Request("GET", "http://platform.test/")
    send = Driver(layer).handle_request if world.blocking else layer.handle_async_request
    try:
        answer = send(request) if world.blocking else await send(request)
        assert answer.status_code == 503
    except DeadlineExceededError:
        pass  # as good: where closing the answer took a turn of the event loop, the limit rang in it
    assert network.sends == 1


# --- the whole, at random, in virtual time ---


SECONDS = st.floats(0.0, 6.0)


@st.composite
def steps(draw):
    """An attempt: it fails, hangs, or answers slowly with a slow body."""
    kind = draw(st.sampled_from(["reply", "reply", "reply", "hang", "ReadError", "ConnectError"]))
    if kind == "hang":
        return Hang()
    if kind != "reply":
        return kind
    headers = {}
    if draw(st.booleans()):
        headers["retry-after"] = str(draw(st.integers(0, 12)))
    return Reply(
        status=draw(st.sampled_from([200, 429, 429, 503, 503, 500])),
        headers=headers,
        after=draw(SECONDS),
        body=tuple(b"x" for _ in range(draw(st.integers(0, 4)))),
        between=draw(SECONDS),
        stall=draw(st.integers(0, 5)) == 0,
    )


RANDOM = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@RANDOM
@given(
    script=st.lists(steps(), min_size=1, max_size=8),
    total=st.floats(0.05, 20.0),
    base=SECONDS,
    calls=st.integers(1, 4),
)
async def test_no_call_is_over_later_than_told(async_world, script, total, base, calls):
    world = async_world
    script = [getattr(world.httpx, step) if isinstance(step, str) else step for step in script]
    network = world.heedless(*script)
    retry = RetryPolicy(max_attempts=6, base_delay=base, budget=None)
    transport = stack(world, network, total, retry=retry)
    took = []

    async def call():
        began = world.clock.monotonic()
        try:
            await world.get(transport)
        except (world.httpx.TransportError, RateLimitedError):
            pass
        took.append(world.clock.monotonic() - began)

    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(call)
    assert len(took) == calls
    # Virtual time: what one step of the scheduler adds is nothing.
    assert max(took) <= total + 1e-6
    assert network.open_responses == 0


@RANDOM
@given(script=st.lists(steps(), min_size=1, max_size=6), total=st.floats(0.05, 20.0), base=SECONDS)
def test_a_thread_begins_nothing_after_its_time(blocking_world, script, total, base):
    world = blocking_world
    script = [getattr(world.httpx, step) if isinstance(step, str) else step for step in script]
    network = world.scripted(*script)
    retry = RetryPolicy(max_attempts=6, base_delay=base, budget=None)
    transport = stack(world, network, total, retry=retry)
    began = world.clock.monotonic()
    read_at = began
    client = world.client(transport)
    try:
        with client.stream("GET", "http://platform.test/") as answer:
            for _ in answer.iter_raw():
                read_at = world.clock.monotonic()
    except (world.httpx.TransportError, RateLimitedError):
        pass
    assert all(sent.at - began < total for sent in network.sent)
    # A phase of httpx is all that can be under way when time is over: it may last as long again.
    assert read_at - began <= 2 * total + 1e-6
    assert world.clock.monotonic() - began <= 2 * total + 1e-6
    assert network.open_responses == 0


async def test_a_record_tells_of_the_whole_call(world):
    network = world.scripted(Reply(status=503, after=1.0), Reply(after=1.0, body=(b"a", b"b"), between=0.5))
    answer = await world.get(world.layer(DeadlineTransport, world.layer(RetryTransport, network)))
    assert answer.extensions["aragora_transport"].total_seconds == pytest.approx(world.clock.monotonic())
    assert 4.0 <= world.clock.monotonic() <= 4.1
