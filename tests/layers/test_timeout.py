"""The limit on one attempt: wall-clock time until the headers of the answer."""

from __future__ import annotations

import pickle

import pytest

from aragora_transport import (
    DeadlineExceededError,
    Policy,
    RateLimitPolicy,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
)
from aragora_transport.layers import RetryTransport, TimeoutTransport
from aragora_transport.profile import Profile
from aragora_transport.sync import Driver
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(every_world):
    return every_world


class Drips:
    """A network whose headers come byte by byte: each of httpx's own timeouts is content."""

    def __init__(self, world, seconds, interval=1.0):
        self.flavor = world.scripted(200).flavor
        self.world = world
        self.seconds = seconds
        self.interval = interval

    async def handle_async_request(self, request):
        began = self.world.clock.monotonic()
        while self.world.clock.monotonic() - began < self.seconds:
            await self.world.clock.sleep(self.interval)
        return self.flavor.module.Response(200, content=b"at last")


def limited(world, network, **limits):
    return world.layer(TimeoutTransport, network, policy=TimeoutPolicy(**limits))


async def failure(world, transport, **keywords):
    """The error that a call ends in."""
    with pytest.raises(world.httpx.TimeoutException) as caught:
        await world.get(transport, **keywords)
    return caught.value


async def test_an_attempt_without_an_answer_ends_at_its_limit(world):
    error = await failure(world, limited(world, world.scripted(Hang()), attempt=7.0))
    assert isinstance(error, DeadlineExceededError)
    assert world.clock.monotonic() == pytest.approx(7.0)


async def test_the_default_limit_is_30_seconds(world):
    await failure(world, world.layer(TimeoutTransport, world.scripted(Hang())))
    assert world.clock.monotonic() == pytest.approx(30.0)


async def test_an_answer_just_in_time_is_an_answer(world):
    network = world.scripted(Reply(after=6.9, body=b"good"))
    answer = await world.get(limited(world, network, attempt=7.0))
    assert answer.content == b"good"


async def test_an_answer_that_comes_too_late_is_none(world):
    network = world.scripted(Reply(after=7.1))
    assert isinstance(await failure(world, limited(world, network, attempt=7.0)), DeadlineExceededError)
    assert network.open_responses == 0


async def test_headers_that_drip_satisfy_httpx_but_not_the_limit(async_world):
    world = async_world
    error = await failure(world, limited(world, Drips(world, 60.0), attempt=7.5))
    assert (error.limit, error.seconds) == ("attempt", 7.5)
    assert world.clock.monotonic() == pytest.approx(7.5)
    answer = await world.get(limited(world, Drips(world, 6.0), attempt=7.5))
    assert answer.content == b"at last"


async def test_without_a_limit_an_attempt_may_take_for_ever(world):
    network = world.scripted(Reply(after=100_000.0))
    answer = await world.get(limited(world, network, attempt=None))
    assert answer.status_code == 200


async def test_the_body_is_not_charged_to_the_attempt(world):
    network = world.scripted(Reply(body=(b"x",) * 10, between=5.0))
    answer = await world.get(limited(world, network, attempt=7.0))
    assert answer.content == b"x" * 10
    assert world.clock.monotonic() == pytest.approx(50.0)


async def test_each_attempt_has_a_limit_of_its_own(world):
    network = world.scripted(Hang(), Hang(), 200)
    layer = world.layer(
        RetryTransport, limited(world, network, attempt=7.0), policy=RetryPolicy(base_delay=0)
    )
    answer = await world.get(layer)
    assert answer.status_code == 200
    assert [sent.at for sent in network.sent] == pytest.approx([0.0, 7.0, 14.0])


async def test_the_wait_at_a_gate_is_not_charged_to_the_attempt(world):
    network = world.scripted(Reply(status=429, headers={"retry-after": "20"}), Reply(after=4.0))
    policy = Policy(timeout=TimeoutPolicy(attempt=5.0), rate_limit=RateLimitPolicy())
    answer = await world.get(world.stack(network, policy=policy))
    assert answer.status_code == 200
    assert world.clock.monotonic() > 24.0


# --- the error ---


async def test_the_error_says_which_limit_ran_out_when_and_after_what(world):
    network = world.scripted(Reply(status=503, after=1.0), Hang())
    policy = RetryPolicy(base_delay=0, max_attempts=2)
    layer = world.layer(RetryTransport, limited(world, network, attempt=7.0), policy=policy, platform="slack")
    error = await failure(world, layer, extensions=call_options(operation="chat.postMessage"))
    assert (error.platform, error.operation, error.limit) == ("slack", "chat.postMessage", "attempt")
    assert (error.seconds, error.attempt, error.last) == (7.0, 2, "503")
    assert error.elapsed == pytest.approx(8.0)
    for part in ("slack chat.postMessage", "attempt limit of 7 s", "attempt 2", "8 s", "503"):
        assert part in str(error)
    assert error.request.url.host == "platform.test"


async def test_the_error_of_a_first_attempt_knows_of_none_before(world):
    error = await failure(world, limited(world, world.scripted(Hang()), attempt=7.0))
    assert (error.attempt, error.last) == (1, None)
    assert "before" not in str(error)


async def test_the_error_is_one_of_the_flavours_timeouts(world):
    error = await failure(world, limited(world, world.scripted(Hang()), attempt=7.0))
    assert isinstance(error, world.httpx.TimeoutException)
    assert type(error).__name__ == "DeadlineExceededError"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert (type(copy), copy.limit, copy.seconds, str(copy)) == (type(error), "attempt", 7.0, str(error))


