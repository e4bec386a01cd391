"""Telegram's connector: what it sends, and what it makes of the answers."""

from __future__ import annotations

import io
import itertools
import json
from email import message_from_bytes
from email.policy import HTTP

import httpx
import pytest

from aragora_transport import Policy, TimeoutPolicy
from aragora_transport.connectors import TelegramConnector
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

TOKEN = "123456:AAF-telegram-token"  # noqa: S105  # of nobody
BASE = f"https://api.telegram.org/bot{TOKEN}"
JSON = {"content-type": "application/json"}


def ok(result):
    return Reply(body=json.dumps({"ok": True, "result": result}).encode(), headers=JSON)


def error(code, description, **parameters):
    """As the official server words it: the status is the error's code."""
    body = {"ok": False, "error_code": code, "description": description}
    if parameters:
        body["parameters"] = parameters
    return Reply(status=code, body=json.dumps(body).encode(), headers=JSON)


class Telegram:
    """A bot, and a server that does as it is told."""

    def __init__(self, *steps, **keywords):
        self.clock = ManualClock()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        self.bot = TelegramConnector(TOKEN, transport=self.network, clock=self.clock, **keywords)

    @property
    def sent(self):
        return self.network.sent

    @property
    def bodies(self):
        return [json.loads(sent.body) for sent in self.sent]


class TestTelegramConnector(ConnectorContract):
    good = ok({"message_id": 1})
    limited = error(429, "Too Many Requests: retry after 7", retry_after=7)
    secrets = (TOKEN, "AAF-telegram-token")

    def connector(self, **keywords):
        return TelegramConnector(TOKEN, **keywords)


@pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning")
class TestTelegramConnectorOnTrio(TestTelegramConnector):
    backend = "trio"


THUMB = [{"type": "emoji", "emoji": "\N{THUMBS UP SIGN}"}]
REQUESTS = {  # operation: how it is called, Telegram's method, its parameters
    "send_message": (
        lambda bot: bot.send_message(7, "hi", parse_mode="HTML", reply_markup={"a": 1}),
        *(
            "sendMessage",
            {"chat_id": 7, "text": "hi", "parse_mode": "HTML", "reply_markup": {"a": 1}},
        ),
    ),
    "update_message": (
        lambda bot: bot.update_message("@channel", 2, "hi"),
        *("editMessageText", {"chat_id": "@channel", "message_id": 2, "text": "hi"}),
    ),
    "delete_message": (
        lambda bot: bot.delete_message(7, 2),
        *("deleteMessage", {"chat_id": 7, "message_id": 2}),
    ),
    "send_typing": (
        lambda bot: bot.send_typing(7),
        *("sendChatAction", {"chat_id": 7, "action": "typing"}),
    ),
    "add_reaction": (
        lambda bot: bot.add_reaction(7, 2, "\N{THUMBS UP SIGN}"),
        *("setMessageReaction", {"chat_id": 7, "message_id": 2, "reaction": THUMB}),
    ),
    "remove_reaction": (
        lambda bot: bot.remove_reaction(7, 2, "x"),
        *("setMessageReaction", {"chat_id": 7, "message_id": 2, "reaction": []}),
    ),
    "pin_message": (
        lambda bot: bot.pin_message(7, 2, disable_notification=True),
        *("pinChatMessage", {"chat_id": 7, "message_id": 2, "disable_notification": True}),
    ),
    "unpin_message": (
        lambda bot: bot.unpin_message(7, 2),
        *("unpinChatMessage", {"chat_id": 7, "message_id": 2}),
    ),
    "get_channel": (lambda bot: bot.get_channel(-7), "getChat", {"chat_id": -7}),
    "get_user": (lambda bot: bot.get_user(9), "getChat", {"chat_id": 9}),
    "get_user of a chat": (lambda bot: bot.get_user(9, -7), "getChatMember", {"chat_id": -7, "user_id": 9}),
    "health": (lambda bot: bot.health(), "getMe", None),
    "set_my_commands": (
        lambda bot: bot.set_my_commands([{"command": "go", "description": "Go"}], language_code="en"),
        *("setMyCommands", {"commands": [{"command": "go", "description": "Go"}], "language_code": "en"}),
    ),
    "answer_callback_query": (
        lambda bot: bot.answer_callback_query("q", "done", show_alert=True),
        *("answerCallbackQuery", {"callback_query_id": "q", "text": "done", "show_alert": True}),
    ),
    "answer_inline_query": (
        lambda bot: bot.answer_inline_query("q", [{"type": "article"}], cache_time=0),
        *("answerInlineQuery", {"inline_query_id": "q", "results": [{"type": "article"}], "cache_time": 0}),
    ),
    "upload_file": (
        lambda bot: bot.upload_file(7, "https://files.test/a.png", kind="photo", caption="see"),
        *("sendPhoto", {"chat_id": 7, "caption": "see", "photo": "https://files.test/a.png"}),
    ),
    "send_media_group": (
        lambda bot: bot.send_media_group(7, [{"type": "photo", "media": "F1"}]),
        *("sendMediaGroup", {"chat_id": 7, "media": [{"type": "photo", "media": "F1"}]}),
    ),
    "get_file": (lambda bot: bot.get_file("F1"), "getFile", {"file_id": "F1"}),
    "get_updates": (
        lambda bot: bot.get_updates(5, timeout=20, allowed_updates=["message"]),
        *("getUpdates", {"offset": 5, "timeout": 20, "limit": 100, "allowed_updates": ["message"]}),
    ),
    "set_webhook": (
        lambda bot: bot.set_webhook("https://me.test/hook", "s3cret", max_connections=5),
        *("setWebhook", {"url": "https://me.test/hook", "secret_token": "s3cret", "max_connections": 5}),
    ),
    "delete_webhook": (
        lambda bot: bot.delete_webhook(drop_pending_updates=True),
        *("deleteWebhook", {"drop_pending_updates": True}),
    ),
    "get_webhook_info": (lambda bot: bot.get_webhook_info(), "getWebhookInfo", None),
    "createForumTopic": (
        lambda bot: bot.call("createForumTopic", {"chat_id": 7, "name": "news"}),
        *("createForumTopic", {"chat_id": 7, "name": "news"}),
    ),
}


