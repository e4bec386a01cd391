from __future__ import annotations

import sys

import pytest

from aragora_transport._flavor import Flavor, flavor


def test_a_package_that_is_missing_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"pip install 'aragora-transport\[httpx2\]'"):
        Flavor("httpx2")


def test_a_flavour_shows_its_name():
    assert repr(flavor("httpx2")) == "Flavor('httpx2')"
