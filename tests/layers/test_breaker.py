"""When a circuit opens, what counts for it as a failure, a success or neither, and what a refusal is."""

from __future__ import annotations

import pickle

import anyio
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError, DeadlineExceededError, TimeoutPolicy
from aragora_transport.layers import BreakerTransport, DeadlineTransport, TimeoutTransport
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio

FAILURES = (500, 502, 503, 504, 507, 520, 599)
SUCCESSES = (200, 201, 204, 304, 400, 401, 403, 404, 409, 418, 422, 501, 505)
FAILING_ERRORS = (
    "ConnectError",
    "ConnectTimeout",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "WriteError",
    "WriteTimeout",
)
NEUTRAL_ERRORS = ("LocalProtocolError", "PoolTimeout", "UnsupportedProtocol")


async def verdict(platform, answer):
    """What an answer is to the circuit, by what the circuit does after it came to a probe."""
    layer = platform.breaker(failure_threshold=2, cooldown=60.0)
    await platform.answers(layer, 503, 503)
    platform.world.clock.advance(60.0)
    await platform.answers(layer, answer)
    # After a failure it is open; after a success closed, where one failure is borne; else still half-open.
    if await refused(platform, layer, 503):
        return "failure"
    return "neither" if await platform.refuses(layer) else "success"


async def refused(platform, layer, answer):
    try:
        await platform.answers(layer, answer)
    except CircuitOpenError:
        return True
    return False


async def test_five_failures_in_a_row_open_a_quiet_circuit(world, platform):
    layer = platform.breaker()
    platform.answer = 503
    for _ in range(5):
        assert (await world.get(layer)).status_code == 503
    assert await platform.refuses(layer)


async def test_four_failures_do_not(platform, world):
    layer = platform.breaker()
    await platform.answers(layer, *[503] * 4)
    assert not await platform.refuses(layer)


async def test_it_stays_open_for_the_cooldown_and_not_longer(world, platform):
    layer = platform.breaker()
    await platform.answers(layer, *[503] * 5)
    world.clock.advance(59.9)
    assert await platform.refuses(layer)
    world.clock.advance(0.1)
    assert not await platform.refuses(layer)


async def test_the_call_that_opens_it_gets_its_own_outcome(world, platform):
    layer = platform.breaker(failure_threshold=1)
    platform.answer = Reply(status=503, body=b"mine")
    assert (await world.get(layer)).content == b"mine"
    layer = platform.breaker(failure_threshold=1)
    platform.answer = error = world.httpx.ConnectError("mine")
    with pytest.raises(world.httpx.ConnectError) as caught:
        await world.get(layer)
    assert caught.value.__cause__ is error or caught.value is error


@pytest.mark.parametrize("status", FAILURES)
async def test_a_server_error_is_a_failure(world, platform, status):
    assert await verdict(platform, status) == "failure"


@pytest.mark.parametrize("status", SUCCESSES)
async def test_any_other_answer_is_a_success(world, platform, status):
    assert await verdict(platform, status) == "success"


async def test_a_429_is_neither(world, platform):
    assert await verdict(platform, 429) == "neither"


@pytest.mark.parametrize("name", FAILING_ERRORS)
async def test_a_transport_error_is_a_failure(world, platform, name):
    assert await verdict(platform, getattr(world.httpx, name)) == "failure"


@pytest.mark.parametrize("name", NEUTRAL_ERRORS)
async def test_a_local_refusal_is_neither(world, platform, name):
    assert await verdict(platform, getattr(world.httpx, name)) == "neither"


@pytest.mark.parametrize("name", ["CircuitOpenError", "RateLimitedError"])
async def test_a_refusal_by_something_of_ours_below_is_neither(world, platform, name):
    """Nothing was sent, so nothing is known."""
    layer = platform.breaker(failure_threshold=1)
    kind = getattr(platform.network.flavor, name)
    told = {"platform": "other", "operation": "GET", "key": "other", "retry_after": 1.0}
    platform.answer = kind(**told, **({"reason": "queue_full"} if name == "RateLimitedError" else {}))
    with pytest.raises(kind):
        await world.get(layer)
    assert not await platform.refuses(layer)


async def test_an_error_of_the_callers_own_is_neither(world, platform):
    """An upload whose generator fails says nothing about the platform, however often."""
    layer = platform.breaker(failure_threshold=1)

    def blocking_upload():
        yield b"some"
        raise KeyError("mine")

    async def upload():
        yield b"some"
        raise KeyError("mine")

    for _ in range(3):
        with pytest.raises(KeyError, match="mine"):
            await world.post(layer, content=blocking_upload() if world.blocking else upload())
    assert not await platform.refuses(layer)


async def test_an_upload_that_fails_as_the_probe_gives_its_permit_back(world, platform):
    assert await verdict(platform, KeyError) == "neither"


