"""What the demo does when its server process or its directory fails it."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from aragora_transport.cli import _demo_server, _flaky_api, main
from aragora_transport.cli._demo_server import ServerError, flaky_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the demo is a program of its own and runs on asyncio


async def test_a_server_counts_from_nothing_and_is_gone_after_its_block() -> None:
    async with flaky_server(seconds=2.0, rate=30.0, seed=1) as server:
        server.start()
        lanes = await server.report()
        pid = server._process.pid
    assert set(lanes) == set(server.ports) == set(_flaky_api.LANES)
    assert sum(lanes["bare"].sends) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_answer_to_a_question_that_was_given_up_is_not_taken_for_the_next() -> None:
    async with flaky_server(seconds=2.0, rate=30.0, seed=1) as server:
        question = asyncio.create_task(server.report())
        await asyncio.sleep(0)
        question.cancel()
        await asyncio.wait({question})
        await server.report()
        await server.report()


async def test_a_server_that_died_is_told() -> None:
    async with flaky_server(seconds=2.0, rate=30.0, seed=1) as server:
        server._process.kill()
        with pytest.raises(ServerError, match="is gone"):
            await server.report()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing stops a process there as SIGSTOP does")
async def test_a_server_that_hangs_is_told_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with flaky_server(seconds=2.0, rate=30.0, seed=1) as server:
        server._process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(_demo_server, "_ANSWER_SECONDS", 0.05)
        with pytest.raises(ServerError, match="did not answer within"):
            await server.report()
    assert server._process.returncode == -signal.SIGKILL


def test_a_demo_without_its_server_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "gone.py"
    script.write_text("")
    monkeypatch.setattr(_flaky_api, "__file__", str(script))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["demo"]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("aragora-transport demo: the demo's server process did not answer")


def test_a_demo_that_dies_midway_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = 'import sys; print(\'{"bare": 1, "ours": 1}\', flush=True); sys.stdin.readline()'
    script = tmp_path / "short.py"
    script.write_text(tell)
    monkeypatch.setattr(_flaky_api, "__file__", str(script))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["demo", "--seconds", "120"]) == 1
    assert "is gone" in capsys.readouterr().err


def test_a_demo_that_may_not_write_says_where_it_could(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert main(["demo"]) == 1
    assert "set TMPDIR" in capsys.readouterr().err
