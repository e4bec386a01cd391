from __future__ import annotations

import pytest

from aragora_transport import RetryPolicy
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio


async def test_a_503_is_sent_again(world):
    network = world.scripted(503, 503, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert len(network.sent) == 3


async def test_the_waits_follow_the_guides_formula(world):
    network = world.scripted(503)
    answer = await world.get(world.layer(RetryTransport, network, policy=RetryPolicy(max_attempts=4)))
    assert answer.status_code == 503
    times = [sent.at for sent in network.sent]
    waits = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert len(waits) == 3
    for wait, least in zip(waits, (1.0, 2.0, 4.0), strict=True):
        assert least <= wait <= least * 1.1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 501])
async def test_an_answer_that_would_not_change_is_returned_at_once(world, status):
    network = world.scripted(status, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == status
    assert len(network.sent) == 1


async def test_retry_after_is_waited_and_never_earlier(world):
    network = world.scripted(Reply(status=429, headers={"retry-after": "7"}), 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert 7.0 <= network.sent[1].at <= 7.0 * 1.1 + 0.01


async def test_a_wait_beyond_the_cap_returns_the_answer_at_once_with_the_wait(world):
    network = world.scripted(Reply(status=503, headers={"retry-after": "600"}, body=b"later"), 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert (answer.status_code, answer.content) == (503, b"later")
    assert world.clock.monotonic() == 0.0
    record = answer.extensions["aragora_transport"]
    assert record.retry_after == 600.0
    assert record.attempts[-1].wait == 600.0
