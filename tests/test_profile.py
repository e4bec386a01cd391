"""A platform whose failures hide in answers that claim success: every layer must see them alike."""

from __future__ import annotations

import gzip
import json
import math
import tracemalloc

import pytest

from aragora_transport import (
    BreakerPolicy,
    Bucket,
    CircuitOpenError,
    DeadlineExceededError,
    Judgement,
    Policy,
    Profile,
    RateLimitedError,
    RetryPolicy,
    TimeoutPolicy,
    call_options,
)
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Hang, Reply

pytestmark = pytest.mark.anyio

FINE = json.dumps({"ok": True, "id": 7}).encode()
BROKEN = json.dumps({"ok": False, "error": "internal_error"}).encode()
MISSING = json.dumps({"ok": False, "error": "channel_not_found"}).encode()
LIMITED = json.dumps({"ok": False, "error": "ratelimited", "retry_after": 7}).encode()
NO_RETRY = Policy(retry=None, breaker=None, rate_limit=None)


def slack_like(response, body):
    """Slack's way: 200 whatever happened, and the truth in the body."""
    if response.status_code != 200 or body is None:
        return None
    told = json.loads(body)
    if told["ok"]:
        return Judgement(verdict="success")
    if told["error"] == "ratelimited":
        return Judgement(
            verdict="neither", retryable=True, limited=True, wait=told["retry_after"], code="ratelimited"
        )
    broken = told["error"] == "internal_error"
    return Judgement(verdict="failure" if broken else "success", retryable=broken, code=told["error"])


def is_json(response):
    return response.headers.get("content-type") == "application/json"


SLACK = Profile(name="slack", classify=slack_like, reads_body=is_json)


def reply(body, **keywords):
    return Reply(headers={"content-type": "application/json"}, body=body, **keywords)


async def test_a_failure_inside_a_200_is_sent_again_and_the_caller_reads_the_body_as_usual(world):
    network = world.scripted(reply(BROKEN), reply((FINE[:5], FINE[5:])))
    answer = await world.get(world.stack(network, profile=SLACK))
    assert answer.json() == {"ok": True, "id": 7}
    first, last = answer.extensions["aragora_transport"].attempts
    assert (first.status, first.error, last.status, last.error) == (200, "internal_error", 200, None)
    assert network.open_responses == 0


async def test_a_failure_that_lasts_is_returned_with_its_body(world):
    network = world.scripted(reply(BROKEN))
    answer = await world.get(world.stack(network, profile=SLACK))
    assert (answer.status_code, answer.content, len(network.sent)) == (200, BROKEN, 3)
    assert answer.extensions["aragora_transport"].attempts[-1].error == "internal_error"


async def test_a_failure_inside_a_200_counts_for_the_circuit(world):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=2))
    stack = world.stack(world.scripted(reply(BROKEN)), profile=SLACK, policy=policy)
    for _ in range(2):
        assert (await world.get(stack)).status_code == 200
    with pytest.raises(CircuitOpenError, match=r"after 2 failures \(last: internal_error\)"):
        await world.get(stack)


@pytest.mark.parametrize("policy", [Policy(), NO_RETRY], ids=["whole stack", "metrics alone judge"])
async def test_a_failure_inside_a_200_is_a_failure_in_the_metrics(world, policy):
    stack = world.stack(world.scripted(reply(BROKEN)), profile=SLACK, policy=policy)
    await world.get(stack, extensions=call_options(operation="send"))
    whose = {"platform": "test", "operation": "send"}
    assert world.sample("platform_requests_total", **whose, status="api_error") == 1
    assert world.sample("platform_requests_total", **whose, status="200") == 0
    sends = 1 if policy.retry is None else 3
    assert world.sample("platform_attempts_total", **whose, status="api_error") == sends
    assert world.sample("platform_retry_success_total", **whose) == 0


async def test_a_retry_that_helps_is_a_success_in_the_metrics(world):
    await world.get(world.stack(world.scripted(reply(BROKEN), reply(FINE)), profile=SLACK))
    whose = {"platform": "test", "operation": "GET"}
    assert world.sample("platform_requests_total", **whose, status="200") == 1
    assert world.sample("platform_retry_success_total", **whose) == 1


@pytest.mark.parametrize("policy", [Policy(), NO_RETRY], ids=["whole stack", "log alone judges"])
async def test_a_failure_inside_a_200_is_logged_by_its_code(world, caplog, policy):
    await world.get(world.stack(world.scripted(reply(BROKEN)), profile=SLACK, policy=policy))
    most = 1 if policy.retry is None else 3
    assert [record.getMessage() for record in caplog.records if record.name == "aragora_transport"] == [
        f"test GET failed (attempt {number}/{most}): internal_error" for number in range(1, most + 1)
    ]


