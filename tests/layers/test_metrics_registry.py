"""The metrics as one set on a registry: bounded labels, sharing, threads and several processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from aragora_transport import Policy, call_options, resilient, resilient_sync
from aragora_transport.layers import MetricsTransport, RetryTransport
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"
CALL = {"platform": "test", "operation": "GET"}


async def test_a_status_that_http_does_not_have_makes_no_series_of_its_own(world):
    stack = world.stack(
        world.scripted(*(Reply(status=status) for status in range(600, 1000, 9))),
        policy=Policy(retry=None, breaker=None),
    )
    for _ in range(45):
        await world.get(stack)
    assert world.sample("platform_requests_total", **CALL, status="other") == 45
    requests = next(metric for metric in world.registry.collect() if metric.name == "platform_requests")
    assert {sample.labels["status"] for sample in requests.samples} == {"other"}


async def test_the_names_of_operations_are_bounded(world):
    stack = world.stack(world.scripted(200), policy=Policy(retry=None))
    for number in range(120):
        await world.get(stack, extensions=call_options(operation=f"operation_{number}"))
    requests = next(m for m in world.registry.collect() if m.name == "platform_requests")
    names = {sample.labels["operation"] for sample in requests.samples}
    assert names == {*(f"operation_{number}" for number in range(100)), "other"}
    assert world.sample("platform_requests_total", platform="test", operation="other", status="200") == 20
    assert world.sample("platform_label_overflow_total", label="operation") == 20


@pytest.mark.parametrize(
    "name", ["a\nb", 'a"b', "a" * 101, "\u00e9", "a{b}", "\ud800", "x?token=1"], ids=ascii
)
async def test_a_name_that_is_no_name_becomes_other(world, name):
    await world.get(world.stack(world.scripted(200)), extensions=call_options(operation=name))
    assert world.sample("platform_requests_total", platform="test", operation="other", status="200") == 1
    assert world.sample("platform_label_overflow_total", label="operation") == 1
    assert generate_latest(world.registry).isascii()


async def test_several_stacks_share_the_metrics_of_one_registry(world):
    for platform in ("test", "test", "other-api"):
        await world.get(world.stack(world.scripted(200), platform))
    assert world.sample("platform_requests_total", **CALL, status="200") == 2
    assert world.sample("platform_requests_total", platform="other-api", operation="GET", status="200") == 1


async def test_the_layer_works_alone_and_in_front_of_retry(world):
    alone = world.layer(MetricsTransport, world.scripted(503), platform="test", registry=world.registry)
    assert (await world.get(alone)).status_code == 503
    assert world.sample("platform_requests_total", **CALL, status="503") == 1
    retry = world.layer(RetryTransport, world.scripted(503, 200))
    await world.get(world.layer(MetricsTransport, retry, platform="test", registry=world.registry))
    assert world.sample("platform_retry_success_total", **CALL) == 1
    assert world.sample("platform_attempts_total", **CALL, status="503") == 2


def test_a_stack_without_metrics_leaves_the_registry_alone():
    registry = CollectorRegistry()
    resilient("test", httpx.AsyncHTTPTransport(), policy=Policy(metrics=False), registry=registry)
    assert generate_latest(registry) == b""


def test_a_registry_that_is_dropped_goes_with_its_metrics():
    registry = CollectorRegistry()
    resilient("test", httpx.AsyncHTTPTransport(), registry=registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_a_registry_that_has_such_a_metric_of_somebody_else_is_refused_with_a_way_out():
    registry = CollectorRegistry()
    Counter("platform_requests_total", "Somebody else's.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"platform_requests.* give another registry=, or metrics=False"):
            resilient("test", httpx.AsyncHTTPTransport(), registry=registry)


@pytest.mark.parametrize("registry", ["default", 7, object()], ids=["name", "number", "object"])
def test_what_is_no_registry_is_refused(registry):
    with pytest.raises(TypeError, match=r"registry=.* must be a prometheus_client\.CollectorRegistry"):
        resilient("test", httpx.AsyncHTTPTransport(), registry=registry)


def test_counting_is_exact_under_threads_and_while_it_is_scraped():
    registry = CollectorRegistry()
    network = httpx.MockTransport(lambda request: httpx.Response(200))
    stack = resilient_sync("test", network, registry=registry)
    over = threading.Event()
    scraped = []

    def value(name, **labels):
        return registry.get_sample_value(name, {"platform": "test", **labels}) or 0

    def scrape():
        while not over.is_set():
            scraped.append(value("platform_requests_total", operation="GET", status="200"))

    def work():
        with httpx.Client(transport=stack) as client:
            for _ in range(400):
                client.get(URL)

    scraper = threading.Thread(target=scrape)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in (scraper, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    scraper.join()
    assert scraped == sorted(scraped)
    for name in ("platform_requests_total", "platform_attempts_total"):
        assert value(name, operation="GET", status="200") == 1600
    assert value("platform_rate_limit_total", result="allowed") == 1600
    latency = "platform_request_latency_seconds"
    assert value(f"{latency}_count", operation="GET") == 1600
    assert value(f"{latency}_bucket", operation="GET", le="+Inf") == 1600


WORKER = """
import shutil, sys
import httpx
from aragora_transport import BreakerPolicy, Policy, RetryPolicy, resilient_sync
from aragora_transport.testing import ManualClock, ScriptedTransport

