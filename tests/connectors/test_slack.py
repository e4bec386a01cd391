"""Slack's connector: what it sends, and what it makes of the answers."""

from __future__ import annotations

import io
import json
import logging
from urllib.parse import parse_qsl

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aragora_transport.connectors import SlackConnector
from aragora_transport.testing import (
    Answer,
    ConnectorContract,
    FaultServer,
    Hang,
    ManualClock,
    Reply,
    ScriptedTransport,
)

pytestmark = pytest.mark.anyio

TOKEN = "xoxb-the-slack-token"  # noqa: S105  # of nobody, as all here
APP_TOKEN = "xapp-the-app-token"  # noqa: S105  # made up
BASE = "https://slack.com/api"
HOOK_PATH = "T000/B000/hook-of-nobody"
HOOK = f"https://hooks.slack.com/services/{HOOK_PATH}"
RESPONSE_URL = "https://hooks.slack.com/actions/T000/77/answer-of-nobody"
UPLOAD_URL = "https://files.slack.com/upload/v1/grant-of-nobody"
FILE = "https://files.slack.com/files-pri/T000-F1/download/a.txt"
JSON = {"content-type": "application/json; charset=utf-8"}


def reply(value, status=200, **headers):
    return Reply(status=status, body=json.dumps(value).encode(), headers={**JSON, **headers})


def ok(**fields):
    return reply({"ok": True, **fields})


def error(code, **fields):
    return reply({"ok": False, "error": code, **fields})


def text(words, status=200):
    return Reply(status=status, body=words.encode(), headers={"content-type": "text/html"})


LIMITED = reply({"ok": False, "error": "ratelimited"}, 429, **{"retry-after": "7"})


class Slack:
    """An app, and a server that does as it is told."""

    def __init__(self, *steps, **keywords):
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        keywords = {
            "transport": self.network,
            "clock": self.clock,
            "registry": self.registry,
            "app_token": APP_TOKEN,
            **keywords,
        }
        self.app = SlackConnector(TOKEN, **keywords)

    @property
    def sent(self):
        return self.network.sent


class TestSlackConnector(ConnectorContract):
    good = ok(ts="1.1")
    limited = LIMITED
    secrets = (TOKEN, "the-slack-token")

    def connector(self, **keywords):
        return SlackConnector(TOKEN, **keywords)


class TestAWebhookOfSlacks(ConnectorContract):
    good = text("ok")
    limited = Reply(status=429, body=b"rate_limited", headers={"retry-after": "7"})
    secrets = (TOKEN, HOOK_PATH, "hook-of-nobody")

    def connector(self, **keywords):
        return SlackConnector(TOKEN, **keywords)

    async def send(self, connector):
        return await connector.post_webhook(HOOK, "hello")


class TestAResponseUrlOfSlacks(TestAWebhookOfSlacks):
    good = ok()
    secrets = (TOKEN, "answer-of-nobody")

    async def send(self, connector):
        return await connector.respond(RESPONSE_URL, "hello")


