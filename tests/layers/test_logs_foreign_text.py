"""Text of others in our records: clean, one line, of bounded length, and no secret of the caller's."""

from __future__ import annotations

import logging

import pytest

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, call_options
from aragora_transport.layers import LogTransport
from aragora_transport.testing import Reply

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("every_level")]

LOGGER = logging.getLogger("aragora_transport")
STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
HOSTILE = "a\r\nb\x1b[31mc\u2028d\u2029e\x85f\x00g\u202eh\ud800i"
CLEAN = r"a\r\nb\x1b[31mc\u2028d\u2029e\x85f\x00g\u202eh\ud800i"


def ours(caplog):
    return [record for record in caplog.records if record.name == "aragora_transport"]


def extras(record):
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


async def test_foreign_text_ends_as_one_clean_line_of_bounded_length(world, lines, caplog):
    error = world.httpx.ReadError(HOSTILE + "x" * 20_000)
    stack = world.stack(world.scripted(error), policy=Policy(retry=None))
    with pytest.raises(world.httpx.ReadError):
        await world.get(stack, extensions=call_options(operation=HOSTILE))
    (record,) = ours(caplog)
    assert record.operation == CLEAN
    assert record.error.startswith(f"ReadError: {CLEAN}xxx")
    assert len(record.error) == 300
    assert record.error.endswith("…")
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 700
    (line,) = lines()
    assert line["error"] == record.error


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("x" * 288, "ReadError: " + "x" * 288),
        ("x" * 289, "ReadError: " + "x" * 289),
        ("x" * 290, "ReadError: " + "x" * 288 + "…"),
        ("\n" * 100, "ReadError: " + r"\n" * 100),
        ("\n" * 289, "ReadError: " + r"\n" * 144 + "…"),
    ],
    ids=["shorter", "just so long", "longer", "escaped", "longer once escaped"],
)
async def test_a_text_is_cut_to_300_characters_as_it_is_written(world, caplog, text, logged):
    network = world.scripted(world.httpx.ReadError(text))
    with pytest.raises(world.httpx.ReadError):
        await world.get(world.layer(LogTransport, network))
    assert [record.error for record in ours(caplog)] == [logged]
    assert len(logged) <= 300


async def test_a_hostile_key_is_cleaned_in_every_kind_of_record(world, caplog):
    options = call_options(operation=HOSTILE * 100, rate_key=HOSTILE * 100)
    limited = Reply(status=429, headers={"retry-after": "5"})
    policy = Policy(
        retry=RetryPolicy(max_attempts=2), breaker=BreakerPolicy(failure_threshold=1, key="operation")
    )
    stack = world.stack(world.scripted(limited, 200, 503, 200), policy=policy)
    for _ in range(2):
        await world.get(stack, extensions=options)
    events = {record.event for record in ours(caplog)}
    assert events == {"retry", "rate_limit", "recovered", "circuit", "failed"}
    for record in ours(caplog):
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 1000
        for value in extras(record).values():
            assert len(str(value)) <= 300


async def test_a_header_that_was_refused_is_not_quoted(world, caplog):
    # Such a text holds the header's value: often a token that was read with the line feed at its end.
    error = world.httpx.LocalProtocolError("Illegal header value b'Bearer xoxb-secret\\n'")
    with pytest.raises(world.httpx.LocalProtocolError):
        await world.get(world.stack(world.scripted(error)))
    (record,) = ours(caplog)
    assert record.error == "LocalProtocolError"
    assert "xoxb" not in caplog.text


async def test_an_error_that_cannot_say_what_it_is_is_logged_by_its_name(world, caplog):
    class MuteError(Exception):
        def __str__(self):
            raise KeyError

    with pytest.raises(MuteError):
        await world.get(world.stack(world.scripted(MuteError())))
    assert [record.error for record in ours(caplog)] == ["MuteError"]
