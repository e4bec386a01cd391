from __future__ import annotations

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RateLimitedError,
    RateLimitPolicy,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
    resilient_sync,
)
from aragora_transport.events import CallFinished
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"
CALL = {"platform": "test", "operation": "GET"}
# The guide's names, their kinds and labels.
GUIDE = {
    "platform_requests_total": ("counter", {"platform", "operation", "status"}),
    "platform_request_latency_seconds": ("histogram", {"platform", "operation"}),
    "platform_circuit_breaker_state": ("gauge", {"platform"}),
    "platform_retry_total": ("counter", {"platform", "operation"}),
    "platform_retry_success_total": ("counter", {"platform", "operation"}),
    "platform_rate_limit_total": ("counter", {"platform", "result"}),
}
LIMITED = Reply(status=429, headers={"retry-after": "5"})


def exposed(registry):
    """What a scrape sees: the kind and the label names of each sample's family, by the guide's names."""
    seen = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            name = family.name + ("_total" if family.type == "counter" else "")
            _, labels = seen.setdefault(name, (family.type, set()))
            labels |= sample.labels.keys() - {"le"}
    return seen


def total(registry, name):
    """The sum over all labels of one counter."""
    return sum(s.value for metric in registry.collect() for s in metric.samples if s.name == name)


def gauge(world):
    return world.registry.get_sample_value("platform_circuit_breaker_state", {"platform": "test"})


async def test_a_scrape_sees_the_guides_six_families_with_exactly_its_labels(world):
    await world.get(world.stack(world.scripted(LIMITED, 200)))
    seen = exposed(world.registry)
    assert {name: seen.get(name) for name in GUIDE} == GUIDE
    assert all(name.startswith("platform_") for name in seen)


async def test_the_buckets_of_latency_reach_two_minutes_and_those_of_waits_five(world):
    await world.get(world.stack(world.scripted(LIMITED, 200)))
    bounds = {}
    for metric in world.registry.collect():
        if metric.type == "histogram":
            samples = [sample for sample in metric.samples if sample.name.endswith("_bucket")]
            bounds[metric.name] = [float(sample.labels["le"]) for sample in samples]
    latency = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, float("inf")]
    waits = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 300.0, float("inf")]
    assert bounds == {
        "platform_request_latency_seconds": latency,
        "platform_attempt_latency_seconds": latency,
        "platform_retry_delay_seconds": waits,
        "platform_rate_limit_wait_seconds": waits,
    }


async def test_a_call_is_counted_once_however_many_attempts_it_took(world):
    await world.get(world.stack(world.scripted(503, world.httpx.ReadError, 200)))
    assert total(world.registry, "platform_requests_total") == 1
    assert world.sample("platform_requests_total", **CALL, status="200") == 1
    for status in ("503", "read_error", "200"):
        assert world.sample("platform_attempts_total", **CALL, status=status) == 1
    assert world.sample("platform_retry_total", **CALL) == 2
    assert world.sample("platform_retry_success_total", **CALL) == 1


async def test_a_call_that_no_retry_saved_is_no_retry_success(world):
    await world.get(world.stack(world.scripted(503)))
    assert world.sample("platform_requests_total", **CALL, status="503") == 1
    assert world.sample("platform_retry_total", **CALL) == 2
    assert world.sample("platform_retry_success_total", **CALL) == 0
    assert world.sample("platform_retry_refused_total", platform="test", reason="attempts") == 1


async def test_latency_runs_to_the_end_of_the_body(world):
    network = world.scripted(503, Reply(after=2.0, body=(b"a", b"b"), between=20.0))
    await world.get(world.stack(network))
    name = "platform_request_latency_seconds"
    assert world.sample(f"{name}_count", **CALL) == 1
    assert world.sample(f"{name}_sum", **CALL) == pytest.approx(world.clock.monotonic())
    assert world.sample(f"{name}_sum", **CALL) > 43.0
    assert world.sample(f"{name}_bucket", **CALL, le="30.0") == 0
    assert world.sample(f"{name}_bucket", **CALL, le="60.0") == 1
    assert world.sample(f"{name}_bucket", **CALL, le="120.0") == 1


async def test_calls_that_went_straight_fall_into_the_same_buckets(world):
    """A bound is of its own bucket, and it does not matter in which order they came."""
    seconds = [3.0, 40.0, 1.0, 0.25, 500.0, 0.0, 1.0]
    stack = world.stack(world.scripted(*(Reply(after=each) for each in seconds)), policy=Policy(timeout=None))
    for _ in seconds:
        await world.get(stack)
    for name in ("platform_request_latency_seconds", "platform_attempt_latency_seconds"):
        counted = {
            bound: world.sample(f"{name}_bucket", **CALL, le=bound)
            for bound in ("0.025", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "30.0", "60.0", "120.0", "+Inf")
        }
        assert list(counted.values()) == [1, 1, 2, 2, 4, 4, 5, 5, 6, 6, 7]
        assert world.sample(f"{name}_sum", **CALL) == pytest.approx(sum(seconds))


