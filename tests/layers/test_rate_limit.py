"""The gate: after one 429 with a wait nobody knocks before the told time; then all leave in order, paced."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from aragora_transport import Policy, RateLimitPolicy, RetryPolicy, call_options
from aragora_transport.events import RateLimitWaited
from aragora_transport.layers import RateLimitTransport, RetryTransport
from aragora_transport.profile import Judgement, Profile
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


def limited(seconds):
    return Reply(status=429, headers={"retry-after": str(seconds)})


def bucket(name):
    return {"extensions": call_options(rate_key=name)}


@pytest.fixture
def arrive(async_world, still):
    """Lets so many calls come one after the other, each as far as it gets; their URLs are numbered."""

    async def arrive(layer, number):
        async with async_world.client(layer) as client, anyio.create_task_group() as tasks, still():
            for each in range(number):
                tasks.start_soon(client.get, f"{URL}{each}")
                await anyio.wait_all_tasks_blocked()

    return arrive


def order(network):
    return [int(sent.url.removeprefix(URL)) for sent in network.sent]


async def test_without_a_429_nothing_is_held(world):
    network = world.scripted(200)
    layer = world.layer(RateLimitTransport, network)
    for _ in range(3):
        await world.get(layer)
    assert world.clock.monotonic() == 0.0


async def test_the_caller_that_was_told_gets_its_429_at_once(world):
    layer = world.layer(RateLimitTransport, world.scripted(limited(5)))
    assert (await world.get(layer)).status_code == 429
    assert world.clock.monotonic() == 0.0


async def test_the_next_caller_waits_until_the_told_time(world):
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    await world.get(layer)
    assert 5.0 <= network.sent[1].at <= 5.1


async def test_a_429_that_tells_no_wait_holds_nobody(world):
    network = world.scripted(429, 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    await world.get(layer)
    assert network.sent[1].at == 0.0


async def test_a_503_with_a_wait_holds_nobody(world):
    """It speaks of the platform's health, which is the circuit's business."""
    network = world.scripted(Reply(status=503, headers={"retry-after": "5"}), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    await world.get(layer)
    assert network.sent[1].at == 0.0


async def test_a_gate_that_has_opened_holds_nobody(world):
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    world.clock.advance(6.0)
    await world.get(layer)
    await world.get(layer)
    assert [sent.at for sent in network.sent] == [0.0, 6.0, 6.0]


async def test_a_shorter_wait_told_later_does_not_open_it_earlier(async_world, arrive):
    world = async_world
    # Both calls are under way when the first answer comes.
    network = world.scripted(
        Reply(status=429, headers={"retry-after": "9"}, after=1.0),
        Reply(status=429, headers={"retry-after": "1"}, after=2.0),
        200,
    )
    layer = world.layer(RateLimitTransport, network)
    await arrive(layer, 2)
    await world.get(layer)
    assert 10.0 <= network.sent[2].at <= 10.1


async def test_all_who_wait_leave_in_the_order_of_their_arrival_and_paced(async_world, arrive):
    world = async_world
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network, rng=random.Random(1))
    await world.get(layer)
    network.sent.clear()
    await arrive(layer, 200)
    times = [sent.at for sent in network.sent]
    assert order(network) == list(range(200))
    assert times[0] >= 5.0
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) >= 0.00099, (
        "within a millisecond"
    )
    # The pace begins low, for the platform may be unwilling still, and doubles.
    assert sum(time < times[0] + 0.04 for time in times) == 1
    assert times[-1] < 6.0


async def test_who_comes_while_others_leave_goes_to_the_end_of_the_line(async_world, arrive):
    world = async_world
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    network.sent.clear()

    async def latecomer(client, number):
        await world.clock.sleep(5.0 + 0.01 * number)  # the first of them when the gate opens
        await client.get(f"{URL}{1000 + number}")

    async with world.client(layer) as client, anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(latecomer, client, number)
        await arrive(layer, 30)
    assert order(network) == [*range(30), *range(1000, 1010)]


async def test_after_another_429_the_pace_begins_low_again(async_world, arrive):
    world = async_world
    network = world.scripted(limited(5), *[200] * 20, limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    await arrive(layer, 50)
    later = [sent.at for sent in network.sent if sent.at > 10.0]
    assert len(later) == 29
    assert sum(time < later[0] + 0.04 for time in later) == 1


async def test_a_wait_that_is_told_for_another_reason_holds_nobody(world):
    """A profile knows; plain HTTP goes by the status."""
    answers = iter([Judgement(verdict="failure", wait=5.0), Judgement(verdict="success")])
    profile = Profile(classify=lambda response, body: next(answers))
    network = world.scripted(200)
    layer = world.layer(RateLimitTransport, network, profile=profile)
    await world.get(layer)
    await world.get(layer)
    assert world.clock.monotonic() == 0.0


async def test_a_platform_that_is_unwilling_still_is_asked_once_and_not_by_all(async_world):
    world = async_world
    network = world.scripted(limited(5), limited(5), limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer)
    async with anyio.create_task_group() as tasks:
        client = world.client(layer)
        for _ in range(50):
            tasks.start_soon(client.get, URL)
    times = [sent.at for sent in network.sent]
    assert len(times) == 51
    assert sum(time < 5.0 for time in times) == 1
    assert sum(5.0 <= time < 10.0 for time in times) == 1
    assert sum(10.0 <= time < 15.0 for time in times) == 1


async def test_buckets_are_independent(world):
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    await world.get(layer, **bucket("one"))
    await world.get(layer, **bucket("other"))
    await world.get(layer)
    assert world.clock.monotonic() == 0.0
    await world.get(layer, **bucket("one"))
    assert network.sent[3].at >= 5.0


async def test_the_profile_names_buckets_and_the_call_overrules_it(world):
    profile = Profile(rate_key=lambda request: request.url.path)
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network, profile=profile)
    await world.get(layer, url=URL + "a")
    await world.get(layer, url=URL + "b")
    await world.get(layer, url=URL + "a", **bucket("mine"))
    assert world.clock.monotonic() == 0.0
    await world.get(layer, url=URL + "b", **bucket("/a"))
    assert network.sent[3].at >= 5.0


async def test_a_retry_above_does_not_sleep_the_told_wait_a_second_time(world):
    network = world.scripted(limited(5), 200)
    layer = world.layer(RetryTransport, world.layer(RateLimitTransport, network))
    answer = await world.get(layer)
    assert answer.status_code == 200
    assert 5.0 <= network.sent[1].at <= 5.1
    assert answer.extensions["aragora_transport"].attempts[0].wait >= 5.0


async def test_retries_wait_in_line_with_everybody_else(async_world, arrive):
    world = async_world
    network = world.scripted(limited(5), 200)
    stack = world.stack(network, policy=Policy(timeout=None))
    await arrive(stack, 20)
    times = [sent.at for sent in network.sent]
    assert order(network) == [0, *range(20)]
    assert (times[0], times[1] >= 5.0, len(set(times))) == (0.0, True, 21)


async def test_nobody_ever_knocks_before_the_time_that_was_told(async_world):
    """Callers of three buckets come as they like, are told waits at random, and are cancelled at times."""
    world = async_world
    rng = random.Random(5)
    closed_until = dict.fromkeys("abc", 0.0)
    asked = []

    def answer(request):
        key, now = request.url.path[1:], world.clock.monotonic()
        assert now >= closed_until[key]
        asked.append(key)
        if rng.random() < 0.4:
            wait = rng.choice((0.5, 3.0, 20.0))
            closed_until[key] = max(closed_until[key], now + wait)
            return limited(wait)
        return 200

    layer = world.layer(RateLimitTransport, world.scripted(answer), rng=random.Random(6))
    client = world.client(layer)

    async def call(key, arrives, leaves):
        await world.clock.sleep(arrives)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up, tasks, leaves)
            await client.get(URL + key, extensions=call_options(rate_key=key))
            tasks.cancel_scope.cancel()

    async def give_up(tasks, after):
        await world.clock.sleep(after)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for _ in range(150):
            leaves = rng.choice((2.0, 1000.0))
            tasks.start_soon(call, rng.choice("abc"), rng.uniform(0.0, 60.0), leaves)
    assert set(asked) == set("abc")


def test_threads_wait_at_the_same_gate(blocking_world):
    world = blocking_world
    network = world.scripted(limited(5), 200)
    layer = world.layer(RateLimitTransport, network)
    start = threading.Barrier(12)
    with world.client(layer) as client:
        client.get(URL)

        def call():
            start.wait(10)
            return client.get(URL).status_code

        with ThreadPoolExecutor(12) as pool:
            calls = [pool.submit(call) for _ in range(12)]
            assert [future.result(20) for future in calls] == [200] * 12
    times = [sent.at for sent in network.sent[1:]]
    assert min(times) >= 5.0
    assert len(network.sent) == 13


async def test_the_wait_is_told(world):
    network = world.scripted(limited(5), 200)
    stack = world.stack(network, policy=Policy(timeout=None, rate_limit=RateLimitPolicy()))
    await world.get(stack)
    (event,) = (event for event in world.events if isinstance(event, RateLimitWaited))
    assert (event.key, event.refused) == ("test", False)
    assert 5.0 <= event.seconds <= 5.1
    assert world.sample("platform_rate_limit_total", platform="test", result="allowed") == 1
    assert world.sample("platform_rate_limit_total", platform="test", result="blocked") == 1


async def test_a_wait_of_exactly_the_longest_allowed_is_waited(world):
    network = world.scripted(limited(60), 200)
    stack = world.stack(network, policy=Policy(timeout=None, retry=RetryPolicy(max_retry_after=60.0)))
    assert (await world.get(stack)).status_code == 200
    assert 60.0 <= network.sent[1].at <= 60.1


async def test_a_limit_that_a_profile_finds_in_a_200_is_heeded_however_late_it_comes(world):
    def classify(response, body):
        limited = Judgement(verdict="neither", limited=True, wait=5.0)
        return limited if "limited" in response.headers else None

    network = world.scripted(*[200] * 40, Reply(headers={"limited": "yes"}), 200)
    layer = world.layer(RateLimitTransport, network, profile=Profile(classify=classify))
    for _ in range(42):
        await world.get(layer)
    assert [sent.at >= 5.0 for sent in network.sent[-2:]] == [False, True]


async def test_the_platforms_own_name_of_a_bucket_is_learned_however_late_it_comes(world):
    profile = Profile(
        rate_key=lambda request: request.url.path,
        told_bucket=lambda request, response: response.headers.get("x-bucket"),
    )
    named = Reply(headers={"x-bucket": "shared"})
    network = world.scripted(*[200] * 40, named, named, Reply(status=429, headers={"retry-after": "5"}), 200)
    layer = world.layer(RateLimitTransport, network, profile=profile)
    for path in ["/one"] * 41 + ["/two"] * 2 + ["/one"]:
        await world.get(layer, url=f"http://platform.test{path}")
    assert [sent.at >= 5.0 for sent in network.sent[-2:]] == [False, True]