@pytest.mark.parametrize("operation", REQUESTS)
async def test_an_operation_is_one_request(operation):
    call, method, params = REQUESTS[operation]
    telegram = Telegram(ok({"id": 1}))
    result = await call(telegram.bot)
    assert (result.success, result.data) == (True, {"id": 1})
    (sent,) = telegram.sent
    assert (sent.method, sent.url) == ("POST", f"{BASE}/{method}")
    if params is None:
        assert (sent.body, sent.headers["content-length"]) == (b"", "0")
    else:
        assert sent.headers["content-type"] == "application/json"
        assert json.loads(sent.body) == params
    options = sent.extensions["aragora_transport"]
    assert options.operation == operation.partition(" ")[0]


async def test_the_same_over_a_real_socket():
    answer = Answer(body=b'{"ok": true, "result": {"id": 1}}', headers={"content-type": "application/json"})
    with FaultServer(answer) as server:
        async with TelegramConnector(TOKEN, base_url=f"{server.url}/") as bot:
            for operation, (call, _, _) in REQUESTS.items():
                assert (await call(bot)).data == {"id": 1}, operation
        asked = [(one.target, json.loads(one.body) if one.body else None) for one in server.requests]
    assert asked == [(f"/bot{TOKEN}/{method}", params) for _, method, params in REQUESTS.values()]


async def test_another_server_and_the_test_environment_have_urls_of_their_own():
    telegram = Telegram(
        ok({"file_path": "a/b.txt"}), Reply(body=b"x"), base_url="http://local.test:8081", test=True
    )
    assert (await telegram.bot.download_file("F1")).success
    assert [sent.url for sent in telegram.sent] == [
        f"http://local.test:8081/bot{TOKEN}/test/getFile",
        f"http://local.test:8081/file/bot{TOKEN}/test/a/b.txt",
    ]


# --- answers ---


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (True, {"result": True}),
        ("https://t.me/x", {"result": "https://t.me/x"}),
        ([{"id": 1}], {"items": [{"id": 1}], "next_cursor": None}),
        ({"id": 1}, {"id": 1}),
        (None, {}),
    ],
)
async def test_whatever_a_method_returns_the_data_is_an_object(result, data):
    assert (await Telegram(ok(result)).bot.health()).data == data


