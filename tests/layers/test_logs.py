from __future__ import annotations

import logging

import anyio
import pytest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    Policy,
    Profile,
    RateLimitedError,
    RetryPolicy,
    call_options,
    correlation_scope,
)
from aragora_transport.layers import (
    LogTransport,
    RetryTransport,
    TokenRefused,
    TokenSource,
)
from aragora_transport.testing import Hang, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("every_level")]

LOGGER = logging.getLogger("aragora_transport")
GUIDES = {"connector", "operation", "attempt", "max_retries", "status_code", "correlation_id"}
STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
FAILED = "%s %s failed (attempt %s/%s): %s"


def ours(caplog):
    return [record for record in caplog.records if record.name == "aragora_transport"]


def extras(record):
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


@pytest.mark.parametrize(
    "profile", [None, Profile(classify=lambda response, body: None)], ids=["plain", "judged"]
)
async def test_a_straight_success_is_not_logged(world, caplog, profile):
    await world.get(world.stack(world.scripted(Reply(body=b"fine")), profile=profile))
    assert ours(caplog) == []


async def test_a_failed_attempt_has_exactly_the_guides_fields_and_ours(world, caplog):
    stack = world.stack(world.scripted(503, 200), "slack")
    with correlation_scope("order-7"):
        await world.get(stack, extensions=call_options(operation="chat.postMessage"))
    failed, recovered = ours(caplog)
    fields = extras(failed)
    assert 1.0 <= fields.pop("retry_in_s") <= 1.1
    assert fields == {
        "connector": "slack",
        "operation": "chat.postMessage",
        "attempt": 1,
        "max_retries": 3,
        "status_code": 503,
        "correlation_id": "order-7",
        "event": "retry",
        "error": "HTTP 503",
    }
    assert failed.getMessage() == "slack chat.postMessage failed (attempt 1/3): HTTP 503"
    assert failed.levelname == "WARNING"
    assert extras(recovered).keys() == GUIDES | {"event"}
    assert recovered.getMessage() == "slack chat.postMessage succeeded in attempt 2 of 3"
    assert (recovered.levelname, recovered.event, recovered.status_code) == ("INFO", "recovered", 200)


async def test_every_failed_attempt_is_one_warning(world, caplog):
    await world.get(world.stack(world.scripted(503, world.httpx.ReadError, 429)))
    assert [(r.event, r.attempt, r.status_code, r.error) for r in ours(caplog)] == [
        ("retry", 1, 503, "HTTP 503"),
        ("retry", 2, None, "ReadError"),
        ("failed", 3, 429, "HTTP 429"),
    ]
    assert {(r.levelname, r.msg) for r in ours(caplog)} == {("WARNING", FAILED)}


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (400, "INFO"),
        (401, "ERROR"),
        (403, "INFO"),
        (404, "INFO"),
        (422, "INFO"),
        (429, "WARNING"),
        (500, "WARNING"),
        (501, "WARNING"),
    ],
)
async def test_a_final_answer_is_as_serious_as_what_somebody_has_to_do_about_it(world, caplog, status, level):
    await world.get(world.layer(LogTransport, world.scripted(status), platform="slack"))
    (record,) = ours(caplog)
    assert (record.levelname, record.getMessage()) == (
        level,
        f"slack GET failed (attempt 1/1): HTTP {status}",
    )
    assert extras(record).keys() == GUIDES | {"event", "error"}


async def test_a_call_that_ends_in_an_error_is_one_warning_with_its_text(world, caplog):
    network = world.scripted(world.httpx.ConnectError("no route to host"))
    stack = world.stack(network, policy=Policy(retry=RetryPolicy(max_attempts=1)))
    with pytest.raises(world.httpx.ConnectError):
        await world.get(stack)
    (record,) = ours(caplog)
    assert record.getMessage() == "test GET failed (attempt 1/1): ConnectError: no route to host"
    assert (record.levelname, record.event, record.status_code) == ("WARNING", "failed", None)
    assert record.exc_info is None


async def test_an_error_of_ours_goes_by_one_name_under_both_flavours(world, caplog):
    stack = world.stack(
        world.scripted(503), policy=Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    )
    await world.get(stack)
    with pytest.raises(CircuitOpenError):
        await world.get(stack)
    assert ours(caplog)[-1].error == (
        "CircuitOpenError: test GET: circuit open after 1 failure (last: 503); next probe in 60 s"
    )


async def test_a_body_that_dies_is_logged_as_the_failure_it_is(world, caplog):
    network = world.scripted(Reply(body=(b"half",), then=world.httpx.RemoteProtocolError("cut")))
    with pytest.raises(world.httpx.RemoteProtocolError):
        await world.get(world.layer(LogTransport, network))
    (record,) = ours(caplog)
    assert record.getMessage() == "default GET failed (attempt 1/1): RemoteProtocolError: cut"
    assert (record.levelname, record.event, record.status_code) == ("WARNING", "failed", 200)


async def test_a_body_that_the_caller_abandons_is_not_logged(world, caplog):
    client = world.client(world.layer(LogTransport, world.scripted(Reply(body=b"x", stall=True))))
    if world.blocking:
        with client.stream("GET", "http://platform.test/"):
            pass
    else:
        async with client.stream("GET", "http://platform.test/"):
            pass
    assert ours(caplog) == []


async def test_a_call_that_its_caller_cancels_is_not_logged(async_world, caplog):
    world = async_world
    stack = world.stack(world.scripted(Hang()), policy=Policy(timeout=None))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.get, stack)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert ours(caplog) == []