# --- httpx's own timeouts ---


@pytest.mark.parametrize(("theirs", "ends_at"), [(60.0, 60.0), (31.0, 31.0), (12.0, 12.0)])
async def test_an_explicit_httpx_timeout_that_is_longer_raises_the_limit(world, theirs, ends_at):
    await failure(world, world.layer(TimeoutTransport, world.scripted(Hang())), timeout=theirs)
    assert world.clock.monotonic() == pytest.approx(ends_at)


@pytest.mark.parametrize(
    ("phase", "ends_at"), [("connect", 60.0), ("write", 60.0), ("read", 60.0), ("pool", 30.0)]
)
async def test_one_phase_that_may_take_longer_raises_the_limit_for_them_all(world, phase, ends_at):
    theirs = world.httpx.Timeout(None, **{phase: 60.0})
    await failure(world, world.layer(TimeoutTransport, world.heedless(Hang())), timeout=theirs)
    assert world.clock.monotonic() == pytest.approx(ends_at)


async def test_httpxs_default_timeout_raises_no_limit(world):
    error = await failure(world, limited(world, world.scripted(Hang()), attempt=2.0), timeout=5.0)
    assert isinstance(error, DeadlineExceededError)
    assert world.clock.monotonic() == pytest.approx(2.0)


async def test_a_shorter_httpx_timeout_is_httpxs_own(world):
    error = await failure(world, limited(world, world.scripted(Hang()), attempt=7.0), timeout=3.0)
    assert type(error) is world.httpx.ReadTimeout
    assert world.clock.monotonic() == pytest.approx(3.0)


async def test_a_call_can_set_its_own_limit(world):
    layer = world.layer(TimeoutTransport, world.scripted(Hang()))
    error = await failure(world, layer, extensions=call_options(attempt_timeout=2.0), timeout=50.0)
    assert error.seconds == 2.0
    assert world.clock.monotonic() == pytest.approx(2.0)


async def test_a_call_can_set_a_limit_where_the_policy_has_none(world):
    layer = limited(world, world.scripted(Hang()), attempt=None)
    await failure(world, layer, extensions=call_options(attempt_timeout=40.0))
    assert world.clock.monotonic() == pytest.approx(40.0)


async def test_a_long_poll_of_the_platform_raises_the_limit_with_a_margin(world):
    profile = Profile(long_poll=lambda request: 50.0 if request.url.path == "/poll" else None)
    layer = world.layer(TimeoutTransport, world.scripted(Hang()), profile=profile)
    with pytest.raises(DeadlineExceededError):
        await world.request(layer, url="http://platform.test/poll")
    assert world.clock.monotonic() == pytest.approx(60.0)
    await failure(world, layer)
    assert world.clock.monotonic() == pytest.approx(90.0)


async def test_httpxs_timeouts_are_shortened_for_the_transport_below(world):
    network = world.scripted(200)
    timeout = world.httpx.Timeout(connect=3.0, read=60.0, write=None, pool=9.0)
    await world.get(limited(world, network, attempt=7.0), timeout=timeout)
    shortened = network.sent[0].extensions["timeout"]
    assert shortened == {"connect": 3.0, "read": 60.0, "write": 60.0, "pool": 9.0}  # read raised the limit
    extensions = {**call_options(attempt_timeout=7.0)}
    await world.get(limited(world, network), timeout=timeout, extensions=extensions)
    assert network.sent[1].extensions["timeout"] == {"connect": 3.0, "read": 7.0, "write": 7.0, "pool": 7.0}


async def test_what_is_left_of_the_call_shortens_them_further(world):
    network = world.scripted(Reply(status=503, after=4.0), 200)
    policy = Policy(timeout=TimeoutPolicy(total=10.0), retry=RetryPolicy(base_delay=1.0))
    await world.get(world.stack(network, policy=policy), timeout=None)
    first, second = (sent.extensions["timeout"] for sent in network.sent)
    assert set(first.values()) == {10.0}
    assert len(set(second.values())) == 1
    assert second["read"] == pytest.approx(10.0 - network.sent[1].at)


@pytest.mark.parametrize("outcome", [200, 503, Hang()], ids=["answer", "failure", "nothing"])
async def test_the_callers_own_timeouts_are_untouched_and_there_again_afterwards(world, outcome):
    network = world.scripted(outcome)
    client = world.client(world.stack(network, policy=Policy(timeout=TimeoutPolicy(attempt=1.0))))
    theirs = {"connect": None, "read": None, "write": 0.5, "pool": None}
    request = client.build_request("GET", "http://platform.test/", timeout=world.httpx.Timeout(**theirs))
    dictionary = request.extensions["timeout"]
    try:
        client.send(request) if world.blocking else await client.send(request)
    except world.httpx.TimeoutException:
        pass
    assert request.extensions["timeout"] is dictionary
    assert dictionary == theirs


async def test_a_request_that_came_without_timeouts_leaves_without(world):
    layer = limited(world, world.scripted(200), attempt=1.0)
    request = world.httpx.Request("GET", "http://platform.test/")
    answer = (
        Driver(layer).handle_request(request) if world.blocking else await layer.handle_async_request(request)
    )
    assert answer.status_code == 200
    assert request.extensions == {}