ANSWERS = {  # what comes back for a send: code, retryable, wait, attempts
    "chat not found": (error(400, "Bad Request: chat not found"), "400", False, None, 1),
    "migrated": (
        error(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1007),
        *("migrate_to_chat_id", False, None, 1),
    ),
    "revoked": (error(401, "Unauthorized"), "401", False, None, 1),
    "blocked": (error(403, "Forbidden: bot was blocked by the user"), "403", False, None, 1),
    "method not found": (error(404, "Not Found: method not found"), "404", False, None, 1),
    "conflict": (error(409, "Conflict: terminated by other getUpdates request"), "409", False, None, 1),
    "misdirected": (error(421, "Misdirected Request"), "421", False, None, 1),
    "flood": (error(429, "Too Many Requests: retry after 99", retry_after=99), "429", True, 99.0, 1),
    "restart": (error(500, "Internal Server Error: restart"), "500", True, None, 1),
    "nginx": (Reply(status=502, body=b"<html>502 Bad Gateway</html>"), "http_502", True, None, 1),
    "no envelope": (Reply(body=b"<html>login</html>"), "invalid_response", False, None, 1),
    "not ok": (Reply(body=b'{"ok": false}', headers=JSON), "invalid_response", False, None, 1),
    "redirect": (Reply(status=302, headers={"location": "https://else.test"}), "http_302", False, None, 1),
    "lost": (httpx.ReadError, "network_error", True, None, 1),
    "refused": (httpx.ConnectError, "network_error", True, None, 3),
    "silence": (Hang(), "timeout", True, None, 1),
    "half": (Reply(body=b'{"ok": tr', then=httpx.ReadError), "network_error", True, None, 1),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_an_answer_means(answer):
    step, code, retryable, wait, attempts = ANSWERS[answer]
    telegram = Telegram(step)
    result = await telegram.bot.send_message(7, "hi")
    assert not result.success
    assert (result.error_code, result.retryable, result.retry_after) == (code, retryable, wait)
    assert (result.attempts, len(telegram.sent)) == (attempts, attempts)
    assert result.status_code == (step.status if isinstance(step, Reply) and step.then is None else None)
    assert result.error.startswith("telegram send_message: ")
    assert len(result.correlation_id) == 32


async def test_a_failure_has_telegrams_words_and_the_new_id_of_a_chat():
    telegram = Telegram(error(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-1007))
    result = await telegram.bot.send_message(-7, "hi")
    assert result.error == "telegram send_message: 400 Bad Request: group chat was upgraded"
    assert result.data == {"migrate_to_chat_id": -1007}


async def test_a_told_wait_is_waited_and_the_call_goes_on():
    telegram = Telegram(error(429, "Too Many Requests: retry after 5", retry_after=5), ok(True))
    result = await telegram.bot.send_message(7, "hi")
    assert (result.success, result.attempts) == (True, 2)
    assert 5.0 <= telegram.sent[1].at <= 6.0


async def test_what_is_harmless_twice_is_sent_again_and_what_was_done_already_is_done():
    for step in (500, httpx.ReadTimeout):
        telegram = Telegram(step, error(400, "Bad Request: message to delete not found"))
        result = await telegram.bot.delete_message(7, 2)
        assert (result.success, result.data, result.attempts) == (True, {"already_done": True}, 2)
        telegram = Telegram(step, error(400, "Bad Request: message is not modified: same"))
        assert (await telegram.bot.update_message(7, 2, "hi")).data == {"already_done": True}
    for telegram in (
        Telegram(error(400, "Bad Request: message to delete not found")),
        Telegram(503, error(400, "Bad Request: message can't be deleted")),
        Telegram(error(429, "Too Many Requests", retry_after=1), error(400, "message to delete not found")),
    ):
        assert (await telegram.bot.delete_message(7, 2)).error_code == "400"


async def test_a_send_is_repeated_after_a_failure_where_that_was_asked_for():
    telegram = Telegram(500, ok(True), resend_unsafe="always")
    assert (await telegram.bot.send_message(7, "hi")).success
    telegram = Telegram(500, ok(True))
    assert (await telegram.bot.call("sendMessage", {"chat_id": 7, "text": "hi"}, idempotent=True)).success


# --- limits of texts and files ---


async def test_a_text_that_telegram_would_refuse_is_not_sent():
    telegram = Telegram(ok(True))
    too_long = [
        (telegram.bot.send_message, (7, "x" * 4097), 4096),
        (telegram.bot.update_message, (7, 2, "x" * 4097), 4096),
        (telegram.bot.upload_file, (7, b"x"), 1024),
        (telegram.bot.answer_callback_query, ("q", "x" * 201), 200),
    ]
    for method, arguments, most in too_long:
        keywords = {"text": "x" * 1025} if most == 1024 else {}
        result = await method(*arguments, **keywords)
        assert result.error == (
            f"telegram {method.__name__}: the text has {most + 1} characters, telegram takes {most}; "
            "send it in parts"
        )
        assert (result.error_code, result.retryable, result.attempts) == ("text_too_long", False, 0)
    assert telegram.sent == []
    assert (await telegram.bot.send_message(7, "x" * 4096)).success
    assert (
        await telegram.bot.send_message(7, "<b>" * 4096, parse_mode="HTML")
    ).success  # markup is not counted


def parts_of(sent):
    """The fields of a multipart body: name, file's name, content."""
    head = f"content-type: {sent.headers['content-type']}\r\n\r\n".encode()
    return {
        part.get_param("name", header="content-disposition"): (
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in message_from_bytes(head + sent.body, policy=HTTP).iter_parts()
    }


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *[
            ("document", "sendDocument"),
            ("photo", "sendPhoto"),
            ("video", "sendVideo"),
            ("audio", "sendAudio"),
        ],
        *[("animation", "sendAnimation"), ("voice", "sendVoice"), ("video_note", "sendVideoNote")],
        ("sticker", "sendSticker"),
    ],
)
async def test_a_file_is_uploaded_as_a_form(kind, method):
    telegram = Telegram(ok(True))
    await telegram.bot.upload_file(
        7, b"hello", kind=kind, filename="a.txt", text="c", reply_markup={"x": [1]}
    )
    (sent,) = telegram.sent
    assert (sent.method, sent.url) == ("POST", f"{BASE}/{method}")
    assert parts_of(sent) == {
        "chat_id": (None, b"7"),
        "caption": (None, b"c"),
        "reply_markup": (None, b'{"x": [1]}'),
        kind: ("a.txt", b"hello"),
    }


