"""One server, called at once by threads, event loops and processes: every request is counted once."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from aragora_transport import Policy, RetryPolicy, resilient, resilient_sync
from aragora_transport.testing import (
    Answer,
    FaultServer,
    close_before_headers,
    reset_after_headers,
    truncated_body,
)

EACH = 25  # calls of one caller
CALLERS = 3  # of each kind
MIX = [
    *[Answer(body=b"fine")] * 4,
    *[503] * 3,
    404,
    close_before_headers(),
    reset_after_headers(),
    truncated_body(),
]
POLICY = Policy(breaker=None, retry=RetryPolicy(max_attempts=4, base_delay=0.001, max_delay=0.001))

PROCESS = """
import sys
import httpx
from aragora_transport import Policy, RetryPolicy, resilient_sync

retry = RetryPolicy(max_attempts=4, base_delay=0.001, max_delay=0.001)
with httpx.Client(transport=resilient_sync("test", policy=Policy(breaker=None, retry=retry))) as client:
    for _ in range(int(sys.argv[2])):
        try:
            client.get(sys.argv[1])
        except httpx.TransportError:
            pass
"""


def total(registry, family):
    samples = (sample for metric in registry.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == family)


def mixed(seed):
    luck = random.Random(seed)
    return FaultServer(lambda _: luck.choice(MIX))


def in_a_thread(url, registry):
    with httpx.Client(transport=resilient_sync("test", policy=POLICY, registry=registry)) as client:
        for _ in range(EACH):
            try:
                client.get(url)
            except httpx.TransportError:
                pass


def in_a_loop(url, registry):
    async def one(client):
        try:
            await client.get(url)
        except httpx.TransportError:
            pass

    async def main():
        stack = resilient("test", policy=POLICY, registry=registry)
        async with httpx.AsyncClient(transport=stack) as client, asyncio.TaskGroup() as tasks:
            for _ in range(EACH):
                tasks.create_task(one(client))

    asyncio.run(main())


def test_threads_and_event_loops_count_every_request_that_arrives():
    registry = CollectorRegistry()
    with mixed(1) as server, ThreadPoolExecutor(2 * CALLERS) as pool:
        for done in [
            pool.submit(work, server.url, registry)
            for work in (in_a_thread, in_a_loop)
            for _ in range(CALLERS)
        ]:
            done.result(30)
        arrived = len(server.requests)
    calls = 2 * CALLERS * EACH
    assert total(registry, "platform_requests_total") == calls
    assert total(registry, "platform_attempts_total") == arrived
    assert total(registry, "platform_retry_total") == arrived - calls > 10
    assert total(registry, "platform_requests_in_flight") == 0


def test_processes_count_every_request_that_arrives(tmp_path):
    with mixed(2) as server:
        processes = [
            subprocess.Popen(  # noqa: S603  # our own interpreter and our own code
                [sys.executable, "-W", "error", "-c", PROCESS, server.url, str(EACH)],
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            )
            for _ in range(CALLERS)
        ]
        assert [process.wait(60) for process in processes] == [0] * CALLERS
        arrived = len(server.requests)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))
    assert total(registry, "platform_requests_total") == CALLERS * EACH
    assert total(registry, "platform_attempts_total") == arrived
    assert total(registry, "platform_retry_total") == arrived - CALLERS * EACH > 10
