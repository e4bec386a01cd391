"""The demo as a user runs it: a process of its own, with real sockets and a real Ctrl-C."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aragora_transport.cli import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups and terminals are POSIX here")

COMMAND = [sys.executable, "-m", "aragora_transport", "demo", "--seed", "1", "--rate", "30"]
PATIENCE = 60.0
ESCAPE = b"\x1b"


def environment(directory: Path) -> dict[str, str]:
    """An environment in which the demo leaves its files in `directory`, and colour is as in a terminal."""
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return kept | {"TMPDIR": str(directory), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def attend_to_ctrl_c() -> None:
    # A shell that runs pytest in the background has switched SIGINT off for it and its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def demo(*options: str, environ: dict[str, str], out: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(  # noqa: S603  # our own command
        [*COMMAND, *options],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=attend_to_ctrl_c,  # noqa: PLW1509  # no threads here
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def complaints(process: subprocess.Popen[bytes]) -> bytes:
    """All of stderr. Its end comes when nobody has it open any more, so nobody is left behind then."""
    assert process.stderr is not None
    said, ends = b"", time.monotonic() + PATIENCE
    while select.select([process.stderr], [], [], ends - time.monotonic())[0]:
        more = os.read(process.stderr.fileno(), 65536)
        if not more:
            return said
        said += more
    pytest.fail(f"the demo left a process behind, which said {said!r}")


class Terminal:
    """A pseudo-terminal that keeps what was written to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self.seen = b""

    def read_until(self, pattern: bytes) -> None:
        ends = time.monotonic() + PATIENCE
        while not re.search(pattern, self.seen):
            assert time.monotonic() < ends, self.seen
            self._read()

    def read_rest(self) -> None:
        os.close(self.theirs)
        while self._read():
            pass
        os.close(self.ours)

    def _read(self) -> bytes:
        if not select.select([self.ours], [], [], 1.0)[0]:
            return b"?"
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # how Linux tells that the other side has closed
            data = b""
        self.seen += data
        return data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One short run to its end, as JSON; what it printed besides and left running fails here."""
    environ = environment(tmp_path_factory.mktemp("demo"))
    with demo("--seconds", "2", "--json", environ=environ, out=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=PATIENCE)  # the end of stderr: see complaints()
    assert err == b""
    result: dict[str, Any] = json.loads(out)
    return result | {"status": process.returncode}


@pytest.fixture(scope="module")
def sample(finished: dict[str, Any]) -> Callable[..., float]:
    """Sums of the metrics that the run left behind."""
    families = list(text_string_to_metric_families(Path(finished["files"]["metrics"]).read_text()))

    def total(name: str, **labels: str) -> float:
        return sum(
            each.value
            for family in families
            for each in family.samples
            if each.name == name and labels.items() <= each.labels.items()
        )

    return total


def test_the_exit_status_tells_who_served_more(finished: dict[str, Any]) -> None:
    more = finished["ours"]["served"] > finished["bare"]["served"]
    assert finished["ours_served_more"] == more
    assert finished["status"] == (0 if more else 1)
    assert not finished["interrupted"]


def test_the_numbers_of_a_run_add_up(finished: dict[str, Any]) -> None:
    for side in (finished["bare"], finished["ours"]):
        assert 0 < side["served"] < side["calls"] == side["served"] + side["failed"]
        assert sum(side["failures"].values()) == side["failed"]
        assert sum(side["answers"].values()) == side["sends"]
        for total in ("calls", "served", "sends"):
            assert sum(phase[total] for phase in side["phases"]) == side[total]


def test_both_clients_meet_the_same_calls_and_only_ours_sends_again(finished: dict[str, Any]) -> None:
    bare, ours = finished["bare"], finished["ours"]
    assert [phase["calls"] for phase in bare["phases"]] == [phase["calls"] for phase in ours["phases"]]
    assert bare["sends"] == bare["calls"]
    assert 0 < ours["retries"] < ours["sends"]
    assert bare["posts_repeated"] == ours["posts_repeated"] == 0


def test_the_metrics_of_a_run_say_what_callers_and_server_counted(
    finished: dict[str, Any], sample: Callable[..., float]
) -> None:
    ours = finished["ours"]
    assert sample("platform_requests_total", platform="demo") == ours["calls"]
    # A stalled body had a good status, but its call was not served: it is told by its error.
    assert sample("platform_requests_total", platform="demo", status="200") == ours["served"]
    assert sample("platform_attempts_total", platform="demo") == ours["sends"]
    assert sample("platform_retry_total", platform="demo") == ours["retries"]


def test_the_log_of_a_run_has_a_json_object_a_line(finished: dict[str, Any]) -> None:
    records = [json.loads(line) for line in Path(finished["files"]["logs"]).read_text().splitlines()]
    assert {record["event"] for record in records} >= {"retry", "recovered"}
    assert {record.get("operation") for record in records} >= {"get_item"}


def test_ctrl_c_stops_the_run_and_shows_what_there_is_without_escapes(environ: dict[str, str]) -> None:
    terminal = Terminal()
    with demo(environ=environ | {"NO_COLOR": "1"}, out=terminal.theirs) as process:
        terminal.read_until(rb" [1-9]\.\d s  ")
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        terminal.read_rest()
        assert complaints(process) == b""
    assert process.returncode == 130
    assert ESCAPE not in terminal.seen
    assert terminal.seen.isascii()
    assert b"Stopped early" in terminal.seen
    assert b"sends per call" in terminal.seen
    assert max(len(line) for line in terminal.seen.splitlines() if b"/" not in line) <= 80


def test_a_terminal_gets_a_live_picture_and_its_cursor_back(environ: dict[str, str]) -> None:
    terminal = Terminal()
    with demo(environ=environ, out=terminal.theirs) as process:
        terminal.read_until(b"in flight")
        terminal.read_until(rb"(0\.[5-9]|[1-9]\.\d) of")
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells everybody in the group
        process.wait(PATIENCE)
        terminal.read_rest()
        assert complaints(process) == b""
    assert process.returncode in {130, -signal.SIGINT}  # a shell calls both 130
    assert ESCAPE + b"[?25l" in terminal.seen
    assert terminal.seen.rindex(ESCAPE + b"[?25h") > terminal.seen.rindex(ESCAPE + b"[?25l")
    assert b"Stopped early" in terminal.seen


def test_a_reader_that_has_seen_enough_is_no_error(environ: dict[str, str]) -> None:
    reading, writing = os.pipe()
    with demo("--seconds", "2", environ=environ, out=writing) as process:
        os.close(writing)
        os.read(reading, 10)
        os.close(reading)
        process.wait(PATIENCE)
        assert complaints(process) == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--seconds", "soon"], "argument --seconds: 'soon' is not a number from 2 to 120"),
        (["--seconds", "nan"], "argument --seconds: 'nan' is not a number"),
        (["--seconds", "0"], "argument --seconds: '0' is not a number from 2"),
        (["--seconds", "1e9"], "argument --seconds: '1e9' is not a number from 2 to 120"),
        (["--rate", "-3"], "argument --rate: '-3' is not a number from 1 to 200"),
        (["--rate", "inf"], "choose one within that range"),
        (["--seed", "1.5"], "argument --seed: '1.5' is not a whole number"),
        (["--seed", "-1"], "choose one of these"),
        (["--seed", "9" * 5000], "is not a whole number"),
        (["--policy", "none"], "argument --policy: invalid choice: 'none'"),
        (["--seconds", "120", "--rate", "200"], "makes about 24000 calls"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_reason(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["demo", *options])
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err