class Unsized(io.RawIOBase):
    """A file of which nobody knows the length, such as a pipe."""

    def __init__(self, content):
        self.left = content

    def readable(self):
        return True

    def read(self, size=-1):
        chunk, self.left = self.left[:size], self.left[size:]
        return chunk


async def test_a_file_may_be_bytes_a_path_or_open(tmp_path):
    path = tmp_path / "note.txt"
    path.write_bytes(b"hello")
    with path.open("rb") as opened:
        for file, name in (
            (b"hello", "file"),
            (path, "note.txt"),
            (opened, "note.txt"),
            (Unsized(b"hello"), "file"),
        ):
            telegram = Telegram(ok(True))
            assert (await telegram.bot.upload_file(7, file)).success
            assert parts_of(telegram.sent[0])["document"] == (name, b"hello")
    with pytest.raises(TypeError, match="bytes, a Path or an open binary file, not int"):
        await telegram.bot.upload_file(7, 7)


async def test_a_file_is_sent_again_from_where_it_stood(tmp_path):
    file = io.BytesIO(b"--hello")
    file.seek(2)
    telegram = Telegram(503, ok(True))
    assert (await telegram.bot.upload_file(7, file)).success
    telegram = Telegram(503, ok(True))
    assert (await telegram.bot.upload_file(7, Unsized(b"hello"))).error_code == "http_503"  # it is used up


