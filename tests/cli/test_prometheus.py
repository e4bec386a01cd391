"""A real Prometheus on loopback scrapes our metrics in an outage: what the rules and panels make of them."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import threading
import time

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from aragora_transport import BreakerPolicy, Policy, call_options, resilient_sync
from aragora_transport.cli import main
from aragora_transport.cli._panels import ROWS
from aragora_transport.cli._rules import ALERTS, RECORDED
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

ENOUGH = 60.0  # seconds; it takes 6, of which Prometheus waits 5 until it first looks
LIMITED = Reply(status=429, headers={"retry-after": "2"})
PLATFORMS = {  # what each answers, over and over
    "healthy": [200],
    "flaky": [503, 200],
    "down": [503],
    "limited": [LIMITED, 200],
    "slow": [Hang()],
    "broken": [Reply(body=b"half of", then=httpx.ReadError)],
    "slack": [
        Reply(headers={"content-type": "application/json"}, body=b'{"ok": false, "error": "not_in_channel"}')
    ],
}
SENDS = [("healthy", 0.9, 1.1), ("flaky", 1.8, 2.2), ("down", 0.0, 0.9)]  # for each call
TROUBLES = {  # which alerts wait for their time, and of whom
    ("PlatformDown", "down"),
    ("PlatformCircuitOpen", "down"),
    ("PlatformLoadAmplified", "flaky"),
    ("PlatformDeadlinesMissed", "slow"),
    ("PlatformRateLimited", "limited"),
    ("PlatformLabelOverflow", None),
}
SETTINGS = """
global: {scrape_interval: 250ms, evaluation_interval: 250ms}
rule_files: [rules.yml]
scrape_configs: [{job_name: app, static_configs: [{targets: ["127.0.0.1:%d"]}]}]
"""


class Outage:
    """Platforms in trouble, and what our metrics say of them."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._scraped = threading.Event()
        self._clock = ManualClock()
        self._clients = {name: self._client(name, answers) for name, answers in PLATFORMS.items()}

    def _client(self, name, answers):
        turns = iter(range(1_000_000))
        network = ScriptedTransport(lambda _: answers[next(turns) % len(answers)], clock=self._clock)
        policy = Policy(breaker=BreakerPolicy() if name == "down" else None, log=False)
        stack = resilient_sync(name, network, policy=policy, registry=self.registry, clock=self._clock)
        return httpx.Client(transport=stack, timeout=None, trust_env=False)  # noqa: S113  # the limits are ours

    def collect(self):
        """Prometheus asks for all metrics: there are none of its own."""
        self._scraped.set()
        return []

    def go_on(self):
        """Some more calls, which Prometheus then sees."""
        self.calls()
        self._scraped.clear()
        assert self._scraped.wait(ENOUGH)

    def calls(self):
        for name, client in self._clients.items():
            options = call_options(operation="list", total_timeout=5.0 if name == "slow" else None)
            for _ in range(3):
                with contextlib.suppress(httpx.TransportError):
                    client.get("http://platform.test/", extensions=options)
        self._clients["healthy"].get("http://platform.test/", extensions=call_options(operation="?id=1"))


@pytest.fixture
def outage():
    return Outage()


class Prometheus:
    def __init__(self, client):
        self._client = client

    def ask(self, path, **parameters):
        answer = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expr):
        """The values of a query by their platform, without those that are no number."""
        found = self.ask("/query", query=expr)["result"]
        values = {each["metric"].get("platform", ""): float(each["value"][1]) for each in found}
        return {platform: value for platform, value in values.items() if math.isfinite(value)}


@pytest.fixture
def prometheus(prometheus_tools, tmp_path, outage):
    """One that scrapes the outage, with our rules."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=outage.registry)
    assert main(["rules", "-o", str(tmp_path / "rules.yml")]) == 0
    (tmp_path / "prometheus.yml").write_text(SETTINGS % server.server_port)
    process = subprocess.Popen(  # noqa: S603  # our own words
        [  # noqa: S607  # as it is found on PATH
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = ""
        while "Server is ready" not in log:
            line = process.stderr.readline()
            assert line, log  # it has ended
            log += line
        address = re.search(r'msg="Listening on" address=(\S+)', log)[1]
        with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False) as client:
            yield Prometheus(client)
    finally:
        process.terminate()
        process.communicate(timeout=30)
        server.shutdown()
        server.server_close()
        thread.join()


def queries(capsys):
    """Of every panel of the dashboard, with what Grafana puts in place of its variables."""
    assert main(["dashboard"]) == 0
    panels = json.loads(capsys.readouterr().out)["panels"]
    variables = {"$__rate_interval": "10s", "$__range": "1m", "$platform": ".*", "$operation": ".*"}
    for panel in panels:
        for target in panel.get("targets", []):
            expr = target["expr"]
            for name, value in variables.items():
                expr = expr.replace(name, value)
            assert "$" not in expr
            yield f"{panel['title']} {target['refId']}", expr


def until_all(wanted, found, outage):
    """Let the outage go on until `found()` has all that is wanted."""
    late = time.monotonic() + ENOUGH
    while missing := wanted - found():
        assert time.monotonic() < late, f"not found: {sorted(missing)}"
        outage.go_on()


def test_promtool_finds_nothing_wrong_with_the_metrics(prometheus_tools, outage):
    outage.calls()
    done = subprocess.run(
        ["promtool", "check", "metrics"],  # noqa: S607  # as it is found on PATH
        input=generate_latest(outage.registry),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_panel_and_every_rule_has_data_in_an_outage(prometheus, outage, capsys):
    panels = dict(queries(capsys))
    assert len(panels) == sum(len(panel.queries) for row in ROWS.values() for panel in row)

    def with_data():
        return {name for name, expr in panels.items() if prometheus.values(expr)}

    def recorded():
        return {name for name in RECORDED if prometheus.values(name)}

    def alerting():
        alerts = [alert["labels"] for alert in prometheus.ask("/alerts")["alerts"]]
        return {(labels["alertname"], labels.get("platform")) for labels in alerts}

    until_all(set(panels), with_data, outage)
    until_all(set(RECORDED), recorded, outage)
    until_all(TROUBLES, alerting, outage)
    assert "healthy" not in {platform for _, platform in alerting()}
    rules = [rule for group in prometheus.ask("/rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALERTS) + len(RECORDED)
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}

    def about_right():
        sends = prometheus.values("platform:attempts_per_request:ratio_rate5m")
        return {name for name, low, high in SENDS if low <= sends[name] <= high}

    until_all({name for name, *_ in SENDS}, about_right, outage)
    assert prometheus.values("platform:circuits_not_closed:sum")["down"] == 1.0
