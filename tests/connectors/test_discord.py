"""Discord's connector: what it sends, and what it makes of the answers."""

from __future__ import annotations

import io
import json
import logging
from email import message_from_bytes
from email.policy import HTTP

import httpx
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport.connectors import DiscordConnector
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

TOKEN = "MTE.the-discord-token"  # noqa: S105  # of nobody, as all here
HOOK_TOKEN = "hook-token_of-nobody"  # noqa: S105  # made up
INTERACTION_TOKEN = "aW50ZXJhY3Rpb24.token"  # noqa: S105  # made up
HOOK = f"https://discord.com/api/webhooks/8/{HOOK_TOKEN}"
API = "/api/v10"
BASE = f"https://discord.com{API}"
JSON = {"content-type": "application/json"}


def reply(value, status=200, **headers):
    return Reply(status=status, body=json.dumps(value).encode(), headers={**JSON, **headers})


def error(status, code, message="No", **more):
    return reply({"code": code, "message": message, **more}, status)


class Discord:
    """A bot, and a server that does as it is told."""

    def __init__(self, *steps, **keywords):
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        self.bot = DiscordConnector(
            TOKEN, transport=self.network, clock=self.clock, registry=self.registry, **keywords
        )

    @property
    def sent(self):
        return self.network.sent


class TestDiscordConnector(ConnectorContract):
    good = reply({"id": "1"})
    limited = reply({"message": "You are being rate limited.", "retry_after": 7.0}, 429)
    secrets = (TOKEN, "the-discord-token")
    resend_unsafe = "always"  # a nonce makes it harmless

    def connector(self, **keywords):
        return DiscordConnector(TOKEN, **keywords)


class TestAWebhookOfDiscords(ConnectorContract):
    good = reply({"id": "1"})
    limited = reply({"message": "You are being rate limited.", "retry_after": 7.0}, 429)
    secrets = (TOKEN, HOOK_TOKEN)

    def connector(self, **keywords):
        return DiscordConnector(TOKEN, **keywords)

    async def send(self, connector):
        return await connector.execute_webhook(HOOK, "hello")