async def test_a_circuit_that_changes_is_a_warning_with_what_opened_it(world, caplog):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1, cooldown=5.0))
    stack = world.stack(world.scripted(503, 200), "slack", policy=policy)
    await world.get(stack)
    opened = next(record for record in ours(caplog) if record.event == "circuit")
    assert (opened.levelname, opened.getMessage()) == ("WARNING", "slack circuit slack: closed -> open")
    fields = extras(opened)
    assert {name: fields.pop(name) for name in fields.keys() - GUIDES} == {
        "event": "circuit",
        "circuit_state": "open",
        "circuit_key": "slack",
        "failures": 1,
        "next_probe_in_s": 5.0,
        "cause": "503",
    }
    assert fields.keys() == GUIDES
    world.clock.advance(5.0)
    await world.get(stack)
    stack.isolate()
    stack.reset()
    assert [r.circuit_state for r in ours(caplog) if r.event == "circuit"] == [
        *("open", "half-open", "closed", "open", "closed")
    ]


async def test_a_gate_is_logged_as_it_holds_and_as_it_refuses(world, caplog):
    network = world.scripted(
        Reply(status=429, headers={"retry-after": "5"}), 200, Reply(status=429, headers={"retry-after": "90"})
    )
    stack = world.stack(network, policy=Policy(retry=None))
    for _ in range(3):
        await world.get(stack)
    with pytest.raises(RateLimitedError):
        await world.get(stack)
    held, refused = [record for record in ours(caplog) if record.event == "rate_limit"]
    assert held.getMessage().startswith("test GET: gate test held the attempt for 5.0")
    assert refused.getMessage() == "test GET: gate test refused, closed for 90.000 s"
    assert (held.levelname, refused.levelname) == ("INFO", "WARNING")
    assert extras(held).keys() == GUIDES | {"event", "rate_key"}


async def test_a_retryable_failure_that_is_not_sent_again_is_one_record_that_says_why(world, caplog):
    stack = world.stack(world.scripted(Reply(status=503, headers={"retry-after": "600"})))
    await world.get(stack)
    (failed,) = ours(caplog)
    assert failed.getMessage() == "test GET failed (attempt 1/3): HTTP 503"
    assert (failed.levelname, failed.event, failed.reason) == ("WARNING", "failed", "retry_after_too_long")
    assert extras(failed).keys() == GUIDES | {"event", "error", "reason"}


async def test_an_answer_that_the_policy_sends_again_in_vain_is_no_success(world, caplog):
    policy = Policy(retry=RetryPolicy(max_attempts=2, statuses={202}))
    await world.get(world.stack(world.scripted(202), policy=policy))
    assert [(r.event, r.status_code, r.levelname) for r in ours(caplog)] == [
        ("retry", 202, "WARNING"),
        ("failed", 202, "INFO"),
    ]


@pytest.mark.parametrize("kind", ["LocalProtocolError", "UnsupportedProtocol", "KeyError"])
async def test_a_request_that_can_never_be_sent_is_an_error(world, caplog, kind):
    error = getattr(world.httpx, kind, KeyError)
    with pytest.raises(error):
        await world.get(world.stack(world.scripted(error)))
    assert [(r.levelname, r.event, r.error.split(":")[0]) for r in ours(caplog)] == [
        ("ERROR", "failed", kind)
    ]


@pytest.mark.parametrize(("retryable", "level"), [(False, "ERROR"), (True, "WARNING")])
async def test_no_token_is_an_error_where_asking_again_does_not_help(world, caplog, retryable, level):
    class Refused(TokenSource):
        async def fetch(self, *, blocking, clock):
            raise TokenRefused("invalid_grant", retryable=retryable)

    source = Refused(origin="http://platform.test")
    stack = world.stack(world.scripted(200), auth=source, policy=Policy(retry=None))
    with pytest.raises(world.httpx.TransportError, match="no token"):
        await world.get(stack)
    assert [(r.levelname, r.event) for r in ours(caplog)] == [(level, "failed")]


async def test_a_handler_that_raises_changes_no_call(world):
    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError("disk full")

    handler = Broken()
    LOGGER.addHandler(handler)
    try:
        stack = world.stack(world.scripted(503, 200))
        assert (await world.get(stack)).status_code == 200
        assert stack.observer_failures == 2
    finally:
        LOGGER.removeHandler(handler)


async def test_json_lines_hold_what_the_record_holds(world, lines):
    policy = Policy(retry=RetryPolicy(max_attempts=2), breaker=BreakerPolicy(failure_threshold=3))
    stack = world.stack(world.scripted(503), "slack", policy=policy)
    with correlation_scope("order-7"):
        await world.get(stack)
        await world.get(stack)
    written = lines()
    assert [line["event"] for line in written] == ["retry", "failed", "circuit", "failed"]
    for line in written:
        assert line.keys() >= GUIDES | {"timestamp", "level", "name", "message", "event"}
        assert (line["name"], line["correlation_id"], line["connector"]) == (
            "aragora_transport",
            "order-7",
            "slack",
        )
    assert written[0]["level"] == "WARNING"
    assert written[0]["message"] == "slack GET failed (attempt 1/2): HTTP 503"
    assert (written[0]["attempt"], written[0]["status_code"]) == (1, 503)


async def test_a_layer_alone_in_front_of_retry_logs_its_retries(world, caplog):
    layers = LogTransport(
        world.layer(RetryTransport, world.scripted(503, 200)), platform="slack", clock=world.clock
    )
    await world.get(layers)
    assert [(record.connector, record.event) for record in ours(caplog)] == [
        ("slack", "retry"),
        ("slack", "recovered"),
    ]
