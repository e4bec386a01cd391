"""The known platforms' profiles, against the tables of their page and against answers of every kind."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aragora_transport import Bucket, Policy, RetryPolicy, resilient
from aragora_transport._retry_after import MAX_TOLD
from aragora_transport.layers import LogTransport
from aragora_transport.profile import PLAIN
from aragora_transport.profiles import DISCORD, SLACK, TEAMS, TELEGRAM, profile_for
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

PAGE = (Path(__file__).parent.parent / "docs" / "profiles.md").read_text(encoding="utf-8")
PROFILES = {"Slack": SLACK, "Discord": DISCORD, "Teams": TEAMS, "Telegram": TELEGRAM}
TOKEN = {"authorization": "Bearer very-secret"}
DIGEST = re.compile(r"\b[0-9a-f]{8}\b")


def rows(kind):
    """The rows of this kind's table of each platform: its profile, and the cells with their code alone."""
    for name, profile in PROFILES.items():
        table = re.search(rf"^\| {name} {kind} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
        lines = table[1].splitlines()
        assert len(lines) >= 3
        for line in lines:
            yield profile, [re.findall(r"`([^`]+)`", cell) or cell.strip() for cell in line[1:-1].split("|")]


def reply(status_and_body, *headers):
    status, _, body = status_and_body.partition(" ")
    kinds = {"{": "application/json; charset=utf-8", "<": "text/html", "": ""}
    fields = dict(header.split(": ") for header in headers)
    fields["content-type"] = kinds.get(body[:1], "text/plain")
    return Reply(status=int(status), headers=fields, body=body.encode())


async def judged_by(profile, answer):
    """The judgement of an answer as layers get it, and the body as the caller does."""
    layer = LogTransport(ScriptedTransport(answer), profile=profile)
    response = await layer.handle_async_request(httpx.Request("GET", "http://platform.test/"))
    read = b"".join([chunk async for chunk in response.stream])
    return response.extensions["aragora_transport.judgement"], read


ANSWERS = list(rows("answers"))


@pytest.mark.parametrize(
    ("profile", "row"), ANSWERS, ids=[f"{p.name} {r[0][0][:60]}{n}" for n, (p, r) in enumerate(ANSWERS)]
)
def test_an_answer_is_judged_as_its_page_says(profile, row):
    answer, circuit, again, wait, closes, code = row
    judged, body = asyncio.run(judged_by(profile, reply(*answer)))
    assert judged.verdict == circuit
    assert body == reply(*answer).body
    retryable = judged.retryable
    if retryable is None and reply(*answer).status < 400:
        retryable = False  # which is no status of any policy
    assert {True: "yes", False: "no", None: "policy"}[retryable] == again
    assert judged.wait == (float(wait) if wait else None)
    closed = "" if not judged.limited or judged.wait is None else "last" if judged.wide else "first"
    assert closed == closes
    assert judged.code == (code[0] if code else None)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_what_is_sent_again_is_what_its_page_says(answer):
    """Through the whole stack: so often, and never before the told time."""
    for profile, (told, _, again, wait, _, _) in ANSWERS:
        status = int(told[0].split()[0])
        asked = again if again != "policy" else status in RetryPolicy().statuses | profile.retry_statuses
        if asked not in ({"yes": ("yes", True), "no": ("no", False)}[answer]):
            continue
        clock = ManualClock()
        network = ScriptedTransport(reply(*told), clock=clock)
        policy = Policy(retry=RetryPolicy(max_attempts=2, max_retry_after=MAX_TOLD), metrics=False, log=False)
        stack = resilient(profile.name, network, clock=clock, policy=policy)

        async def once(stack=stack):
            async with httpx.AsyncClient(transport=stack) as client:
                return await client.get("http://platform.test/api/x")

        answered = asyncio.run(once())
        assert (told, len(network.sent)) == (told, 2 if answer == "yes" else 1)
        assert answered.status_code == status
        assert network.sent[-1].at >= (float(wait) if wait and answer == "yes" else 0.0)


def test_a_request_falls_into_the_buckets_that_its_page_says():
    expected = []
    for profile, (request, key, rates) in rows("requests"):
        if request:
            expected.append((profile, request[0], []))
        limits = tuple(tuple(json.loads(f"[{rate[1:-1]}]")) for rate in rates)
        expected[-1][2].append(Bucket(key[0], limits))
    for profile, told, buckets in expected:
        method, url, *body = told.split(" ")
        request = httpx.Request(method, url, headers=TOKEN, json=json.loads(body[0]) if body else None)
        named = [Bucket(DIGEST.sub("*", bucket.key), bucket.rates) for bucket in profile.rate_key(request)]
        assert (told, named) == (told, buckets)


def test_the_secrets_of_an_address_are_those_that_its_page_says():
    for profile, (url, secret) in rows("addresses"):
        assert profile.secrets_in(url[0]) == list(secret)
    assert PLAIN.secrets_in("http://x/?token=1") == []


@pytest.mark.parametrize(
    ("profile", "url", "secret"),
    [
        (SLACK, "https://hooks.slack.com/services/T0/B0/s3cret", "s3cret"),
        (SLACK, "https://files.slack.com/upload/v1/s3cret", "s3cret"),
        (DISCORD, "https://discord.com/api/v10/webhooks/1/s3cret", "s3cret"),
        (DISCORD, "http://gateway.test/discord/webhooks/1/s3cret/messages/2", "s3cret"),
        (TEAMS, "https://x.webhook.office.com/webhookb2/s3cret", "s3cret"),
        (TEAMS, "http://gateway.test/teams/webhookb2/s3cret", "s3cret"),
        (TEAMS, "https://x.logic.azure.com/workflows/1/invoke?sig=s3cret", "s3cret"),
        (SLACK, "http://gateway.test/slack/services/T0/B0/s3cret", "s3cret"),
        (TELEGRAM, "https://api.telegram.org/bots3cret/sendMessage?chat_id=1", "s3cret"),
        (TELEGRAM, "https://api.telegram.org/file/bots3cret/photos/1.jpg", "s3cret"),
    ],
)
def test_no_bucket_shows_a_secret(profile, url, secret):
    request = httpx.Request("POST", url, headers=TOKEN)
    for bucket in profile.rate_key(request):
        assert secret not in bucket.key
        assert "very-secret" not in bucket.key


def test_the_chat_is_found_in_a_form_and_tokens_are_told_apart():
    def keys(token, **body):
        url = f"https://api.telegram.org/bot{token}/sendMessage"
        return [bucket.key for bucket in TELEGRAM.rate_key(httpx.Request("POST", url, **body))]

    assert keys("1:a", data={"chat_id": "7"}) == keys("1:a", json={"chat_id": 7})
    assert keys("1:a", data={"chat_id": "7"}) != keys("1:b", data={"chat_id": "7"})
    unread = ({"content": b"chat_id=7"}, {"content": b"\xff" * 70_000}, {"files": {"photo": b"chat_id=7"}})
    for odd in ({"json": ["chat_id"]}, {"json": {"chat_id": {}}}, *unread):
        assert keys("1:a", **odd)[0].startswith("sendmessage ")


@pytest.mark.parametrize(
    ("method", "timeout", "seconds"),
    [("getUpdates", 30, 30.0), ("GETUPDATES", "30", 30.0), ("getUpdates", 600, 50.0), ("getUpdates", 0, None)]
    + [("getUpdates", odd, None) for odd in (-1, "soon", None, [], True)]
    + [("sendMessage", 30, None)],
)
def test_a_long_poll_lasts_as_long_as_the_server_lets_it(method, timeout, seconds):
    url = f"https://api.telegram.org/bot1:a/{method}"
    assert TELEGRAM.long_poll(httpx.Request("POST", url, json={"timeout": timeout})) == seconds


def test_discord_names_a_bucket_in_its_answers():
    request = httpx.Request("GET", "https://discord.com/api/v10/channels/12/messages")
    answer = httpx.Response(200, headers={"x-ratelimit-bucket": "abcd1234"})
    assert DISCORD.told_bucket(request, answer) == "abcd1234 12"
    assert DISCORD.told_bucket(request, httpx.Response(200)) is None
    assert (
        DISCORD.told_bucket(request, httpx.Response(200, headers={"x-ratelimit-bucket": "x" * 900})) is None
    )


@pytest.mark.parametrize("encoding", ["identity", "gzip", "br"])
def test_a_slack_body_that_begins_well_is_not_waited_for(encoding):
    """Its first chunk tells; the rest, which stalls here, is the caller's."""
    body = b'{"ok":true,"items":[' + bytes(range(256)) * 300
    headers = {"content-type": "application/json"}
    if encoding != "identity":
        headers["content-encoding"] = encoding
    wire = gzip.compress(body) if encoding == "gzip" else body
    answer = Reply(headers=headers, body=(wire[:100], wire[100:]), between=1.0)
    clock = ManualClock()
    network = ScriptedTransport(answer, clock=clock)
    stack = resilient("slack", network, clock=clock, policy=Policy(retry=None, metrics=False, log=False))

    async def began():
        client = httpx.AsyncClient(transport=stack)
        async with client, client.stream("GET", "https://slack.com/api/users.list") as response:
            at = clock.monotonic()
            return at, b"".join([chunk async for chunk in response.aiter_raw()])

    at, read = asyncio.run(began())
    assert at == (2.0 if encoding == "br" else 1.0)
    assert read == wire


@pytest.mark.anyio
async def test_a_body_that_stalls_while_it_is_judged_is_not_waited_for_any_longer_than_another(async_world):
    world = async_world
    stalls = Reply(headers={"content-type": "application/json"}, body=b'{"ok":', stall=True)
    fine = Reply(headers={"content-type": "application/json"}, body=b'{"ok":true}')
    network = world.scripted(stalls, fine)
    answer = await world.get(world.stack(network, "slack"))
    assert answer.json() == {"ok": True}
    assert 30.0 <= network.sent[1].at <= 33.0
    assert answer.extensions["aragora_transport"].attempts[0].error.startswith("DeadlineExceededError")
    assert network.open_responses == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(
    ["ok", "error", "code", "message", "parameters", "retry_after", "migrate_to_chat_id", "errorCode"]
)
shapes = st.dictionaries(known, json_values | st.sampled_from([True, False, 429, "ratelimited", 1e400, -1]))
hostile = st.one_of(
    st.binary(max_size=200),
    shapes.map(lambda value: json.dumps(value).encode()),
    shapes.map(lambda value: json.dumps(value).encode()[:-1]),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b"[" * 60_000,
            b'{"code":' + b"9" * 6000 + b"}",
            b'{"ok":false,"error":"' + b"x" * 70_000,
            b"\xff\xfe",
        ]
    ),
)


