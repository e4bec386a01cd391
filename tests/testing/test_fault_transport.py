from __future__ import annotations

import math
import random

import httpx
import pytest

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, TimeoutPolicy
from aragora_transport.layers import RetryTransport
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import Faults, FaultTransport, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"
BODY = Reply(body=(b"0123456789", b"rest"), headers={"x-id": "7"})
PLAIN = Policy(retry=None, breaker=None)


def faulty(world, network=None, *, seed=0, **shares):
    network = world.scripted(BODY) if network is None else network
    return FaultTransport(network, faults=Faults(**shares), seed=seed, clock=world.clock)


async def get(world, transport, **keywords):
    """One request by a client straight over the transport, with no layer between."""
    kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
    answer = kind(transport=transport, trust_env=False, **{"timeout": None, **keywords}).get(URL)
    return answer if world.blocking else await answer


async def test_without_a_fault_the_answer_is_the_networks_own(world):
    network = world.scripted(BODY)
    transport = faulty(world, network)
    answer = await get(world, transport)
    assert (answer.status_code, answer.content) == (200, b"0123456789rest")
    assert (transport.injected, network.open_responses) == ({}, 0)


async def test_a_connect_error_never_reaches_the_network(world):
    network = world.scripted(200)
    transport = faulty(world, network, connect=1.0)
    with pytest.raises(world.httpx.ConnectError, match="injected") as caught:
        await get(world, transport)
    assert caught.value.request.url == URL
    assert (network.sent, transport.injected) == ([], {"connect": 1})


async def test_a_read_error_comes_after_the_network_had_the_request(world):
    network = world.scripted(200)
    with pytest.raises(world.httpx.ReadError, match="injected"):
        await get(world, faulty(world, network, read=1.0))
    assert (len(network.sent), network.open_responses) == (1, 0)


async def test_a_status_is_made_up_in_place_of_the_real_one(world):
    network = world.scripted(BODY)
    transport = faulty(world, network, statuses={503: 1.0})
    answer = await get(world, transport)
    assert (answer.status_code, answer.content) == (503, b"")
    assert (transport.injected, network.open_responses) == ({"503": 1}, 0)


async def test_a_delay_comes_before_the_answer(world):
    answer = await get(world, faulty(world, delayed=1.0, delay=7.0))
    assert (answer.content, world.clock.monotonic()) == (b"0123456789rest", 7.0)


async def test_a_truncated_body_ends_in_an_error_after_its_first_bytes(world):
    network = world.scripted(BODY)
    kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
    client = kind(transport=faulty(world, network, truncated=1.0), trust_env=False)
    request = client.build_request("GET", URL)
    answer = client.send(request, stream=True) if world.blocking else await client.send(request, stream=True)
    assert (answer.status_code, answer.headers["x-id"]) == (200, "7")
    chunks = []
    try:
        if world.blocking:
            chunks.extend(answer.iter_raw())
        else:
            async for chunk in answer.aiter_raw():
                chunks.append(chunk)  # noqa: PERF401  # what came before the error is kept
    except world.httpx.RemoteProtocolError as error:
        chunks.append(str(error))
    assert chunks == [b"01234", "injected: the body was cut"]
    if world.blocking:
        answer.close()
    else:
        await answer.aclose()
    assert network.open_responses == 0


async def test_an_empty_body_can_be_truncated_too(world):
    with pytest.raises(world.httpx.RemoteProtocolError):
        await get(world, faulty(world, world.scripted(204), truncated=1.0))


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio, of httpx's own when it raises
async def test_a_silence_ends_by_the_clients_own_read_timeout(world):
    network = world.scripted(BODY)
    for shares in ({"stalled": 1.0}, {"delayed": 1.0, "delay": 60.0}):
        began = world.clock.monotonic()
        with pytest.raises(world.httpx.ReadTimeout, match="injected"):
            await get(world, faulty(world, network, **shares), timeout=5.0)
        assert world.clock.monotonic() - began == 5.0
    assert network.open_responses == 0