async def test_the_callers_own_mistake_inside_a_200_blames_nobody_else(world, caplog):
    caplog.set_level("INFO", "aragora_transport")
    policy = Policy(breaker=BreakerPolicy(failure_threshold=1))
    network = world.scripted(reply(MISSING))
    stack = world.stack(network, profile=SLACK, policy=policy)
    for _ in range(2):
        assert (await world.get(stack)).content == MISSING
    assert len(network.sent) == 2
    assert stack.circuits()["test"]["state"] == "closed"
    whose = {"platform": "test", "operation": "GET"}
    assert world.sample("platform_requests_total", **whose, status="api_error") == 2
    logged = [(r.levelname, r.error) for r in caplog.records if r.name == "aragora_transport"]
    assert logged == [("INFO", "channel_not_found")] * 2


async def test_a_rate_limit_hidden_in_a_200_closes_the_gate(world):
    network = world.scripted(reply(LIMITED), reply(FINE))
    stack = world.stack(network, profile=SLACK, policy=Policy(retry=None))
    assert (await world.get(stack)).content == LIMITED
    assert (await world.get(stack)).content == FINE
    assert 7.0 <= network.sent[1].at <= 7.1
    assert world.sample("platform_rate_limit_total", platform="test", result="blocked") == 1
    assert stack.circuits()["test"]["failures"] == 0


async def test_a_hidden_wait_that_is_too_long_is_refused_to_the_next_caller(world):
    network = world.scripted(reply(LIMITED.replace(b"7", b"700")))
    stack = world.stack(network, profile=SLACK)
    first = await world.get(stack)
    assert first.extensions["aragora_transport"].retry_after == 700.0
    with pytest.raises(RateLimitedError):
        await world.get(stack)
    assert len(network.sent) == 1


async def test_a_compressed_body_is_judged_and_read_decoded(world):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    network = world.scripted(
        Reply(headers=headers, body=gzip.compress(BROKEN)), Reply(headers=headers, body=gzip.compress(FINE))
    )
    answer = await world.get(world.stack(network, profile=SLACK))
    assert (answer.content, len(network.sent)) == (FINE, 2)


async def test_a_small_body_that_unfolds_to_a_huge_one_is_not_unfolded_to_be_judged(world):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    network = world.scripted(Reply(headers=headers, body=gzip.compress(bytes(16_000_000))))
    seen = []

    def classify(response, body):
        seen.append((body, tracemalloc.get_traced_memory()[1] < 4_000_000))

    tracemalloc.start()
    try:
        answer = await world.get(world.stack(network, profile=Profile(classify=classify, reads_body=is_json)))
    finally:
        tracemalloc.stop()
    assert seen == [(None, True)]
    assert len(answer.content) == 16_000_000


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio, of httpx's own when it raises
async def test_a_body_that_cannot_be_decoded_is_the_callers_to_meet(world):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    seen = []

    def classify(response, body):
        seen.append(body)

    profile = Profile(classify=classify, reads_body=is_json)
    stack = world.stack(world.scripted(Reply(headers=headers, body=b"no gzip")), profile=profile)
    with pytest.raises(world.httpx.DecodingError):
        await world.get(stack)
    assert seen == [None]


@pytest.mark.parametrize(
    ("size", "given"), [(65_536, True), (65_537, False), (1_000_000, False)], ids=["64 KiB", "more", "much"]
)
async def test_a_body_is_given_up_to_64_kib_and_read_whole_by_the_caller(world, size, given):
    seen = []

    def classify(response, body):
        seen.append(body)

    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    chunks = tuple(body[at : at + 10_000] for at in range(0, size, 10_000))
    profile = Profile(classify=classify, reads_body=is_json)
    network = world.scripted(reply(chunks))
    answer = await world.get(world.stack(network, profile=profile))
    assert answer.content == body
    assert seen == [body if given else None]
    assert network.sent[0].consumed


async def test_a_body_that_is_not_asked_for_is_not_touched(world):
    network = world.scripted(Reply(headers={"content-type": "text/event-stream"}, body=b"x", stall=True))
    client = world.client(world.stack(network, profile=SLACK))
    if world.blocking:
        with client.stream("GET", "http://platform.test/") as answer:
            assert answer.status_code == 200
    else:
        async with client.stream("GET", "http://platform.test/") as answer:
            assert answer.status_code == 200
    assert world.clock.monotonic() == 0.0