BLOCKS = [{"type": "divider"}]
M = {"channel": "C1", "ts": "1.1"}
AT = {"channel": "C1", "timestamp": "1.1"}
REQUESTS = {  # operation: how it is called, Slack's method, as JSON or as a form, its parameters
    "send_message": (
        lambda app: app.send_message("C1", "hi", blocks=BLOCKS, thread_ts="1.0"),
        *("chat.postMessage", "json", {"channel": "C1", "text": "hi", "blocks": BLOCKS, "thread_ts": "1.0"}),
    ),
    "update_message": (
        lambda app: app.update_message("C1", "1.1", "e"),
        *("chat.update", "json", {**M, "text": "e"}),
    ),
    "delete_message": (lambda app: app.delete_message("C1", "1.1"), "chat.delete", "json", M),
    "post_ephemeral": (
        lambda app: app.post_ephemeral("C1", "U1", "x"),
        *("chat.postEphemeral", "json", {"channel": "C1", "user": "U1", "text": "x"}),
    ),
    "schedule_message": (
        lambda app: app.schedule_message("C1", 1893456000, "x"),
        *("chat.scheduleMessage", "json", {"channel": "C1", "post_at": 1893456000, "text": "x"}),
    ),
    "get_permalink": (
        lambda app: app.get_permalink("C1", "1.1"),
        *("chat.getPermalink", "form", {"channel": "C1", "message_ts": "1.1"}),
    ),
    "add_reaction": (
        lambda app: app.add_reaction("C1", "1.1", ":tada:"),
        *("reactions.add", "json", {**AT, "name": "tada"}),
    ),
    "remove_reaction": (
        lambda app: app.remove_reaction("C1", "1.1", "tada"),
        *("reactions.remove", "json", {**AT, "name": "tada"}),
    ),
    "pin_message": (lambda app: app.pin_message("C1", "1.1"), "pins.add", "json", AT),
    "unpin_message": (lambda app: app.unpin_message("C1", "1.1"), "pins.remove", "json", AT),
    "get_channel": (lambda app: app.get_channel("C1"), "conversations.info", "form", {"channel": "C1"}),
    "open_conversation": (
        lambda app: app.open_conversation("U1", "U2"),
        *("conversations.open", "json", {"users": "U1,U2"}),
    ),
    "get_user": (lambda app: app.get_user("U1"), "users.info", "form", {"user": "U1"}),
    "lookup_by_email": (
        lambda app: app.lookup_by_email("me+you@x.test"),
        *("users.lookupByEmail", "form", {"email": "me+you@x.test"}),
    ),
    "open_view": (
        lambda app: app.open_view("12.3", {"type": "modal"}),
        *("views.open", "json", {"trigger_id": "12.3", "view": {"type": "modal"}}),
    ),
    "update_view": (
        lambda app: app.update_view("V1", {"type": "modal"}, hash="h"),
        *("views.update", "json", {"view_id": "V1", "view": {"type": "modal"}, "hash": "h"}),
    ),
    "publish_view": (
        lambda app: app.publish_view("U1", {"type": "home"}),
        *("views.publish", "json", {"user_id": "U1", "view": {"type": "home"}}),
    ),
    "open_socket": (lambda app: app.open_socket(), "apps.connections.open", None, {}),
    "health": (lambda app: app.health(), "auth.test", None, {}),
    "refresh_token": (
        lambda app: app.refresh_token("i", "the-client-secret", "xoxe-1-r"),
        *("oauth.v2.access", "form", {"grant_type": "refresh_token", "refresh_token": "xoxe-1-r"}),
    ),
    "team.info": (lambda app: app.call("team.info"), "team.info", None, {}),
    "files.remote.share": (
        lambda app: app.call(
            "files.remote.share", {"channels": ["C1", "C2"], "n": 7, "yes": True, "x": {"a": []}}
        ),
        *("files.remote.share", "form", {"channels": "C1,C2", "n": "7", "yes": "true", "x": '{"a": []}'}),
    ),
}
LISTS = {  # operation: how it is called, its iterator, Slack's method, encoding, parameters, name of the list
    "history": (
        lambda app, **more: app.history("C1", oldest="0", **more),
        lambda app: app.iter_history("C1", limit=2, oldest="0"),
        *("conversations.history", "json", {"channel": "C1", "oldest": "0"}, "messages"),
    ),
    "replies": (
        lambda app, **more: app.replies("C1", "1.1", **more),
        lambda app: app.iter_replies("C1", "1.1", limit=2),
        *("conversations.replies", "form", M, "messages"),
    ),
    "list_channels": (
        lambda app, **more: app.list_channels(types=["im", "mpim"], **more),
        lambda app: app.iter_channels(types=["im", "mpim"], limit=2),
        *("conversations.list", "form", {"types": "im,mpim"}, "channels"),
    ),
    "list_members": (
        lambda app, **more: app.list_members("C1", **more),
        lambda app: app.iter_members("C1", limit=2),
        *("conversations.members", "form", {"channel": "C1"}, "members"),
    ),
    "list_users": (
        lambda app, **more: app.list_users(**more),
        lambda app: app.iter_users(limit=2),
        *("users.list", "form", {}, "members"),
    ),
}
IDENTITIES = {"open_socket": f"Bearer {APP_TOKEN}", "refresh_token": "Basic aTp0aGUtY2xpZW50LXNlY3JldA=="}


def params_of(sent):
    """Encoding and parameters of a request, by its headers."""
    kind = sent.headers.get("content-type")
    if kind is None:
        assert sent.headers["content-length"] == "0"
        return None, {}
    if kind == "application/json; charset=utf-8":
        return "json", json.loads(sent.body)
    assert kind == "application/x-www-form-urlencoded"
    return "form", dict(parse_qsl(sent.body.decode(), strict_parsing=True))


