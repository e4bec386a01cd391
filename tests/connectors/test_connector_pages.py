"""The connectors' pages state facts of the code: each table is compared with what the code does."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import runpy
import ssl
from pathlib import Path

import httpx
import pytest

from aragora_transport.connectors import (
    Answer,
    ChatPlatformConnector,
    DiscordConnector,
    SlackConnector,
    TeamsConnector,
    TelegramConnector,
    webhooks,
)
from aragora_transport.connectors._clouds import CLOUDS
from aragora_transport.connectors._connector import Connector
from aragora_transport.connectors._settings import ConnectorOptions
from aragora_transport.testing import ConnectorContract, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parent.parent.parent / "docs" / "connectors"
PIGEON = DOCS / "pigeon.py"


def rows_of(page, first):
    """The rows of the one table of the page whose header begins with this cell."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    tables = [[[c.strip() for c in line[1:-1].split("|")] for line in block.splitlines()] for block in blocks]
    (rows,) = [rows for header, _, *rows in tables if header[0] == first]
    assert rows
    return rows


def codes(cell):
    return re.findall(r"`([^`]+)`", cell)


def answer(text, *headers):
    """A reply from `400 {"a": 1}` and `Retry-After: 5`."""
    status, _, body = text.partition(" ")
    kind = "application/json" if body.startswith("{") else "text/html"
    fields = dict(header.split(": ") for header in headers)
    return Reply(status=int(status), body=body.encode(), headers={"content-type": kind, **fields})


def row_of(told, result):
    return [
        told,
        "yes" if result.success else "no",
        "" if result.error_code is None else f"`{result.error_code}`",
        "yes" if result.retryable else "no",
        "" if result.retry_after is None else f"{result.retry_after:g}",
        str(result.attempts),
    ]


HOOK = (8, "webhook-token")
SLACK_HOOK = "https://hooks.slack.com/services/T/B/X"
TEAMS_HOOK = "https://x.webhook.office.com/webhookb2/1"
ANSWERS = {  # page, first cell of its table, connector, and the request that is answered
    "Telegram": ("telegram.md", "Telegram answers", TelegramConnector, lambda bot: bot.send_message(7, "hi")),
    "Discord": (
        "discord.md",
        "Discord answers",
        DiscordConnector,
        lambda bot: bot.execute_webhook(HOOK, "hi"),
    ),
    "Slack": ("slack.md", "Slack answers", SlackConnector, lambda app: app.send_message("C1", "hi")),
    "Slack's webhook": (
        *("slack.md", "a webhook answers", SlackConnector),
        lambda app: app.post_webhook(SLACK_HOOK, "hi"),
    ),
    "Teams": ("teams.md", "Teams answers", TeamsConnector, lambda bot: bot.send_message("19:x", "hi")),
    "Teams' webhook": (
        *("teams.md", "a webhook answers", TeamsConnector),
        lambda bot: bot.post_incoming_webhook(TEAMS_HOOK, "hi"),
    ),
}
PAGES = {page: make for page, _, make, _ in ANSWERS.values()}


def with_login(step):
    """The same, of a server that Microsoft's login is at, too."""
    token = Reply(
        body=b'{"access_token": "t", "expires_in": 3600}', headers={"content-type": "application/json"}
    )
    return lambda request: token if "login" in request.url.host else step


@pytest.mark.parametrize("table", ANSWERS)
async def test_the_table_of_answers_is_what_the_connector_makes_of_them(table):
    page, first, make, send = ANSWERS[table]
    secrets = ("an-id", "a-secret") if make is TeamsConnector else ("a-token",)
    rows = rows_of(page, first)
    made = []
    for row in rows:
        clock = ManualClock()
        network = ScriptedTransport(with_login(answer(*codes(row[0]))), clock=clock)
        made.append(row_of(row[0], await send(make(*secrets, transport=network, clock=clock))))
    assert made == rows


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_operations_names_every_method(page):
    own = {
        name
        for kind in PAGES[page].__mro__
        if kind.__name__.startswith(("Telegram", "Discord", "Slack", "Teams"))
        for name in vars(kind)
        if not name.startswith("_") and callable(getattr(kind, name))
    }
    named = {name for row in rows_of(page, "method") for name in codes(row[0])}
    assert named == own - {"read", "aclose"}


