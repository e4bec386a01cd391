"""The gate of a layer that somebody put among others by hand."""

import pytest

from aragora_transport.layers import LogTransport, RateLimitTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("below", [{}, {"platform": "theirs"}])
async def test_a_gate_holds_under_a_layer_that_names_another_platform(world, below):
    network = world.scripted(Reply(status=429, headers={"retry-after": "7"}), 200)
    layer = world.layer(RateLimitTransport, network, **below)
    outer = world.layer(LogTransport, layer, platform="ours")
    assert (await world.get(outer)).status_code == 429
    assert (await world.get(outer)).status_code == 200
    assert network.sent[1].at >= 7.0