@pytest.mark.parametrize("operation", REQUESTS)
async def test_an_operation_is_one_request(operation):
    call, method, encoding, params = REQUESTS[operation]
    slack = Slack(ok(id="1"))
    result = await call(slack.app)
    assert (result.success, result.data) == (True, {"ok": True, "id": "1"})
    (sent,) = slack.sent
    assert (sent.method, sent.url) == ("POST", f"{BASE}/{method}")
    assert sent.headers["authorization"] == IDENTITIES.get(operation, f"Bearer {TOKEN}")
    assert params_of(sent) == (encoding, params)
    assert sent.extensions["aragora_transport"].operation == operation


@pytest.mark.parametrize("operation", LISTS)
async def test_a_list_comes_page_by_page(operation):
    call, pages, method, encoding, params, key = LISTS[operation]
    first = ok(**{key: [1, 2], "response_metadata": {"next_cursor": "c=="}})
    last = ok(**{key: [3], "response_metadata": {"next_cursor": ""}})
    slack = Slack(first)
    result = await call(slack.app, cursor="b==", limit=2)
    assert result.data == {"items": [1, 2], "next_cursor": "c=="}
    (sent,) = slack.sent
    assert (sent.method, sent.url) == ("POST", f"{BASE}/{method}")
    limit = 2 if encoding == "json" else "2"
    assert params_of(sent) == (encoding, {**params, "cursor": "b==", "limit": limit})
    slack = Slack(first, last)
    assert [page.data["items"] async for page in pages(slack.app)] == [[1, 2], [3]]
    assert [params_of(sent)[1].get("cursor") for sent in slack.sent] == [None, "c=="]
    assert {sent.extensions["aragora_transport"].operation for sent in slack.sent} == {operation}
    failing = Slack(first, error("channel_not_found"))
    assert [page.success async for page in pages(failing.app)] == [True, False]
    assert (await call(Slack(ok(**{key: {}})).app)).error_code == "invalid_response"


async def test_pins_come_on_one_page():
    slack = Slack(ok(items=[{"type": "message"}]))
    assert (await slack.app.list_pins("C1")).data == {"items": [{"type": "message"}], "next_cursor": None}
    assert (slack.sent[0].url, params_of(slack.sent[0])) == (f"{BASE}/pins.list", ("form", {"channel": "C1"}))


async def test_the_same_over_a_real_socket():
    with FaultServer(Answer(body=b'{"ok": true, "id": "1"}', headers=JSON)) as server:
        async with SlackConnector(TOKEN, app_token=APP_TOKEN, base_url=f"{server.url}/api/") as app:
            for operation, (call, *_) in REQUESTS.items():
                assert (await call(app)).data == {"ok": True, "id": "1"}, operation
            assert (await app.post_webhook(f"{server.url}/services/{HOOK_PATH}", "hi")).success
        asked = [
            (one.target, one.headers.get("authorization"), params_of(one)) for one in server.requests[:-1]
        ]
        hooked = server.requests[-1]
    assert asked == [
        (f"/api/{method}", IDENTITIES.get(operation, f"Bearer {TOKEN}"), (encoding, params))
        for operation, (_, method, encoding, params) in REQUESTS.items()
    ]
    assert (hooked.target, json.loads(hooked.body)) == (f"/services/{HOOK_PATH}", {"text": "hi"})
    assert "authorization" not in hooked.headers


async def test_without_an_app_token_a_socket_is_asked_for_with_the_token():
    slack = Slack(ok(url="wss://x"), app_token=None)
    await slack.app.open_socket()
    assert slack.sent[0].headers["authorization"] == f"Bearer {TOKEN}"


# --- webhooks ---


async def test_a_webhook_and_a_response_url_take_json_and_no_token():
    slack = Slack(text("ok"), ok())
    assert (await slack.app.post_webhook(HOOK, "hi", blocks=BLOCKS)).data == {"result": "ok"}
    done = await slack.app.respond(
        RESPONSE_URL, "hi", response_type="in_channel", replace_original=False, thread_ts="1.0"
    )
    assert done.data == {"ok": True}
    assert [(sent.method, sent.url, json.loads(sent.body)) for sent in slack.sent] == [
        ("POST", HOOK, {"text": "hi", "blocks": BLOCKS}),
        (
            *("POST", RESPONSE_URL),
            {"text": "hi", "response_type": "in_channel", "replace_original": False, "thread_ts": "1.0"},
        ),
    ]
    assert not any("authorization" in sent.headers for sent in slack.sent)
    await slack.app.respond(RESPONSE_URL, delete_original=True)
    assert json.loads(slack.sent[-1].body) == {"delete_original": True}


