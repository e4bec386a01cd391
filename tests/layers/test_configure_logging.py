from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest

from aragora_transport.layers import configure_logging

LOGGER = logging.getLogger("aragora_transport")


@pytest.fixture(autouse=True)
def logging_as_before():
    handlers, level = list(LOGGER.handlers), LOGGER.level
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


def in_a_process_of_its_own(code):
    done = subprocess.run(  # noqa: S603  # our own interpreter and our own code
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout, done.stderr


def test_importing_configures_nothing():
    out, err = in_a_process_of_its_own(
        "import logging, sys\n"
        "import aragora_transport.layers\n"
        "logger = logging.getLogger('aragora_transport')\n"
        "print([type(h).__name__ for h in logger.handlers], logger.level, logger.propagate, logger.filters)\n"
        "print(logging.root.handlers, logging.root.level, 'pythonjsonlogger' in sys.modules)\n"
    )
    assert out == "['NullHandler'] 0 True []\n[] 30 False\n"
    assert err == ""


def test_an_application_that_configures_nothing_sees_nothing():
    out, err = in_a_process_of_its_own(
        "import httpx\n"
        "from aragora_transport import resilient_sync\n"
        "from aragora_transport.testing import ManualClock, ScriptedTransport\n"
        "clock = ManualClock()\n"
        "stack = resilient_sync('slack', ScriptedTransport(503, clock=clock), clock=clock)\n"
        "print(httpx.Client(transport=stack).get('http://platform.test/').status_code)\n"
    )
    assert (out, err) == ("503\n", "")


def test_json_goes_to_stderr_unless_told_otherwise():
    out, err = in_a_process_of_its_own(
        "import logging\n"
        "from aragora_transport.layers import configure_logging\n"
        "configure_logging()\n"
        "logging.getLogger('aragora_transport').info('one %s', 'two', extra={'attempt': 1})\n"
        "logging.getLogger('another').info('not ours')\n"
    )
    assert out == ""
    line = json.loads(err)
    assert line.pop("timestamp").startswith("20")
    assert line == {"level": "INFO", "name": "aragora_transport", "message": "one two", "attempt": 1}


def test_calling_it_again_replaces_the_handler_of_the_time_before():
    first, second = io.StringIO(), io.StringIO()
    before = len(LOGGER.handlers)
    configure_logging(stream=first)
    handler = configure_logging(stream=second)
    assert len(LOGGER.handlers) == before + 1
    assert handler in LOGGER.handlers
    LOGGER.warning("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_a_handler_of_the_applications_own_stays():
    theirs = logging.NullHandler()
    LOGGER.addHandler(theirs)
    configure_logging(stream=io.StringIO())
    assert theirs in LOGGER.handlers


@pytest.mark.parametrize(("level", "written"), [("WARNING", 1), (logging.INFO, 2), ("DEBUG", 3)])
def test_the_level_decides_what_is_written(level, written):
    stream = io.StringIO()
    configure_logging(stream=stream, level=level)
    for each in (logging.DEBUG, logging.INFO, logging.WARNING):
        LOGGER.log(each, "x")
    assert len(stream.getvalue().splitlines()) == written


def test_plain_lines_carry_the_correlation_id_where_there_is_one():
    stream = io.StringIO()
    configure_logging(json=False, stream=stream)
    LOGGER.warning("with", extra={"correlation_id": "order-7"})
    LOGGER.warning("without")
    with_id, without = stream.getvalue().splitlines()
    assert with_id.endswith(" WARNING with [order-7]")
    assert without.endswith(" WARNING without [-]")


def test_a_level_that_does_not_exist_is_refused_and_changes_nothing():
    before = list(LOGGER.handlers)
    with pytest.raises(ValueError, match="'LOUD'"):
        configure_logging(level="LOUD")
    assert LOGGER.handlers == before


@pytest.mark.parametrize(
    "value",
    ["a\nb\r\x1b\u2028\u2029\x85", {"a": object()}, float("1e308"), "\ud800"],
    ids=["line ends", "an object", "a great number", "half a character"],
)
def test_whatever_a_field_holds_a_record_stays_one_line_of_json(value, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", False)  # half a character could not be shown by pytest
    stream = io.StringIO()
    configure_logging(stream=stream)
    LOGGER.warning("%s", value, extra={"field": value})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    assert json.loads(text)["level"] == "WARNING"
