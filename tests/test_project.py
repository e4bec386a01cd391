"""What holds for the project as a whole: its import rules, its exact exports, its metadata."""

import __future__

import importlib
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC_PACKAGES = (
    *("aragora_transport", "aragora_transport.connectors"),
    *("aragora_transport.layers", "aragora_transport.testing"),
)
OPTIONAL = (
    *("rich", "httpx2", "httpcore2", "h2", "socksio", "uvloop", "clientwright", "httpx_retries"),  # extras
    *("trio", "opentelemetry", "openai", "telegram", "respx", "hypothesis", "sybil", "pytest"),  # tests
)
TRANSPORT_CONTRACT = ("handle_request", "handle_async_request", "close", "aclose")  # httpx describes these


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603  # our own interpreter and our own code
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def project_table() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_imports_go_one_way():
    # A process of its own, because the linter takes over the configuration of logging.
    done = subprocess.run(  # noqa: S603  # the linter installed beside this interpreter
        [Path(sysconfig.get_path("scripts"), "lint-imports"), "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_the_exported_names_are_exactly_the_public_ones(package):
    module = importlib.import_module(package)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType | type(__future__.annotations))
    }
    assert public == set(module.__all__)


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_exported_names_stand_once_and_in_order(package):
    names = list(importlib.import_module(package).__all__)

    def constants_then_classes_then_functions(name):
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert names == sorted(set(names), key=constants_then_classes_then_functions)


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_what_is_exported_is_documented_down_to_its_methods(package):
    module = importlib.import_module(package)
    exported = {name: getattr(module, name) for name in module.__all__}
    classes = {n: v for n, v in exported.items() if isinstance(v, type)}
    documented = {n: v for n, v in exported.items() if isinstance(v, FunctionType)} | classes
    for name, cls in classes.items():
        own = {n: getattr(cls, n) for n in vars(cls) if not n.startswith("_") and callable(getattr(cls, n))}
        documented |= {f"{name}.{n}": v for n, v in own.items() if n not in TRANSPORT_CONTRACT}
    undocumented = {
        n for n, v in documented.items() if not (v.__doc__ if n in classes else inspect.getdoc(v))
    }
    assert undocumented == set()


def test_importing_the_package_loads_only_what_it_requires():
    required = [
        "anyio.lowlevel",
        "httpx",
        "prometheus_client",
        "pybreaker",
        "pythonjsonlogger.json",
        "tenacity",
    ]
    new = run_python(
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "before = set(sys.modules)\n"
        "import aragora_transport, aragora_transport.layers\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})\n",
        *required,
    ).split()
    allowed = {"aragora_transport", *(name.partition(".")[0] for name in required), *sys.stdlib_module_names}
    assert sorted(set(new) - allowed) == []


def test_importing_the_package_loads_neither_the_command_line_nor_the_testing_tools():
    loaded = run_python("import sys, aragora_transport\nprint(*sys.modules)").split()
    assert "aragora_transport" in loaded
    assert [
        name for name in loaded if name.startswith(("aragora_transport.cli", "aragora_transport.testing"))
    ] == []


def test_importing_the_package_leaves_what_only_failures_metrics_or_json_logs_need_for_later():
    loaded = run_python("import sys, aragora_transport\nprint(*sys.modules)").split()
    assert {"tenacity", "prometheus_client", "pythonjsonlogger"}.isdisjoint(loaded)


def test_the_package_works_where_nothing_optional_is_installed():
    run_python(
        "import sys\n"
        "sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None there means: cannot be imported\n"
        "import httpx, aragora_transport, aragora_transport.layers, aragora_transport.testing\n"
        "httpx.Client(transport=aragora_transport.resilient_sync('a-platform')).close()\n",
        *OPTIONAL,
    )


def test_the_installed_version_is_the_one_in_pyproject():
    assert importlib.metadata.version("aragora-transport") == project_table()["version"]


def test_the_package_says_that_it_is_typed():
    assert importlib.resources.files("aragora_transport").joinpath("py.typed").is_file()


def test_the_dev_extra_holds_all_other_extras():
    extras = project_table()["optional-dependencies"]
    assert {need for name, needs in extras.items() for need in needs} == set(extras["dev"])
