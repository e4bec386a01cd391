from __future__ import annotations

import dataclasses
import gc
import math
import random
import weakref

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora_transport import Policy, RateLimitPolicy, RetryPolicy, TimeoutPolicy, call_options
from aragora_transport._call import CALL
from aragora_transport.layers import LogTransport, MetricsTransport, RetryTransport
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"


def record(answer):
    return answer.extensions["aragora_transport"]


async def send(world, client, request, **keywords):
    answer = client.send(request, **keywords)
    return answer if world.blocking else await answer


async def test_a_straight_success_is_one_attempt(world):
    answer = await world.get(world.stack(world.scripted(Reply(after=0.5)), "my-api"))
    call = record(answer)
    assert (call.platform, call.operation) == ("my-api", "GET")
    (attempt,) = call.attempts
    assert (attempt.status, attempt.error, attempt.seconds, attempt.wait) == (200, None, 0.5, 0.0)
    assert call.total_seconds == 0.5
    assert call.retry_after is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        attempt.wait = 1.0


async def test_every_attempt_is_on_the_record_with_its_seconds_and_the_wait_after_it(world):
    network = world.scripted(
        Reply(status=503, after=0.25), world.httpx.ReadError, Reply(after=0.5, body=b"x", between=2.0)
    )
    call = record(await world.get(world.stack(network)))
    first, second, third = call.attempts
    assert (first.status, first.error, first.seconds) == (503, None, 0.25)
    assert (second.status, second.error, second.seconds) == (None, "ReadError", 0.0)
    assert (third.status, third.error, third.seconds) == (200, None, 2.5)
    assert 1.0 <= first.wait <= 1.1
    assert 2.0 <= second.wait <= 2.2
    assert third.wait == 0.0
    assert network.sent[1].at == pytest.approx(0.25 + first.wait)
    assert call.total_seconds == pytest.approx(world.clock.monotonic())


@pytest.mark.parametrize("status", [429, 503])
async def test_an_attempt_that_was_planned_and_never_made_is_not_on_the_record(world, status):
    network = world.scripted(Reply(status=status, headers={"retry-after": "5"}, body=b"later"))
    nobody_waits_at_the_gate = Policy(rate_limit=RateLimitPolicy(max_waiters=0))
    stack = world.stack(
        network,
        policy=nobody_waits_at_the_gate,
        # As if others had opened the circuit while this call waits for its second attempt.
        on_event=lambda event: stack.isolate() if getattr(event, "told", False) and status == 503 else None,
    )
    answer = await world.get(stack)
    assert (answer.status_code, answer.content, len(network.sent)) == (status, b"later", 1)
    (attempt,) = record(answer).attempts
    assert (attempt.status, attempt.wait >= 5.0) == (status, True)
    assert world.clock.monotonic() == 0.0


async def test_the_record_grows_until_the_body_has_ended(world):
    client = world.client(world.stack(world.scripted(Reply(after=1.0, body=(b"a", b"b"), between=2.0))))
    answer = await send(world, client, client.build_request("GET", URL), stream=True)
    assert record(answer).total_seconds == 1.0
    if world.blocking:
        answer.read()
    else:
        await answer.aread()
    assert record(answer).total_seconds == 5.0
    world.clock.advance(60.0)
    assert record(answer).total_seconds == 5.0


async def test_the_time_of_a_call_goes_on_after_an_attempt_whose_answer_was_dropped(world):
    seen = []

    def look(request):
        seen.append((world.clock.monotonic(), request.extensions[CALL].total_seconds))
        return 200

    await world.get(world.stack(world.scripted(Reply(status=503, after=2.0), look)))
    ((now, seconds),) = seen
    assert seconds == now > 3.0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([429, 500, 503]), st.floats(0, 20), st.sampled_from([None, "0", "3.5"])),
        max_size=3,
    ),
    st.integers(0, 2**32),
)
def test_seconds_and_waits_add_up_to_the_total(failures, seed):
    clock = ManualClock()
    replies = [
        Reply(status=status, after=after, headers={} if told is None else {"retry-after": told})
        for status, after, told in failures
    ]
    network = ScriptedTransport(*replies, Reply(after=1.0), clock=clock)
    policy = RetryPolicy(max_attempts=4)
    layer = RetryTransport(Driven(network), policy=policy, clock=clock, rng=random.Random(seed))
    with httpx.Client(transport=Driver(layer), timeout=None) as client:  # noqa: S113  # virtual time
        call = record(client.get(URL))
    assert [attempt.status for attempt in call.attempts] == [*(status for status, *_ in failures), 200]
    added = sum(attempt.seconds + attempt.wait for attempt in call.attempts)
    assert added == pytest.approx(call.total_seconds) == pytest.approx(clock.monotonic())


@pytest.mark.parametrize("layer", [RetryTransport, LogTransport, MetricsTransport])
async def test_a_layer_alone_leaves_a_record_too(world, layer):
    keywords = {"registry": world.registry} if layer is MetricsTransport else {}
    answer = await world.get(world.layer(layer, world.scripted(200), platform="my-api", **keywords))
    assert record(answer).platform == "my-api"
    assert [attempt.status for attempt in record(answer).attempts] == [200]


