from __future__ import annotations

import logging
import pickle
import re
import sys
import threading
import types
from contextvars import ContextVar

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aragora_transport import CircuitOpenError, Policy, Secret, correlation_id, correlation_scope
from aragora_transport.testing import Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

HOSTILE = {
    "empty": "",
    "line feed": "abc\ndef",
    "line feed at the end": "abc\n",
    "carriage return": "abc\r\nSet-Cookie: a=b",
    "escape": "abc\x1b[31m",
    "nul": "abc\x00",
    "line separator": "abc\u2028def",
    "next line": "abc\x85",
    "space": "a b",
    "begins with a sign": "-abc",
    "quotes": 'abc"def',
    "markup": "<script>",
    "other digits": "\u0661\u0662",
    "letters beyond ASCII": "\u00e4bc",
    "lone surrogate": "abc\ud800",
    "one too long": "a" * 129,
    "20,000 characters": "urn:" * 5000,
    "bytes": b"abc",
    "a number": 7,
}
WELCOME = ["a", "0", "a" * 128, "req_123", "4bf92f35-77b3-4da6", "Root=1-5759e988", "user@host:80/a.b+c"]


def test_outside_of_a_scope_there_is_no_id():
    assert correlation_id() is None


def test_a_scope_holds_an_id_until_it_ends():
    with correlation_scope("outer") as outer:
        assert (outer, correlation_id()) == ("outer", "outer")
        with correlation_scope("inner") as inner:
            assert (inner, correlation_id()) == ("inner", "inner")
        assert correlation_id() == "outer"
    assert correlation_id() is None


def test_a_scope_ends_with_an_exception_too():
    with pytest.raises(KeyError), correlation_scope("abc"):
        raise KeyError
    assert correlation_id() is None


def test_a_scope_without_a_value_makes_an_id_that_is_also_a_trace_id():
    with correlation_scope() as first, correlation_scope() as second:
        assert first != second
        for made in (first, second):
            assert re.fullmatch("[0-9a-f]{32}", made)


@pytest.mark.parametrize("value", WELCOME)
def test_a_plain_id_from_outside_is_kept(value):
    with correlation_scope(value) as held:
        assert held == value


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_anything_else_from_outside_is_replaced(value):
    with correlation_scope(value) as held:
        assert re.fullmatch("[0-9a-f]{32}", held)


@given(st.text() | st.binary() | st.none() | st.integers())
@example("a\n")
def test_whatever_comes_in_what_holds_is_short_and_plain(value):
    with correlation_scope(value) as held:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}", held)
        assert len(held) <= 128
        assert held.isprintable()


async def test_the_id_is_the_same_in_record_events_and_log(world, caplog):
    stack = world.stack(world.scripted(503, world.httpx.ReadError, 200))
    with caplog.at_level(logging.DEBUG, "aragora_transport"), correlation_scope("order-7"):
        answer = await world.get(stack)
    assert answer.extensions["aragora_transport"].correlation_id == "order-7"
    assert {event.correlation_id for event in world.events} == {"order-7"}
    records = [record for record in caplog.records if record.name == "aragora_transport"]
    assert {record.correlation_id for record in records} == {"order-7"}
    assert len(records) == 3


async def test_without_a_scope_each_call_has_one_id_of_its_own(world, caplog):
    stack = world.stack(world.scripted(503, 200))
    first, second = [(await world.get(stack)).extensions["aragora_transport"] for _ in range(2)]
    assert first.correlation_id != second.correlation_id
    assert first.correlation_id == first.correlation_id
    logged = [record.correlation_id for record in caplog.records if record.name == "aragora_transport"]
    assert set(logged) == {first.correlation_id}
    seen = {event.correlation_id for event in world.events}
    assert seen == {first.correlation_id, second.correlation_id}
    assert correlation_id() is None


async def test_the_id_is_not_sent_to_the_platform(world):
    network = world.scripted(200)
    stack = world.stack(network)
    with correlation_scope("order-7"):
        await world.get(stack)
    plain = world.client(stack).build_request("GET", "http://platform.test/")
    assert network.sent[0].headers.raw == plain.headers.raw


async def test_a_call_keeps_the_id_that_it_began_with(world):
    stack = world.stack(world.scripted(Reply(body=(b"a", b"b"))))
    client = world.client(stack)
    request = client.build_request("GET", "http://platform.test/")
    with correlation_scope("began"):
        answer = client.send(request, stream=True)
        answer = answer if world.blocking else await answer
    with correlation_scope("later"):
        if world.blocking:
            answer.read()
        else:
            await answer.aread()
    assert {event.correlation_id for event in world.events} == {"began"}
    assert answer.extensions["aragora_transport"].correlation_id == "began"


