"""What the tests of rules and dashboard need: Prometheus itself."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def prometheus_tools() -> None:
    """Skip, with the reason, where Prometheus is not installed."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("needs prometheus and promtool: apt-get install --no-install-recommends prometheus")
