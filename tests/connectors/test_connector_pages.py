"""The connectors' pages state facts of the code: each table is compared with what the code does."""

from __future__ import annotations

import inspect
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
    TelegramConnector,
)
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


def answer(text):
    """A reply from `400 {"a": 1}`."""
    status, _, body = text.partition(" ")
    kind = "application/json" if body.startswith("{") else "text/html"
    return Reply(status=int(status), body=body.encode(), headers={"content-type": kind})


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
PAGES = {
    "telegram.md": ("Telegram answers", TelegramConnector, lambda bot: bot.send_message(7, "hi")),
    "discord.md": ("Discord answers", DiscordConnector, lambda bot: bot.execute_webhook(HOOK, "hi")),
}


@pytest.mark.parametrize("page", PAGES)
async def test_the_table_of_answers_is_what_the_connector_makes_of_them(page):
    first, make, send = PAGES[page]
    rows = rows_of(page, first)
    made = []
    for row in rows:
        clock = ManualClock()
        network = ScriptedTransport(answer(codes(row[0])[0]), clock=clock)
        made.append(row_of(row[0], await send(make("a-token", transport=network, clock=clock))))
    assert made == rows


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_operations_names_every_method(page):
    own = {
        name
        for kind in PAGES[page][1].__mro__
        if kind.__name__.startswith(("Telegram", "Discord"))
        for name in vars(kind)
        if not name.startswith("_") and callable(getattr(kind, name))
    }
    assert {name for row in rows_of(page, "method") for name in codes(row[0])} == own - {"read"}


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