async def test_tasks_started_in_a_scope_share_its_id_and_keep_their_own_to_themselves(async_world):
    world = async_world
    stack = world.stack(world.scripted(200))
    seen = {}

    async def call(name, own=None):
        if own is not None:
            with correlation_scope(own):
                seen[name] = await world.get(stack)
        else:
            seen[name] = await world.get(stack)

    with correlation_scope("shared"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "one")
            tasks.start_soon(call, "two", "mine")
            tasks.start_soon(call, "three")
        assert correlation_id() == "shared"
    ids = {name: answer.extensions["aragora_transport"].correlation_id for name, answer in seen.items()}
    assert ids == {"one": "shared", "two": "mine", "three": "shared"}


async def test_a_worker_thread_of_a_scope_has_its_id():
    with correlation_scope("shared"):
        assert await anyio.to_thread.run_sync(correlation_id) == "shared"


def test_a_thread_started_by_hand_can_be_given_the_id():
    seen = []

    def work(given_id):
        with correlation_scope(given_id):
            seen.append(correlation_id())

    with correlation_scope("outer") as held:
        thread = threading.Thread(target=work, args=[held])
        thread.start()
        thread.join()
        assert correlation_id() == "outer"
    assert seen == ["outer"]


# --- what others know of the context ---


@pytest.fixture
def asgi(monkeypatch):
    """As if asgi-correlation-id were loaded: its context variable."""
    variable = ContextVar("correlation_id", default=None)
    module = types.ModuleType("asgi_correlation_id.context")
    module.correlation_id = variable
    monkeypatch.setitem(sys.modules, "asgi_correlation_id.context", module)
    return variable


def open_span(monkeypatch, trace_id, *, valid=True):
    context = types.SimpleNamespace(is_valid=valid, trace_id=trace_id, trace_flags=None)
    module = types.ModuleType("opentelemetry.trace")
    module.get_current_span = lambda: types.SimpleNamespace(get_span_context=lambda: context)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)


def test_the_real_modules_have_what_is_looked_for():
    import asgi_correlation_id.context
    from opentelemetry import trace

    assert correlation_id() is None
    token = asgi_correlation_id.context.correlation_id.set("inbound-7")
    assert correlation_id() == "inbound-7"
    asgi_correlation_id.context.correlation_id.reset(token)
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False))
    with trace.use_span(span):
        assert correlation_id() == f"{0xABC:032x}"


async def test_a_scope_comes_before_an_inbound_request_and_that_before_a_span(world, asgi, monkeypatch):
    open_span(monkeypatch, 0xABC)
    stack = world.stack(world.scripted(503, 200))

    async def one():
        return (await world.get(stack)).extensions["aragora_transport"].correlation_id

    assert await one() == correlation_id() == f"{0xABC:032x}"
    asgi.set("inbound-7")
    assert await one() == correlation_id() == "inbound-7"
    with correlation_scope("order-7"):
        assert await one() == "order-7"
    open_span(monkeypatch, 0, valid=False)
    asgi.set(None)
    assert correlation_id() is None
    assert re.fullmatch("[0-9a-f]{32}", await one())


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_what_asgi_correlation_id_lets_pass_is_cleaned_again(asgi, value):
    asgi.set(value)
    assert correlation_id() is None


async def test_others_that_raise_when_they_are_asked_break_no_call(world, monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise AttributeError(name)

        def get(self):
            raise LookupError

    module = types.ModuleType("asgi_correlation_id.context")
    module.correlation_id = Broken()
    monkeypatch.setitem(sys.modules, "asgi_correlation_id.context", module)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.SimpleNamespace(get_current_span=Broken()))
    assert (await world.get(world.stack(world.scripted(503, 200)))).status_code == 200


