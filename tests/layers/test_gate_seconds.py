"""The time that a gate holds an attempt is no time that the platform took."""

import pytest

from aragora_transport import BreakerPolicy, Policy
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

TOLD = Reply(status=429, headers={"retry-after": "7"})


async def test_an_answer_after_a_wait_at_the_gate_is_no_slow_one(world):
    policy = Policy(breaker=BreakerPolicy(slow_call=2.0))
    stack = world.stack(world.scripted(TOLD, Reply(after=1.5)), policy=policy)
    assert (await world.get(stack)).status_code == 200
    assert stack.circuits()["test"]["failures"] == 0


async def test_the_record_tells_the_wait_and_the_seconds_of_the_attempt_apart(world):
    answer = await world.get(world.stack(world.scripted(TOLD, Reply(after=1.5))))
    told, served = answer.extensions["aragora_transport"].attempts
    assert told.wait >= 7.0
    assert served.seconds == pytest.approx(1.5)
