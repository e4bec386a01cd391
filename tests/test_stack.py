from __future__ import annotations

import dataclasses
import json
import random

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    RateLimitPolicy,
    RetryPolicy,
    TimeoutPolicy,
    resilient,
    resilient_sync,
)
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"
REGISTRY = CollectorRegistry()
ALL = [
    *("LogTransport", "MetricsTransport", "DeadlineTransport", "RetryTransport"),
    *("RateLimitTransport", "BreakerTransport", "TimeoutTransport"),
]
OFF = Policy(timeout=None, retry=None, breaker=None, rate_limit=None, metrics=False, log=False)


def layers(stack):
    return [layer["layer"] for layer in stack.describe()["layers"]]


def stack_of(policy, make=resilient, **keywords):
    return make("test", ScriptedTransport(200), policy=policy, registry=REGISTRY, **keywords)


@pytest.mark.parametrize("make", [resilient, resilient_sync])
def test_the_layers_stand_in_the_order_of_the_design(make):
    assert layers(stack_of(Policy(), make)) == ALL
    assert layers(stack_of(Policy.recommended(), make)) == ALL


@pytest.mark.parametrize(
    ("field", "gone"),
    [
        ({"timeout": None}, {"DeadlineTransport", "TimeoutTransport"}),
        ({"retry": None}, {"RetryTransport"}),
        ({"breaker": None}, {"BreakerTransport"}),
        ({"rate_limit": None}, {"RateLimitTransport"}),
        ({"metrics": False}, {"MetricsTransport"}),
        ({"log": False}, {"LogTransport"}),
    ],
    ids=lambda value: "" if isinstance(value, set) else next(iter(value)),
)
async def test_a_field_that_is_none_takes_its_layer_out(world, field, gone):
    stack = world.stack(world.scripted(200), policy=dataclasses.replace(Policy(), **field))
    assert layers(stack) == [name for name in ALL if name not in gone]
    assert (await world.get(stack)).status_code == 200


async def test_with_everything_out_the_network_alone_is_left(world):
    network = world.scripted(503)
    stack = world.stack(network, policy=OFF)
    assert layers(stack) == []
    answer = await world.get(stack)
    assert (answer.status_code, len(network.sent)) == (503, 1)
    assert answer.extensions["aragora_transport"].attempts[0].status == 503


@pytest.mark.parametrize("policy", [Policy(), Policy.recommended(), OFF], ids=["guide", "recommended", "off"])
def test_a_description_is_json_and_tells_every_value_that_holds(policy):
    told = stack_of(policy).describe()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["platform"], told["flavor"]) == ("test", "httpx")
    by_name = {layer.pop("layer"): layer for layer in told["layers"]}
    for name, value in {
        "RetryTransport": policy.retry,
        "BreakerTransport": policy.breaker,
        "RateLimitTransport": policy.rate_limit,
        "TimeoutTransport": policy.timeout,
        "DeadlineTransport": policy.timeout,
    }.items():
        if value is not None:
            assert by_name[name].keys() == {field.name for field in dataclasses.fields(value)}
    if policy.retry is not None:
        assert by_name["RetryTransport"]["statuses"] == [429, 500, 502, 503, 504]
        assert by_name["RetryTransport"]["budget"] == {"per_success": 1.0, "per_second": 1.0, "cap": 100.0}


def test_a_description_tells_a_strategy_of_tenacitys_by_its_name():
    import tenacity

    policy = Policy(retry=RetryPolicy(wait=tenacity.wait_fixed(500)))
    told = stack_of(policy).describe()
    assert json.dumps(told)
    assert "wait_fixed" in told["layers"][3]["wait"]
    assert told["worst_case_seconds"] is None  # how long that may wait nobody can say


@pytest.mark.parametrize(
    ("policy", "sends", "seconds"),
    [
        (Policy(retry=None, rate_limit=None), 1, 30.0),
        (Policy(rate_limit=None), 3, 30.0 + 61.0 + 30.0 + 61.0 + 30.0),
        (Policy(), 3, 61.0 + 30.0 + 61.0 + 30.0 + 61.0 + 30.0),
        (Policy(timeout=TimeoutPolicy(total=45.0)), 3, 45.0),
        (Policy(timeout=None), 3, None),
        (Policy(timeout=TimeoutPolicy(attempt=None)), 3, None),
        (Policy(timeout=TimeoutPolicy(attempt=None, total=45.0)), 3, 45.0),
        (Policy.recommended(), 4, 60.0),
    ],
)
def test_the_worst_case_is_told(policy, sends, seconds):
    told = stack_of(policy).describe()
    assert (told["worst_case_sends"], told["worst_case_seconds"]) == (sends, seconds)


SECONDS = st.floats(0.0, 40.0)
STEPS = st.one_of(
    st.sampled_from([500, 503, Hang(), httpx.ReadError, Reply(status=503, body=b"x", stall=True)]),
    st.builds(Reply, status=st.sampled_from([200, 429, 503]), after=SECONDS),
    st.builds(
        lambda status, told: Reply(status=status, headers={"retry-after": f"{told:.3f}"}),
        st.sampled_from([429, 503]),
        st.floats(0.0, 70.0),
    ),
)
RETRIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 5),
    base_delay=st.floats(0.0, 10.0),
    max_delay=st.floats(0.0, 100.0),
    jitter=st.sampled_from(["guide", "full", "decorrelated"]),
    max_retry_after=st.floats(0.0, 60.0),
)