statuses, state = [int(status) for status in sys.argv[1].split(",")], sys.argv[2]
clock = ManualClock()
network = ScriptedTransport(*statuses, clock=clock)
breaker = BreakerPolicy(failure_threshold=1, cooldown=5.0)
policy = Policy(breaker=breaker, retry=RetryPolicy(max_attempts=1))
stack = resilient_sync("test", network, policy=policy, clock=clock)
if state == "no directory":
    shutil.rmtree(sys.argv[3])
with httpx.Client(transport=stack) as client:
    for _ in statuses:
        print(client.get("http://platform.test/").status_code)
"""


def start_worker(directory, statuses, state=""):
    return subprocess.Popen(  # noqa: S603  # our own interpreter and our own code
        [sys.executable, "-W", "error", "-c", WORKER, statuses, state, str(directory)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome_of(worker):
    out, err = worker.communicate(timeout=60)
    return worker.returncode, out.split(), err


def test_several_processes_add_up_and_each_shows_its_own_circuit(tmp_path):
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    workers = [start_worker(tmp_path, statuses) for statuses in ("200,200,200", "200,503")]
    assert [outcome_of(worker) for worker in workers] == [(0, ["200"] * 3, ""), (0, ["200", "503"], "")]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))
    for name in ("platform_requests_total", "platform_attempts_total"):
        assert registry.get_sample_value(name, {**CALL, "status": "200"}) == 4
        assert registry.get_sample_value(name, {**CALL, "status": "503"}) == 1
    assert registry.get_sample_value("platform_request_latency_seconds_count", CALL) == 5
    for state, processes in (("closed", 1), ("open", 1), ("half-open", 0)):
        labels = {"platform": "test", "state": state}
        assert registry.get_sample_value("platform_circuit_breaker_circuits", labels) == processes
    assert registry.get_sample_value("platform_requests_in_flight", {"platform": "test"}) == 0
    states = {
        worker.pid: registry.get_sample_value(
            "platform_circuit_breaker_state", {"platform": "test", "pid": str(worker.pid)}
        )
        for worker in workers
    }
    assert states == {workers[0].pid: 0, workers[1].pid: 1}
    mark_process_dead(workers[1].pid, path=str(tmp_path))
    gauge = next(metric for metric in registry.collect() if metric.name == "platform_circuit_breaker_state")
    assert [sample.labels["pid"] for sample in gauge.samples] == [str(workers[0].pid)]


def test_a_process_that_can_no_longer_count_makes_its_calls_all_the_same(tmp_path):
    directory = tmp_path / "metrics"
    directory.mkdir()
    assert outcome_of(start_worker(directory, "200,404,503", "no directory"))[:2] == (
        0,
        ["200", "404", "503"],
    )
