"""Random schedules of calls, outages and cancellations through retries: never more than a budget allows."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict

import httpx
import pytest

from aragora_transport import RetryBudget, RetryPolicy
from aragora_transport._budget import Budget
from aragora_transport.layers import RetryTransport
from aragora_transport.testing import Hang, ScriptedTransport, VirtualTime

CALLS = 150
SPAN = 60.0  # seconds in which they come
POLICY = RetryBudget(per_success=0.5, per_second=0.5, cap=6.0)


class Story:
    """One run: when each call paid for a retry, when it was sent, and which of them were called off."""

    def __init__(self, seed):
        self.clock = VirtualTime(seed=seed)
        self.luck = self.clock.rng
        self.paid = defaultdict(list)  # by URL
        self.earned = []
        self.returned = []
        story = self

        class Told(Budget):
            def spend(self):
                allowed = super().spend()
                if allowed:
                    story.paid[asyncio.current_task().get_name()].append(self._clock.monotonic())
                return allowed

            def earn(self):
                super().earn()
                story.earned.append(self._clock.monotonic())

            def give_back(self):
                super().give_back()
                story.returned.append(self._clock.monotonic())

        self.budget = Told(POLICY, self.clock)
        self.network = ScriptedTransport(self.answer, clock=self.clock)
        policy = RetryPolicy(max_attempts=4, base_delay=0.5, max_delay=4.0, jitter="full", budget=POLICY)
        self.layer = RetryTransport(
            self.network, policy=policy, budget=self.budget, clock=self.clock, rng=self.luck
        )

    def answer(self, _):
        failing = 0.95 if 15.0 < self.clock.monotonic() < 35.0 else 0.3
        if self.luck.random() > failing:
            return 200
        return self.luck.choice([503, 503, httpx.ReadError, Hang()])

    async def one(self, client, number, begins, patience):
        await asyncio.sleep(begins)
        try:
            async with asyncio.timeout(patience):
                await client.get(f"http://platform.test/{number}")
        except (TimeoutError, httpx.TransportError):
            pass

    async def main(self):
        async with httpx.AsyncClient(transport=self.layer) as client, asyncio.TaskGroup() as tasks:
            for number in range(CALLS):
                begins, patience = self.luck.uniform(0.0, SPAN), self.luck.expovariate(1 / 4.0)
                tasks.create_task(self.one(client, number, begins, patience), name=str(number))


@pytest.mark.parametrize("seed", range(4))
def test_in_no_window_are_there_more_retries_than_the_budget_allows(seed):
    story = Story(seed)
    story.clock.run(story.main())
    sends = defaultdict(list)
    for sent in story.network.sent:
        sends[sent.url.rpartition("/")[2]].append(sent.at)
    retries = sum(len(times) - 1 for times in sends.values())
    paid = sorted(itertools.chain(*story.paid.values()))
    assert retries > 20
    assert retries == len(paid) - len(story.returned)  # each is paid for, and what is called off is not
    assert story.returned
    assert story.network.open_responses == 0
    for begins, ends in itertools.combinations(paid, 2):
        spent = sum(begins <= at <= ends for at in paid)
        came = sum(begins <= at <= ends for at in story.returned)
        came += POLICY.per_success * sum(begins <= at <= ends for at in story.earned)
        assert spent <= POLICY.cap + came + POLICY.per_second * (ends - begins) + 1e-6