async def test_a_record_can_be_read_by_people(world):
    answer = await world.get(world.stack(world.scripted(503, 200), "my-api"))
    call = record(answer)
    assert repr(call) == (
        f"<Call my-api GET {call.correlation_id}: 200 after 2 attempts, {call.total_seconds:.3f} s>"
    )


@pytest.mark.parametrize("steps", [(200,), (503, 200), (503,), "error", "hang"], ids=str)
async def test_the_extensions_of_the_request_are_left_as_they_came(world, steps):
    steps = {"error": (world.httpx.ConnectError,), "hang": (Hang(),)}.get(steps, steps)
    policy = Policy(timeout=TimeoutPolicy(attempt=5.0, total=20.0))
    client = world.client(world.stack(world.scripted(*steps), policy=policy), timeout=7.0)
    theirs = {**call_options(operation="send"), "sni_hostname": "other.test", "trace": print}
    request = client.build_request("POST", URL, content=b"x", extensions=theirs)
    before = dict(request.extensions)
    try:
        await send(world, client, request)
    except world.httpx.TransportError:
        pass
    assert request.extensions == before
    assert set(before) == {"aragora_transport", "sni_hostname", "trace", "timeout"}


async def test_each_redirect_is_a_call_of_its_own_with_the_same_options(world):
    hop = Reply(status=302, headers={"location": "/next"}, after=1.0)
    network = world.scripted(503, hop, 503, Reply(after=2.0))
    client = world.client(world.stack(network), follow_redirects=True)
    answer = client.get(URL, extensions=call_options(operation="fetch", max_attempts=2))
    answer = answer if world.blocking else await answer
    assert len(answer.history) == 1
    first, last = record(answer.history[0]), record(answer)
    assert [attempt.status for attempt in first.attempts] == [503, 302]
    assert [attempt.status for attempt in last.attempts] == [503, 200]
    assert first.correlation_id != last.correlation_id
    assert {first.operation, last.operation} == {"fetch"}
    assert last.total_seconds < world.clock.monotonic() - 1.0
    for request in (answer.history[0].request, answer.request):
        assert CALL not in request.extensions
        assert request.extensions["aragora_transport"].operation == "fetch"


async def test_an_auth_flow_that_sends_the_same_request_twice_makes_two_calls(world):
    class Refreshing(world.httpx.Auth):
        def auth_flow(self, request):
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "Bearer fresh"
                yield request

    network = world.scripted(401, 503, 200)
    answer = await world.get(
        world.stack(network), auth=Refreshing(), extensions=call_options(operation="fetch", max_attempts=2)
    )
    assert answer.status_code == 200
    assert [sent.headers.get("authorization") for sent in network.sent] == [None, *["Bearer fresh"] * 2]
    assert [attempt.status for attempt in record(answer).attempts] == [503, 200]
    assert record(answer).operation == "fetch"
    assert [event.attempts for event in world.events if type(event).__name__ == "CallFinished"] == [1, 2]


async def test_options_stand_beside_other_extensions(world):
    network = world.scripted(503)
    extensions = {**call_options(max_attempts=1), "sni_hostname": "other.test"}
    await world.get(world.stack(network), extensions=extensions)
    assert [sent.extensions["sni_hostname"] for sent in network.sent] == ["other.test"]


@pytest.mark.parametrize("value", [{}, {"operation": "x"}, 3, call_options()], ids=repr)
async def test_options_that_call_options_did_not_make_are_refused(world, value):
    network = world.scripted(200)
    with pytest.raises(TypeError, match=r"extensions\['aragora_transport'\] is .*call_options\(\)") as caught:
        await world.get(world.stack(network), extensions={"aragora_transport": value})
    assert len(str(caught.value)) < 300
    assert network.sent == []


@pytest.mark.parametrize(
    ("option", "wanted", "values"),
    [
        ("total_timeout", "seconds above 0, or None", [0, -1.0, "5", math.nan, math.inf, True, 10**400]),
        ("attempt_timeout", "seconds above 0, or None", [0, -1.0, "5", math.nan, math.inf, True, 10**400]),
        ("max_gate_wait", "seconds of at least 0, or None", [-1.0, "5", math.nan, math.inf, True]),
        ("max_attempts", "a whole number of at least 1, or None", [0, -1, 2.0, "3", True]),
        ("idempotent", "True, False or None", ["yes", 1, 0]),
        ("operation", "a name, or None", ["", 7, b"send"]),
        ("rate_key", "a name, or None", ["", 7, b"send"]),
        ("resend_unsafe", "one of statuses, unprocessed, always, or None", ["never", True]),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(option, wanted, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{option} must be {wanted}") as caught:
            call_options(**{option: value})
        assert str(caught.value).startswith(f"call_options({option}=")
        assert len(str(caught.value)) < 200


def test_an_option_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match="retries"):
        call_options(retries=3)


def test_options_are_a_dict_for_httpx_and_frozen_inside():
    (options,) = call_options(operation="a").values()
    with pytest.raises(AttributeError):
        options.operation = "b"
    assert call_options(operation="a") == call_options(operation="a")


async def test_a_record_keeps_neither_response_nor_request_alive(world):
    answer = await world.get(world.stack(world.scripted(503, 200)))
    kept = record(answer)
    gone = [weakref.ref(answer), weakref.ref(answer.request)]
    del answer
    gc.collect()  # httpx's own responses refer to themselves
    assert [reference() for reference in gone] == [None, None]
    assert kept.attempts[-1].status == 200
