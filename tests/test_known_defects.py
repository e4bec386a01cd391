"""Each test is a way in which some resilience library was seen to fail; where no other test has it yet."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from email.utils import formatdate

import anyio
import anyio.to_thread
import pybreaker
import pytest
from prometheus_client import generate_latest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
    resilient,
)
from aragora_transport.profile import Profile
from aragora_transport.state import State
from aragora_transport.testing import Answer, FaultServer, Hang, Reply, stalled_headers

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"


async def call(world, client, method, url=URL, **keywords):
    """One request of a client that goes on to be used."""
    answer = client.request(method, url, **keywords)
    return answer if world.blocking else await answer


async def send(world, stack, request):
    """The same without a client."""
    return stack.handle_request(request) if world.blocking else await stack.handle_async_request(request)


def pool_of_one(world):
    limits = world.httpx.Limits(max_connections=1)
    return world.httpx.AsyncHTTPTransport(trust_env=False, verify=False, limits=limits)


# --- redirects ---


def hop(location, cookie=None):
    headers = {"location": location}
    return Reply(status=302, headers=headers if cookie is None else {**headers, "set-cookie": cookie})


async def test_redirects_eat_no_attempts_and_keep_their_history_and_cookies(world):
    network = world.scripted(hop("/b", "first=1; Path=/"), hop("/c", "second=2; Path=/"), 503, 200)
    policy = Policy(retry=RetryPolicy(max_attempts=2))
    client = world.client(world.stack(network, policy=policy), follow_redirects=True)
    answer = await call(world, client, "GET")
    assert answer.status_code == 200
    assert [past.status_code for past in answer.history] == [302, 302]
    assert dict(client.cookies) == {"first": "1", "second": "2"}
    assert [sent.headers.get("cookie") for sent in network.sent] == [
        None,
        "first=1",
        "first=1; second=2",
        "first=1; second=2",
    ]


async def test_a_request_that_wants_no_redirects_gets_its_302(world):
    network = world.scripted(hop("/b"), 200)
    client = world.client(world.stack(network), follow_redirects=True)
    answer = await call(world, client, "GET", follow_redirects=False)
    assert answer.status_code == 302
    assert len(network.sent) == 1


async def test_failures_behind_a_redirect_are_charged_to_the_host_that_failed(world):
    def answer(request):
        return hop("http://backend.test/") if request.url.host == "platform.test" else 503

    policy = Policy(retry=None, breaker=BreakerPolicy(key="host", failure_threshold=2))
    stack = world.stack(world.scripted(answer), policy=policy)
    client = world.client(stack, follow_redirects=True)
    for _ in range(2):
        await call(world, client, "GET")
    states = {key: circuit["state"] for key, circuit in stack.circuits().items()}
    assert states == {"platform.test": "closed", "backend.test": "open"}


# --- what platforms tell ---

HOSTILE = (
    b"Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    b"Sat, 31 Feb 2024 25:00:00 GMT",
    b"Mon, 99 Foo 99999999999 99:99:99 GMT",
    b"\xb2",
    b"9" * 5000,
    b"-1",
    b"1e999",
    b"nan",
    b"",
)


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("status", [429, 503])
async def test_a_hostile_retry_after_neither_raises_nor_leaks_a_connection(async_world, status, value):
    world = async_world
    policy = Policy(retry=RetryPolicy(max_attempts=2, base_delay=0.001, max_retry_after=1.0))
    network = pool_of_one(world)
    hostile = Answer(status=status, headers=[("Retry-After", value.decode("latin-1"))], body=b"no")
    with FaultServer(hostile, Answer(body=b"fine"), then=Answer(body=b"fine")) as server:
        async with world.client(world.stack(network, policy=policy), timeout=10.0) as client:
            answer = await client.get(server.url)
            # What tells no wait is sent again; one beyond all bounds is not waited for.
            assert (answer.status_code, answer.content) in [(200, b"fine"), (status, b"no")]
            assert all(connection.is_idle() for connection in network._pool.connections)
        assert server.connections == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("told", ["1", "1.5"])
async def test_retries_that_were_told_the_same_wait_do_not_arrive_in_the_same_millisecond(
    async_world, status, told
):
    world = async_world
    callers = 20
    network = world.scripted(*[Reply(status=status, headers={"retry-after": told})] * callers, 200)
    policy = Policy(breaker=None)
    statuses = []

    async def get():
        statuses.append((await client.get(URL)).status_code)

    # Where the first 429 closes the gate before all have passed it, the others wait as well.
    async with (
        world.client(world.stack(network, policy=policy)) as client,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(callers):
            tasks.start_soon(get)
    assert statuses == [200] * callers
    again = [sent.at for sent in network.sent if sent.at > 0.0]
    assert len(again) >= callers
    assert min(again) >= float(told)
    milliseconds = [int(at * 1000) for at in again]
    assert max(milliseconds.count(one) for one in milliseconds) <= 4
    assert len(set(milliseconds)) >= callers // 2


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone")
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
async def test_the_time_zone_of_the_machine_changes_neither_a_told_wait_nor_a_cooldown(
    world, monkeypatch, zone
):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        headers = {"retry-after": formatdate(world.clock.time() + 5.0, usegmt=True)}
        network = world.scripted(Reply(status=503, headers=headers), 200)
        assert (await world.get(world.stack(network))).status_code == 200
        assert 4.0 <= network.sent[1].at - network.sent[0].at <= 7.0  # in whole seconds, and spread

        stack = world.stack(world.scripted(500, 200), policy=Policy(retry=None, breaker=ONE_FAILURE))
        await world.get(stack)
        assert stack.circuits()["test"]["next_probe_in"] == pytest.approx(60.0)
        world.clock.advance(60.0)
        assert (await world.get(stack)).status_code == 200
    finally:
        monkeypatch.undo()
        time.tzset()


# --- circuits ---

ONE_FAILURE = BreakerPolicy(failure_threshold=1, cooldown=60.0)


async def test_every_refusal_is_an_error_of_its_own_that_keeps_nothing(world):
    """One error that is raised again and again would gather a traceback without end."""
    stack = world.stack(world.scripted(200), policy=Policy(metrics=False, log=False), on_event=())
    stack.isolate()
    request = world.httpx.Request("GET", URL)
    errors = []
    for _ in range(200):
        with pytest.raises(CircuitOpenError) as caught:
            await send(world, stack, request)
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 200
    assert {error.__context__ for error in errors} == {None}
    assert len({len(list(traceback.walk_tb(error.__traceback__))) for error in errors}) == 1


async def test_healthy_long_polls_do_not_open_a_circuit(world):
    stack = world.stack(world.scripted(Reply(after=29.0)))
    for _ in range(10):
        assert (await world.get(stack)).status_code == 200
    circuit = stack.circuits()["test"]
    assert (circuit["state"], circuit["failures"]) == ("closed", 0)


async def test_a_long_poll_that_the_profile_knows_is_no_slow_answer(world):
    profile = Profile(long_poll=lambda request: 50.0 if request.url.path == "/poll" else None)
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=2, slow_call=5.0))
    stack = world.stack(world.scripted(Reply(after=50.0)), policy=policy, profile=profile)
    for _ in range(5):
        assert (await world.request(stack, url=URL + "poll")).status_code == 200
    assert stack.circuits()["test"]["state"] == "closed"


async def test_a_probe_that_is_cancelled_does_not_wedge_stacks_that_share_a_storage(async_world):
    world = async_world
    shared = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    policy = Policy(retry=None, breaker=ONE_FAILURE)

    def stack(network):
        state = State(policy, clock=world.clock, storage=lambda key: shared)
        return world.stack(network, policy=policy, state=state)

    one, other = world.scripted(500, Hang(), Hang(), Hang(), 200), world.scripted(200)
    first, second = stack(one), stack(other)
    await world.get(first)
    with pytest.raises(CircuitOpenError):
        await world.get(second)
    assert shared.state == "open"
    world.clock.advance(60.0)
    for probes in range(2, 5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.get, first)
            await world.until(lambda probes=probes: len(one.sent) == probes)
            tasks.cancel_scope.cancel()
    assert (await world.get(second)).status_code == 200
    assert (await world.get(first)).status_code == 200
    assert shared.state == "closed"


# --- limits ---


@pytest.mark.parametrize("limits", [TimeoutPolicy(), TimeoutPolicy(total=100.0)], ids=["attempt", "total"])
@pytest.mark.parametrize("raised", [TimeoutError, RuntimeError], ids=lambda kind: kind.__name__)
async def test_an_error_of_somebody_else_passes_unchanged(world, limits, raised):
    error = raised("of a cache below")
    network = world.scripted(error)
    with pytest.raises(raised) as caught:
        await world.get(world.stack(network, policy=Policy(timeout=limits)))
    assert caught.value is error
    assert (len(network.sent), world.clock.monotonic()) == (1, 0.0)
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("limits", "end"),
    [({"attempt": 3.0}, 3.0), ({"attempt": 30.0, "total": 0.5}, 0.5)],
    ids=["attempt", "total"],
)
async def test_an_upload_that_takes_too_long_ends_at_the_limit(async_world, limits, end):
    world = async_world

    async def upload():
        for _ in range(100):
            await world.clock.sleep(0.4)
            yield b"some"

    stack = world.stack(world.scripted(200), policy=Policy(timeout=TimeoutPolicy(**limits)))
    with pytest.raises(world.httpx.TimeoutException):
        await world.post(stack, content=upload())
    assert world.clock.monotonic() == pytest.approx(end)


async def test_the_deadline_ends_the_wait_for_a_place_in_the_pool(async_world):
    """In real time, for a real pool knows no other; its one place is held until the call has ended."""
    world = async_world
    network = pool_of_one(world)
    stack = resilient("test", network, registry=world.registry)
    with FaultServer(stalled_headers()) as server, anyio.fail_after(10):
        async with (
            world.client(network) as holder,
            world.client(stack) as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(holder.get, server.url)
            await anyio.to_thread.run_sync(server.wait_for_requests, 1)
            with pytest.raises(world.httpx.TimeoutException):
                await client.get(server.url, extensions=call_options(total_timeout=0.05))
            tasks.cancel_scope.cancel()
        assert len(server.requests) == 1


# --- what is told of calls ---

SECRET = "123456:AAE-secret"  # noqa: S105  # what is looked for


@pytest.mark.parametrize(
    "answer", [200, 404, 503, "ConnectError", Hang(), Reply(body=b"x", stall=True), "open"]
)
async def test_a_secret_in_the_url_is_in_nothing_that_we_tell(world, caplog, answer):
    caplog.set_level(logging.DEBUG, logger="aragora_transport")
    step = getattr(world.httpx, answer) if answer == "ConnectError" else 200 if answer == "open" else answer
    stack = world.stack(world.scripted(step), policy=Policy.recommended())
    if answer == "open":
        stack.isolate()
    told = [repr(stack.describe())]
    try:
        response = await world.request(
            stack, url=f"http://user:{SECRET}@platform.test/bot{SECRET}/get?t={SECRET}"
        )
    except world.httpx.TransportError as error:
        told += [str(error), repr(error), repr(error.__notes__ if hasattr(error, "__notes__") else "")]
    else:
        told.append(repr(response.extensions["aragora_transport"]))
    ours = [record for record in caplog.records if record.name.startswith("aragora_transport")]
    told += [repr(record.__dict__) for record in ours]
    told += [repr(event) for event in world.events]
    told += [repr(stack.circuits()), generate_latest(world.registry).decode()]
    assert world.events
    assert ours or answer in (200, 404)
    assert [text for text in told if "secret" in text] == []


async def test_failures_are_measured_as_successes_are(world):
    network = world.scripted(200, world.httpx.ReadTimeout, Hang(), 503)
    stack = world.stack(network, policy=Policy(retry=None))
    for _ in range(4):
        with contextlib.suppress(world.httpx.TransportError):
            await world.get(stack)
    labels = {"platform": "test", "operation": "GET"}
    assert world.sample("platform_request_latency_seconds_count", **labels) == 4
    assert world.sample("platform_request_latency_seconds_sum", **labels) >= 30.0


async def test_many_hosts_make_no_series_of_their_own(world):
    stack = world.stack(world.scripted(200), policy=Policy(breaker=BreakerPolicy(key="host")))

    def series():
        return sum(len(family.samples) for family in world.registry.collect())

    await world.get(stack)
    before = series()
    for number in range(200):
        await world.request(stack, url=f"http://h{number}.test/{number}")
    assert len(stack.circuits()) == 201
    assert series() == before