async def test_a_file_that_is_too_large_is_not_sent_or_not_to_its_end(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(bytes(1001))
    for file in (bytes(1001), path, io.BytesIO(bytes(1001)), Unsized(bytes(1001))):
        telegram = Telegram(ok(True), max_upload=1000)
        result = await telegram.bot.upload_file(7, file)
        assert (result.error_code, result.retryable) == ("file_too_large", False)
        assert "more than 1000 bytes" in result.error
        assert [sent.status for sent in telegram.sent] in ([], [None])
    telegram = Telegram(ok(True))
    assert (await telegram.bot.upload_file(7, bytes(10_000_001), kind="photo")).error_code == "file_too_large"
    assert (await telegram.bot.upload_file(7, bytes(10_000_001))).success
    telegram = Telegram(ok(True), max_upload=None)
    assert (await telegram.bot.upload_file(7, Unsized(b"x"), kind="photo")).success


async def test_an_album_has_its_files_beside_it():
    telegram = Telegram(ok([{"message_id": 1}]))
    media = [{"type": "photo", "media": "attach://one"}]
    result = await telegram.bot.send_media_group(7, media, {"one": b"jpeg"})
    assert result.data == {"items": [{"message_id": 1}], "next_cursor": None}
    assert parts_of(telegram.sent[0]) == {
        "chat_id": (None, b"7"),
        "media": (None, json.dumps(media).encode()),
        "one": ("file", b"jpeg"),
    }


async def test_a_file_is_downloaded_into_memory_or_a_file():
    found, content = ok({"file_path": "docs/a b.txt", "file_size": 5}), Reply(body=(b"he", b"llo"))
    telegram = Telegram(found, content)
    result = await telegram.bot.download_file("F1")
    assert result.data == {"content": b"hello", "size": 5, "content_type": None}
    assert telegram.sent[1].method == "GET"
    assert telegram.sent[1].url == f"https://api.telegram.org/file/bot{TOKEN}/docs/a%20b.txt"
    to = io.BytesIO()
    result = await Telegram(found, content).bot.download_file("F1", to)
    assert (to.getvalue(), result.data) == (b"hello", {"size": 5, "content_type": None})


async def test_a_download_that_is_too_large_ends_as_early_as_it_is_known():
    told = ok({"file_path": "a", "file_size": 11})
    silent = ok({"file_path": "a"})
    for steps, sends in (
        ([told], 1),
        ([silent, Reply(stall=True, headers={"content-length": "11"})], 2),
        ([silent, Reply(body=(b"x" * 6, b"x" * 6), stall=True)], 2),
    ):
        to = io.BytesIO()
        telegram = Telegram(*steps, max_download=10)
        result = await telegram.bot.download_file("F1", to)
        assert (result.error_code, len(telegram.sent)) == ("file_too_large", sends)
        assert "more than 10 bytes" in result.error
        assert len(to.getvalue()) <= 10
        assert telegram.network.open_responses == 0
    assert (await Telegram(told, Reply(body=b"x" * 11), max_download=None).bot.download_file("F1")).success


async def test_a_download_that_fails_says_why():
    for steps, code in (
        ([error(400, "Bad Request: file is too big")], "400"),
        ([ok({"file_id": "F1"})], "no_file_path"),
        ([ok({"file_path": "../../getUpdates"})], "no_file_path"),
        ([ok({"file_path": "a"}), error(404, "Not Found")], "404"),
        ([ok({"file_path": "a"}), Reply(body=b"x", then=httpx.ReadError)], "network_error"),
    ):
        assert (await Telegram(*steps).bot.download_file("F1")).error_code == code


# --- updates ---


def update(number):
    return {"update_id": number, "message": {"text": str(number)}}


async def test_an_update_is_confirmed_once_the_loop_came_back():
    telegram = Telegram(ok([update(5), update(6)]), ok([]), ok([update(7)]))
    seen = []
    async for one in telegram.bot.poll(timeout=20, allowed_updates=["message"]):
        seen.append(one["update_id"])
        if one["update_id"] == 7:
            break
    assert seen == [5, 6, 7]
    assert [body.get("offset") for body in telegram.bodies] == [None, 7, 7]
    assert telegram.bodies[0] == {"timeout": 20, "limit": 100, "allowed_updates": ["message"]}
    async for one in telegram.bot.poll():  # the loop ended in the middle of 7: it comes again
        assert (one, telegram.bodies[-1]["offset"]) == (update(7), 7)
        break


async def test_an_update_whose_handling_raised_is_not_confirmed():
    telegram = Telegram(ok([update(5), update(6)]))

    async def handles():
        async for one in telegram.bot.poll():
            if one["update_id"] == 6:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await handles()
    async for _ in telegram.bot.poll():
        assert telegram.bodies[-1]["offset"] == 6
        break


async def test_a_long_poll_may_take_its_time_and_a_margin():
    policy = Policy(timeout=TimeoutPolicy(attempt=5.0, total=6.0))
    slow = Reply(body=ok([update(1)]).body, headers=JSON, after=54.0)
    telegram = Telegram(slow, policy=policy)
    assert (await telegram.bot.get_updates(timeout=50)).success
    telegram = Telegram(Hang(), policy=policy, enable_circuit_breaker=False)
    result = await telegram.bot.get_updates(timeout=50)
    assert (result.error_code, telegram.clock.monotonic()) == ("timeout", 66.0)
    assert telegram.sent[1].at >= 60.0


async def test_a_poll_that_fails_is_told_of_and_made_again_ever_more_seldom():
    conflict = error(409, "Conflict: terminated by other getUpdates request")
    telegram = Telegram(*[conflict] * 7, ok([update(1)]))
    told = []
    async for _ in telegram.bot.poll(on_error=told.append):
        break
    assert [result.error_code for result in told] == ["409"] * 7
    times = [sent.at for sent in telegram.sent]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    for wait, least in zip(waits, (3, 3, 4, 8, 16, 30, 30), strict=True):
        assert least <= wait <= least * 1.1
    flood = error(429, "Too Many Requests: retry after 99", retry_after=99)
    telegram = Telegram(flood, ok([update(1)]))
    told = []
    async for _ in telegram.bot.poll(on_error=told.append):
        assert telegram.clock.monotonic() >= 99.0
        break
    assert [result.retry_after for result in told] == [99.0]


async def test_a_poll_that_fails_and_interests_nobody_is_made_again():
    telegram = Telegram(error(400, "Bad Request"), ok([update(1)]))
    async for found in telegram.bot.poll():
        assert found["update_id"] == 1
        break
    assert len(telegram.sent) == 2


async def test_a_loop_over_updates_ends_when_its_error_handler_raises():
    def stop(result):
        raise PermissionError(result.error)

    with pytest.raises(PermissionError, match="401 Unauthorized"):
        async for _ in Telegram(error(401, "Unauthorized")).bot.poll(on_error=stop):
            pass


async def test_updates_of_no_sense_are_passed_over():
    telegram = Telegram(
        ok(["x", {"message": 1}, {"update_id": "7"}, update(8)]), ok({"no": "list"}), ok([update(9)])
    )
    seen = []
    async for one in telegram.bot.poll():
        seen.append(one["update_id"])
        if len(seen) == 2:
            break
    assert seen == [8, 9]


@pytest.mark.parametrize(
    "nonsense", [[{"update_id": "7"}], {"no": "list"}, {"items": 5}, {}, True, None], ids=str
)
async def test_an_answer_that_would_come_again_for_ever_is_a_failure_and_not_asked_for_at_once(nonsense):
    telegram = Telegram(ok(nonsense), ok([update(8)]))
    told = []
    async for _ in telegram.bot.poll(on_error=lambda result: told.append(result.error_code)):
        break
    assert told == ["invalid_response"]
    assert telegram.clock.monotonic() >= 1.0


# --- the token ---


@pytest.mark.parametrize("token", ["", "  \n", "a\nb", "schlüssel", None])
async def test_a_token_that_cannot_be_sent_is_refused_when_the_connector_is_made(token):
    with pytest.raises((ValueError, TypeError), match="token") as caught:
        TelegramConnector(token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "telegram.org", "ftp://telegram.org", "https://", 7, "https://x.test/?a=1"]
)
async def test_a_base_url_that_makes_no_sense_is_refused(url):
    with pytest.raises(ValueError, match="https://api"):
        TelegramConnector(TOKEN, base_url=url)


async def test_an_id_from_elsewhere_leads_to_no_other_method():
    telegram = Telegram(ok(True))
    await telegram.bot.call("../bot1:x/getMe")
    assert telegram.sent[0].url == f"{BASE}/..%2Fbot1:x%2FgetMe"
    with pytest.raises(ValueError, match="is no id"):
        await telegram.bot.call("..")


async def test_a_closed_connector_says_so():
    telegram = Telegram(ok(True))
    await telegram.bot.aclose()
    await telegram.bot.aclose()
    for use in (telegram.bot.health, telegram.bot.__aenter__):
        with pytest.raises(RuntimeError, match="is closed; make another one"):
            await use()
