"""The five tests that the error handling guide asks of every connector, through a real client."""

from __future__ import annotations

import itertools

import httpx
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import CircuitOpenError, DeadlineExceededError, Policy, resilient
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "https://platform.test/messages"
NO_RETRY = Policy(retry=None)


class Platform:
    """A platform that does as it is told, and the client of a connector to it, by the guide's numbers."""

    def __init__(self, *steps, policy=None):
        self.clock = ManualClock()
        self.network = ScriptedTransport(*steps, clock=self.clock)
        self.registry = CollectorRegistry()
        self.stack = resilient(
            "chat", self.network, policy=policy or Policy(), clock=self.clock, registry=self.registry
        )
        self.client = httpx.AsyncClient(transport=self.stack)

    @property
    def circuit(self):
        return self.stack.circuits()["chat"]["state"]

    @property
    def waits(self):
        """Seconds from each attempt to the next."""
        times = [sent.at for sent in self.network.sent]
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    def metric(self, name, **labels):
        return self.registry.get_sample_value(name, {"platform": "chat", **labels})


class TestConnectorResilience:
    async def test_retry_on_transient_error(self):
        """Verify retry on 503 with eventual success."""
        platform = Platform(503, 503, Reply(body=b'{"id": 1}'))
        async with platform.client as client:
            answer = await client.post(URL, json={"content": "hello"})
        assert (answer.status_code, answer.json()) == (200, {"id": 1})
        assert [sent.body for sent in platform.network.sent] == [b'{"content":"hello"}'] * 3
        for wait, delay in zip(platform.waits, (1.0, 2.0), strict=True):
            assert delay <= wait <= delay * 1.1
        assert platform.metric("platform_retry_total", operation="POST") == 2
        assert platform.metric("platform_retry_success_total", operation="POST") == 1
        assert platform.metric("platform_requests_total", operation="POST", status="200") == 1

    async def test_circuit_breaker_opens(self):
        """Verify circuit opens after threshold failures."""
        platform = Platform(503, policy=NO_RETRY)
        async with platform.client as client:
            assert platform.metric("platform_circuit_breaker_state") == 0
            for state in ["closed"] * 4 + ["open"]:
                assert (await client.get(URL)).status_code == 503
                assert platform.circuit == state
            with pytest.raises(CircuitOpenError, match="circuit open after 5 failures") as caught:
                await client.get(URL)
        assert isinstance(caught.value, httpx.TransportError)
        assert caught.value.request.url == URL
        assert caught.value.retry_after == 60.0
        assert len(platform.network.sent) == 5
        assert platform.metric("platform_circuit_breaker_state") == 1

    async def test_circuit_breaker_recovery(self):
        """Verify circuit recovers after cooldown."""
        platform = Platform(*[503] * 5, 503, 200, policy=NO_RETRY)
        async with platform.client as client:
            for _ in range(5):
                await client.get(URL)
            platform.clock.advance(59.9)
            with pytest.raises(CircuitOpenError):
                await client.get(URL)
            platform.clock.advance(0.1)
            assert (await client.get(URL)).status_code == 503  # the probe, which opens it again
            assert platform.circuit == "open"
            platform.clock.advance(60.0)
            assert (await client.get(URL)).status_code == 200
            assert platform.circuit == "closed"
            assert (await client.get(URL)).status_code == 200
        assert len(platform.network.sent) == 8
        assert platform.metric("platform_circuit_breaker_state") == 0

    async def test_timeout_handling(self):
        """Verify graceful timeout handling."""
        platform = Platform(Hang(), 200)
        async with platform.client as client:
            with pytest.raises(httpx.TimeoutException, match=r"attempt limit of 30 s") as caught:
                await client.post(URL, json={"content": "hello"}, timeout=None)
            assert isinstance(caught.value, DeadlineExceededError)
            assert caught.value.request.url == URL
            assert platform.clock.monotonic() == 30.0
            assert len(platform.network.sent) == 1  # it may have been processed: it is not posted twice
            assert (await client.get(URL)).status_code == 200

    async def test_rate_limit_backoff(self):
        """Verify 429 triggers appropriate backoff."""
        platform = Platform(Reply(status=429, headers={"Retry-After": "7"}), 429, 200)
        async with platform.client as client:
            answer = await client.post(URL, json={"content": "hello"})
        assert answer.status_code == 200
        told, own = platform.waits
        assert 7.0 <= told <= 8.0
        assert 2.0 <= own <= 2.2
        assert platform.circuit == "closed"  # a limit is not a failure
        assert platform.metric("platform_rate_limit_total", result="blocked") >= 1