NONCE = {"nonce": "n1", "enforce_nonce": True}
M = "/channels/1/messages"
CALLBACK = f"/interactions/5/{INTERACTION_TOKEN}/callback"
FOLLOWUP = f"/webhooks/9/{INTERACTION_TOKEN}"
REQUESTS = {  # operation: how it is called, method, path and query, JSON
    "send_message": (
        lambda bot: bot.send_message(1, "hi", nonce="n1", embeds=[{"title": "t"}]),
        *("POST", M, {"content": "hi", "embeds": [{"title": "t"}], **NONCE}),
    ),
    "update_message": (
        lambda bot: bot.update_message(1, 2, "hi", flags=4),
        *("PATCH", f"{M}/2", {"content": "hi", "flags": 4}),
    ),
    "delete_message": (lambda bot: bot.delete_message(1, 2), "DELETE", f"{M}/2", None),
    "bulk_delete": (
        lambda bot: bot.bulk_delete(1, (2, "3")),
        *("POST", f"{M}/bulk-delete", {"messages": ["2", "3"]}),
    ),
    "send_typing": (lambda bot: bot.send_typing(1), "POST", "/channels/1/typing", None),
    "add_reaction": (
        lambda bot: bot.add_reaction(1, 2, "\N{THUMBS UP SIGN}"),
        *("PUT", f"{M}/2/reactions/%F0%9F%91%8D/@me", None),
    ),
    "remove_reaction": (
        lambda bot: bot.remove_reaction(1, 2, "party:77", 6),
        *("DELETE", f"{M}/2/reactions/party:77/6", None),
    ),
    "pin_message": (lambda bot: bot.pin_message(1, 2), "PUT", f"{M}/pins/2", None),
    "unpin_message": (lambda bot: bot.unpin_message(1, 2), "DELETE", f"{M}/pins/2", None),
    "list_pins": (lambda bot: bot.list_pins(1, limit=5), "GET", f"{M}/pins?limit=5", None),
    "history": (
        lambda bot: bot.history(1, before=7, limit=5),
        *("GET", f"{M}?before=7&limit=5", None),
    ),
    "get_channel": (lambda bot: bot.get_channel("1"), "GET", "/channels/1", None),
    "get_user": (lambda bot: bot.get_user(6), "GET", "/users/6", None),
    "health": (lambda bot: bot.health(), "GET", "/users/@me", None),
    "create_dm": (lambda bot: bot.create_dm(6), "POST", "/users/@me/channels", {"recipient_id": "6"}),
    "create_thread": (
        lambda bot: bot.create_thread(1, "talk", type=11),
        *("POST", "/channels/1/threads", {"name": "talk", "type": 11}),
    ),
    "create_thread on a message": (
        lambda bot: bot.create_thread(1, "talk", message_id=2),
        *("POST", f"{M}/2/threads", {"name": "talk"}),
    ),
    "call": (
        lambda bot: bot.call("PATCH", "/guilds/3", json={"name": "x"}),
        *("PATCH", "/guilds/3", {"name": "x"}),
    ),
    "execute_webhook": (
        lambda bot: bot.execute_webhook(HOOK, "hi", username="me", thread_id=4),
        *("POST", f"/webhooks/8/{HOOK_TOKEN}?wait=true&thread_id=4", {"content": "hi", "username": "me"}),
    ),
    "execute_webhook without waiting": (
        lambda bot: bot.execute_webhook((8, HOOK_TOKEN), "hi", wait=False),
        *("POST", f"/webhooks/8/{HOOK_TOKEN}?wait=false", {"content": "hi"}),
    ),
    "edit_webhook_message": (
        lambda bot: bot.edit_webhook_message(HOOK, 2, "hi"),
        *("PATCH", f"/webhooks/8/{HOOK_TOKEN}/messages/2", {"content": "hi"}),
    ),
    "delete_webhook_message": (
        lambda bot: bot.delete_webhook_message(HOOK, 2),
        *("DELETE", f"/webhooks/8/{HOOK_TOKEN}/messages/2", None),
    ),
    "respond_to_interaction": (
        lambda bot: bot.respond_to_interaction(
            5, INTERACTION_TOKEN, "hi", ephemeral=True, with_response=True
        ),
        *("POST", f"{CALLBACK}?with_response=true", {"type": 4, "data": {"content": "hi", "flags": 64}}),
    ),
    "respond_to_interaction with choices": (
        lambda bot: bot.respond_to_interaction(5, INTERACTION_TOKEN, type=8, choices=[]),
        *("POST", CALLBACK, {"type": 8, "data": {"choices": []}}),
    ),
    "respond_to_interaction later": (
        lambda bot: bot.defer(5, INTERACTION_TOKEN, ephemeral=True),
        *("POST", CALLBACK, {"type": 5, "data": {"flags": 64}}),
    ),
    "respond_to_interaction by an update": (
        lambda bot: bot.defer(5, INTERACTION_TOKEN, update=True),
        *("POST", CALLBACK, {"type": 6}),
    ),
    "get_original": (
        lambda bot: bot.get_original(9, INTERACTION_TOKEN),
        *("GET", f"{FOLLOWUP}/messages/@original", None),
    ),
    "edit_original": (
        lambda bot: bot.edit_original(9, INTERACTION_TOKEN, "hi"),
        *("PATCH", f"{FOLLOWUP}/messages/@original", {"content": "hi"}),
    ),
    "delete_original": (
        lambda bot: bot.delete_original(9, INTERACTION_TOKEN),
        *("DELETE", f"{FOLLOWUP}/messages/@original", None),
    ),
    "followup": (
        lambda bot: bot.followup(9, INTERACTION_TOKEN, "hi", ephemeral=True, flags=4),
        *("POST", FOLLOWUP, {"content": "hi", "flags": 68}),
    ),
}
TOKEN_IN_PATH = ("/webhooks/", "/interactions/")


@pytest.mark.parametrize("operation", REQUESTS)
async def test_an_operation_is_one_request(operation):
    call, method, path, body = REQUESTS[operation]
    discord = Discord(reply({"id": "1"}))
    result = await call(discord.bot)
    assert (result.success, result.data) == (True, {"id": "1"})
    (sent,) = discord.sent
    assert (sent.method, sent.url) == (method, BASE + path)
    assert sent.headers["user-agent"].startswith("DiscordBot (")
    if path.startswith(TOKEN_IN_PATH):
        assert "authorization" not in sent.headers
    else:
        assert sent.headers["authorization"] == f"Bot {TOKEN}"
    if body is None:
        assert sent.body == b""
        assert "content-type" not in sent.headers
    else:
        assert sent.headers["content-type"] == "application/json"
        assert json.loads(sent.body) == body
    assert sent.extensions["aragora_transport"].operation == operation.partition(" ")[0]