@pytest.mark.parametrize("status", [202, 401])
async def test_an_attempt_whose_answer_is_dropped_ends_no_call(world, status):
    policy = Policy(retry=RetryPolicy(max_attempts=2, statuses={status}))
    await world.get(world.stack(world.scripted(status, 200), policy=policy))
    assert total(world.registry, "platform_requests_total") == 1
    assert world.sample("platform_attempts_total", **CALL, status=str(status)) == 1
    assert [event.status for event in world.events if isinstance(event, CallFinished)] == [200]


async def test_a_call_is_not_counted_before_its_body_has_ended(world):
    client = world.client(world.stack(world.scripted(Reply(body=b"x"))))
    request = client.build_request("GET", URL)
    answer = client.send(request, stream=True) if world.blocking else await client.send(request, stream=True)
    assert total(world.registry, "platform_requests_total") == 0
    if world.blocking:
        answer.close()
    else:
        await answer.aclose()
    assert world.sample("platform_requests_total", **CALL, status="200") == 1


async def test_a_body_that_dies_is_counted_by_its_error_and_not_as_its_status(world):
    stack = world.stack(world.scripted(200, Reply(body=(b"half",), then=world.httpx.RemoteProtocolError)))
    await world.get(stack)
    with pytest.raises(world.httpx.RemoteProtocolError):
        await world.get(stack)
    for name in ("platform_requests_total", "platform_attempts_total"):
        assert total(world.registry, name) == 2
        assert world.sample(name, **CALL, status="protocol_error") == 1
        assert world.sample(name, **CALL, status="200") == 1


@pytest.mark.parametrize(
    ("error", "label"),
    [
        ("ConnectTimeout", "timeout"),
        ("ReadTimeout", "timeout"),
        ("WriteTimeout", "timeout"),
        ("PoolTimeout", "timeout"),
        ("ConnectError", "connect_error"),
        ("ReadError", "read_error"),
        ("WriteError", "read_error"),
        ("CloseError", "read_error"),
        ("RemoteProtocolError", "protocol_error"),
        ("LocalProtocolError", "protocol_error"),
        ("ProxyError", "error"),
        ("UnsupportedProtocol", "error"),
    ],
)
async def test_the_label_of_an_error_is_one_of_a_closed_set(world, error, label):
    kind = getattr(world.httpx, error)
    with pytest.raises(kind):
        await world.get(world.stack(world.scripted(kind), policy=Policy(retry=RetryPolicy(max_attempts=2))))
    sends = 1 if error in ("LocalProtocolError", "UnsupportedProtocol") else 2
    assert world.sample("platform_requests_total", **CALL, status=label) == 1
    assert world.sample("platform_attempts_total", **CALL, status=label) == sends


async def test_limits_of_ours_have_labels_of_their_own(world):
    limits = Policy(timeout=TimeoutPolicy(attempt=2.0), retry=RetryPolicy(max_attempts=2))
    stack = world.stack(world.scripted(Hang()), policy=limits)
    for options in ({}, {"total_timeout": 1.0}):
        with pytest.raises(world.httpx.TimeoutException):
            await world.get(stack, extensions=call_options(**options))
    assert world.sample("platform_requests_total", **CALL, status="timeout") == 1
    assert world.sample("platform_requests_total", **CALL, status="deadline_exceeded") == 1
    assert world.sample("platform_attempts_total", **CALL, status="timeout") == 2
    assert world.sample("platform_attempts_total", **CALL, status="deadline_exceeded") == 1


async def test_an_error_that_is_not_of_httpx_is_counted_and_raised_as_it_is(world):
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        await world.get(world.stack(world.scripted(error)))
    assert caught.value is error
    assert world.sample("platform_requests_total", **CALL, status="error") == 1


async def test_a_refused_call_is_counted_as_a_call_but_as_no_attempt(world):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    network = world.scripted(503)
    stack = world.stack(network, policy=policy)
    for _ in range(3):
        try:
            await world.get(stack)
        except world.httpx.TransportError:
            pass
    assert world.sample("platform_requests_total", **CALL, status="circuit_open") == 2
    assert total(world.registry, "platform_attempts_total") == len(network.sent) == 1


async def test_a_call_that_its_caller_cancels_is_counted_as_cancelled(async_world):
    world = async_world
    stack = world.stack(world.scripted(Hang()), policy=Policy(timeout=None))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, stack)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    for name in ("platform_requests_total", "platform_attempts_total"):
        assert world.sample(name, **CALL, status="cancelled") == 1


async def test_an_attempt_that_is_cancelled_at_the_gate_was_never_sent(async_world):
    world = async_world
    world.clock = ManualClock(auto=False)
    network = world.scripted(LIMITED, 200)
    stack = world.stack(network, policy=Policy(retry=None))
    await world.get(stack)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, stack)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert world.sample("platform_requests_total", **CALL, status="cancelled") == 1
    assert total(world.registry, "platform_attempts_total") == len(network.sent) == 1
    assert world.sample("platform_rate_limit_total", platform="test", result="allowed") == 1
    assert world.sample("platform_rate_limit_total", platform="test", result="blocked") == 1


