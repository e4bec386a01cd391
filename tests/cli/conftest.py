"""What the tests of rules and dashboard need: Prometheus itself."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def prometheus_tools() -> None:
    """Skip, with the reason, where Prometheus is not installed."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"{' and '.join(missing)} not installed: apt-get install --no-install-recommends prometheus"
        )