async def test_the_same_over_a_real_socket():
    with FaultServer(Answer(body=b'{"id": "1"}', headers=JSON)) as server:
        async with DiscordConnector(TOKEN, base_url=f"{server.url}{API}") as bot:
            for operation, (call, *_) in REQUESTS.items():
                assert (await call(bot)).data == {"id": "1"}, operation
        asked = [
            (
                one.method,
                one.target,
                json.loads(one.body) if one.body else None,
                one.headers.get("authorization"),
            )
            for one in server.requests
        ]
    assert asked == [
        (method, API + path, body, None if path.startswith(TOKEN_IN_PATH) else f"Bot {TOKEN}")
        for _, method, path, body in REQUESTS.values()
    ]


async def test_a_bot_may_call_itself_and_its_token_otherwise():
    agent = "DiscordBot (https://bot.test, 7)"
    discord = Discord(reply({}), token_type="Bearer", user_agent=agent)  # noqa: S106  # no password
    await discord.bot.health()
    headers = discord.sent[0].headers
    assert (headers["authorization"], headers["user-agent"]) == (f"Bearer {TOKEN}", agent)


async def test_a_reason_is_told_to_the_audit_log():
    discord = Discord(Reply(status=204))
    for call in (
        lambda: discord.bot.delete_message(
            1, 2, reason="r\N{LATIN SMALL LETTER U WITH DIAERESIS}de words\r\n"
        ),
        lambda: discord.bot.bulk_delete(1, [2, 3], reason="x"),
        lambda: discord.bot.pin_message(1, 2, reason="x"),
        lambda: discord.bot.unpin_message(1, 2, reason="x"),
        lambda: discord.bot.create_thread(1, "talk", reason="x"),
        lambda: discord.bot.call("DELETE", "channels/1", reason="x"),
    ):
        assert (await call()).data == {}
    told = [sent.headers["x-audit-log-reason"] for sent in discord.sent]
    assert told == ["r%C3%BCde words%0D%0A", *["x"] * 5]


# --- messages twice ---


async def test_every_message_has_a_nonce_of_its_own_which_all_its_attempts_share():
    discord = Discord(500, reply({}), httpx.ReadTimeout, reply({}))
    await discord.bot.send_message(1, "hi")
    await discord.bot.send_message(1, "hi")
    first, again, second, once_more = (json.loads(sent.body) for sent in discord.sent)
    assert first == again != second == once_more
    for body in (first, second):
        assert body["enforce_nonce"] is True
        assert 0 < len(body["nonce"]) <= 25


@pytest.mark.parametrize("operation", ["execute_webhook", "followup", "create_thread"])
async def test_what_has_no_handle_is_not_sent_twice(operation):
    for step in (500, httpx.ReadTimeout):
        discord = Discord(step, reply({}))
        assert (await REQUESTS[operation][0](discord.bot)).retryable
        assert len(discord.sent) == 1
    assert (await REQUESTS[operation][0](Discord(500, reply({}), resend_unsafe="always").bot)).success


async def test_what_was_done_by_an_attempt_that_was_lost_is_done():
    cases = [
        (lambda bot: bot.delete_message(1, 2), error(404, 10008)),
        (lambda bot: bot.delete_webhook_message(HOOK, 2), error(404, 10008)),
        (lambda bot: bot.delete_original(9, INTERACTION_TOKEN), error(404, 10008)),
        (lambda bot: bot.create_thread(1, "talk", message_id=2), error(400, 160004)),
        (lambda bot: bot.respond_to_interaction(5, INTERACTION_TOKEN, "hi"), error(400, 40060)),
    ]
    for call, refusal in cases:
        for step in (500, httpx.ReadError):
            result = await call(Discord(step, refusal).bot)
            assert (result.success, result.data, result.attempts) == (True, {"already_done": True}, 2)
        alone = await call(Discord(refusal).bot)
        assert not alone.success
        assert alone.error_code in ("10008", "160004", "40060")
        limited = await call(Discord(reply({"retry_after": 0.2}, 429), refusal).bot)
        assert (limited.success, limited.attempts) == (False, 2)  # who was refused has done nothing


