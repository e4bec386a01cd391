"""Requests that fall under several limits at once; answers that say whose limit it was, or what is left."""

from __future__ import annotations

import json
import random

import anyio
import pytest

from aragora_transport import (
    Bucket,
    Judgement,
    Policy,
    Profile,
    RateLimitedError,
    RateLimitPolicy,
    call_options,
)
from aragora_transport.layers import RateLimitTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio
URL = "http://platform.test/"


def chats(request):
    """One bucket for each chat, and one for all of them."""
    return (Bucket(f"chat {request.url.path}", ((1, 1.0),)), Bucket("all", ((3, 1.0),)))


def limited(seconds, **headers):
    return Reply(status=429, headers={"retry-after": str(seconds), **headers})


@pytest.fixture
def come(async_world, still):
    """Lets calls to these paths come one after the other, each as far as it gets."""

    async def come(layer, *paths):
        async with async_world.client(layer) as client, anyio.create_task_group() as tasks, still():
            for path in paths:
                tasks.start_soon(client.get, URL + path)
                await anyio.wait_all_tasks_blocked()

    return come


def sent(network):
    return [(request.url.removeprefix(URL), round(request.at, 2)) for request in network.sent]


async def test_published_rates_are_kept_in_every_bucket_where_the_policy_says_so(async_world, come):
    network = async_world.scripted(200)
    layer = async_world.layer(
        RateLimitTransport, network, profile=Profile(rate_key=chats), policy=RateLimitPolicy(published=True)
    )
    await come(layer, "a", "a", "a", "b", "c", "d")
    # The second "a" has taken nothing of what is for all while it waited for its chat.
    assert sent(network) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("d", 1), ("a", 2)]


async def test_published_rates_are_not_kept_unasked(world):
    network = world.scripted(200)
    layer = world.layer(RateLimitTransport, network, profile=Profile(rate_key=chats))
    for _ in range(5):
        await world.get(layer)
    assert world.clock.monotonic() == 0.0


async def test_never_more_than_published_leave_in_any_such_time(async_world, come):
    ladder = ((3, 1.0), (5, 4.0), (9, 20.0))
    network = async_world.scripted(200)
    profile = Profile(rate_key=lambda request: Bucket("one", ladder))
    layer = async_world.layer(
        RateLimitTransport,
        network,
        profile=profile,
        policy=RateLimitPolicy(published=True),
        max_retry_after=99,
    )
    await come(layer, *map(str, range(20)))
    times = [request.at for request in network.sent]
    assert [request.url for request in network.sent] == [f"{URL}{number}" for number in range(20)]
    for most, seconds in ladder:
        assert all(later - sooner >= seconds for sooner, later in zip(times, times[most:], strict=False))
    assert times[-1] == pytest.approx(40.0)  # and no later than these let it


async def test_a_429_closes_the_first_bucket_of_the_request_alone(async_world, come):
    network = async_world.scripted(limited(5), 200)
    layer = async_world.layer(RateLimitTransport, network, profile=Profile(rate_key=chats))
    await come(layer, "a", "b", "a")
    assert [path for path, at in sent(network)] == ["a", "b", "a"]
    assert [request.at >= 5.0 for request in network.sent] == [False, False, True]


async def test_a_wide_limit_closes_the_last_one_and_so_holds_everybody(async_world, come):
    def classify(response, body):
        return Judgement(verdict="neither", limited=response.status_code == 429, wide=True)

    network = async_world.scripted(limited(5), 200)
    layer = async_world.layer(
        RateLimitTransport, network, profile=Profile(rate_key=chats, classify=classify), rng=random.Random(3)
    )
    await come(layer, "a", "b", "a", "c")
    assert [path for path, at in sent(network)] == ["a", "b", "a", "c"]
    assert network.sent[1].at >= 5.0