@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=8),
    retry=st.none() | RETRIES,
    timeout=st.builds(TimeoutPolicy, attempt=st.just(30.0), total=st.none() | st.floats(1.0, 200.0)),
    rate_limit=st.sampled_from([None, RateLimitPolicy()]),
    seed=st.integers(0, 99),
)
@example(
    steps=[Reply(status=503, headers={"retry-after": "60"}, after=29.999)],
    retry=RetryPolicy(),
    timeout=TimeoutPolicy(),
    rate_limit=None,
    seed=0,
)
def test_no_call_takes_longer_or_sends_more_than_the_worst_case(steps, retry, timeout, rate_limit, seed):
    if timeout.total is not None and timeout.total < 30.0:
        timeout = dataclasses.replace(timeout, attempt=timeout.total)
    clock = ManualClock()
    network = ScriptedTransport(*steps, clock=clock)
    policy = Policy(
        timeout=timeout, retry=retry, rate_limit=rate_limit, breaker=None, log=False, metrics=False
    )
    stack = resilient_sync("test", network, policy=policy, clock=clock, rng=random.Random(seed))
    told = stack.describe()
    with httpx.Client(transport=stack, timeout=None) as client:  # noqa: S113  # virtual time
        for _ in range(3):
            began, sent = clock.monotonic(), len(network.sent)
            try:
                client.send(client.build_request("GET", URL), stream=True).close()
            except httpx.TransportError:
                pass
            assert clock.monotonic() - began <= told["worst_case_seconds"] + 1e-6
            assert len(network.sent) - sent <= told["worst_case_sends"]


async def test_circuits_tell_state_failures_and_the_next_probe(world):
    def circuit(**told):
        return {"test": {"state": "closed", "failures": 0, "next_probe_in": None, "cause": None, **told}}

    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=2))
    stack = world.stack(world.scripted(503), policy=policy)
    assert stack.circuits() == circuit()
    await world.get(stack)
    assert stack.circuits() == circuit(failures=1, cause="503")
    await world.get(stack)
    world.clock.advance(10.0)
    assert stack.circuits() == circuit(state="open", failures=2, next_probe_in=50.0, cause="503")
    assert json.loads(json.dumps(stack.circuits())) == stack.circuits()


async def test_a_circuit_can_be_opened_and_closed_by_hand(world):
    stack = world.stack(world.scripted(200), policy=Policy(retry=None))
    stack.isolate()
    world.clock.advance(1e6)
    with pytest.raises(CircuitOpenError, match="isolated by hand"):
        await world.get(stack)
    stack.reset()
    assert (await world.get(stack)).status_code == 200
    assert [(event.old, event.new) for event in world.events if hasattr(event, "worst")] == [
        ("closed", "open"),
        ("open", "closed"),
    ]


def test_a_stack_without_circuits_says_so():
    stack = stack_of(Policy(breaker=None))
    assert stack.circuits() == {}
    for by_hand in (stack.isolate, stack.reset):
        with pytest.raises(ValueError, match="test has no circuit: its policy says breaker=None"):
            by_hand()


@pytest.mark.parametrize("make", [resilient, resilient_sync])
@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"policy": RetryPolicy()}, r"policy is a RetryPolicy; the whole stack takes a Policy\(retry=...\)"),
        ({"policy": None}, "policy is None, but it must be a Policy"),
        ({"policy": Policy}, r"policy is .* must be a Policy; call it: Policy\(\)"),
        ({"state": Policy()}, "state is .* must be a State"),
        ({"profile": "slack"}, "profile is 'slack', but it must be a Profile"),
        ({"clock": ManualClock}, r"clock is .* must be a Clock; call it: ManualClock\(\)"),
        ({"rng": 7}, "rng is 7, but it must be a Random"),
    ],
    ids=["layer's policy", "no policy", "class", "state", "profile", "clock", "rng"],
)
def test_an_argument_of_the_wrong_kind_is_refused_by_name(make, keywords, says):
    with pytest.raises(TypeError, match=f"test: {says}"):
        make("test", ScriptedTransport(200), registry=REGISTRY, **keywords)


@pytest.mark.parametrize(
    "platform",
    ["", "  ", None, 7, ScriptedTransport(200)],
    ids=lambda given: type(given).__name__ + str(given)[:2],
)
def test_a_platform_without_a_name_is_refused(platform):
    for make in (resilient, resilient_sync):
        with pytest.raises(TypeError, match=r"platform=.* must be the platform's name .* comes after it"):
            make(platform)


@pytest.mark.parametrize("policy", [Policy(), OFF], ids=["guide", "off"])
def test_a_transport_of_the_wrong_kind_is_refused_with_a_way_out(policy):
    with pytest.raises(TypeError, match=r"test: .*HTTPTr.* is no async transport; .* use resilient_sync\(\)"):
        resilient("test", httpx.HTTPTransport(), policy=policy)
    with pytest.raises(TypeError, match=r"is no blocking transport; it is an async one: use resilient\(\)"):
        resilient_sync("test", httpx.AsyncHTTPTransport(), policy=policy)
    for make in (resilient, resilient_sync):
        with pytest.raises(TypeError, match=r"'http://proxy.test' is no (async|blocking) transport$"):
            make("test", "http://proxy.test", policy=policy)


@pytest.mark.parametrize("make", [resilient, resilient_sync])
def test_a_flavour_that_is_none_is_refused(make):
    with pytest.raises(ValueError, match="flavor='requests': it must be 'httpx' or 'httpx2'"):
        make("test", flavor="requests")


def test_a_transport_of_the_other_flavour_is_refused():
    with pytest.raises(ValueError, match="give a transport of httpx2, or none"):
        resilient("x", httpx.AsyncHTTPTransport(), flavor="httpx2")
