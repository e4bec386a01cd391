"""Every fault of `FaultServer`, with retries and without: the outcome, the error, and nothing left behind."""

from __future__ import annotations

import asyncio

import pytest

from aragora_transport import DeadlineExceededError, RetryPolicy, TimeoutPolicy, call_options, testing
from aragora_transport.testing import (
    Answer,
    FaultServer,
    close_before_headers,
    close_without_reading,
    drip,
    garbage,
    half_headers,
    reset_after_headers,
    reset_before_headers,
    reset_while_reading_request,
    server_sent_events,
    stall_while_reading_request,
    stalled_body,
    stalled_headers,
    truncated_body,
    wrong_length,
)

pytestmark = [
    pytest.mark.anyio,
    # httpx drops the iterators of bodies whose connection broke, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

AN_HOUR = 3600.0
FINE = Answer(body=b"fine")
PATIENCE = 10.0
IMPATIENCE = 0.02  # seconds; a server that would never answer gives the same end at any limit

# The fault and httpx's errors for it. An upload that breaks ends in one or the other of two, by how far the
# client had come with writing.
BEFORE_THE_HEADERS = {
    "close_without_reading": (close_without_reading(), {"ReadError", "RemoteProtocolError"}),
    "reset_while_reading": (reset_while_reading_request(), {"ReadError", "RemoteProtocolError"}),
    "close_before_headers": (close_before_headers(), {"RemoteProtocolError"}),
    "reset_before_headers": (reset_before_headers(), {"ReadError"}),
    "half_headers": (half_headers(), {"RemoteProtocolError"}),
    "garbage": (garbage(), {"RemoteProtocolError"}),
}
NEVER_AN_ANSWER = {
    "stalled_headers": stalled_headers(),
    "half_headers_stalled": half_headers(stall=True),
    "stalled_upload": stall_while_reading_request(),
    "a_late_answer": Answer(delay=AN_HOUR),
}
IN_THE_BODY = {
    "reset_after_headers": (lambda status: reset_after_headers(status=status), "ReadError", b""),
    "reset_in_body": (lambda status: reset_after_headers(status=status, body=b"abc"), "ReadError", b"abc"),
    "wrong_length": (lambda status: wrong_length(status=status), "RemoteProtocolError", b"short"),
    "truncated_body": (
        lambda status: truncated_body(status=status, body=b"abc"),
        "RemoteProtocolError",
        b"abc",
    ),
    "stalled_body": (lambda status: stalled_body(status=status, body=b"abc"), "ReadTimeout", b"abc"),
    "dripping_body": (lambda status: drip(status=status, interval=AN_HOUR), "ReadTimeout", b""),
    "chunks_far_apart": (
        lambda status: Answer(status=status, body=(b"a", b"b"), interval=AN_HOUR),
        "ReadTimeout",
        b"",
    ),
}


def test_every_fault_is_met_here():
    faults = {
        name
        for name, make in vars(testing).items()
        if callable(make) and getattr(make, "__annotations__", {}).get("return") == "Wire"
    }
    assert faults
    assert faults <= set(globals())


def cases(table):
    return pytest.mark.parametrize("fault", table.values(), ids=table.keys())


def some_retries(tools, retries):
    """Two policies to compare; an answer that came too late on a busy machine is just another retry."""
    retry = RetryPolicy(max_attempts=20, base_delay=0.001, max_delay=0.001)
    return tools.quick(retry=retry if retries else None)


async def outcome(caller, method, url, *, impatient=None, **keywords):
    """What a call came to: the status or none, what was read of the body, the error or none.

    `impatient`: where the read timeout is short, from the beginning ("headers") or only for the "body".
    """
    status, content = None, b""
    body = b"a body" if method != "GET" else None
    request = caller.client.build_request(method, url, content=body, **keywords)
    if impatient == "headers":
        request.extensions["timeout"]["read"] = IMPATIENCE
    try:
        response = await caller.send(request)
        status = response.status_code
        if impatient == "body":
            request.extensions["timeout"]["read"] = IMPATIENCE
        async for chunk in caller.chunks(response):
            content += chunk
    except caller.world.httpx.HTTPError as error:
        assert error.request is request  # noqa: PT017  # whether there is an error is the caller's question
        return status, content, error
    return status, content, None


@pytest.fixture
def well():
    """Another server, for the call afterwards: the first one may never have heard an impatient client."""
    with FaultServer(FINE) as server:
        yield server.url


async def answers_as_before(caller, well):
    """Nothing is held, and the next call gets through the pool's only place."""
    assert caller.taken == []
    answer = await caller.get(well, timeout=PATIENCE)  # which raises our own limits as well
    assert (answer.status_code, answer.content) == (200, b"fine")
    assert caller.taken == []


@cases(BEFORE_THE_HEADERS)
async def test_without_retries_a_broken_exchange_is_httpxs_own_error(sockets, tools, fault, well):
    fault, errors = fault
    with FaultServer(fault, then=FINE) as server:
        async with sockets.caller(policy=tools.quick(retry=None)) as caller:
            _, _, error = await outcome(caller, "PUT", server.url)
            assert type(error) in {getattr(sockets.httpx, name) for name in errors}
            await answers_as_before(caller, well)
        server.wait_until(lambda: server.open_connections == 0)


@cases(BEFORE_THE_HEADERS)
async def test_with_retries_a_broken_exchange_is_survived(sockets, fault, well):
    fault, _ = fault
    with FaultServer(fault, fault, then=FINE) as server:
        async with sockets.caller() as caller:
            assert await outcome(caller, "PUT", server.url) == (200, b"fine", None)
            assert server.connections == 3
            assert server.requests[-1].body == b"a body"
            await answers_as_before(caller, well)


@cases(BEFORE_THE_HEADERS)
async def test_a_post_that_may_have_arrived_is_not_sent_again(sockets, fault, well):
    fault, errors = fault
    with FaultServer(fault, then=FINE) as server:
        async with sockets.caller() as caller:
            _, _, error = await outcome(caller, "POST", server.url)
            assert type(error) in {getattr(sockets.httpx, name) for name in errors}
            assert server.connections == 1
            await answers_as_before(caller, well)


@pytest.mark.parametrize("retries", [False, True])
@cases(NEVER_AN_ANSWER)
async def test_silence_ends_in_httpxs_timeout_or_another_attempt(sockets, tools, fault, retries, well):
    with FaultServer(fault, then=FINE) as server:
        async with sockets.caller(policy=some_retries(tools, retries)) as caller:
            status, content, error = await outcome(caller, "PUT", server.url, impatient="headers")
            if retries:
                assert (status, content, error) == (200, b"fine", None)
            else:
                assert type(error) is sockets.httpx.ReadTimeout
            await answers_as_before(caller, well)


@pytest.mark.parametrize("retries", [False, True])
@cases(NEVER_AN_ANSWER)
async def test_silence_ends_at_our_attempt_limit_where_httpx_has_none(sockets, tools, fault, retries, well):
    limit = call_options(attempt_timeout=IMPATIENCE)
    with FaultServer(fault, then=FINE) as server:
        async with sockets.caller(policy=some_retries(tools, retries), timeout=None) as caller:
            status, content, error = await outcome(caller, "PUT", server.url, extensions=limit)
            if retries:
                assert (status, content, error) == (200, b"fine", None)
            else:
                assert isinstance(error, DeadlineExceededError)
                assert isinstance(error, sockets.httpx.TimeoutException)
                assert (error.limit, error.attempt) == ("attempt", 1)
            if sockets.world.kind == "asyncio":
                assert asyncio.current_task().cancelling() == 0  # nothing of it is left on the task
            await answers_as_before(caller, well)


async def test_a_byte_now_and_then_does_not_outlast_the_attempt_limit(async_sockets, tools, well):
    policy = tools.quick(timeout=TimeoutPolicy(attempt=0.1), retry=None)
    with FaultServer(drip(interval=0.01, headers_too=True), then=FINE) as server:
        async with async_sockets.caller(policy=policy, timeout=None) as caller:
            _, _, error = await outcome(caller, "GET", server.url)
            assert isinstance(error, DeadlineExceededError)
            await answers_as_before(caller, well)


@pytest.mark.parametrize("retries", [False, True])
@cases(IN_THE_BODY)
async def test_a_body_that_dies_is_httpxs_own_error_and_one_send(sockets, tools, fault, retries, well):
    make, expected, begun = fault
    with FaultServer(make(200), then=FINE) as server:
        async with sockets.caller(policy=some_retries(tools, retries)) as caller:
            status, content, error = await outcome(caller, "GET", server.url, impatient="body")
            assert (status, content) == (200, begun)
            assert type(error) is getattr(sockets.httpx, expected)
            assert len(server.requests) == 1
            await answers_as_before(caller, well)
    served = {"platform": "test", "operation": "GET", "status": "200"}
    # The call after it: the body that died was no success.
    assert sockets.registry.get_sample_value("platform_requests_total", served) == 1


@pytest.mark.parametrize("retries", [False, True])
@cases(IN_THE_BODY)
async def test_a_failed_answer_whose_body_dies_too_is_sent_again(sockets, tools, fault, retries, well):
    make, expected, begun = fault
    impatient = "headers" if retries else "body"
    with FaultServer(make(503), then=FINE) as server:
        async with sockets.caller(policy=some_retries(tools, retries)) as caller:
            status, content, error = await outcome(caller, "GET", server.url, impatient=impatient)
            if retries:
                assert (status, content, error) == (200, b"fine", None)
            else:
                assert (status, content, type(error)) == (503, begun, getattr(sockets.httpx, expected))
            await answers_as_before(caller, well)


async def test_events_that_stop_coming_end_at_our_limit_on_silence(sockets, tools, well):
    policy = tools.quick(timeout=TimeoutPolicy(body_idle=IMPATIENCE))
    with FaultServer(server_sent_events("a", interval=AN_HOUR), then=FINE) as server:
        async with sockets.caller(policy=policy, timeout=None) as caller:
            status, _, error = await outcome(caller, "GET", server.url)
            assert status == 200
            assert isinstance(error, sockets.httpx.TimeoutException)
            await answers_as_before(caller, well)


async def test_a_slow_answer_that_comes_in_time_is_no_fault(sockets):
    with FaultServer(drip(interval=0.001, body=b"fine", headers_too=True)) as server:
        async with sockets.caller() as caller:
            await answers_as_before(caller, server.url)
            assert len(server.requests) == 1


@pytest.mark.parametrize("retries", [False, True])
async def test_a_refused_connection_is_httpxs_own_error(sockets, tools, retries):
    with FaultServer() as server:
        url = server.url
    policy = tools.quick() if retries else tools.quick(retry=None)
    async with sockets.caller(policy=policy) as caller:
        _, _, error = await outcome(caller, "POST", url)
        assert type(error) is sockets.httpx.ConnectError
        assert caller.taken == []
    attempts = {"platform": "test", "operation": "POST", "status": "connect_error"}
    assert sockets.registry.get_sample_value("platform_attempts_total", attempts) == (3 if retries else 1)
