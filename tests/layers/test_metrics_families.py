"""The families beyond the guide's: what an operator asks at night, and what answers it."""

from __future__ import annotations

import gc
import re
import sys
import types

import anyio
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    DeadlineExceededError,
    Judgement,
    Policy,
    Profile,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
    resilient,
)
from aragora_transport.events import CircuitChanged
from aragora_transport.layers import BreakerTransport, LogTransport, MetricsTransport
from aragora_transport.testing import Hang, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"
CALL = {"platform": "test", "operation": "GET"}
TEST = {"platform": "test"}


def circuits(world, platform="test"):
    family = "platform_circuit_breaker_circuits"
    return {
        state: world.sample(family, platform=platform, state=state)
        for state in ("closed", "open", "half-open")
    }


def gauge(world):
    return world.sample("platform_circuit_breaker_state", **TEST)


async def test_the_latency_of_attempts_has_no_waits_in_it(world):
    network = world.scripted(Reply(status=503, after=2.0), Reply(after=3.0), Reply(after=4.0))
    stack = world.stack(network)
    await world.get(stack)
    await world.get(stack)
    await world.get(stack)  # by now there is nothing to count of it but that it went straight
    name = "platform_attempt_latency_seconds"
    assert world.sample(f"{name}_count", **CALL) == 4
    assert world.sample(f"{name}_sum", **CALL) == pytest.approx(13.0)
    assert world.sample("platform_request_latency_seconds_sum", **CALL) > 14.0
    delay = "platform_retry_delay_seconds"
    assert world.sample(f"{delay}_count", **TEST, source="backoff") == 1
    assert 1.0 <= world.sample(f"{delay}_sum", **TEST, source="backoff") <= 1.1


async def test_a_wait_that_the_platform_told_is_told_apart(world):
    limited = Reply(status=429, headers={"retry-after": "7"})
    await world.get(world.stack(world.scripted(limited, 200), policy=Policy(rate_limit=None)))
    delay = "platform_retry_delay_seconds"
    assert world.sample(f"{delay}_count", **TEST, source="told") == 1
    assert world.sample(f"{delay}_sum", **TEST, source="told") >= 7.0
    assert world.sample(f"{delay}_count", **TEST, source="backoff") == 0


async def test_calls_in_flight_are_those_whose_body_has_not_ended(world):
    def flying():
        return world.registry.get_sample_value("platform_requests_in_flight", TEST)

    seen = []

    def look(request):
        seen.append(flying())
        return Reply(body=b"x")

    stack = world.stack(world.scripted(look, look, look, 503, world.httpx.LocalProtocolError))
    assert flying() == 0
    for _ in range(2):
        await world.get(stack)
    client = world.client(stack)
    request = client.build_request("GET", URL)
    answer = client.send(request, stream=True)
    answer = answer if world.blocking else await answer
    assert flying() == 1
    if world.blocking:
        answer.close()
    else:
        await answer.aclose()
    assert (flying(), seen) == (0, [1, 1, 1])
    with pytest.raises(world.httpx.LocalProtocolError):
        await world.get(stack)
    assert flying() == 0


async def test_a_cancelled_call_is_in_flight_no_more(async_world):
    world = async_world
    stack = world.stack(world.scripted(Hang()), policy=Policy(timeout=None))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(world.get, stack)
        await anyio.wait_all_tasks_blocked()
        assert world.sample("platform_requests_in_flight", **TEST) == 3
        tasks.cancel_scope.cancel()
    assert world.sample("platform_requests_in_flight", **TEST) == 0


async def test_circuits_are_counted_by_state_and_so_are_their_transitions(world):
    breaker = BreakerPolicy(failure_threshold=1, cooldown=5.0, key="operation")
    stack = world.stack(world.scripted(503, 503, 200), policy=Policy(retry=None, breaker=breaker))
    assert circuits(world) == {"closed": 0, "open": 0, "half-open": 0}
    for operation in ("a", "b"):
        await world.get(stack, extensions=call_options(operation=operation))
    assert circuits(world) == {"closed": 0, "open": 2, "half-open": 0}
    world.clock.advance(5.0)
    await world.get(stack, extensions=call_options(operation="a"))
    assert circuits(world) == {"closed": 1, "open": 1, "half-open": 0}
    moves = [("closed", "open", 2), ("open", "half-open", 1), ("half-open", "closed", 1)]
    for old, new, times in moves:
        labels = {"from_state": old, "to_state": new}
        assert world.sample("platform_circuit_breaker_transitions_total", **TEST, **labels) == times