# --- interactions ---


async def test_an_interaction_is_answered_in_time_or_given_up():
    discord = Discord(Hang())
    result = await discord.bot.respond_to_interaction(5, INTERACTION_TOKEN, "hi")
    assert (result.error_code, result.retryable) == ("timeout", True)
    assert discord.clock.monotonic() <= 2.5
    assert len(discord.sent) == 2
    discord = Discord(Hang())
    await discord.bot.defer(5, INTERACTION_TOKEN, window=1.0)
    assert discord.clock.monotonic() <= 1.0
    discord = Discord(*[503] * 3)
    await discord.bot.respond_to_interaction(5, INTERACTION_TOKEN, "hi", window=60.0)
    assert len(discord.sent) == 2
    discord = Discord(reply({"retry_after": 3.0}, 429), reply({}))
    result = await discord.bot.respond_to_interaction(5, INTERACTION_TOKEN, "hi")
    assert (result.success, result.retry_after, discord.clock.monotonic()) == (False, 3.0, 0.0)


# --- answers ---

ANSWERS = {  # what comes back for a webhook's message: code, retryable, wait, words
    "form": (
        error(400, 50035, "Invalid Form Body", errors={"content": {"_errors": [{"message": "Too long"}]}}),
        *("50035", False, None, "400 Invalid Form Body; content: Too long"),
    ),
    "nested form": (
        error(400, 50035, "Form", errors={"embeds": {"0": {"title": {"_errors": [{"message": "Bad"}, {}]}}}}),
        *("50035", False, None, "400 Form; embeds.0.title: Bad; embeds.0.title: None"),
    ),
    "unauthorized": (
        error(401, 0, "401: Unauthorized"),
        "unauthorized",
        False,
        None,
        "401 401: Unauthorized",
    ),
    "permission": (error(403, 50013, "Missing Permissions"), "50013", False, None, "403 Missing Permissions"),
    "cloudflare": (
        error(403, 40333, "internal network error"),
        "40333",
        False,
        None,
        "403 internal network error",
    ),
    "unknown webhook": (error(404, 10015, "Unknown Webhook"), "10015", False, None, "404 Unknown Webhook"),
    "too large": (
        error(413, 40005, "Request entity too large"),
        "40005",
        False,
        None,
        "413 Request entity too large",
    ),
    "rate limit": (
        reply({"message": "You", "retry_after": 64.57, "global": False}, 429, **{"retry-after": "65"}),
        "rate_limited",
        True,
        64.57,
        "429 You",
    ),
    "ban": (
        Reply(status=429, body=b"<html>banned</html>", headers={"content-type": "text/html"}),
        *("cloudflare_ban", False, None, "429 <html>banned</html>"),
    ),
    "broken": (Reply(status=500, body=b"oh"), "http_500", True, None, "500 oh"),
    "overloaded": (error(500, 130000, "Overloaded"), "130000", True, None, "500 Overloaded"),
    "too slow": (Reply(status=524), "http_524", True, None, "524"),
    "indexing": (
        reply({"message": "Index not yet available", "code": 110000, "retry_after": 99}, 202),
        *("110000", True, 99.0, "202 Index not yet available"),
    ),
    "no JSON": (
        Reply(body=b"<html>"),
        "invalid_response",
        False,
        None,
        "200 an answer that cannot be read: <html>",
    ),
    "lost": (httpx.ReadError, "network_error", True, None, "ReadError: scripted"),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_an_answer_means(answer):
    step, code, retryable, wait, words = ANSWERS[answer]
    discord = Discord(step)
    result = await discord.bot.execute_webhook(HOOK, "hi")
    assert not result.success
    assert (result.error_code, result.retryable, result.retry_after) == (code, retryable, wait)
    assert result.error == f"discord execute_webhook: {words}"
    assert result.status_code == (step.status if isinstance(step, Reply) else None)


async def test_a_complaint_without_end_is_cut():
    endless = {}
    for _ in range(50):
        endless = {"a": endless, "_errors": 7}
    result = await Discord(error(400, 50035, "Form", errors=endless)).bot.health()
    assert result.error == "discord health: 400 Form"


async def test_a_search_that_is_not_ready_is_asked_again_when_it_is():
    not_ready = reply({"message": "Try again later", "code": 110000, "retry_after": 2}, 202)
    discord = Discord(not_ready, reply({"total_results": 0}))
    result = await discord.bot.call("GET", "guilds/3/messages/search", params={"content": "x"})
    assert (result.data, result.attempts) == ({"total_results": 0}, 2)
    assert discord.clock.monotonic() >= 2.0


# --- pages ---


async def test_history_comes_in_pages_until_one_is_not_full():
    def page(request):
        before = int(request.url.params.get("before", 6))
        return reply([{"id": str(number)} for number in range(before - 1, max(before - 3, 0), -1)])

    discord = Discord(page)
    pages = [page async for page in discord.bot.iter_history(1, limit=2)]
    assert [[one["id"] for one in page.data["items"]] for page in pages] == [["5", "4"], ["3", "2"], ["1"]]
    assert [page.data["next_cursor"] for page in pages] == ["4", "2", None]
    assert (await discord.bot.history(1, after=3, limit=2)).data["next_cursor"] is None


async def test_a_page_that_failed_is_the_last():
    discord = Discord(reply([{"id": "7"}, {"id": "6"}]), error(403, 50001))
    pages = [page async for page in discord.bot.iter_history(1, limit=2)]
    assert [page.success for page in pages] == [True, False]
    assert pages[1].error_code == "50001"


async def test_a_page_that_comes_again_and_again_is_not_asked_for_for_ever():
    discord = Discord(reply([{"id": "7"}, {"id": "6"}]))
    assert len([page async for page in discord.bot.iter_history(1, limit=2)]) == 2


async def test_a_list_of_another_shape_is_no_error():
    for step in (reply({"items": "none"}), reply({"id": 1}), reply(["x"] * 50), reply(7), error(403, 50001)):
        for call in (lambda bot: bot.history(1), lambda bot: bot.list_pins(1)):
            result = await call(Discord(step).bot)
            assert isinstance(result.success, bool)


async def test_pins_tell_where_the_next_page_begins():
    pins = [{"pinned_at": "2026-01-02T00:00:00Z", "message": {}}, {"pinned_at": "2026-01-01T00:00:00Z"}]
    discord = Discord(reply({"items": pins, "has_more": True}), reply({"items": pins, "has_more": False}))
    first = await discord.bot.list_pins(1)
    assert first.data == {"items": pins, "next_cursor": "2026-01-01T00:00:00Z"}
    last = await discord.bot.list_pins(1, before=first.data["next_cursor"])
    assert last.data["next_cursor"] is None
    assert "before=2026-01-01T00%3A00%3A00Z" in discord.sent[1].url
    empty = await Discord(reply({"items": [], "has_more": True})).bot.list_pins(1)
    assert empty.data == {"items": [], "next_cursor": None}
    discord = Discord(reply({"items": pins, "has_more": True}), reply({"items": pins[:1]}))
    pages = [page async for page in discord.bot.iter_pins(1, limit=2)]
    assert [page.data["items"] for page in pages] == [pins, pins[:1]]
    assert [sent.url.rpartition("?")[2] for sent in discord.sent] == [
        *("limit=2", "before=2026-01-01T00%3A00%3A00Z&limit=2")
    ]


# --- texts and files ---


async def test_a_text_that_discord_would_refuse_is_not_sent():
    discord = Discord(reply({}))
    long = "x" * 2001
    for call in (
        lambda bot: bot.send_message(1, long),
        lambda bot: bot.update_message(1, 2, long),
        lambda bot: bot.upload_file(1, b"x", text=long),
        lambda bot: bot.execute_webhook(HOOK, long),
        lambda bot: bot.edit_webhook_message(HOOK, 2, long),
        lambda bot: bot.respond_to_interaction(5, INTERACTION_TOKEN, long),
        lambda bot: bot.followup(9, INTERACTION_TOKEN, long),
    ):
        result = await call(discord.bot)
        assert result.error_code == "text_too_long"
        assert "the text has 2001 characters, discord takes 2000" in result.error
    assert discord.sent == []
    assert (await discord.bot.send_message(1, "x" * 2000)).success


def parts_of(sent):
    head = f"content-type: {sent.headers['content-type']}\r\n\r\n".encode()
    return {
        part.get_param("name", header="content-disposition"): (
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in message_from_bytes(head + sent.body, policy=HTTP).iter_parts()
    }


async def test_a_file_is_uploaded_beside_the_json():
    discord = Discord(503, reply({"id": "1"}))
    result = await discord.bot.upload_file(
        1, b"hello", filename="a.txt", text="see", description="A file", nonce="n1", flags=4
    )
    assert (result.success, result.attempts) == (True, 2)
    for sent in discord.sent:
        assert (sent.method, sent.url) == ("POST", f"{BASE}{M}")
        parts = parts_of(sent)
        assert parts.pop("files[0]") == ("a.txt", b"hello")
        assert json.loads(parts.pop("payload_json")[1]) == {
            "content": "see",
            "attachments": [{"id": 0, "description": "A file"}],
            "flags": 4,
            **NONCE,
        }
        assert parts == {}
    discord = Discord(reply({}))
    await discord.bot.execute_webhook(HOOK, file=io.BytesIO(b"hello"), filename="b.txt")
    parts = parts_of(discord.sent[0])
    assert (parts["files[0]"], parts["payload_json"]) == (("b.txt", b"hello"), (None, b"{}"))
    assert (await discord.bot.upload_file(1, bytes((10 << 20) + 1))).error_code == "file_too_large"


CDN = "https://cdn.discordapp.com/attachments/1/2/a.txt?ex=6a&is=6b&hm=5ecc0d5161gnature"


async def test_an_attachment_is_downloaded_without_the_bots_token(caplog):
    caplog.set_level(logging.DEBUG)
    discord = Discord(Reply(body=b"hello", headers={"content-type": "text/plain"}), 404)
    result = await discord.bot.download_file(CDN)
    assert result.data == {"content": b"hello", "size": 5, "content_type": "text/plain"}
    assert discord.sent[0].url == CDN
    assert "authorization" not in discord.sent[0].headers
    failed = await discord.bot.download_file(CDN)
    assert failed.error_code == "not_found"
    assert "5ecc0d5161gnature" not in f"{caplog.text} {result} {failed} {vars(discord.bot)}"
    limited = Discord(Reply(body=b"hello"), max_download=4)
    assert (await limited.bot.download_file(CDN, io.BytesIO())).error_code == "file_too_large"


# --- secrets ---


async def test_the_tokens_of_webhooks_and_interactions_are_seen_nowhere(caplog):
    caplog.set_level(logging.DEBUG)

    def echo(request):
        return error(400, 50035, f"{request.url} {dict(request.headers)}")

    seen = []
    for step in (reply({}), 401, 404, 503, echo, httpx.ReadError, httpx.ConnectError):
        discord = Discord(step)
        calls = ("execute_webhook", "edit_webhook_message", "respond_to_interaction", "followup")
        seen += [await REQUESTS[operation][0](discord.bot) for operation in calls]
        seen += [vars(discord.bot), discord.bot.stack.describe(), discord.bot.stack.circuits()]
        seen += [sample for family in discord.registry.collect() for sample in family.samples]
    text = f"{seen} {caplog.text} {[vars(record) for record in caplog.records]}"
    for secret in (TOKEN, HOOK_TOKEN, INTERACTION_TOKEN):
        assert secret not in text


async def test_a_webhooks_token_goes_to_the_base_url_alone():
    discord = Discord(reply({}))
    await discord.bot.execute_webhook(f"https://evil.test/api/webhooks/8/{HOOK_TOKEN}?wait=false", "hi")
    assert discord.sent[0].url == f"{BASE}/webhooks/8/{HOOK_TOKEN}?wait=true"


@pytest.mark.parametrize(
    "webhook",
    ["https://discord.com/api/8/x", "https://x.test/webhooks/8", "", (8, "a/b"), (8, ".."), f"{HOOK}/slack"],
)
async def test_a_webhook_that_is_none_is_refused_without_showing_it(webhook):
    with pytest.raises(ValueError, match="webhook") as caught:
        await Discord(reply({})).bot.execute_webhook(webhook, "hi")
    assert HOOK_TOKEN not in str(caught.value)


async def test_a_connector_remembers_so_many_tokens_and_no_more():
    discord = Discord(reply({}))
    for number in range(1005):
        await discord.bot.get_original(9, f"token-{number}")
    assert len(discord.bot._others) == 1000
    first = discord.bot._secret("token-5", "path-token")
    assert discord.bot._secret("token-5", "path-token") is first
