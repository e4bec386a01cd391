"""Which requests may be sent twice: by method, by what the caller says, and by what of them has left."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from aragora_transport import RetryPolicy, call_options
from aragora_transport.layers import RetryTransport

pytestmark = pytest.mark.anyio

TCP = ("connection.connect_tcp.started", "connection.connect_tcp.complete")
HEADERS = ("http11.send_request_headers.started", "http11.send_request_headers.complete")
BODY = ("http11.send_request_body.started", "http11.send_request_body.complete")
PASSED = {  # how far a request gets: httpcore's events, and the chunks that are taken of its body
    "never": (("connection.connect_tcp.started", "connection.connect_tcp.failed"), 0),
    "connected": (TCP, 0),
    "headers": ((*TCP, HEADERS[0], "http11.send_request_headers.failed"), 0),
    "partly": ((*TCP, *HEADERS, BODY[0], "http11.send_request_body.failed"), 1),
    "fully": ((*TCP, *HEADERS, *BODY, "http11.receive_response_headers.started"), 99),
}


class Wire:
    """A network that goes as far with each attempt as it is told, and traces that as httpcore does."""

    def __init__(self, world, *steps, http="http11"):
        self.flavor = world.scripted(200).flavor
        self.blocking = world.blocking
        self.http = http
        self.steps = list(steps)
        self.seen = []  # the events that each attempt's trace was told of

    async def handle_async_request(self, request):
        how_far, outcome = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        events, chunks = PASSED.get(how_far, ((), 99))
        for name in events:
            await self.tell(request, name.replace("http11", self.http), request)
        body = iter(request.stream) if self.blocking else aiter(request.stream)
        for _ in range(chunks):
            try:
                next(body) if self.blocking else await anext(body)
            except (StopIteration, StopAsyncIteration):
                break
        if hasattr(body, "aclose"):
            await body.aclose()  # trio warns of generators that are left unfinished
        if isinstance(outcome, int):
            return self.flavor.module.Response(outcome, content=b"")
        raise getattr(self.flavor.module, outcome)("lost", request=request)

    async def tell(self, request, name, about):
        trace = request.extensions.get("trace")
        if trace is not None:
            told = trace(name, {"request": about})
            if not self.blocking:
                await told


async def attempts(world, wire, method="POST", resend_unsafe="statuses", **keywords):
    """How often a request is sent: `wire` counts."""
    count = 0
    handle = wire.handle_async_request

    async def counted(request):
        nonlocal count
        count += 1
        return await handle(request)

    wire.handle_async_request = counted
    policy = RetryPolicy(resend_unsafe=resend_unsafe, base_delay=0, max_attempts=2)
    try:
        await world.request(world.layer(RetryTransport, wire, policy=policy), method, **keywords)
    except world.httpx.TransportError:
        pass
    return count


LOST = [
    ("never", "ConnectError"),
    ("never", "ConnectTimeout"),
    ("never", "ReadTimeout"),  # the name of an error proves nothing
    ("connected", "WriteError"),
    ("headers", "WriteError"),
    ("headers", "ConnectError"),
    ("partly", "WriteTimeout"),
    ("fully", "ReadTimeout"),
    ("fully", "ReadError"),
    ("fully", "RemoteProtocolError"),
]


@pytest.mark.parametrize(("how_far", "error"), LOST)
async def test_a_lost_post_is_sent_again_only_if_nothing_of_it_had_left(world, how_far, error):
    for method, mode, http in itertools.product(
        ("POST", "PATCH"), ("statuses", "unprocessed"), ("http11", "http2")
    ):
        wire = Wire(world, (how_far, error), (how_far, 200), http=http)
        sent = await attempts(world, wire, method, resend_unsafe=mode, content=b"x")
        assert sent == (2 if how_far in ("never", "connected") else 1)


@pytest.mark.parametrize(("how_far", "error"), LOST)
async def test_a_lost_post_is_always_sent_again_where_that_was_asked_for(world, how_far, error):
    wire = Wire(world, (how_far, error), (how_far, 200))
    assert await attempts(world, wire, resend_unsafe="always", content=b"x") == 2


@pytest.mark.parametrize(("how_far", "error"), LOST)
async def test_a_lost_request_of_an_idempotent_method_is_sent_again(world, how_far, error):
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"):
        wire = Wire(world, (how_far, error), (how_far, 200))
        assert await attempts(world, wire, method, resend_unsafe="unprocessed") == 2


@pytest.mark.parametrize(
    ("mode", "resent"),
    [
        ("statuses", {429, 500, 502, 503, 504}),
        ("unprocessed", {429, 503}),
        ("always", {429, 500, 502, 503, 504}),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_answered_post_is_sent_again_by_its_status(world, mode, resent, method):
    for status in (429, 500, 502, 503, 504):
        wire = Wire(world, ("fully", status), ("fully", 200))
        sent = await attempts(world, wire, method, resend_unsafe=mode, content=b"x")
        assert (status, sent) == (status, 2 if status in resent else 1)


async def test_one_call_may_ask_for_more_or_less_than_the_policy_says(world):
    for mode, wire, sends in (
        ("unprocessed", Wire(world, ("fully", 500), ("fully", 200)), 1),
        ("always", Wire(world, ("fully", "ReadTimeout"), ("fully", 200)), 2),
    ):
        options = call_options(resend_unsafe=mode)
        assert await attempts(world, wire, content=b"x", extensions=options) == sends


async def test_an_answered_get_is_sent_again_for_every_status_of_the_policy(world):
    for status in (429, 500, 502, 503, 504):
        wire = Wire(world, ("fully", status), ("fully", 200))
        assert await attempts(world, wire, "GET", resend_unsafe="unprocessed") == 2


async def test_the_last_attempt_counts_not_an_earlier_one(world):
    wire = Wire(world, ("fully", 503), ("never", "ConnectError"), ("fully", 200))
    policy = RetryPolicy(base_delay=0)
    answer = await world.post(world.layer(RetryTransport, wire, policy=policy), content=b"x")
    assert answer.status_code == 200


# --- what the caller says ---


async def test_an_idempotency_key_makes_a_post_safe(world):
    wire = Wire(world, ("fully", "ReadError"), ("fully", 200))
    assert await attempts(world, wire, content=b"x", headers={"idempotency-key": "7"}) == 2


async def test_the_caller_can_say_that_a_post_is_safe(world):
    wire = Wire(world, ("fully", "ReadError"), ("fully", 200))
    assert await attempts(world, wire, content=b"x", extensions=call_options(idempotent=True)) == 2


async def test_the_caller_can_say_that_a_get_is_not(world):
    options = call_options(idempotent=False)
    assert await attempts(world, Wire(world, ("fully", "ReadError")), "GET", extensions=options) == 1
    assert await attempts(world, Wire(world, ("never", "ConnectError")), "GET", extensions=options) == 2


async def test_the_callers_word_counts_for_more_than_an_idempotency_key(world):
    wire = Wire(world, ("fully", "ReadError"), ("fully", 200))
    keywords = {"headers": {"idempotency-key": "7"}, "extensions": call_options(idempotent=False)}
    assert await attempts(world, wire, content=b"x", **keywords) == 1


# --- without a trace, and with somebody else's ---


@pytest.mark.parametrize(
    ("error", "sent"),
    [("ConnectError", 2), ("ConnectTimeout", 2), ("PoolTimeout", 2), ("ReadError", 1), ("WriteTimeout", 1)],
)
async def test_a_transport_that_traces_nothing_is_judged_by_its_error(world, error, sent):
    assert await attempts(world, Wire(world, ("untraced", error)), content=b"x") == sent


async def test_a_request_for_a_tunnel_is_not_the_request(world):
    class Tunnel(Wire):
        async def handle_async_request(self, request):
            await self.tell(request, HEADERS[0], SimpleNamespace(method=b"CONNECT"))
            return await super().handle_async_request(request)

    assert await attempts(world, Tunnel(world, ("untraced", "ProxyError")), content=b"x") == 2
    assert await attempts(world, Tunnel(world, ("fully", "ReadError")), content=b"x") == 1


async def test_the_callers_own_trace_is_told_of_every_event(world):
    told = []

    def trace(name, info):
        told.append((name, info["request"].method))

    async def async_trace(name, info):
        trace(name, info)

    theirs = trace if world.blocking else async_trace
    wire = Wire(world, ("never", "ConnectError"), ("fully", 200))
    assert await attempts(world, wire, content=b"x", extensions={"trace": theirs}) == 2
    assert told == [(name, "POST") for name in PASSED["never"][0] + PASSED["fully"][0]]


@pytest.mark.parametrize("ours", ["none", "one"])
@pytest.mark.parametrize("outcome", [200, 503, "ReadError"])
async def test_the_request_has_its_own_trace_again_after_the_call(world, ours, outcome):
    def trace(name, info): ...

    async def async_trace(name, info): ...

    theirs = trace if world.blocking else async_trace
    extensions = {} if ours == "none" else {"trace": theirs}
    client = world.client(world.layer(RetryTransport, Wire(world, ("fully", outcome))))
    request = client.build_request("POST", "http://platform.test/", content=b"x", extensions=extensions)
    before = dict(request.extensions)
    try:
        client.send(request) if world.blocking else await client.send(request)
    except world.httpx.ReadError:
        pass
    assert request.extensions == before