async def test_an_attempt_timeout_is_a_failure(world, platform):
    timeout = world.layer(TimeoutTransport, platform.network, policy=TimeoutPolicy(attempt=2.0))
    layer = platform.breaker(timeout, failure_threshold=1)
    await platform.answers(layer, Hang())
    assert await platform.refuses(layer)
    assert world.clock.monotonic() == 2.0


@pytest.mark.parametrize("limited", [True, False], ids=["with an attempt limit", "without"])
async def test_a_platform_that_is_silent_until_the_callers_deadline_is_a_failure(
    async_world, platform, limited
):
    """Whoever it is that ends the attempt then: a layer below, or a cancellation from above."""
    below = async_world.layer(TimeoutTransport, platform.network) if limited else None
    layer = platform.breaker(below, failure_threshold=1)
    layer = async_world.layer(DeadlineTransport, layer, policy=TimeoutPolicy(total=2.0))
    platform.answer = Hang()
    with pytest.raises(DeadlineExceededError):
        await async_world.get(layer)
    assert async_world.clock.monotonic() == 2.0
    assert await platform.refuses(layer)


async def test_a_cancelled_call_is_neither(async_world, platform):
    layer = platform.breaker(failure_threshold=1)
    platform.answer = Hang()
    for _ in range(5):
        platform.network.sent.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(async_world.get, layer)
            await async_world.until(lambda: platform.sent == 1)
            tasks.cancel_scope.cancel()
    assert not await platform.refuses(layer)


async def test_a_success_never_opens_it(world, platform):
    """Not even one that completes a window with enough failures in it."""
    layer = platform.breaker(failure_threshold=2, min_attempts=4, failure_rate=0.5)
    await platform.answers(layer, 503, 503, 503)
    assert not await platform.refuses(layer)
    assert not await platform.refuses(layer)


async def test_a_slow_answer_is_a_failure_where_it_is_asked_for(world, platform):
    layer = platform.breaker(failure_threshold=1, failure_rate=0.0, slow_call=1.0)
    await platform.answers(layer, Reply(after=1.0))
    assert not await platform.refuses(layer)
    await platform.answers(layer, Reply(after=1.5))
    with pytest.raises(CircuitOpenError, match="last: 200 after more than 1 s"):
        await world.get(layer)


async def test_a_slow_body_is_no_slow_answer(world, platform):
    layer = platform.breaker(failure_threshold=1, slow_call=1.0)
    await platform.answers(layer, Reply(body=(b"a", b"b"), between=5.0))
    assert not await platform.refuses(layer)


async def test_a_slow_refusal_by_a_rate_limit_is_still_neither(world, platform):
    layer = platform.breaker(failure_threshold=1, slow_call=1.0)
    await platform.answers(layer, Reply(status=429, after=1.5))
    assert not await platform.refuses(layer)


async def test_a_refusal_is_the_flavours_transport_error_and_tells_everything(world, platform):
    layer = world.layer(
        BreakerTransport, platform.network, platform="slack", policy=BreakerPolicy(cooldown=60.0)
    )
    await platform.answers(layer, *[503] * 5)
    world.clock.advance(19.0)
    with pytest.raises(world.httpx.TransportError) as caught:
        await world.get(layer)
    error = caught.value
    assert isinstance(error, CircuitOpenError)
    assert (error.platform, error.operation, error.key) == ("slack", "GET", "slack")
    assert (error.failures, error.cause, error.retry_after) == (5, "503", 41.0)
    assert error.request.url == "http://platform.test/"
    assert str(error) == "slack GET: circuit open after 5 failures (last: 503); next probe in 41 s"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert (type(copy), str(copy)) == (type(error), str(error))


async def test_a_503_with_retry_after_keeps_it_open_so_long(world, platform):
    layer = platform.breaker(failure_threshold=1, cooldown=5.0)
    await platform.answers(layer, Reply(status=503, headers={"retry-after": "30"}))
    world.clock.advance(29.9)
    assert await platform.refuses(layer)
    world.clock.advance(0.1)
    assert not await platform.refuses(layer)


async def test_no_platform_can_keep_it_open_for_longer_than_allowed(world, platform):
    layer = platform.breaker(failure_threshold=1, cooldown=5.0, max_told_open=20.0)
    await platform.answers(layer, Reply(status=503, headers={"retry-after": "86400"}))
    world.clock.advance(20.0)
    assert not await platform.refuses(layer)


async def test_a_shorter_told_wait_does_not_shorten_the_cooldown(world, platform):
    layer = platform.breaker(failure_threshold=1, cooldown=5.0)
    await platform.answers(layer, Reply(status=503, headers={"retry-after": "1"}))
    world.clock.advance(4.9)
    assert await platform.refuses(layer)
