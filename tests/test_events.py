from __future__ import annotations

import dataclasses
import functools
import typing

import httpx
import pytest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RateLimitedError,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
    correlation_scope,
    events,
    resilient,
)
from aragora_transport.events import (
    AttemptFinished,
    BodyFailed,
    CallFinished,
    CircuitChanged,
    Event,
    RateLimitWaited,
    RetryRefused,
    RetryScheduled,
)
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio

KINDS = [
    *(AttemptFinished, BodyFailed, RetryScheduled, RetryRefused),
    *(CircuitChanged, RateLimitWaited, CallFinished),
]
OPERATION = call_options(operation="send_message")
TWO_OPEN_IT = BreakerPolicy(failure_threshold=2, failure_rate=0.0, cooldown=5.0)


def names(world):
    return [type(event).__name__ for event in world.events]


async def read(world, stack, **keywords):
    """One call in a correlation scope of its own."""
    with correlation_scope("id-1"):
        return await world.get(stack, extensions=OPERATION, **keywords)


def details(event):
    """What an event tells beyond whose call it was, after a look at that."""
    told = dataclasses.asdict(event)
    assert (told.pop("platform"), told.pop("operation"), told.pop("correlation_id")) == (
        "test",
        "send_message",
        "id-1",
    )
    return told


