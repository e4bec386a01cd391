"""One stack for several event loops in several threads: its counts, permits, tokens and gates are exact."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RetryBudget,
    RetryPolicy,
    resilient,
    resilient_sync,
)
from aragora_transport.events import CircuitChanged
from aragora_transport.state import State
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

URL = "http://platform.test/"
LOOPS, CALLS = 6, 40
TOTAL = LOOPS * CALLS


def in_loops(main):
    """Run `main(number)` in so many threads at once, each in an event loop of its own, of both kinds."""
    start = threading.Barrier(LOOPS)

    def run(number):
        start.wait(10)
        return anyio.run(main, number, backend=("asyncio", "trio")[number % 2])

    with ThreadPoolExecutor(LOOPS) as pool:
        return [future.result(30) for future in [pool.submit(run, number) for number in range(LOOPS)]]


def calls(stack, on_error=lambda: None):
    """Make so many calls at once in each loop; what became of all of them, by status or error."""

    async def main(loop):
        counts = Counter()

        async def call(each):
            try:
                answer = await client.get(f"{URL}{loop}/{each}")
            except httpx.TransportError as error:
                counts[type(error)] += 1
                on_error()
            else:
                assert answer.text == f"/{loop}/{each}", "an answer went to another call"
                counts[answer.status_code] += 1

        async with httpx.AsyncClient(transport=stack) as client, anyio.create_task_group() as tasks:
            for each in range(CALLS):
                tasks.start_soon(call, each)
        return counts

    return sum(in_loops(main), Counter())


class Network:
    """Answers each call by its number, once `go` is set, and counts."""

    def __init__(self, status=lambda number: 503):
        self.status = status
        self.sent = 0
        self.go = threading.Event()
        self.go.set()
        self.transport = httpx.MockTransport(self.answer)
        self._lock = threading.Lock()

    async def answer(self, request):
        with self._lock:
            self.sent += 1
        while not self.go.is_set():  # noqa: ASYNC110  # set by a thread, for several event loops
            await anyio.sleep(0.001)
        path = request.url.path
        return httpx.Response(self.status(int(path.rpartition("/")[2])), text=path)


def test_every_call_is_counted_once():
    network = Network(lambda number: 503 if number % 4 == 0 else 200)
    registry = CollectorRegistry()
    retry, breaker = RetryPolicy(base_delay=0.0, budget=None), BreakerPolicy(failure_threshold=10_000)
    stack = resilient(
        "test", network.transport, policy=Policy(retry=retry, breaker=breaker), registry=registry
    )
    counts = calls(stack)
    total, failed = TOTAL, TOTAL // 4
    assert counts == {200: total - failed, 503: failed}
    assert network.sent == total + 2 * failed
    assert stack.circuits()["test"]["failures"] == 3 * failed

    def sample(name, **labels):
        return registry.get_sample_value(
            f"platform_{name}", {"platform": "test", "operation": "GET", **labels}
        )

    assert sample("requests_total", status="200") == total - failed
    assert sample("requests_total", status="503") == failed
    assert sample("request_latency_seconds_count") == total
    assert sample("attempts_total", status="503") == 3 * failed
    assert sample("retry_total") == 2 * failed


@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_lets_exactly_so_many_through_from_all_loops_together(probes):
    clock = ManualClock(auto=False)
    network = Network()
    events = []
    breaker = BreakerPolicy(failure_threshold=1, half_open_probes=probes)
    policy = Policy(retry=None, timeout=None, breaker=breaker, log=False, metrics=False)
    stack = resilient("test", network.transport, policy=policy, clock=clock, on_event=events.append)
    calls(stack)

    def refused():
        with lock:
            refusals.append(1)
            if len(refusals) == TOTAL - probes:
                network.go.set()  # the probes come back when all others have asked

    lock = threading.Lock()
    for _ in range(10):
        clock.advance(60.0)
        network.sent, refusals = 0, []
        network.go.clear()
        events.clear()
        counts = calls(stack, refused)
        assert network.sent == probes
        assert counts == {503: probes, CircuitOpenError: TOTAL - probes}
        changes = [(event.old, event.new) for event in events if isinstance(event, CircuitChanged)]
        assert changes == [("open", "half-open"), ("half-open", "open")]


def test_no_token_of_the_budget_is_spent_twice():
    network = Network()
    retry = RetryPolicy(base_delay=0.0, budget=RetryBudget(cap=50.0, per_second=0.0, per_success=0.0))
    stack = resilient(
        "test", network.transport, policy=Policy(retry=retry, breaker=None), registry=CollectorRegistry()
    )
    assert calls(stack) == {503: TOTAL}
    assert network.sent == TOTAL + 50


def test_a_gate_holds_the_callers_of_all_loops():
    clock = ManualClock()
    network = ScriptedTransport(
        Reply(status=429, headers={"retry-after": "5"}),
        lambda request: Reply(body=request.url.path.encode()),
        clock=clock,
    )
    stack = resilient("test", network, policy=Policy(retry=None), clock=clock, registry=CollectorRegistry())

    async def first():
        async with httpx.AsyncClient(transport=stack) as client:
            assert (await client.get(URL)).status_code == 429

    anyio.run(first)
    assert calls(stack) == {200: TOTAL}
    assert len(network.sent) == 1 + TOTAL
    assert min(sent.at for sent in network.sent[1:]) >= 5.0


def test_blocking_and_async_stacks_share_a_state():
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1), log=False, metrics=False)
    state = State(policy)
    blocking = resilient_sync("test", ScriptedTransport(503), policy=policy, state=state)
    with httpx.Client(transport=blocking) as client:
        client.get(URL)
    network = Network()
    assert calls(resilient("test", network.transport, policy=policy, state=state)) == {
        CircuitOpenError: TOTAL
    }
    assert network.sent == 0
