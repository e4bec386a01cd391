import time

import httpx
import pytest

from aragora_transport.cli._demo_traffic import UNFINISHED, Arrival, Caller, Tally, arrivals, drive


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the demo is a program of its own and runs on asyncio


def test_the_same_seed_makes_the_same_arrivals() -> None:
    plan = arrivals(seconds=10.0, rate=40.0, seed=3)
    assert arrivals(seconds=10.0, rate=40.0, seed=3) == plan
    assert arrivals(seconds=10.0, rate=40.0, seed=4) != plan


def test_arrivals_come_in_order_at_their_rate_and_mix() -> None:
    plan = arrivals(seconds=100.0, rate=40.0, seed=1)
    assert [arrival.number for arrival in plan] == list(range(len(plan)))
    times = [arrival.at for arrival in plan]
    assert times == sorted(times)
    assert times[0] > 0.0
    assert times[-1] < 100.0
    assert len(plan) == pytest.approx(4000, rel=0.05)
    assert sum(arrival.method == "POST" for arrival in plan) == pytest.approx(800, rel=0.1)


def caller(handler: object) -> Caller:
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://demo.invalid")
    return Caller(client, lambda _: {}, Tally())


def answer(request: httpx.Request) -> httpx.Response:
    number = int(request.url.path.rpartition("/")[2])
    if number == 1:
        return httpx.Response(503, json={})
    if number == 2:
        raise httpx.ConnectError("no way")
    if number == 3:
        return httpx.Response(200, text="no JSON")
    return httpx.Response(200, json={"id": number})


async def test_every_arrival_is_sent_by_every_caller_and_counted_once() -> None:
    plan = [Arrival(number, 0.0, "POST" if number == 4 else "GET") for number in range(5)]
    callers = {"one": caller(answer), "other": caller(answer)}
    await drive(plan, callers, started=time.monotonic(), grace=5.0)
    for each in callers.values():
        assert sorted(outcome.arrival.number for outcome in each.tally.outcomes) == [0, 1, 2, 3, 4]
        assert (each.tally.served, each.tally.failed, each.tally.in_flight) == (2, 3, 0)
        assert each.tally.failures == {"503": 1, "ConnectError": 1, "JSONDecodeError": 1}
        await each.client.aclose()


async def test_a_call_that_does_not_end_in_time_counts_as_failed() -> None:
    import asyncio

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(3600)
        raise AssertionError

    one = caller(never)
    await drive([Arrival(0, 0.0, "GET")], {"one": one}, started=time.monotonic(), grace=0.01)
    assert one.tally.failures == {UNFINISHED: 1}
    assert one.tally.in_flight == 0
    await one.client.aclose()


async def test_a_call_counts_from_when_it_really_began() -> None:
    one = caller(answer)
    await drive([Arrival(0, 1.0, "GET")], {"one": one}, started=time.monotonic() - 3.0, grace=5.0)
    (begun,) = one.tally.begun
    assert begun.at >= 3.0
    assert begun.late == pytest.approx(begun.at - 1.0)
    await one.client.aclose()


async def test_no_arrivals_end_at_once() -> None:
    await drive([], {}, started=time.monotonic(), grace=3600.0)