async def test_stacks_of_one_platform_add_their_circuits_up_and_mounts_of_one_client_do_not(world):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    first = world.stack(world.scripted(503), policy=policy)
    mount = world.stack(world.scripted(200), policy=policy, state=first.state)
    second = world.stack(world.scripted(200), policy=policy)
    await world.get(first)
    await world.get(second)
    assert circuits(world) == {"closed": 1, "open": 1, "half-open": 0}
    assert gauge(world) == 1  # the worst of both, whichever spoke last
    with pytest.raises(CircuitOpenError):
        await world.get(mount)


def test_circuits_go_with_their_stack():
    registry = CollectorRegistry()
    stack = resilient("test", ScriptedTransport(200), registry=registry)
    stack.isolate()
    labels = {"platform": "test", "state": "open"}
    assert registry.get_sample_value("platform_circuit_breaker_circuits", labels) == 1
    del stack
    gc.collect()
    assert registry.get_sample_value("platform_circuit_breaker_circuits", labels) == 0
    assert registry.get_sample_value("platform_circuit_breaker_state", TEST) == 0


async def test_an_open_circuit_that_is_forgotten_leaves_the_gauges_and_tells_of_it(world):
    breaker = BreakerPolicy(failure_threshold=1, key="host", max_keys=2)
    stack = world.stack(world.scripted(503, 503, 200), policy=Policy(retry=None, breaker=breaker))
    for host in "ab":
        await world.get(stack, url=f"http://{host}.test/")
    assert circuits(world) == {"closed": 0, "open": 2, "half-open": 0}
    await world.get(stack, url="http://c.test/")
    assert circuits(world) == {"closed": 1, "open": 1, "half-open": 0}
    told = [e for e in world.events if isinstance(e, CircuitChanged) and e.new == "closed"]
    assert [(e.key, e.old, e.cause, e.worst) for e in told] == [("a.test", "open", "forgotten", "open")]
    stack.reset("b.test")
    assert gauge(world) == 0