def test_neither_is_loaded_for_it():
    import subprocess

    code = (
        "import sys, httpx, aragora_transport as a, aragora_transport.testing as t\n"
        "c = t.ManualClock()\n"
        "s = a.resilient_sync('x', t.ScriptedTransport(503, 200, clock=c), clock=c)\n"
        "print(len(httpx.Client(transport=s).get('http://a.test').extensions['aragora_transport'].correlation_id))\n"
        "print([n for n in sys.modules if n.startswith(('opentelemetry', 'asgi_correlation_id'))])\n"
    )
    done = subprocess.run(  # noqa: S603  # our own interpreter and our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "32\n[]\n"


# --- on errors ---


async def test_every_error_that_leaves_a_call_has_its_id(world):
    network = world.scripted(
        world.httpx.ConnectError, KeyError("mine"), Reply(body=b"x", then=world.httpx.ReadError)
    )
    stack = world.stack(network, policy=Policy(retry=None))
    for kind in (world.httpx.ConnectError, KeyError, world.httpx.ReadError):
        with correlation_scope("order-7"), pytest.raises(kind) as caught:
            await world.get(stack)
        assert caught.value.correlation_id == "order-7"
    stack.isolate()
    with correlation_scope("order-8"), pytest.raises(CircuitOpenError) as caught:
        await world.get(stack)
    assert caught.value.correlation_id == "order-8"
    assert pickle.loads(pickle.dumps(caught.value)).correlation_id == "order-8"  # noqa: S301  # our own


async def test_an_id_of_others_is_that_of_where_the_call_failed(world, asgi):
    """Not of where somebody looks at the error later, on behalf of another request."""
    stack = world.stack(world.scripted(200), policy=Policy(log=False), on_event=())
    stack.isolate()
    token = asgi.set("inbound-7")
    with pytest.raises(CircuitOpenError) as caught:
        await world.get(stack)
    asgi.reset(token)
    assert caught.value.correlation_id == "inbound-7"


async def test_who_gives_an_error_another_id_finds_it_there(world):
    stack = world.stack(world.scripted(200))
    stack.isolate()
    with pytest.raises(CircuitOpenError) as caught:
        await world.get(stack)
    caught.value.correlation_id = "mine"
    assert caught.value.correlation_id == pickle.loads(pickle.dumps(caught.value)).correlation_id == "mine"  # noqa: S301  # our own


async def test_an_error_that_takes_nothing_is_raised_as_it_is(world):
    class ClosedError(Exception):
        @property
        def correlation_id(self):
            return "its own"

    with pytest.raises(ClosedError):
        await world.get(world.stack(world.scripted(ClosedError())))


# --- as a header ---

OURS = {"correlation_header": "X-Request-ID", "correlation_hosts": ["Gateway.test"]}


def sent_ids(network):
    return [sent.headers.get("x-request-id") for sent in network.sent]


async def test_the_id_is_sent_to_the_hosts_that_were_named_and_nobody_sees_it_above(world):
    key = Secret("the-api-key", origin="http://gateway.test")
    network = world.scripted(503, 200)
    stack = world.stack(network, credentials=key, **OURS)
    with correlation_scope("order-7"):
        answer = await world.get(stack, url="http://gateway.test:81/", headers={"X-Key": str(key)})
        await world.get(stack, url="http://platform.test/")
        await world.get(stack, url="http://gateway.test/", headers={"x-request-id": "mine"})
    assert sent_ids(network) == ["order-7", "order-7", None, "mine"]
    assert "x-request-id" not in answer.request.headers
    assert answer.request.url == "http://gateway.test:81/"


async def test_a_redirect_does_not_take_the_id_along(world):
    network = world.scripted(Reply(status=307, headers={"location": "http://elsewhere.test/"}), 200)
    client = world.client(world.stack(network, **OURS), follow_redirects=True)
    answer = client.get("http://gateway.test/")
    if not world.blocking:
        await answer
    assert [id_ is not None for id_ in sent_ids(network)] == [True, False]


async def test_an_error_and_an_answer_of_a_mock_hold_the_request_that_was_passed_in(world):
    def fail(request):
        return world.httpx.ReadError("cut", request=request)

    network = world.scripted(fail)
    with pytest.raises(world.httpx.ReadError) as caught:
        await world.get(world.stack(network, policy=Policy(retry=None), **OURS), url="http://gateway.test/")
    assert "x-request-id" not in caught.value.request.headers

    network = world.scripted(PermissionError)  # one that knows of no request
    with pytest.raises(PermissionError):
        await world.get(world.stack(network, policy=Policy(retry=None), **OURS), url="http://gateway.test/")

    def mock(request):
        assert "x-request-id" in request.headers
        return world.httpx.Response(200, request=request)

    transport = world.httpx.MockTransport(mock)
    answer = await world.get(world.stack(transport, **OURS), url="http://gateway.test/")
    assert "x-request-id" not in answer.request.headers


async def test_what_is_below_is_opened_and_closed_with_the_stack(world):
    network = world.scripted(200)
    client = world.client(world.stack(network, **OURS))
    if world.blocking:
        with client:
            pass
    else:
        async with client:
            pass
    assert (network.opened, network.closed) == (1, 1)
    stack = world.stack(network, **OURS)
    if world.blocking:
        stack.close()
    else:
        await stack.aclose()
    assert network.closed == 2


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"correlation_header": "X-Id"}, "name them"),
        ({"correlation_hosts": ["a.test"]}, "such as 'X-Correlation-ID'"),
        ({"correlation_header": "X Id\n", "correlation_hosts": ["a.test"]}, "the name of a header"),
        ({"correlation_header": 7, "correlation_hosts": ["a.test"]}, "the name of a header"),
        ({"correlation_header": "X-Id", "correlation_hosts": ["http://a.test"]}, "without scheme or port"),
        ({"correlation_header": "X-Id", "correlation_hosts": [7]}, "without scheme or port"),
        ({"correlation_header": "X-Id", "correlation_hosts": "a.test:80"}, "without scheme or port"),
    ],
    ids=str,
)
def test_a_header_without_hosts_and_other_mistakes_are_told(wrong, why):
    from aragora_transport import resilient

    with pytest.raises(ValueError, match=why):
        resilient("test", ScriptedTransport(200), **wrong)
