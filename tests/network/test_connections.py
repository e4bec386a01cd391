"""Connections: retries reuse them where the server lets them, and hold none while they wait."""

from __future__ import annotations

import anyio
import pytest

from aragora_transport import CircuitOpenError, RateLimitPolicy, RetryPolicy
from aragora_transport.events import RetryScheduled
from aragora_transport.profile import Judgement, Profile
from aragora_transport.testing import Answer, FaultServer, Wire, reset_after_headers

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

FOUR = RetryPolicy(max_attempts=4, base_delay=0.001, max_delay=0.001)
LONG = b"x" * 200_000
SMALL_ANSWERS = {
    "none": Answer(status=503),
    "small": Answer(status=503, body=b"busy"),
    "chunked": Answer(status=503, body=(b"bu", b"sy")),
    "just_small_enough": Answer(status=503, body=b"x" * 65_536),
    "compressed": Answer(status=503, body=b"no gzip at all", headers={"Content-Encoding": "gzip"}),
    "limited": Answer(status=429, body=b"later", headers={"Retry-After": "0"}),
}


def cases(table):
    return pytest.mark.parametrize("answer", table.values(), ids=table.keys())


@cases(SMALL_ANSWERS)
async def test_four_attempts_share_one_connection(sockets, tools, answer):
    with FaultServer(answer, answer, answer, Answer(body=b"fine")) as server:
        async with sockets.caller(policy=tools.quick(retry=FOUR)) as caller:
            got = await caller.get(server.url)
            assert (got.status_code, got.content) == (200, b"fine")
            assert (len(server.requests), server.connections) == (4, 1)
            assert caller.taken == []


async def test_a_failed_answer_too_long_to_drain_costs_its_connection_and_no_more(sockets, tools):
    with FaultServer(Answer(status=503, body=LONG), Answer(body=b"fine")) as server:
        async with sockets.caller(policy=tools.quick(retry=FOUR)) as caller:
            assert (await caller.get(server.url)).content == b"fine"
            assert (len(server.requests), server.connections) == (2, 2)
            assert caller.taken == []
            server.wait_until(lambda: server.open_connections == 1)


async def test_a_server_that_closes_after_each_answer_gets_a_connection_for_each(sockets, tools):
    busy = Answer(status=503, body=b"busy", close=True)
    with FaultServer(busy, busy, busy, Answer(body=b"fine")) as server:
        async with sockets.caller(policy=tools.quick(retry=FOUR)) as caller:
            assert (await caller.get(server.url)).content == b"fine"
            assert (len(server.requests), server.connections) == (4, 4)
            assert caller.taken == []
            server.wait_until(lambda: server.open_connections == 1)


async def test_a_connection_that_the_server_gave_up_meanwhile_costs_no_attempt(sockets, tools):
    answer = Answer(body=b"fine").wire("GET")
    gives_up = Wire(pieces=answer.pieces, end="close")  # without a word of it in the headers
    with FaultServer(gives_up) as server:
        async with sockets.caller(policy=tools.quick(retry=None)) as caller:
            for count in (1, 2, 3):
                assert (await caller.get(server.url)).content == b"fine"
                await sockets.wait(server.wait_until, lambda: server.open_connections == 0)
                assert server.connections == count


async def test_the_last_failed_answer_reaches_the_caller_with_its_body(sockets, tools):
    with FaultServer(Answer(status=503, body=LONG)) as server:
        async with sockets.caller(policy=tools.quick(retry=FOUR)) as caller:
            got = await caller.get(server.url)
            assert (got.status_code, got.content) == (503, LONG)
            assert len(server.requests) == 4
            assert caller.taken == []


async def test_a_retry_holds_no_place_in_the_pool_while_it_waits(async_sockets, tools):
    waiting = anyio.Event()

    def observe(event):
        if isinstance(event, RetryScheduled):
            waiting.set()

    policy = tools.quick(retry=RetryPolicy(wait=lambda _: 3600.0))
    with FaultServer(Answer(status=503, body=b"busy"), Answer(body=b"fine")) as server:
        async with (
            async_sockets.caller(policy=policy, on_event=observe) as caller,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(caller.get, server.url)
            with anyio.fail_after(10):
                await waiting.wait()
                assert (await caller.get(server.url)).content == b"fine"
            tasks.cancel_scope.cancel()
        assert server.connections == 1
        assert caller.taken == []


async def end_the_wait(sockets, tools, answer):
    """A call whose circuit opens while it waits for its second attempt: it ends with what it had."""
    opened = []

    def observe(event):
        if isinstance(event, RetryScheduled):
            opened.append(event)
            caller.stack.isolate()

    policy = tools.quick(retry=RetryPolicy(wait=lambda _: 3600.0))
    with FaultServer(answer) as server:
        async with sockets.caller(policy=policy, on_event=observe) as caller:
            response = await caller.open("GET", server.url)
            assert opened
            assert response.status_code == 503
            assert caller.taken == []
            content = await read(caller, response)
            with pytest.raises(CircuitOpenError):
                await caller.get(server.url)
            return content


async def read(caller, response):
    """What can be read of a body, and the error it ends in, if any."""
    content = b""
    try:
        async for chunk in caller.chunks(response):
            content += chunk
    except caller.world.httpx.TransportError as error:
        return content, error
    return content, None


async def test_what_was_drained_is_read_again_when_the_wait_is_cut_short(sockets, tools):
    assert await end_the_wait(sockets, tools, Answer(status=503, body=(b"bu", b"sy"))) == (b"busy", None)


async def test_what_was_not_drained_is_missed_by_an_error_of_httpx(sockets, tools):
    content, error = await end_the_wait(sockets, tools, Answer(status=503, body=LONG))
    assert LONG.startswith(content)
    assert 65_536 <= len(content) < len(LONG)
    assert type(error) is sockets.httpx.ReadError
    assert error.request.method == "GET"


async def test_a_body_that_died_while_it_was_drained_dies_again_for_the_caller(sockets, tools):
    fault = reset_after_headers(status=503, body=b"abc")
    content, error = await end_the_wait(sockets, tools, fault)
    assert content == b"abc"
    assert type(error) is sockets.httpx.ReadError
    assert error.request.method == "GET"


def raises(*_):
    raise KeyError("the user's own")


CALLBACKS = {
    "wait": {"policy": {"retry": RetryPolicy(wait=raises)}},
    "classify": {"profile": Profile(classify=raises)},
    "reads_body": {"profile": Profile(classify=lambda *_: None, reads_body=raises)},
    "rate_key": {
        "profile": Profile(rate_key=raises),  # asked where a gate is to be found: here for its rate
        "policy": {"rate_limit": RateLimitPolicy(rate=1000)},
    },
    "told_bucket": {"profile": Profile(told_bucket=raises)},
    "long_poll": {"profile": Profile(long_poll=raises)},
    "wait_of_a_judgement": {
        "profile": Profile(classify=lambda *_: Judgement(verdict="failure", retryable=True)),
        "policy": {"retry": RetryPolicy(wait=raises)},
    },
}


@pytest.mark.parametrize("keywords", CALLBACKS.values(), ids=CALLBACKS.keys())
async def test_a_callback_of_the_users_that_raises_takes_no_connection_with_it(sockets, tools, keywords):
    policy = tools.quick(**keywords.get("policy", {}))
    with FaultServer(Answer(status=503, body=LONG)) as server:
        async with sockets.caller(**{**keywords, "policy": policy}) as caller:
            for _ in range(3):
                with pytest.raises(KeyError, match="the user's own"):
                    await caller.get(server.url)
                assert caller.taken == []