@pytest.mark.parametrize("page", ["discord.md", "slack.md", "teams.md"])
async def test_what_the_table_of_operations_calls_sent_again_is(page):
    """Those that are told by yes or no; how each is called is in the connector's own tests."""
    requests = runpy.run_path(str(Path(__file__).parent / f"test_{page[:-3]}.py"))
    told = {name: row[-1] for row in rows_of(page, "method") for name in codes(row[0])}
    calls = {**requests["REQUESTS"], **requests.get("GRAPH_REQUESTS", {})}
    secrets = ("an-id", "a-secret", "t") if page == "teams.md" else ("a-token",)
    for name in sorted(calls.keys() & told.keys()):
        again = {"no": 1, "never": 1, "yes": 2}.get(told[name].partition(":")[0])
        if again is not None:
            sent = []

            def count(request, sent=sent):
                sent.extend([] if "login" in request.url.host else [request])
                return 500

            clock = ManualClock()
            network = ScriptedTransport(
                lambda request, count=count: with_login(count(request))(request), clock=clock
            )
            await calls[name][0](PAGES[page](*secrets, transport=network, clock=clock))
            assert (name, min(len(sent), 2)) == (name, again)


COMMON = {  # what goes by position, on every platform
    "send_message": "channel_id text",
    "update_message": "channel_id message_id text",
    "delete_message": "channel_id message_id",
    "send_typing": "channel_id",
    "upload_file": "channel_id file",
    "get_channel": "channel_id",
    "get_user": "user_id",
    "add_reaction": "channel_id message_id emoji",
    "remove_reaction": "channel_id message_id emoji",
    "pin_message": "channel_id message_id",
    "unpin_message": "channel_id message_id",
    "health": "",
    "call": "method",
    "verify_webhook": "headers raw_body",
    "parse_event": "raw_body",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_common_methods_take_the_same_arguments_in_the_same_order(page):
    for name, common in COMMON.items():
        parameters = inspect.signature(getattr(PAGES[page], name)).parameters.values()
        by_position = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
        names = common.split()
        assert [p.name for p in by_position[: len(names)]] == names
        assert name == "call" or all(p.default is not p.empty for p in by_position[len(names) :])
    assert list(inspect.signature(PAGES[page].download_file).parameters)[2] == "to"


def test_slacks_methods_are_named_and_sent_as_the_table_says():
    requests = runpy.run_path(str(Path(__file__).parent / "test_slack.py"))
    for name, (_, method, encoding, _) in requests["REQUESTS"].items():
        rows = [row for row in rows_of("slack.md", "method") if name in codes(row[0])]
        for row in rows:
            assert (codes(row[1])[0], row[2].lower()) == (method, encoding or "")


def test_teams_clouds_and_arguments():
    rows = rows_of("teams.md", "cloud")
    assert [(codes(row[0])[0], tuple(codes(row[1])), codes(row[2])[0]) for row in rows] == [
        (name, cloud.hosts, cloud.login) for name, cloud in CLOUDS.items()
    ]
    assert [tuple(codes(cell)[0] for cell in row) for row in rows_of("teams.md", "cloud's JWT")] == [
        (name, cloud.issuer, cloud.openid) for name, cloud in CLOUDS.items()
    ]
    parameters = list(inspect.signature(TeamsConnector).parameters.values())[:-1]
    true = [
        (p.name, "required" if p.default is p.empty else f"`{p.default!r}`".replace("'", '"'))
        for p in parameters
    ]
    assert [(codes(row[0])[0], row[1]) for row in rows_of("teams.md", "argument")] == true


# --- webhooks ---


def test_the_table_of_webhooks_names_their_secrets_and_headers():
    requests = runpy.run_path(str(Path(__file__).parent / "test_webhooks.py"))
    true = []
    for webhook, headers, _ in requests["VECTORS"].values():
        (parameter,) = inspect.signature(type(webhook)).parameters
        true.append((f"{type(webhook).__name__}({parameter})", set(headers)))
    rows = rows_of("webhooks.md", "webhook")
    assert sorted((codes(row[0])[0], set(codes(row[1]))) for row in rows) == sorted(true)
    assert f"{webhooks.WINDOW:g} seconds" in rows[1][2]
    assert [codes(row[0])[0] for row in rows_of("webhooks.md", "method")] == ["verify", "parse", "receive"]


@pytest.mark.parametrize("kind", [webhooks.Delivery, webhooks.WebhookEvent])
def test_the_tables_of_what_a_webhook_gives_have_all_fields(kind):
    true = [
        (field.name, "required" if field.default is dataclasses.MISSING else f"`{field.default}`")
        for field in dataclasses.fields(kind)
    ]
    assert [(codes(row[0])[0], row[1]) for row in rows_of("webhooks.md", f"`{kind.__name__}`")] == true


def test_the_table_of_events_is_what_they_are_read_as():
    requests = runpy.run_path(str(Path(__file__).parent / "test_webhooks.py"))
    for platform, body, kind, reply in rows_of("webhooks.md", "platform"):
        event = requests["VECTORS"][platform.lower()][0].parse({}, codes(body)[0].encode())
        assert (event.kind, event.reply) == (codes(kind)[0], json.loads(codes(reply)[0]) if reply else None)


# --- writing one ---


def test_the_keywords_of_a_request():
    parameters = inspect.signature(Connector._request).parameters.values()
    true = [
        (p.name, "required" if p.default is p.empty else f"`{p.default}`")
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    ]
    assert [(codes(row[0])[0], row[1]) for row in rows_of("writing.md", "`_request`")] == true


def test_the_parts_of_an_answer_the_options_the_helpers_and_the_contract():
    named = {re.match(r"\w+", name)[0] for row in rows_of("writing.md", "`Answer`") for name in codes(row[0])}
    public = {name for name in vars(Answer) if not name.startswith("_")}
    assert named - {"status", "headers", "body"} == public - {"unreadable"}
    assert [codes(row[0])[0] for row in rows_of("writing.md", "option")] == list(
        ConnectorOptions.__annotations__
    )
    helpers = [codes(row[0])[0] for row in rows_of("writing.md", "helper")]
    assert helpers == [name for name in vars(ChatPlatformConnector) if re.match(r"_[a-z]", name)]
    named = [re.match(r"\w+", codes(row[0])[0])[0] for row in rows_of("writing.md", "`ConnectorContract`")]
    public = {name for name in vars(ConnectorContract) if not name.startswith(("_", "test_"))}
    assert set(named) == public


async def fails(kind):
    def fail(request):
        if "certificate" in kind:
            error = httpx.ConnectError("verify failed", request=request)
            error.__cause__ = ssl.SSLCertVerificationError()
            return error
        return getattr(httpx, kind)

    limited = Reply(status=429, headers={"retry-after": "99"})
    clock = ManualClock()
    network = ScriptedTransport(limited if "gate" in kind else fail, clock=clock)
    bot = TelegramConnector("a-token", transport=network, clock=clock)
    if "circuit" in kind:
        bot.stack.isolate()
    if "gate" in kind:
        await bot.health()
    return await bot.health()


async def test_the_table_of_what_happens_without_an_answer():
    rows = rows_of("writing.md", "what happens")
    for row in rows:
        result = await fails((codes(row[0]) or [row[0]])[0])
        assert row == [row[0], f"`{result.error_code}`", "yes" if result.retryable else "no"]
        assert result.status_code is None


# --- the example ---


class TestPigeonConnector(ConnectorContract):
    secrets = ("pigeon-of-nobody",)

    def connector(self, **keywords):
        return runpy.run_path(str(PIGEON))["PigeonConnector"]("pigeon-of-nobody", **keywords)


def test_the_example_runs_and_is_short(capsys):
    runpy.run_path(str(PIGEON), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "{'id': 'm1'} after 3 attempts",
        "pigeon send_message: the text has 600 characters, pigeon takes 500; send it in parts",
    ]
    assert len(PIGEON.read_text(encoding="utf-8").splitlines()) < 60


async def test_the_examples_other_operations_are_requests_too():
    network = ScriptedTransport(Reply(status=404, body=b'{"reason": "flown"}'), Reply(status=204))
    pigeon = runpy.run_path(str(PIGEON))["PigeonConnector"]("pigeon-of-nobody", transport=network)
    assert (await pigeon.health()).error == "pigeon health: 404 flown"
    assert (await pigeon.delete_message("roof/2", "m1")).data == {}
    assert [(sent.method, sent.url) for sent in network.sent] == [
        ("GET", "https://api.pigeon.example/v2/me"),
        ("DELETE", "https://api.pigeon.example/v2/lofts/roof%2F2/messages/m1"),
    ]
    assert network.sent[0].headers["authorization"] == "Bearer pigeon-of-nobody"
