import importlib
import subprocess
import sys

import pytest

from aragora_transport.cli import main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "demo" in out
    assert "bench" in out


@pytest.mark.parametrize("command", ["demo", "bench", "rules", "dashboard"])
def test_help_of_a_command_tells_its_exit_status(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "exit status: 0" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["dmeo"]])
def test_no_command_or_an_unknown_one_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_help_imports_no_command() -> None:
    code = """
import sys
from aragora_transport.cli import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in sys.modules if name.startswith("aragora_transport.cli.")])
"""
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_main_module_runs_nothing() -> None:
    assert importlib.import_module("aragora_transport.__main__").main is main


def test_ctrl_c_anywhere_in_a_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("aragora_transport.cli.demo.run", interrupted)
    assert main(["demo"]) == 130