@pytest.mark.parametrize("first", ["chat", "all"])
async def test_two_gates_that_open_one_after_the_other_hold_each_caller_for_its_own_alone(
    async_world, still, first
):
    """Whoever waits at one goes on to wait at the other, all in order; who falls under one waits for that."""

    def classify(response, body):
        wide = response.headers.get("of") == "all"
        return Judgement(verdict="neither", limited=response.status_code == 429, wide=wide)

    world = async_world
    waits = {"chat": 9, "all": 20} if first == "chat" else {"chat": 20, "all": 9}
    told = iter([limited(waits["chat"]), limited(waits["all"], of="all")])
    network = world.scripted(lambda request: next(told, 200))
    profile = Profile(rate_key=chats, classify=classify)
    layer = world.layer(RateLimitTransport, network, profile=profile, rng=random.Random(5))
    async with world.client(layer) as client, anyio.create_task_group() as tasks, still():
        await client.get(URL + "a")
        await client.get(URL + "b")
        network.sent.clear()
        for path in [*"abacaab", *"a" * 20]:
            tasks.start_soon(client.get, URL + path)
            await anyio.wait_all_tasks_blocked()
    paths = [path for path, _ in sent(network)]
    times = [request.at for request in network.sent]
    assert len(paths) == 27
    assert len({round(at, 4) for at in times}) == 27
    if first == "chat":  # all of them wait for what is for all, and leave as they came
        assert paths == [*"abacaab", *"a" * 20]
        assert times[0] >= 20.0
    else:
        assert paths == [*"bcb", *"a" * 24]
        assert 9.0 <= times[0] <= times[2] <= 9.2
        assert times[3] >= 20.0


async def test_two_hundred_slack_calls_after_one_429_hold_up_neither_another_method_nor_another_workspace(
    async_world, still
):
    world = async_world
    told = 30.0
    begun = []

    def slack(request):
        method, whose = request.url.path.rpartition("/")[2], request.headers["authorization"]
        early = not begun or world.clock.monotonic() < begun[0] + told
        if method == "chat.postMessage" and whose == "Bearer ours" and early:
            begun.append(world.clock.monotonic())
            headers = {"retry-after": "30", "content-type": "application/json"}
            return Reply(status=429, headers=headers, body=b'{"ok":false,"error":"ratelimited"}')
        return Reply(headers={"content-type": "application/json"}, body=b'{"ok":true}')

    network = world.scripted(slack)
    stack = world.stack(network, "slack")
    answers = []

    async def call(method, whose, number):
        body = {"channel": f"C{number % 7}"}
        answer = await client.post(
            f"https://slack.com/api/{method}", json=body, headers={"authorization": f"Bearer {whose}"}
        )
        answers.append(answer.json()["ok"])

    async with world.client(stack) as client, anyio.create_task_group() as tasks, still():
        tasks.start_soon(call, "chat.postMessage", "ours", 0)
        await anyio.wait_all_tasks_blocked()
        for number in range(200):
            tasks.start_soon(call, "chat.postMessage", "ours", number)
            if number % 10 == 0:
                tasks.start_soon(call, "users.info", "ours", number)
                tasks.start_soon(call, "chat.postMessage", "theirs", number)
        await anyio.wait_all_tasks_blocked()
        assert len(network.sent) == 1 + 20 + 20  # all of those, in no time
        assert world.clock.monotonic() == 0.0
    assert answers == [True] * 241
    assert len(begun) == 1
    assert min(one.at for one in network.sent[41:]) >= told
    assert len(network.sent) == 1 + 40 + 201


async def test_discords_answers_name_the_bucket_that_routes_share(world):
    base = "https://discord.com/api/v10/channels"
    left = {"x-ratelimit-bucket": "abcd", "x-ratelimit-remaining": "1", "x-ratelimit-reset-after": "5"}
    spent = {**left, "x-ratelimit-remaining": "0"}
    network = world.scripted(
        Reply(headers=left), Reply(headers=left), Reply(headers=spent), Reply(headers=left)
    )
    stack = world.stack(network, "discord")
    await world.request(stack, "DELETE", f"{base}/1/messages/2")
    await world.request(stack, "GET", f"{base}/1/messages")
    await world.request(stack, "GET", f"{base}/1/messages")  # the last one that it allows
    await world.request(stack, "GET", f"{base}/2/messages")  # of another channel, so of another bucket
    assert world.clock.monotonic() == 0.0
    await world.request(stack, "DELETE", f"{base}/1/messages/3")  # of the same bucket
    assert 5.0 <= network.sent[4].at <= 5.1


async def test_discords_global_limit_holds_all_but_interactions(world):
    base = "https://discord.com/api/v10"
    body = json.dumps({"message": "slow", "retry_after": 5.5, "global": True}).encode()
    told = Reply(status=429, headers={"content-type": "application/json"}, body=body)
    network = world.scripted(told, 200)
    stack = world.stack(network, "discord", policy=Policy(retry=None))
    await world.request(stack, "GET", f"{base}/users/@me")
    await world.request(stack, "POST", f"{base}/interactions/1/token/callback")
    assert world.clock.monotonic() == 0.0
    await world.request(stack, "GET", f"{base}/channels/1")
    assert 5.5 <= network.sent[2].at <= 5.6


