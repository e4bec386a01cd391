"""The log records of others: redacted, or withheld; and our records in the hands of others."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import queue

import pytest
import structlog

from aragora_transport import Policy, Secret, call_options, correlation_scope
from aragora_transport.layers import LogTransport, _redaction, configure_logging, install_log_redaction
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

TOKEN = "xoxb-1234567890-S3cretS3cret"  # noqa: S105  # nobody's
OURS = logging.getLogger("aragora_transport")


@pytest.fixture(autouse=True)
def logging_as_before():
    names = [*_redaction._LOGGERS, "aragora_transport", "hpack.later", "httpcore"]
    loggers = [logging.getLogger(name) for name in names]
    kept = [(logger, logger.handlers.copy(), logger.filters.copy(), logger.level) for logger in loggers]
    yield
    for logger, handlers, filters, level in kept:
        logger.handlers[:], logger.filters[:] = handlers, filters
        logger.setLevel(level)


def written(logger, handler):
    stream = io.StringIO()
    handler.stream = stream
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    return stream


@pytest.mark.parametrize("name", [*_redaction._LOGGERS, "hpack.later"])
def test_every_logger_below_us_is_redacted_also_for_handlers_that_come_later(name):
    logger = logging.getLogger(name)
    install_log_redaction()
    install_log_redaction()
    stream = written(logger, logging.StreamHandler())
    logger.info("HTTP Request: %s %s", "GET", f"https://a.test/?token={TOKEN}")
    logger.debug("plain %s", "text")
    assert stream.getvalue() == "HTTP Request: GET https://a.test/?token=[redacted]\nplain text\n"
    assert logger.filters.count(_redaction.REDACTION) == 1


def test_a_record_without_secrets_keeps_its_format():
    install_log_redaction()
    logger = logging.getLogger("httpx")
    records = queue.SimpleQueue()
    logger.addHandler(logging.handlers.QueueHandler(records))
    record = logger.makeRecord("httpx", logging.INFO, "", 0, "GET %s", ("https://a.test/",), None)
    _redaction.REDACTION.filter(record)
    assert (record.msg, record.args) == ("GET %s", ("https://a.test/",))


def test_what_hpack_shows_as_bytes_is_left_out():
    install_log_redaction()
    logger = logging.getLogger("hpack.hpack")
    stream = written(logger, logging.StreamHandler())
    logger.debug("Encoded header block to %s", b"\x82\x86")
    logger.debug("Decoding %s", memoryview(b"abc"))
    assert stream.getvalue() == "Encoded header block to <2 bytes>\nDecoding <3 bytes>\n"


def test_a_handler_of_yours_redacts_whatever_it_writes():
    handler = logging.StreamHandler()
    install_log_redaction(handler)
    logger = logging.getLogger("an.application")
    logger.propagate = False
    handler.setFormatter(logging.Formatter("%(message)s %(user)s %(token)s %(many)s"))
    stream = written(logger, handler)
    many = {"password": "hunter2", "deep": [{"raw": b"S3cret", "n": 1.5}, (TOKEN,)]}
    extra = {"user": "bob", "token": "S3cret", "many": many}
    logger.error("failed %s", TOKEN, exc_info=ValueError(f"bad {TOKEN}"), extra=extra, stack_info=True)
    text = stream.getvalue()
    assert "S3cret" not in text
    assert "hunter2" not in text
    assert text.startswith("failed [redacted] bob [redacted] ")
    assert "ValueError: bad [redacted]" in text
    assert "{'password': '[redacted]', 'deep': [{'raw': '<6 bytes>', 'n': 1.5}, ['[redacted]']]}" in text
    endless = []
    endless.append(endless)
    logger.info("deep", extra={"user": "", "token": 7, "many": endless})
    assert "[[[[[[[['...']]]]]]]]" in stream.getvalue()
    record = logger.makeRecord("x", logging.INFO, "", 0, {"event": TOKEN}, None, None)
    record.exc_text = f"told before {TOKEN}"
    assert handler.filter(record)
    assert (record.msg, record.exc_text) == ({"event": "[redacted]"}, "told before [redacted]")


def test_a_traceback_without_secrets_stays_one():
    told = (ValueError, ValueError("plain"), None)
    record = OURS.makeRecord("x", logging.ERROR, "", 0, "plain", None, told)
    _redaction.REDACTION.filter(record)
    assert record.exc_info is not None


def test_what_cannot_be_redacted_is_withheld_with_a_note():
    class Mute:
        def __str__(self):
            raise RuntimeError(TOKEN)

    handler = logging.StreamHandler()
    install_log_redaction(handler)
    logger = logging.getLogger("an.application")
    logger.propagate = False
    stream = written(logger, handler)
    logger.warning("a %s", Mute(), extra={"field": TOKEN})
    logger.warning("%d", TOKEN)
    assert stream.getvalue() == f"{_redaction.WITHHELD}\n" * 2


async def test_our_own_record_is_withheld_too_and_the_call_goes_on(world, monkeypatch, caplog):
    from aragora_transport.layers import logs

    def broken(text):
        raise MemoryError

    monkeypatch.setattr(logs, "one_line", broken)
    stack = world.stack(world.scripted(503, 200), policy=Policy(metrics=False))
    caplog.set_level(logging.INFO, "aragora_transport")
    assert (await world.get(stack)).status_code == 200
    records = [record for record in caplog.records if record.name == "aragora_transport"]
    assert [(r.getMessage(), r.event) for r in records] == [
        (_redaction.WITHHELD, "retry"),
        (_redaction.WITHHELD, "recovered"),
    ]
    assert stack.observer_failures == 2


async def test_our_records_hold_no_secret_that_others_told_us(world, caplog):
    held = Secret(f"any {world.kind} {world.flavor_name}", origin="https://elsewhere.test", name="held")
    text = f"no route to https://u:pw1234@host/?token=abc with {TOKEN} and {held.in_path}"
    layer = world.layer(LogTransport, world.scripted(world.httpx.ReadError(text)), burst=None)
    with pytest.raises(world.httpx.ReadError):
        await world.get(layer, extensions=call_options(operation=f"send {TOKEN}"))
    (record,) = [record for record in caplog.records if record.name == "aragora_transport"]
    assert record.operation == "send [redacted]"
    assert record.error == (
        f"ReadError: no route to https://[redacted]@host/?token=[redacted] with [redacted] and {held}"
    )


# --- our records in the hands of others ---


def sound(text):
    """One line of strict JSON."""
    (line,) = text.splitlines()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


def test_a_number_without_an_end_and_bytes_are_made_json():
    stream = io.StringIO()
    configure_logging(stream=stream)
    fields = {
        "a": float("nan"),
        "b": [float("inf"), 1.5],
        "c": {"d": -float("inf")},
        "e": b"S3cret",
        "f": (1,),
    }
    OURS.warning("x %s", TOKEN, extra=fields)
    line = sound(stream.getvalue())
    assert {name: line[name] for name in fields} == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
        "e": "<6 bytes>",
        "f": [1],
    }
    assert "S3cret" not in stream.getvalue()


async def two_records(world):
    with correlation_scope("order-7"):
        await world.get(world.stack(world.scripted(503, Reply(body=b"x"))))


FIELDS = {"connector": "test", "operation": "GET", "attempt": 1, "max_retries": 3, "status_code": 503}


async def test_a_queue_between_us_and_the_handler_keeps_the_fields(world):
    stream = io.StringIO()
    handler = configure_logging(stream=stream)
    OURS.removeHandler(handler)
    records = queue.SimpleQueue()
    OURS.addHandler(logging.handlers.QueueHandler(records))
    OURS.setLevel(logging.INFO)
    await two_records(world)
    handler.handle(records.get())
    line = sound(stream.getvalue())
    assert {name: line[name] for name in FIELDS} == FIELDS
    assert (line["event"], line["correlation_id"]) == ("retry", "order-7")


async def test_structlog_shows_the_fields(world):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    OURS.addHandler(handler)
    OURS.setLevel(logging.INFO)
    await two_records(world)
    line = sound(stream.getvalue().splitlines()[0])
    assert {name: line[name] for name in FIELDS} == FIELDS
    assert line["correlation_id"] == "order-7"
