"""In an outage the log stays readable: repeated records are held back, and counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from aragora_transport import Policy, call_options, resilient
from aragora_transport.events import CallFinished, CircuitChanged
from aragora_transport.layers import LogTransport
from aragora_transport.layers._log_limit import LogLimit
from aragora_transport.testing import ManualClock, ScriptedTransport, VirtualTime

pytestmark = pytest.mark.anyio

LOGGER = logging.getLogger("aragora_transport")


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    """All that is written, also at INFO."""
    handler, level, propagate = Kept(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    yield handler.records
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = propagate


def suppressed(records):
    return sum(getattr(record, "suppressed", 0) for record in records)


def outage(policy, *, rate, before=1, seconds=60, after=5):
    """Calls at a rate on a platform that is down for a while; how many records there were to write."""
    time = VirtualTime(seed=1)
    registry = CollectorRegistry()

    def platform(request):
        return 503 if before <= time.monotonic() < before + seconds else 200

    network = ScriptedTransport(platform, clock=time)
    events = []
    stack = resilient(
        "api", network, policy=policy, clock=time, rng=time.rng, registry=registry, on_event=events.append
    )

    async def one(client):
        try:
            await client.get("http://api.test/")
        except httpx.TransportError:
            pass

    async def main():
        async with (
            httpx.AsyncClient(transport=stack, timeout=None) as client,  # noqa: S113  # virtual time
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(int((before + seconds + after) * rate)):
                tasks.create_task(one(client))
                await asyncio.sleep(1 / rate)

    time.run(main())
    return Counter(type(event).__name__ for event in events), events


@pytest.mark.parametrize(
    ("policy", "rate"), [(Policy(), 200), (Policy.recommended(), 20)], ids=["guide", "recommended"]
)
def test_a_minute_of_outage_is_at_most_100_records(kept, policy, rate):
    counted, events = outage(policy, rate=rate)
    assert len(kept) <= 100
    summaries = sum(record.event == "held_back" for record in kept)
    ended = [event for event in events if isinstance(event, CallFinished)]
    failed = sum(event.error is not None or event.status >= 400 for event in ended)
    recovered = sum(event.status == 200 and event.attempts > 1 for event in ended)
    assert failed > 50 * rate
    to_write = failed + recovered + counted["RetryScheduled"] + counted["CircuitChanged"]
    assert len(kept) - summaries + suppressed(kept) == to_write
    moved = [event for event in events if isinstance(event, CircuitChanged)]
    changes = [(event.key, event.new) for event in moved if "closed" in {event.old, event.new}]
    logged = [
        (r.circuit_key, r.circuit_state)
        for r in kept
        if r.event == "circuit" and "closed" in r.getMessage().split(": ")[1]
    ]
    assert logged == changes != []


async def test_the_next_record_of_a_kind_tells_how_many_were_held_back(world, kept):
    network = world.scripted(404)
    layer = world.layer(LogTransport, network, burst=2, per=5.0, platform="api")
    for _ in range(10):
        await world.get(layer)
    assert [getattr(record, "suppressed", None) for record in kept] == [None, None]
    await world.get(layer, extensions=call_options(operation="another"))
    world.clock.advance(5.0)
    await world.get(layer)
    assert [getattr(record, "suppressed", None) for record in kept] == [None, None, None, 8]
    await world.get(layer)
    if world.blocking:
        world.client(layer).close()
    else:
        await layer.aclose()
    last = kept[-1]
    assert (last.event, last.levelname, last.suppressed) == ("held_back", "WARNING", 1)
    assert last.getMessage() == "api: 1 records were held back since the last of their kind"
    assert (last.connector, last.operation, last.attempt) == ("api", "-", 0)


async def test_all_is_written_where_no_limit_is_wanted(world, kept):
    layer = world.layer(LogTransport, world.scripted(404), burst=None)
    for _ in range(20):
        await world.get(layer)
    if not world.blocking:
        await layer.aclose()
    assert len(kept) == 20
    assert suppressed(kept) == 0


async def test_what_is_not_written_for_its_level_is_not_held_back_either(world, kept):
    LOGGER.setLevel(logging.WARNING)
    layer = world.layer(LogTransport, world.scripted(404), burst=1)
    for _ in range(3):
        await world.get(layer)
    LOGGER.setLevel(logging.INFO)
    await world.get(layer)
    assert [getattr(record, "suppressed", None) for record in kept] == [None]


@pytest.mark.parametrize("wrong", [{"burst": 0}, {"burst": 1.5}, {"per": 0}, {"per": -1.0}], ids=str)
def test_a_limit_that_makes_no_sense_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"LogTransport\({name}="):
        LogTransport(ScriptedTransport(200), **wrong)


@given(
    asked=st.lists(st.tuples(st.integers(0, 400), st.floats(0, 30)), max_size=600),
    burst=st.integers(1, 5),
)
def test_what_passes_and_what_is_held_back_add_up_in_constant_memory(asked, burst):
    clock = ManualClock()
    limit = LogLimit(clock, burst=burst, per=10.0)
    passed = told = 0
    for kind, wait in asked:
        held_back = limit.admit(kind)
        if held_back is not None:
            passed += 1
            told += held_back
        assert len(limit._kinds) <= 257
        clock.advance(wait / 100)
    assert passed + told + limit.take_held_back() == len(asked)


@pytest.mark.parametrize("per", [0.1, 7.3, 10.0])
def test_the_times_of_a_clock_that_has_run_for_long_are_rounded_and_none_is_lost(per):
    for began in range(1, 200):
        clock = ManualClock()
        clock.advance(began * 4321.987654321)
        limit = LogLimit(clock, burst=5, per=per)
        assert sum(limit.admit("kind") is not None for _ in range(9)) == 5
        clock.advance(per)
        assert [limit.admit("kind"), limit.admit("kind")] == [4, None]


def test_a_thousand_kinds_share_what_is_left():
    clock = ManualClock()
    limit = LogLimit(clock, burst=1, per=10.0)
    assert [limit.admit(kind) for kind in range(256)] == [0] * 256
    assert limit.admit("one too many") == 0
    assert limit.admit("one more") is None  # of the same kind as the one before: all others
    assert limit.admit(0) is None
    clock.advance(10.0)
    assert limit.admit("new") == 0  # those that were silent and have nothing to tell made room
    assert limit.admit(0) == 1
    assert limit.take_held_back() == 1


def test_a_kind_that_is_known_keeps_what_is_its_own_when_there_is_room_for_no_other():
    limit = LogLimit(ManualClock(), burst=2, per=10.0)
    for _ in range(2):
        assert [limit.admit(kind) for kind in range(256)] == [0] * 256
    assert limit.admit("one too many") == 0


async def test_that_its_attempts_were_used_up_is_no_reason_to_name_beside_a_failure(world, kept):
    await world.get(world.stack(world.scripted(503), policy=Policy(breaker=None)))
    assert [record.event for record in kept] == ["retry", "retry", "failed"]
    assert not hasattr(kept[-1], "reason")