async def test_a_stalled_body_is_ended_by_the_limit_on_its_silence(world):
    policy = Policy(timeout=TimeoutPolicy(body_idle=3.0), retry=None)
    stack = world.stack(faulty(world, stalled=1.0), policy=policy)
    with pytest.raises(world.httpx.TimeoutException, match="body_idle limit of 3 s"):
        await world.get(stack)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_same_seed_injects_the_same_faults(world, seed):
    async def outcomes():
        transport = faulty(
            world, seed=seed, connect=0.2, read=0.2, statuses={500: 0.2, 503: 0.2}, truncated=0.1
        )
        seen = []
        for _ in range(50):
            try:
                seen.append((await get(world, transport)).status_code)
            except world.httpx.TransportError as error:
                seen.append(type(error).__name__)
        return seen, transport.injected

    seen, injected = await outcomes()
    assert (seen, injected) == await outcomes()
    assert {500, 503, "ConnectError", "ReadError"} <= set(seen)
    assert sum(injected.values()) == 50 - seen.count(200)


async def test_faults_come_as_often_as_they_were_asked_for(world):
    transport = faulty(world, seed=3, read=0.25, statuses={503: 0.25})
    for _ in range(400):
        try:
            await get(world, transport)
        except world.httpx.ReadError:
            pass
    assert transport.injected["read"] == pytest.approx(100, abs=30)
    assert transport.injected["503"] == pytest.approx(100, abs=30)


async def test_a_stack_above_survives_what_it_injects(world):
    network = world.scripted(BODY)
    transport = faulty(world, network, seed=5, connect=0.1, read=0.1, statuses={503: 0.1})
    policy = Policy(retry=RetryPolicy(max_attempts=6, budget=None), breaker=None)
    stack = world.stack(transport, policy=policy, rng=random.Random(5))
    statuses = [(await world.get(stack)).status_code for _ in range(30)]
    assert statuses == [200] * 30
    assert sum(transport.injected.values()) > 5
    assert network.open_responses == 0


async def test_it_opens_and_closes_what_it_stands_on(world):
    network = world.scripted(200)
    stack = world.stack(faulty(world, network), policy=Policy(breaker=BreakerPolicy()))
    client = world.client(stack)
    if world.blocking:
        with client:
            pass
        client = world.client(stack)
        client.close()
    else:
        async with client:
            pass
        client = world.client(stack)
        await client.aclose()
    assert (network.opened, network.closed) == (1, 2)


def test_it_may_stand_on_a_driven_transport_too():
    network = ScriptedTransport(200)
    layers = RetryTransport(
        FaultTransport(Driven(network), faults=Faults(statuses={503: 0.5}), seed=1),
        policy=RetryPolicy(max_attempts=9, base_delay=0.0),
    )
    with httpx.Client(transport=Driver(layers)) as client:
        assert client.get(URL).status_code == 200


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"read": 1.1}, r"Faults\(read=1.1\): a share must be a number from 0 to 1"),
        ({"connect": -0.1}, "a share must be a number from 0 to 1"),
        ({"stalled": math.nan}, "a share must be a number from 0 to 1"),
        ({"truncated": "0.1"}, "a share must be a number from 0 to 1"),
        ({"delayed": True}, "a share must be a number from 0 to 1"),
        ({"statuses": {503: 2}}, r"Faults\(503=2\): a share must be a number from 0 to 1"),
        ({"statuses": {"503": 0.1}}, "'503' is not an HTTP status"),
        ({"statuses": {1000: 0.1}}, "1000 is not an HTTP status"),
        ({"statuses": 503}, "statuses must be a set of HTTP statuses"),
        ({"read": 0.6, "connect": 0.6}, "the shares add up to 1.2, above 1"),
        ({"delay": -1.0}, "delay must be seconds of at least 0"),
        ({"delay": "1"}, "delay must be seconds of at least 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value),
)
def test_faults_that_make_no_sense_are_refused(shares, says):
    with pytest.raises(ValueError, match=says):
        Faults(**shares)


def test_what_are_no_faults_is_refused():
    with pytest.raises(TypeError, match=r"faults=\{.*\}\): faults must be Faults\(...\)"):
        FaultTransport(ScriptedTransport(200), faults={"read": 0.1}, clock=ManualClock())