async def test_the_state_is_shown_also_through_a_transport_that_cannot_be_looked_into(async_world):
    world = async_world
    inner = world.stack(world.scripted(503), policy=Policy(metrics=False, retry=None, log=False)).top

    class Opaque(world.httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return await inner.handle_async_request(request)

    outer = world.layer(MetricsTransport, Opaque(), platform="test", registry=world.registry)
    for _ in range(5):
        await world.get(outer)
    assert gauge(world) == 1


LIMITS = {
    "attempt": (TimeoutPolicy(attempt=2.0), Hang(), 2),
    "total": (TimeoutPolicy(attempt=None, total=2.0), Hang(), 1),
    "body_idle": (TimeoutPolicy(body_idle=2.0), Reply(body=b"x", stall=True), 1),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_each_limit_that_ran_out_is_counted_by_its_name(world, limit):
    timeout, step, times = LIMITS[limit]
    policy = Policy(timeout=timeout, retry=RetryPolicy(max_attempts=2))
    with pytest.raises(DeadlineExceededError):
        await world.get(world.stack(world.heedless(step), policy=policy))
    assert world.sample("platform_deadline_exceeded_total", **TEST, limit=limit) == times
    family = next(m for m in world.registry.collect() if m.name == "platform_deadline_exceeded")
    assert [sample.labels["limit"] for sample in family.samples] == [limit]


async def test_a_body_that_dies_is_counted_by_what_it_died_of(world):
    network = world.scripted(
        Reply(body=b"x", then=world.httpx.ReadError),
        Reply(body=b"x", then=world.httpx.RemoteProtocolError),
        Reply(body=b"x", then=world.httpx.ProxyError),
        Reply(body=b"x", stall=True),
    )
    stack = world.stack(network, policy=Policy(retry=None))
    for _ in range(4):
        with pytest.raises(world.httpx.TransportError):
            await world.get(stack)
    counted = {
        error: world.sample("platform_body_failures_total", **TEST, error=error)
        for error in ("read_error", "protocol_error", "error", "timeout")
    }
    assert set(counted.values()) == {1}


async def test_a_platforms_own_codes_are_counted_up_to_a_hundred(world):
    codes = iter(["ratelimited", "ratelimited", "invalid_auth", "a\nb", *map("code_{}".format, range(120))])

    def classify(response, body):
        return Judgement(verdict="failure", code=next(codes), retryable=response.status_code == 202)

    profile = Profile(classify=classify)
    policy = Policy(breaker=None, retry=RetryPolicy(max_attempts=2))
    stack = world.stack(world.scripted(202, 200), policy=policy, profile=profile)
    for _ in range(123):
        await world.get(stack)
    family = "platform_api_errors_total"
    assert world.sample(family, **TEST, code="ratelimited") == 2  # that of the attempt before, too
    assert world.sample(family, **TEST, code="invalid_auth") == 1
    assert world.sample(family, **TEST, code="code_97") == 1
    assert world.sample(family, **TEST, code="other") == 23
    assert world.sample("platform_label_overflow_total", label="code") == 23


async def test_a_failure_behind_a_good_status_is_none_of_the_straight_successes(world):
    def classify(response, body):
        refused = Judgement(verdict="failure", code="invalid_auth", retryable=False)
        return refused if body == b"no" else None

    bodies = (Reply(body=body) for body in (b"yes", b"yes", b"no", b"yes"))
    profile = Profile(classify=classify, reads_body=lambda _: True)
    stack = world.stack(world.scripted(*bodies), profile=profile)
    for _ in range(4):
        await world.get(stack)
    for family in ("platform_requests_total", "platform_attempts_total"):
        assert world.sample(family, **CALL, status="200") == 3
        assert world.sample(family, **CALL, status="api_error") == 1
    assert world.sample("platform_api_errors_total", **TEST, code="invalid_auth") == 1


# --- exemplars ---


def opentelemetry(monkeypatch, *, sampled=True, valid=True, error=None):
    """As if somebody had loaded it, and a span were open."""

    def current_span():
        if error is not None:
            raise error
        flags = types.SimpleNamespace(sampled=sampled)
        context = types.SimpleNamespace(is_valid=valid, trace_id=0xABC, trace_flags=flags)
        return types.SimpleNamespace(get_span_context=lambda: context)

    module = types.ModuleType("opentelemetry.trace")
    module.get_current_span = current_span
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)


def exemplars(world):
    pattern = r'^(platform_\w+)_bucket\{.*\} \S+ # \{trace_id="(\w+)"\} (\S+)'
    return re.findall(pattern, openmetrics(world.registry).decode(), re.MULTILINE)


async def test_a_latency_that_is_worth_a_look_names_its_trace(world, monkeypatch):
    opentelemetry(monkeypatch)
    await world.get(world.stack(world.scripted(Reply(status=503, after=7.0), Reply(after=0.2))))
    found = exemplars(world)
    names = ["platform_request_latency_seconds", *["platform_attempt_latency_seconds"] * 2]
    assert sorted(name for name, _, _ in found) == sorted(names)
    assert {trace for _, trace, _ in found} == {f"{0xABC:032x}"}
    assert {"7.0", "0.2"} <= {str(round(float(value), 3)) for _, _, value in found}


@pytest.mark.parametrize(
    "span", [{"sampled": False}, {"valid": False}, {"error": RuntimeError("broken")}], ids=str
)
async def test_a_trace_that_nobody_can_look_up_is_not_named(world, monkeypatch, span):
    opentelemetry(monkeypatch, **span)
    assert (await world.get(world.stack(world.scripted(503, 200)))).status_code == 200
    assert exemplars(world) == []
    assert world.sample("platform_requests_total", **CALL, status="200") == 1


async def test_the_label_is_the_layers_own_platform(world):
    inner = world.layer(MetricsTransport, world.scripted(503), platform="inner", registry=world.registry)
    await world.get(LogTransport(inner, platform="outer", clock=world.clock))
    assert world.sample("platform_requests_total", platform="inner", operation="GET", status="503") == 1
    assert world.sample("platform_requests_in_flight", platform="inner") == 0


# --- behind a transport of somebody else ---


def hidden(world, network, **policy):
    """Metrics around a circuit, in a transport that cannot be looked into."""
    breaker = world.layer(BreakerTransport, network, policy=BreakerPolicy(**policy))
    inner = world.layer(MetricsTransport, breaker, platform="inner", registry=world.registry)

    class Theirs(world.httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            return await inner.handle_async_request(request)

    return Theirs()


INNER = {"platform": "inner", "operation": "GET"}


async def test_refusals_are_counted_behind_a_transport_of_somebody_else(async_world):
    world = async_world
    outer = world.layer(LogTransport, hidden(world, world.scripted(503), failure_threshold=1))
    await world.get(outer)
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            await world.get(outer)
    assert world.sample("platform_requests_total", **INNER, status="circuit_open") == 3
    assert world.sample("platform_request_latency_seconds_count", **INNER) == 4


async def test_each_attempt_is_in_flight_and_ends_behind_a_transport_of_somebody_else(async_world):
    world = async_world
    flying = []

    def platform(request):
        flying.append(world.sample("platform_requests_in_flight", platform="inner"))
        return 503 if len(flying) == 1 else 200

    answer = await world.get(world.stack(hidden(world, world.scripted(platform))))
    assert answer.status_code == 200
    assert flying == [1, 1]
    assert world.sample("platform_request_latency_seconds_count", **INNER) == 2
    assert world.sample("platform_request_latency_seconds_count", **CALL) == 1