STEPS = st.sampled_from(
    [
        *(200, 404, 429, 500, 503, LIMITED, Reply(status=503, headers={"retry-after": "90"}), Hang()),
        *(httpx.ReadError, httpx.ConnectError, httpx.PoolTimeout, httpx.LocalProtocolError, Reply(after=9.0)),
        *(Reply(body=b"x", then=httpx.ReadError), Reply(body=b"x", stall=True)),
    ]
)


@settings(deadline=None, max_examples=100)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=12),
    breaker=st.sampled_from([None, BreakerPolicy(failure_threshold=2, failure_rate=0.0, cooldown=3.0)]),
    waits=st.sampled_from([None, RateLimitPolicy(), RateLimitPolicy(max_waiters=0)]),
    calls=st.integers(1, 6),
)
def test_the_attempts_counted_are_those_that_the_network_saw(steps, breaker, waits, calls):
    clock, registry = ManualClock(), CollectorRegistry()
    network = ScriptedTransport(*steps, clock=clock)
    limits = TimeoutPolicy(attempt=5.0, total=20.0, body_idle=5.0)
    policy = Policy(timeout=limits, breaker=breaker, rate_limit=waits)
    stack = resilient_sync("test", network, policy=policy, registry=registry, clock=clock)
    with httpx.Client(transport=stack, timeout=None) as client:  # noqa: S113  # virtual time
        for _ in range(calls):
            try:
                client.get(URL)
            except httpx.TransportError:
                pass
    assert total(registry, "platform_attempts_total") == len(network.sent)
    assert total(registry, "platform_requests_total") == calls
    assert total(registry, "platform_telemetry_errors_total") == 0
    at_the_gate = total(registry, "platform_rate_limit_total")
    assert at_the_gate == 0 if waits is None else at_the_gate >= len(network.sent)


async def test_the_circuit_gauge_is_there_from_the_start_and_shows_the_worst_key(world):
    during = []

    def fine(request):
        during.append(gauge(world))
        return 200

    breaker = BreakerPolicy(failure_threshold=1, cooldown=5.0, key="operation")
    network = world.scripted(503, 503, fine)
    stack = world.stack(network, policy=Policy(retry=None, breaker=breaker))
    assert gauge(world) == 0
    for operation in ("a", "b"):
        await world.get(stack, extensions=call_options(operation=operation))
        assert gauge(world) == 1
    world.clock.advance(5.0)
    await world.get(stack, extensions=call_options(operation="a"))
    assert gauge(world) == 1
    await world.get(stack, extensions=call_options(operation="b"))
    assert gauge(world) == 0
    assert during == [1, 2]  # the probe of a, while b was open; the probe of b, which was all that was left
    stack.isolate("a")
    assert gauge(world) == 1
    stack.reset("a")
    assert gauge(world) == 0


async def test_attempts_at_the_gate_are_allowed_or_blocked(world):
    def result(name):
        return world.sample("platform_rate_limit_total", platform="test", result=name)

    stack = world.stack(world.scripted(200, LIMITED, 200, Reply(status=429, headers={"retry-after": "90"})))
    await world.get(stack)
    assert (result("allowed"), result("blocked")) == (1, 0)
    await world.get(stack)
    assert (result("allowed"), result("blocked")) == (2, 1)
    assert world.sample("platform_rate_limit_wait_seconds_count", platform="test") == 1
    assert world.sample("platform_rate_limit_wait_seconds_sum", platform="test") >= 5.0
    await world.get(stack)
    with pytest.raises(RateLimitedError):
        await world.get(stack)
    assert (result("allowed"), result("blocked")) == (3, 2)
    assert world.sample("platform_requests_total", **CALL, status="rate_limited") == 1


async def test_a_call_is_counted_before_its_end_is_told(world):
    told = []

    def look(event):
        if isinstance(event, CallFinished):
            told.append(world.sample("platform_requests_total", **CALL, status="200"))

    stack = world.stack(world.scripted(200), on_event=look)
    for _ in range(3):
        await world.get(stack)
    assert told == [1, 2, 3]


async def test_calls_that_a_circuit_refused_after_a_gate_had_held_them_are_counted_at_both(world):
    stack = world.stack(world.scripted(LIMITED), policy=Policy(retry=None))
    for _ in range(3):
        stack.reset()
        await world.get(stack)
        stack.isolate()
        with pytest.raises(CircuitOpenError):
            await world.get(stack)
    assert world.sample("platform_requests_total", **CALL, status="circuit_open") == 3
    assert world.sample("platform_rate_limit_total", platform="test", result="blocked") == 3


async def test_a_call_that_was_held_at_a_gate_is_told_from_one_like_it_that_went_straight(world):
    stack = world.stack(world.scripted(200, LIMITED, 200), policy=Policy(retry=None))
    for _ in range(3):
        await world.get(stack)
    assert world.sample("platform_requests_total", **CALL, status="200") == 2
    assert world.sample("platform_rate_limit_total", platform="test", result="allowed") == 2
    assert world.sample("platform_rate_limit_total", platform="test", result="blocked") == 1