@pytest.mark.parametrize(
    "url", ["", "hooks.slack.com/services/T/B/X", "ftp://x/services/T", "https://x.test"]
)
async def test_a_webhook_that_makes_no_sense_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match="a webhook's URL looks like https://hooks"):
        await Slack(ok()).app.post_webhook(url, "hi")


# --- answers ---

LOGIN = Reply(body=b"<html>login</html>", headers={"content-type": "text/html"})
ANSWERS = {  # what comes back for a message: code, retryable, wait, attempts
    "channel": (error("channel_not_found"), "channel_not_found", False, None, 1),
    "auth": (error("invalid_auth"), "invalid_auth", False, None, 1),
    "expired": (error("token_expired"), "token_expired", False, None, 1),
    "revoked": (error("token_revoked"), "token_revoked", False, None, 1),
    "archived": (error("is_archived"), "is_archived", False, None, 1),
    "unknown method": (error("unknown_method"), "unknown_method", False, None, 1),
    "no error": (reply({"ok": False}), "unknown_error", False, None, 1),
    "limited": (
        reply({"ok": False, "error": "ratelimited"}, 429, **{"retry-after": "99"}),
        *("ratelimited", True, 99.0, 1),
    ),
    "limited in a 200": (error("rate_limited"), "rate_limited", True, None, 3),
    "away": (error("service_unavailable"), "service_unavailable", True, None, 3),
    "internal": (error("internal_error"), "internal_error", True, None, 1),
    "fatal": (error("fatal_error"), "fatal_error", True, None, 1),
    "truncated": (error("request_timeout"), "request_timeout", True, None, 3),
    "moving": (error("team_added_to_org"), "team_added_to_org", True, None, 1),
    "html": (Reply(status=502, body=b"<html>Bad Gateway</html>"), "http_502", True, None, 1),
    "login": (LOGIN, "invalid_response", False, None, 1),
    "not ok": (reply({"ok": "yes"}), "invalid_response", False, None, 1),
    "redirect": (Reply(status=302, headers={"location": "https://else.test"}), *("http_302", False, None, 1)),
    "lost": (httpx.ReadError, "network_error", True, None, 1),
    "refused": (httpx.ConnectError, "network_error", True, None, 3),
    "silence": (Hang(), "timeout", True, None, 1),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_an_answer_means(answer):
    step, code, retryable, wait, attempts = ANSWERS[answer]
    slack = Slack(step)
    result = await slack.app.send_message("C1", "hi")
    assert not result.success
    assert (result.error_code, result.retryable, result.retry_after) == (code, retryable, wait)
    assert (result.attempts, len(slack.sent)) == (attempts, attempts)
    assert result.status_code == (step.status if isinstance(step, Reply) else None)
    assert result.error.startswith("slack send_message: ")


async def test_a_failure_says_which_scopes_are_missing_and_what_was_wrong():
    lacking = error("missing_scope", needed="chat:write", provided="files:read")
    result = await Slack(lacking).app.send_message("C1", "hi")
    assert result.error == (
        "slack send_message: 200 missing_scope (needed: chat:write; provided: files:read)"
    )
    assert result.data == {"needed": "chat:write", "provided": "files:read"}
    wrong = error("invalid_blocks", response_metadata={"messages": ["[ERROR] no type", 7]}, needed=[])
    result = await Slack(wrong).app.send_message("C1", "hi")
    assert result.error == "slack send_message: 200 invalid_blocks ([ERROR] no type; 7)"
    assert result.data is None


WEBHOOK_ANSWERS = {  # what comes back for a webhook: code, retryable
    "payload": (text("invalid_payload", 400), "invalid_payload", False),
    "no text": (text("no_text", 400), "no_text", False),
    "prohibited": (text("action_prohibited", 403), "action_prohibited", False),
    "gone": (text("no_service", 404), "no_service", False),
    "no channel": (text("channel_not_found", 404), "channel_not_found", False),
    "archived": (text("channel_is_archived", 410), "channel_is_archived", False),
    "rollup": (text("rollup_error", 500), "rollup_error", True),
    "page": (text("<html>Not Found</html>", 404), "not_found", False),
    "json": (error("used_url"), "used_url", False),
}


@pytest.mark.parametrize("answer", WEBHOOK_ANSWERS)
async def test_what_the_text_of_a_webhook_means(answer):
    step, code, retryable = WEBHOOK_ANSWERS[answer]
    result = await Slack(step).app.post_webhook(HOOK, "hi")
    assert (result.success, result.error_code, result.retryable) == (False, code, retryable)
    assert result.attempts == 1


async def test_what_is_harmless_twice_is_sent_again_and_what_was_done_already_is_done():
    cases = [
        (lambda app: app.delete_message("C1", "1.1"), "message_not_found"),
        (lambda app: app.add_reaction("C1", "1.1", "x"), "already_reacted"),
        (lambda app: app.remove_reaction("C1", "1.1", "x"), "no_reaction"),
        (lambda app: app.pin_message("C1", "1.1"), "already_pinned"),
        (lambda app: app.unpin_message("C1", "1.1"), "no_pin"),
        (lambda app: app.unpin_message("C1", "1.1"), "not_pinned"),
        (lambda app: app.open_view("1.2", {}), "exchanged_trigger_id"),
    ]
    for call, code in cases:
        for step in (500, httpx.ReadError, error("fatal_error")):
            result = await call(Slack(step, error(code)).app)
            assert (result.success, result.data, result.attempts) == (True, {"already_done": True}, 2)
        assert (await call(Slack(error(code)).app)).error_code == code
        limited = await call(Slack(LIMITED, error(code)).app)
        assert (limited.error_code, limited.attempts) == (code, 2)  # who was refused has done nothing


@pytest.mark.parametrize("operation", ["send_message", "post_ephemeral", "schedule_message", "refresh_token"])
async def test_what_has_no_handle_is_not_sent_twice(operation):
    call = REQUESTS[operation][0]
    for step in (500, httpx.ReadTimeout, error("fatal_error")):
        slack = Slack(step, ok())
        assert (await call(slack.app)).retryable
        assert len(slack.sent) == 1
    always = await call(Slack(500, ok(), resend_unsafe="always").app)
    assert always.success == (operation != "refresh_token")  # whose second use Slack would not forgive


@pytest.mark.parametrize(
    "operation",
    [
        *LISTS,
        *sorted(
            set(REQUESTS)
            - {"send_message", "post_ephemeral", "schedule_message", "refresh_token", "files.remote.share"}
        ),
    ],
)
async def test_the_rest_is(operation):
    call = (LISTS.get(operation) or REQUESTS[operation])[0]
    slack = Slack(500, httpx.ReadTimeout, ok(messages=[], channels=[], members=[]))
    assert (await call(slack.app)).success
    assert len(slack.sent) == 3


async def test_a_429_holds_its_method_back_and_nothing_else():
    clock = ManualClock()
    sent = []

    def answer(request):
        sent.append(
            (clock.monotonic(), request.url.path, request.headers["authorization"] == f"Bearer {TOKEN}")
        )
        return LIMITED if len(sent) == 1 else ok()

    network = ScriptedTransport(answer, clock=clock)
    app = SlackConnector(TOKEN, transport=network, clock=clock)
    other = SlackConnector("xoxb-of-another-workspace", transport=network, clock=clock)
    assert not (await app.call("chat.postMessage", {"channel": "C0"}, max_attempts=1)).success
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(app.send_message, f"C{number}", "hi")
        tasks.start_soon(app.update_message, "C1", "1.1", "hi")
        tasks.start_soon(other.send_message, "C1", "hi")
    held = [at for at, path, mine in sent[1:] if path.endswith("postMessage") and mine]
    assert len(held) == 200
    assert min(held) >= 7.0
    others = [at for at, path, mine in sent if path.endswith("update") or not mine]
    assert others == [0.0, 0.0]


# --- tokens that rotate ---


async def test_a_token_that_rotates_is_exchanged_once_in_time_and_goes_where_it_belongs():
    clock = ManualClock()
    saved = []

    def answer(request):
        if request.url.path.endswith("oauth.v2.access"):
            number = len(saved) + 1
            return ok(access_token=f"xoxe.xoxb-{number}", refresh_token=f"xoxe-1-{number}", expires_in=43200)
        return grant(items=[]) if "api" in request.url.path else text("OK")

    network = ScriptedTransport(answer, clock=clock)
    app = SlackConnector.rotating(
        *("i", "the-client-secret", "xoxe-1-0"),
        save=saved.append,
        transport=network,
        clock=clock,
        app_token=APP_TOKEN,
    )
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(app.health)
    asked = [sent for sent in network.sent if sent.url == f"{BASE}/oauth.v2.access"]
    assert [params_of(sent)[1]["refresh_token"] for sent in asked] == ["xoxe-1-0"]
    assert asked[0].headers["authorization"] == IDENTITIES["refresh_token"]
    assert saved == ["xoxe-1-1"]
    del network.sent[:]
    await app.upload_file("C1", b"x")
    await app.download_file(FILE)
    await app.open_socket()
    await app.refresh_token("i", "the-client-secret", "xoxe-1-9")
    await app.post_webhook(HOOK, "hi")
    mine = "Bearer xoxe.xoxb-1"
    told = [sent.headers.get("authorization") for sent in network.sent]
    assert told == [mine, None, mine, mine, f"Bearer {APP_TOKEN}", IDENTITIES["refresh_token"], None]
    clock.advance(43_200 - 2 * 3600 + 1)
    await app.health()
    assert saved == ["xoxe-1-1", "xoxe-1-2"]
    assert network.sent[-1].headers["authorization"] == "Bearer xoxe.xoxb-2"


async def test_a_token_that_slack_calls_expired_before_its_time_is_exchanged_too():
    valid = ["Bearer xoxe.xoxb-2"]
    saved = []

    def answer(request):
        if request.url.path.endswith("oauth.v2.access"):
            number = len(saved) + 1
            return ok(access_token=f"xoxe.xoxb-{number}", refresh_token=f"xoxe-1-{number}", expires_in=43200)
        return ok(ts="1.1") if request.headers["authorization"] in valid else error("token_expired")

    network = ScriptedTransport(answer)
    registry = CollectorRegistry()
    app = SlackConnector.rotating(
        *("i", "the-client-secret", "xoxe-1-0"), save=saved.append, transport=network, registry=registry
    )
    result = await app.send_message("C1", "hi")
    assert (result.success, result.data["ts"], result.attempts) == (True, "1.1", 2)
    labels = {"platform": "oauth", "operation": "token", "status": "200"}
    assert registry.get_sample_value("platform_requests_total", labels) == 2
    assert saved == ["xoxe-1-1", "xoxe-1-2"]
    valid.clear()
    result = await app.send_message("C1", "hi")
    assert (result.error_code, result.retryable, result.attempts) == ("token_expired", False, 2)
    assert saved == ["xoxe-1-1", "xoxe-1-2", "xoxe-1-3"]


async def test_a_refresh_that_slack_refuses_says_why():
    network = ScriptedTransport(error("invalid_refresh_token"))
    app = SlackConnector.rotating("i", "the-client-secret", "xoxe-1-0", transport=network)
    result = await app.send_message("C1", "hi")
    assert (result.success, result.error_code, result.retryable) == (False, "invalid_refresh_token", False)
    assert len(network.sent) == 1


# --- texts and files ---


async def test_a_text_that_slack_would_cut_or_refuse_is_not_sent():
    slack = Slack(ok())
    for operation, arguments, most in (
        ("send_message", ("C1",), 40_000),
        ("update_message", ("C1", "1.1"), 4000),
        ("post_ephemeral", ("C1", "U1"), 40_000),
        ("schedule_message", ("C1", 1), 40_000),
        ("post_webhook", (HOOK,), 40_000),
        ("respond", (RESPONSE_URL,), 40_000),
    ):
        result = await getattr(slack.app, operation)(*arguments, "x" * (most + 1))
        assert result.error == (
            f"slack {operation}: the text has {most + 1} characters, slack takes {most}; send it in parts"
        )
        assert (result.error_code, result.attempts, slack.sent) == ("text_too_long", 0, [])
    assert (await slack.app.send_message("C1", "x" * 40_000)).success


async def test_slack_shows_nobody_typing():
    slack = Slack(ok())
    result = await slack.app.send_typing("C1")
    assert (result.success, result.error_code, slack.sent) == (False, "unsupported", [])


class Pipe(io.BytesIO):
    def seekable(self):
        return False


def grant(**fields):
    return ok(upload_url=UPLOAD_URL, file_id="F1", **fields)


async def test_a_file_is_uploaded_in_three_steps_the_second_without_the_token(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello" * 40_000)
    opened = io.BytesIO(b"--hello")
    opened.seek(2)
    shared = ok(files=[{"id": "F1"}])
    for file, name, content in (
        (b"hello", "file", b"hello"),
        (path, "a.txt", b"hello" * 40_000),
        (opened, "file", b"hello"),
        (b"", "file", b""),
    ):
        slack = Slack(grant(), text("OK - 5"), shared)
        result = await slack.app.upload_file(
            "C1", file, title="t", text="see", thread_ts="1.0", alt_txt="alt"
        )
        assert (result.success, result.data["files"]) == (True, [{"id": "F1"}])
        first, second, third = slack.sent
        assert first.url == f"{BASE}/files.getUploadURLExternal"
        assert params_of(first) == ("form", {"filename": name, "length": str(len(content)), "alt_txt": "alt"})
        assert (second.method, second.url, second.body) == ("POST", UPLOAD_URL, content)
        assert second.headers["content-length"] == str(len(content))
        assert second.headers["content-type"] == "application/octet-stream"
        assert "authorization" not in second.headers
        assert "transfer-encoding" not in second.headers
        assert third.url == f"{BASE}/files.completeUploadExternal"
        assert params_of(third) == (
            "json",
            {
                "files": [{"id": "F1", "title": "t"}],
                "channel_id": "C1",
                "initial_comment": "see",
                "thread_ts": "1.0",
            },
        )
    slack = Slack(grant(), text("OK"), shared)
    await slack.app.upload_file(None, b"x", filename="b.txt")
    assert params_of(slack.sent[2])[1] == {"files": [{"id": "F1", "title": "b.txt"}]}


async def test_a_file_goes_up_over_a_real_socket_too(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello" * 40_000)
    with FaultServer(Answer(body=b"OK")) as files:
        place = {"ok": True, "upload_url": f"{files.url}/upload/v1/x?sig=a%20b&empty=", "file_id": "F1"}
        with FaultServer(Answer(body=json.dumps(place).encode(), headers=JSON)) as api:
            async with SlackConnector(TOKEN, base_url=f"{api.url}/api") as app:
                assert (await app.upload_file("C1", path)).success
    (sent,) = files.requests
    assert (sent.target, sent.body) == ("/upload/v1/x?sig=a%20b", b"hello" * 40_000)
    assert "authorization" not in sent.headers


async def test_an_upload_ends_with_the_step_that_failed():
    for steps, code, sent in (
        ([error("file_upload_size_restricted")], "file_upload_size_restricted", 1),
        ([ok(file_id="F1")], "no_upload_url", 1),
        ([ok(upload_url=UPLOAD_URL)], "no_upload_url", 1),
        ([ok(upload_url="ftp://else", file_id="F1")], "no_upload_url", 1),
        ([ok(upload_url="https://x/\xe4", file_id="F1")], "no_upload_url", 1),
        ([grant(), text("nope", 400)], "bad_request", 2),
        ([grant(), text("OK"), error("channel_not_found")], "channel_not_found", 3),
        ([grant(), text("OK"), error("fatal_error")], "fatal_error", 3),  # which may have been shared
    ):
        slack = Slack(*steps)
        result = await slack.app.upload_file("C1", b"hello")
        assert (result.success, result.error_code, len(slack.sent)) == (False, code, sent)
        assert result.error.startswith("slack upload_file: ")


async def test_bytes_are_sent_again_and_a_file_that_is_read_on_the_way_is_not():
    for step in (500, 503, httpx.ReadError):
        slack = Slack(grant(), step, text("OK"), ok())
        assert (await slack.app.upload_file("C1", b"hello")).success
        assert [sent.body for sent in slack.sent[1:3]] == [b"hello"] * 2
    slack = Slack(grant(), 503)
    result = await slack.app.upload_file("C1", io.BytesIO(b"hello"))
    assert (result.success, result.retryable, len(slack.sent)) == (False, True, 2)


async def test_a_file_that_grows_meanwhile_is_sent_as_long_as_it_was_said_to_be():
    file = io.BytesIO(b"hello")

    def grow(_):
        file.seek(0, io.SEEK_END)
        file.write(b" and more")
        file.seek(0)
        return grant()

    slack = Slack(grow, text("OK"), ok())
    assert (await slack.app.upload_file("C1", file)).success
    assert slack.sent[1].body == b"hello"


async def test_a_file_of_a_wrong_size_is_not_sent():
    slack = Slack(grant(), max_upload=4)
    assert (await slack.app.upload_file("C1", b"hello")).error_code == "file_too_large"
    assert (await slack.app.upload_file("C1", Pipe(b"hi"))).error_code == "file_length_unknown"
    assert (await Slack(grant()).app.upload_file("C1", Pipe(b"hi"))).error_code == "file_length_unknown"
    assert slack.sent == []


async def test_a_file_is_downloaded_with_the_token_from_slacks_hosts_alone():
    slack = Slack(Reply(body=b"hello", headers={"content-type": "text/plain"}))
    result = await slack.app.download_file(FILE)
    assert result.data == {"size": 5, "content_type": "text/plain", "content": b"hello"}
    assert (slack.sent[0].method, slack.sent[0].url) == ("GET", FILE)
    assert slack.sent[0].headers["authorization"] == f"Bearer {TOKEN}"
    await slack.app.download_file("https://slack.com/files/a")
    assert slack.sent[1].headers["authorization"] == f"Bearer {TOKEN}"
    for url in (
        "https://files.slack.com.evil.test/a",
        "http://files.slack.com/a",
        "https://x.test/",
        "no",
        "https://[x",
    ):
        result = await slack.app.download_file(url)
        assert (result.error_code, len(slack.sent)) == ("foreign_host", 2)
    assert (
        await Slack(Reply(body=b"hello"), max_download=4).app.download_file(FILE)
    ).error_code == "file_too_large"
    own = Slack(Reply(body=b"hello"), files_url="http://localhost:1")
    assert (await own.app.download_file("http://localhost:1/a")).success
    sink = io.BytesIO()
    assert (await slack.app.download_file(FILE, sink)).data == {"size": 5, "content_type": "text/plain"}
    assert sink.getvalue() == b"hello"


async def test_slacks_login_page_is_not_taken_for_a_file():
    for step, code in (
        (LOGIN, "no_file"),
        (Reply(status=302, headers={"location": "https://x.test/"}), "http_302"),
    ):
        slack = Slack(step)
        assert (await slack.app.download_file(FILE)).error_code == code
        assert len(slack.sent) == 1
    page = await Slack(LOGIN).app.download_file("https://files.slack.com/files-pri/T0-F1/a.html")
    assert page.data["content"] == b"<html>login</html>"


async def test_no_operation_raises_for_any_body():
    calls = {**REQUESTS, **LISTS, "upload": (lambda app: app.upload_file("C1", b"x"),)}
    calls["list_pins"] = (lambda app: app.list_pins("C1"),)
    for body in ConnectorContract.odd_bodies:
        slack = Slack(Reply(body=body, headers=JSON))
        for operation, (call, *_) in calls.items():
            result = await call(slack.app)
            assert isinstance(result.data, dict) if result.success else isinstance(result.error, str), (
                operation
            )


async def test_no_secret_of_a_url_or_a_token_is_seen(caplog):
    caplog.set_level(logging.DEBUG)
    secrets = (
        *(TOKEN, APP_TOKEN, HOOK_PATH, "hook-of-nobody", "answer-of-nobody", "grant-of-nobody"),
        *("the-client-secret", "aTp0aGUtY2xpZW50LXNlY3JldA==", "xoxe-1-r"),
    )
    shown = []
    for step in (
        400,
        503,
        httpx.ReadError,
        lambda request: error(f"see {request.url}", needed=f"{request.headers} {request.content}"),
    ):
        for call in (
            lambda app: app.post_webhook(HOOK, "hi"),
            lambda app: app.respond(RESPONSE_URL, "hi"),
            lambda app: app.open_socket(),
            lambda app: app.download_file(FILE),
            REQUESTS["refresh_token"][0],
        ):
            slack = Slack(step)
            shown += [
                repr(await call(slack.app)),
                repr(slack.app.__dict__),
                generate_latest(slack.registry).decode(),
            ]
        slack = Slack(grant(), step)
        shown.append(repr(await slack.app.upload_file("C1", b"x")))
    for seen in (*shown, *(f"{record.getMessage()} {vars(record)}" for record in caplog.records)):
        assert not any(secret in seen for secret in secrets), seen