def test_every_kind_of_event_is_known():
    module = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)}
    assert module == {Event, *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_a_frozen_value_of_typed_fields(kind):
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    assert set(fields) <= set(hints)
    one = kind(**dict.fromkeys(fields, 1))
    assert one == kind(**dict.fromkeys(fields, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.platform = "other"
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        kind("platform")


async def test_a_straight_success_is_one_attempt_and_the_end_of_the_call(world):
    await read(world, world.stack(world.scripted(Reply(after=0.5, body=(b"a", b"b"), between=0.25))))
    attempt, call = world.events
    assert isinstance(attempt, AttemptFinished)
    assert details(attempt) == {"attempt": 1, "status": 200, "error": None, "seconds": 0.5}
    assert isinstance(call, CallFinished)
    assert details(call) == {
        "attempt": 1,
        "status": 200,
        "error": None,
        "seconds": 1.0,
        "attempts": 1,
        "complete": True,
    }


async def test_a_call_that_is_saved_tells_its_attempts_and_waits_in_order(world):
    stack = world.stack(world.scripted(503, world.httpx.ReadError, 200))
    await read(world, stack)
    assert names(world) == [
        *("AttemptFinished", "RetryScheduled", "AttemptFinished", "RetryScheduled"),
        *("AttemptFinished", "CallFinished"),
    ]
    first, second = world.events[1], world.events[3]
    told = details(first)
    assert 1.0 <= told.pop("wait") <= 1.1
    assert told == {"attempt": 1, "status": 503, "error": None, "told": False, "max_attempts": 3}
    assert (second.attempt, second.status, second.error) == (2, None, "ReadError")
    assert 2.0 <= second.wait <= 2.2
    assert (world.events[-1].attempts, world.events[-1].attempt) == (3, 3)


async def test_a_failure_that_is_final_says_why_it_is_not_sent_again(world):
    stack = world.stack(world.scripted(503), policy=Policy(retry=RetryPolicy(max_attempts=1)))
    await read(world, stack)
    assert names(world) == ["AttemptFinished", "RetryRefused", "CallFinished"]
    assert details(world.events[1]) == {
        "attempt": 1,
        "status": 503,
        "error": None,
        "reason": "attempts",
        "wait": None,
        "max_attempts": 1,
    }
    assert (world.events[2].status, world.events[2].complete) == (503, True)


async def test_a_circuit_tells_its_changes_before_the_attempt_that_caused_them(world):
    network = world.scripted(503, 503, 200)
    stack = world.stack(network, policy=Policy(breaker=TWO_OPEN_IT))
    await read(world, stack)
    assert names(world) == [
        *("AttemptFinished", "RetryScheduled", "CircuitChanged", "AttemptFinished", "RetryRefused"),
        "CallFinished",
    ]
    assert details(world.events[2]) == {
        "attempt": 2,
        "key": "test",
        "old": "closed",
        "new": "open",
        "worst": "open",
        "failures": 2,
        "next_probe_in": 5.0,
        "cause": "503",
    }
    assert world.events[4].reason == "circuit_open"
    world.clock.advance(5.0)
    world.events.clear()
    await read(world, stack)
    assert [(e.old, e.new) for e in world.events if isinstance(e, CircuitChanged)] == [
        ("open", "half-open"),
        ("half-open", "closed"),
    ]


async def test_a_refused_call_made_no_attempt(world):
    stack = world.stack(world.scripted(503), policy=Policy(retry=None, breaker=TWO_OPEN_IT))
    for _ in range(2):
        await read(world, stack)
    world.events.clear()
    with pytest.raises(CircuitOpenError):
        await read(world, stack)
    (finished,) = world.events
    assert details(finished) == {
        "attempt": 1,
        "status": None,
        "error": "CircuitOpenError",
        "seconds": 0.0,
        "attempts": 0,
        "complete": False,
    }


async def test_a_gate_tells_how_long_it_held_or_refused_an_attempt(world):
    network = world.scripted(
        Reply(status=429, headers={"retry-after": "7"}),
        200,
        Reply(status=429, headers={"retry-after": "99"}),
    )
    stack = world.stack(network)
    await read(world, stack)
    assert names(world) == [
        *("AttemptFinished", "RetryScheduled", "RateLimitWaited", "AttemptFinished", "CallFinished"),
    ]
    assert world.events[1].told is True
    assert world.events[1].wait >= 7.0
    held = details(world.events[2])
    assert 7.0 <= held.pop("seconds") <= 7.1
    assert held == {"attempt": 2, "key": "test", "refused": False}
    await read(world, stack)
    world.events.clear()
    with pytest.raises(RateLimitedError):
        await read(world, stack)
    assert names(world) == ["RateLimitWaited", "CallFinished"]  # nothing was sent
    assert details(world.events[0]) == {"attempt": 1, "key": "test", "seconds": 99.0, "refused": True}


async def test_a_call_that_ends_in_an_error_names_its_class_alike_under_both_flavours(world):
    policy = Policy(timeout=TimeoutPolicy(attempt=2.0), retry=None)
    with pytest.raises(world.httpx.TimeoutException):
        await read(world, world.stack(world.scripted(Hang()), policy=policy))
    assert (world.events[-1].error, world.events[-1].attempts) == ("DeadlineExceededError", 1)


async def test_a_body_that_dies_is_told_and_is_in_the_last_event(world):
    network = world.scripted(Reply(body=(b"half",), then=world.httpx.RemoteProtocolError))
    with pytest.raises(world.httpx.RemoteProtocolError):
        await read(world, world.stack(network))
    assert names(world) == ["AttemptFinished", "BodyFailed", "CallFinished"]
    _, died, last = world.events
    assert details(died) == {
        "attempt": 1,
        "status": 200,
        "error": "RemoteProtocolError",
        "text": "RemoteProtocolError: scripted",
        "max_attempts": 3,
    }
    assert (last.status, last.error, last.complete) == (200, "RemoteProtocolError", False)


async def test_a_body_that_the_caller_abandons_is_incomplete_and_no_error(world):
    stack = world.stack(world.scripted(Reply(body=(b"one", b"two"))))
    client = world.client(stack)
    if world.blocking:
        with client.stream("GET", "http://platform.test/"):
            pass
    else:
        async with client.stream("GET", "http://platform.test/"):
            pass
    assert (world.events[-1].error, world.events[-1].complete) == (None, False)


async def test_an_observer_that_raises_is_counted_and_changes_nothing(world):
    def broken(event):
        raise KeyError(event)

    plain = world.stack(world.scripted(503, 503, 503, 200), on_event=())
    watched = world.stack(world.scripted(503, 503, 503, 200), on_event=[broken, world.events.append])
    outcomes = [[(await world.get(stack)).status_code for _ in range(2)] for stack in (plain, watched)]
    assert outcomes[0] == outcomes[1] == [503, 200]
    assert len(world.events) == 9
    assert watched.observer_failures == 9
    assert plain.observer_failures == 0


async def test_every_observer_sees_every_event_in_the_order_given(world):
    seen = []
    observers = [seen.append, functools.partial(seen.append)]
    await world.get(world.stack(world.scripted(200), on_event=iter(observers)))
    assert seen[0] is seen[1]
    assert [type(event).__name__ for event in seen[::2]] == ["AttemptFinished", "CallFinished"]


async def slow_observer(event):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("on_event", "says"),
    [
        (None, "on_event=None: it must be a callable, or several in a list"),
        (7, "on_event=7: it must be a callable, or several in a list"),
        ([print, "log"], "'log' is not callable"),
        (slow_observer, "called, never awaited; give a plain function"),
    ],
    ids=["none", "number", "name", "coroutine function"],
)
def test_what_cannot_observe_is_refused_when_the_stack_is_made(on_event, says):
    with pytest.raises(TypeError, match=says):
        resilient("test", httpx.AsyncHTTPTransport(), on_event=on_event)
