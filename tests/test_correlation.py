from __future__ import annotations

import logging
import re
import threading

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aragora_transport import correlation_id, correlation_scope
from aragora_transport.testing import Reply

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