async def test_only_so_many_names_of_buckets_are_remembered(world):
    profile = Profile(
        rate_key=lambda request: request.url.path, told_bucket=lambda request, response: "the same"
    )
    network = world.scripted(*[200] * 4, limited(5), 200)
    policy = Policy(retry=None, rate_limit=RateLimitPolicy(max_keys=2))
    stack = world.stack(network, profile=profile, policy=policy)
    for path in ("a", "b", "c", "c"):
        await world.request(stack, url=URL + path)
    await world.request(stack, url=URL + "b")  # closes the gate of "b" and "c"
    await world.request(stack, url=URL + "a")  # whose name is forgotten, and learnt again
    assert world.clock.monotonic() == 0.0
    await world.request(stack, url=URL + "a")
    assert network.sent[6].at >= 5.0


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "7"},
        {"ratelimit": '"default";r=0;t=7', "ratelimit-policy": '"default";q=100;w=60'},
        {"ratelimit-remaining": "0", "ratelimit-reset": "7"},
    ],
    ids=["x-ratelimit", "ratelimit", "ratelimit-remaining"],
)
async def test_an_answer_that_leaves_nothing_closes_the_gate_until_there_is_a_quota_again(world, headers):
    network = world.scripted(Reply(headers=headers), 200)
    stack = world.stack(network)
    assert (await world.get(stack)).status_code == 200
    await world.get(stack)
    assert 7.0 <= network.sent[1].at <= 7.1


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "1", "x-ratelimit-reset-after": "7"},
        {"x-ratelimit-remaining": "0"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "0"},
        {"retry-after": "7"},
    ],
    ids=["one left", "no time told", "none to wait", "a wait of another kind"],
)
async def test_an_answer_that_leaves_something_or_tells_no_time_closes_nothing(world, headers):
    network = world.scripted(Reply(headers=headers))
    stack = world.stack(network)
    for _ in range(3):
        await world.get(stack)
    assert world.clock.monotonic() == 0.0


async def test_who_never_spoke_of_a_quota_is_not_listened_to_for_ever_and_who_did_is(world):
    spent = Reply(headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "7"})
    silent = world.scripted(*[200] * 32, spent, 200)
    stack = world.stack(silent)
    for _ in range(34):
        await world.get(stack)
    assert world.clock.monotonic() == 0.0
    talkative = world.scripted(Reply(headers={"x-ratelimit-limit": "9"}), *[200] * 40, spent, 200)
    stack = world.stack(talkative)
    for _ in range(43):
        await world.get(stack)
    assert talkative.sent[-1].at >= 7.0


async def test_a_gate_that_has_opened_is_forgotten(world):
    stack = world.stack(world.scripted(limited(5), 200), policy=Policy(retry=None))
    await world.get(stack)
    assert list(stack.state.gates) == ["test"]
    world.clock.advance(6.0)
    await world.get(stack)
    assert list(stack.state.gates) == []


async def test_a_call_may_refuse_to_wait_at_all_or_for_long(world):
    network = world.scripted(limited(20), 200)
    stack = world.stack(network, policy=Policy(retry=None))
    await world.get(stack)
    for seconds in (0, 19.0):
        with pytest.raises(RateLimitedError, match="longer than this call's max_gate_wait") as caught:
            await world.get(stack, extensions=call_options(max_gate_wait=seconds))
        assert (caught.value.reason, caught.value.retry_after >= 20.0) == ("max_gate_wait", True)
    assert world.clock.monotonic() == 0.0
    answer = await world.get(stack, extensions=call_options(max_gate_wait=21.0))
    assert answer.status_code == 200
    assert world.sample("platform_rate_limit_total", platform="test", result="blocked") == 3


async def test_what_a_profile_raises_when_it_names_a_bucket_leaves_no_answer_open(world):
    def told_bucket(request, response):
        raise LookupError("a bucket of the user's")

    network = world.scripted(200)
    with pytest.raises(LookupError):
        await world.get(world.stack(network, profile=Profile(told_bucket=told_bucket)))
    assert network.open_responses == 0