@given(
    profile=st.sampled_from(list(PROFILES.values())),
    status=st.sampled_from([200, 202, 400, 403, 409, 412, 429, 500, 503, 524]),
    kind=st.sampled_from(["application/json", "text/html", "text/plain", ""]),
    encoding=st.sampled_from([None, "gzip", "br"]),
    body=hostile,
)
@settings(max_examples=300, deadline=None)
def test_whatever_the_body_is_the_judgement_is_a_sane_one(profile, status, kind, encoding, body):
    headers = {"content-type": kind, "x-ratelimit-bucket": "?", "retry-after": "soon"}
    if encoding is not None:
        headers["content-encoding"] = encoding
    answer = Reply(status=status, headers=headers, body=(body[:10], body[10:]))
    judged, read = asyncio.run(judged_by(profile, answer))
    assert read == body
    assert judged.wait is None or 0.0 <= judged.wait <= MAX_TOLD
    assert judged.code is None or re.fullmatch(r"[\w.:-]{1,64}", judged.code)
    if status >= 500:
        assert judged.verdict == "failure" or judged.limited


def test_a_name_that_is_not_known_is_plain_http():
    assert profile_for("my-api") is PLAIN
    assert [profile_for(name.lower()) for name in PROFILES] == list(PROFILES.values())