async def test_a_body_that_dies_while_it_is_judged_is_sent_again(world):
    network = world.scripted(reply(FINE[:5], then=world.httpx.ReadError), reply(FINE))
    answer = await world.get(world.stack(network, profile=SLACK))
    assert (answer.content, len(network.sent)) == (FINE, 2)
    assert answer.extensions["aragora_transport"].attempts[0].error == "ReadError"
    assert network.open_responses == 0


@pytest.mark.parametrize("layer", ["stack", "retry alone"])
@pytest.mark.parametrize("how", ["profile", "policy"])
async def test_any_status_can_be_one_that_is_sent_again(world, layer, how):
    network = world.scripted(Reply(status=202, headers={"retry-after": "3"}), 412, 200)
    more = frozenset({202, 412})
    profile = Profile(retry_statuses=more) if how == "profile" else Profile()
    policy = RetryPolicy() if how == "profile" else RetryPolicy(statuses=RetryPolicy().statuses | more)
    if layer == "stack":
        transport = world.stack(network, profile=profile, policy=Policy(retry=policy))
    else:
        transport = world.layer(RetryTransport, network, profile=profile, policy=policy)
    answer = await world.get(transport)
    assert (answer.status_code, len(network.sent)) == (200, 3)
    assert network.sent[1].at >= 3.0


async def test_what_a_profile_does_not_judge_is_judged_as_plain_http(world):
    network = world.scripted(Reply(status=503, headers={"retry-after": "7"}), 200)
    stack = world.stack(network, profile=Profile(classify=lambda response, body: None))
    assert (await world.get(stack)).status_code == 200
    assert network.sent[1].at >= 7.0
    assert stack.circuits()["test"]["cause"] == "503"


async def test_the_profile_names_the_rate_limit_bucket(world):
    network = world.scripted(Reply(status=429, headers={"retry-after": "30"}), 200)
    profile = Profile(rate_key=lambda request: request.url.path)
    stack = world.stack(network, profile=profile, policy=Policy(retry=None))
    await world.request(stack, url="http://platform.test/a")
    await world.request(stack, url="http://platform.test/b")
    assert world.clock.monotonic() == 0.0
    await world.request(stack, url="http://platform.test/a")
    assert world.clock.monotonic() >= 30.0


async def test_a_long_poll_raises_the_attempt_limit_for_itself_alone(world):
    profile = Profile(long_poll=lambda request: 50.0 if "poll" in request.url.path else None)
    policy = Policy(timeout=TimeoutPolicy(attempt=5.0), retry=None)
    network = world.scripted(Reply(after=55.0), Hang())
    stack = world.stack(network, profile=profile, policy=policy)
    assert (await world.request(stack, url="http://platform.test/poll")).status_code == 200
    with pytest.raises(DeadlineExceededError, match="attempt limit of 60 s"):
        await world.request(stack, url="http://platform.test/poll")
    with pytest.raises(DeadlineExceededError, match="attempt limit of 5 s"):
        await world.request(stack, url="http://platform.test/other")


async def test_a_judgement_of_the_wrong_kind_is_an_error_that_names_the_profile(world):
    network = world.scripted(200)
    profile = Profile(name="mine", classify=lambda response, body: "failure")
    with pytest.raises(
        TypeError, match=r"classify\(\) of the profile 'mine' returned 'failure'; it must return"
    ):
        await world.get(world.stack(network, profile=profile))
    assert network.open_responses == 0


@pytest.mark.parametrize(
    ("wait", "kept"),
    [
        ("7.5", 7.5),
        (0, 0.0),
        (-1, None),
        (math.nan, None),
        ("soon", None),
        (True, None),
        (10**400, 604_800.0),
    ],
    ids=str,
)
def test_a_wait_as_a_platform_wrote_it_becomes_a_sane_one_or_none(wait, kept):
    assert Judgement(verdict="neither", wait=wait).wait == kept


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Judgement(verdict="maybe"), "verdict must be one of success, failure, neither"),
        (lambda: Profile(classify="slack"), "classify must be a callable or None"),
        (lambda: Profile(rate_key=7), "rate_key must be a callable or None"),
        (lambda: Profile(retry_statuses=202), "retry_statuses must be a set of HTTP statuses"),
        (lambda: Profile(retry_statuses={1000}), "1000 is not an HTTP status"),
        (lambda: Profile(success_begins=b"fine"), "success_begins=b'fine'.: it must be a tuple of bytes"),
        (lambda: Bucket(""), "key must be a name"),
        (lambda: Bucket("chat", ((0, 1.0),)), "each must be .requests, seconds."),
    ],
    ids=["verdict", "classify", "rate_key", "one status", "no status", "beginnings", "key", "rates"],
)
def test_a_profile_that_makes_no_sense_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
