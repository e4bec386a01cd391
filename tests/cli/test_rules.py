"""The rules, by promtool's own unit tests; and each rule, broken on purpose, fails them.

Every case is a platform, or a job, of its own, so that one run tests them all.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from dataclasses import replace
from functools import partial

import pytest

from aragora_transport.cli import _rules, main
from aragora_transport.cli._rules import ALERTS, RECORDED

RUNBOOK = "https://runbook.test/"
MINUTES = 60
CASE = "a-case"  # its name takes this place


def per_minute(family, step, **labels):
    """A counter that grows by `step` each minute."""
    return series(family, f"0+{step}x{MINUTES}", **labels)


def selector(metric, **labels):
    matching = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{matching}}}"


def series(family, values, **labels):
    return {"series": selector(family, **labels), "values": values}


def requests(**statuses):
    """Calls a minute by what they ended in, such as `s200=90` or `timeout=10`."""
    return [
        per_minute("platform_requests_total", n, platform=CASE, status=status.removeprefix("s"))
        for status, n in statuses.items()
    ]


def sends(n):
    return per_minute("platform_attempts_total", n, platform=CASE, status="200")


def retries(n, saved):
    given = [per_minute("platform_retry_total", n, platform=CASE)]
    return [*given, per_minute("platform_retry_success_total", saved, platform=CASE)] if saved else given


def budget(n):
    return per_minute("platform_retry_refused_total", n, platform=CASE, reason="budget")


def gate(allowed, blocked):
    return [
        per_minute("platform_rate_limit_total", allowed, platform=CASE, result="allowed"),
        per_minute("platform_rate_limit_total", blocked, platform=CASE, result="blocked"),
    ]


def circuit(values):
    return [
        series("platform_circuit_breaker_circuits", values, platform=CASE, state="open"),
        series("platform_circuit_breaker_circuits", "1x60", platform=CASE, state="closed"),
    ]


def openings(times):
    """Of a circuit in a quarter of an hour; those that a probe opens again are none."""
    labels = {"platform": CASE, "to_state": "open"}
    return [
        series(
            "platform_circuit_breaker_transitions_total", f"0+{times / 15}x60", from_state="closed", **labels
        ),
        per_minute("platform_circuit_breaker_transitions_total", 60, from_state="half-open", **labels),
    ]


def telemetry(values):
    return [series("platform_telemetry_errors_total", values, job=CASE, where="metrics")]


def overflow(values):
    return [series("platform_label_overflow_total", values, job=CASE, label="operation")]


# By alert: what it is told of, just beyond its threshold, and what it must be silent about, just below.
CASES = {
    "PlatformCallsFailing": (
        [requests(s200=94, s503=6), requests(s200=94, timeout=3, s429=3), requests(s200=1, circuit_open=1)],
        [requests(s200=96, s503=4), requests(s200=80, s404=15, s301=2, cancelled=3), requests(s200=90)],
    ),
    "PlatformDown": ([requests(s200=45, s503=55)], [requests(s200=55, s503=45), requests(s503=0)]),
    "PlatformCircuitOpen": ([circuit("0 1x60"), circuit("0 1 2x60")], [circuit("0x60")]),
    "PlatformCircuitFlapping": ([openings(5)], [openings(4)]),
    "PlatformLoadAmplified": (
        [[*requests(s200=100), sends(160)]],
        [[*requests(s200=100), sends(140)], requests(circuit_open=100)],
    ),
    "PlatformRetriesUseless": (
        [[*requests(s503=100), sends(112), *retries(12, 1)], [*requests(s503=9), sends(18), *retries(9, 0)]],
        [
            [*requests(s200=100), sends(116), *retries(16, 2)],
            [*requests(s200=100), sends(108), *retries(8, 0)],
        ],
    ),
    "PlatformRetryBudgetExhausted": (
        [[*requests(s200=1000), budget(12)]],
        [[*requests(s200=1000), budget(8)], requests(s200=1000)],
    ),
    "PlatformRateLimited": ([gate(88, 12)], [gate(92, 8)]),
    "PlatformDeadlinesMissed": (
        [requests(s200=988, deadline_exceeded=12)],
        [requests(s200=992, deadline_exceeded=8), requests(s200=9, timeout=1)],
    ),
    "PlatformTelemetryErrors": ([telemetry("0+1x60"), telemetry("_x14 1x60")], [telemetry("5x60")]),
    "PlatformLabelOverflow": ([overflow("0+1x60"), overflow("_x14 1x60")], [overflow("5x60")]),
}
TRAFFIC = [
    *requests(s200=60, s404=12, s503=24, cancelled=24),
    sends(180),
    *retries(60, 15),
    budget(6),
    *gate(150, 50),
    *requests(deadline_exceeded=0),
    *(
        per_minute("platform_request_latency_seconds_bucket", n, platform=CASE, le=le)
        for le, n in {"1": 50, "2": 90, "4": 98, "+Inf": 100}.items()
    ),
]
VALUES = [  # what the recorded series are, of which traffic
    ("platform:requests:rate5m", TRAFFIC, 2.0),
    ("platform:attempts:rate5m", TRAFFIC, 3.0),
    ("platform:requests_failed:ratio_rate5m", TRAFFIC, 0.2),
    ("platform:requests_failed:ratio_rate5m", requests(s200=9), 0.0),
    ("platform:attempts_per_request:ratio_rate5m", TRAFFIC, 1.5),
    ("platform:attempts_per_request:ratio_rate5m", requests(circuit_open=9), 0.0),
    ("platform:retries_useful:ratio_rate5m", TRAFFIC, 0.25),
    ("platform:retries_useful:ratio_rate5m", retries(9, 0), 0.0),
    ("platform:retry_budget_exhausted:ratio_rate5m", TRAFFIC, 0.05),
    ("platform:retry_budget_exhausted:ratio_rate5m", requests(s200=9), 0.0),
    ("platform:rate_limit_blocked:ratio_rate5m", TRAFFIC, 0.25),
    ("platform:rate_limit_blocked:ratio_rate5m", gate(9, 0)[:1], 0.0),
    ("platform:deadline_exceeded:ratio_rate5m", requests(s200=15, deadline_exceeded=5), 0.25),
    ("platform:deadline_exceeded:ratio_rate5m", requests(s200=15), 0.0),
    ("platform:circuits_not_closed:sum", circuit("2x60"), 2.0),
    ("platform:circuits_not_closed:sum", circuit("0x60"), 0.0),
    ("platform:request_latency_seconds:p50_rate5m", TRAFFIC, 1.0),
    ("platform:request_latency_seconds:p95_rate5m", TRAFFIC, 3.25),
    ("platform:request_latency_seconds:p99_rate5m", TRAFFIC, 4.0),
]


BY_JOB = {"PlatformTelemetryErrors": {"where": "metrics"}, "PlatformLabelOverflow": {"label": "operation"}}


def as_case(name, given):
    """The series of a case by its name."""
    return [{**one, "series": one["series"].replace(CASE, name)} for one in given]


def query(expr, minute, **samples):
    """A query with all that it must find then: series by their values."""
    found = [{"labels": labels, "value": value} for labels, value in samples.items()]
    return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": found}


def labels_of(alert, name):
    of = {"job": name, **BY_JOB[alert.name]} if alert.name in BY_JOB else {"platform": name}
    return {**of, "severity": alert.severity}


def series_given():
    """Of all cases, each by its name."""
    for alert, (loud, silent) in CASES.items():
        for place, given in enumerate([*loud, *silent]):
            yield from as_case(f"{alert}-{place}", given)
    for place, (record, given, _) in enumerate(VALUES):
        yield from as_case(f"{record}-{place}", given)


def checks_of_alert(alert, called):
    """It fires when it has lasted, not before, and not where it must be silent."""
    loud, silent = CASES[alert.name]
    lasting = int(alert.lasting.removesuffix("m"))
    for place in range(len(loud) + len(silent)):
        labels = {"alertname": called, "alertstate": "firing", **labels_of(alert, f"{alert.name}-{place}")}
        firing = selector("ALERTS", **labels)
        yield query(firing, lasting + 20, **({firing: 1} if place < len(loud) else {}))
        if lasting:
            yield query(firing, lasting)


def checks_of_record(record, called):
    for place, (name, _, value) in enumerate(VALUES):
        if name == record:
            found = selector("", platform=f"{record}-{place}")
            yield query(f"round({called}{found}, 0.001)", 10, **{found: value})


def unit_tests(*checks):
    given = list(series_given())
    return {
        "interval": "1m",
        "input_series": given,
        "promql_expr_test": [one for some in checks for one in some],
    }


def as_sent(alert):
    """The alert with its annotations, as Prometheus sends it."""
    labels = labels_of(alert, "api")

    def filled(text):
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)

    expected = {
        "exp_labels": labels,
        "exp_annotations": {
            "summary": filled(alert.summary),
            "description": filled(alert.description),
            "runbook_url": f"{RUNBOOK}#{alert.anchor}",
        },
    }
    check = {"eval_time": "20m", "alertname": alert.name, "exp_alerts": [expected]}
    given = as_case("api", CASES[alert.name][0][0])
    return {"interval": "1m", "input_series": given, "alert_rule_test": [check]}


def promtool(*words):
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603, S607  # ours


@pytest.fixture
def wrong_in(prometheus_tools, tmp_path):
    """What promtool finds wrong in a rule file, by these tests."""

    def run(rules, *tests):
        (tmp_path / "rules.yml").write_text(rules)
        about = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
        (tmp_path / "tests.json").write_text(json.dumps(about))
        done = promtool("test", "rules", str(tmp_path / "tests.json"))
        found = done.stdout + done.stderr
        assert ("SUCCESS" in found) == (done.returncode == 0), found
        return "" if done.returncode == 0 else found

    return run


def test_every_rule_has_its_cases():
    assert set(CASES) == {alert.name for alert in ALERTS}
    assert {name for name, *_ in VALUES} == set(RECORDED)


def test_promtool_finds_nothing_wrong_with_the_rules(prometheus_tools, tmp_path):
    file = tmp_path / "aragora.rules.yml"
    assert main(["rules", "-o", str(file), "--runbook", RUNBOOK]) == 0
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(ALERTS) + len(RECORDED)} rules found" in done.stdout


def test_the_rules_tell_what_they_should(wrong_in):
    alerts = (checks_of_alert(alert, alert.name) for alert in ALERTS)
    records = (checks_of_record(record, record) for record in RECORDED)
    assert wrong_in(_rules.text(RUNBOOK), unit_tests(*alerts, *records)) == ""


def test_an_alert_says_what_it_is_about_and_where_the_runbook_tells_more(wrong_in):
    assert wrong_in(_rules.text(RUNBOOK), *map(as_sent, ALERTS)) == ""


def with_threshold(place, factor, alert):
    """With another value in the place of its first or second threshold, if it has one."""
    numbers = list(re.finditer(r"(?<=[<>] )\d+\.\d+", alert.expr))
    if place >= len(numbers):
        return alert
    start, end = numbers[place].span()
    return replace(
        alert, expr=f"{alert.expr[:start]}{float(alert.expr[start:end]) * factor}{alert.expr[end:]}"
    )


MISTAKES = (
    partial(with_threshold, 0, 1.4),
    partial(with_threshold, 0, 0.7),
    partial(with_threshold, 1, 1.4),
    partial(with_threshold, 1, 0.7),
    lambda alert: replace(alert, expr=f"({alert.expr}) unless on () vector(1)"),
    lambda alert: replace(alert, expr=re.sub(r"(?m)> 0$", ">= 0", alert.expr)),
    lambda alert: replace(alert, lasting="40m"),
    lambda alert: replace(alert, lasting="0m"),
)
MISRECORDED = (lambda expr: f"({expr}) + 1", lambda expr: re.sub(r"or\n.*\n", "", expr))


def test_each_rule_broken_on_purpose_fails_them(wrong_in, monkeypatch):
    """All mistakes at once, each in a rule of its own name beside those that are right."""
    alerts, records, checks = [], {}, []
    for alert, (place, mistaken) in itertools.product(ALERTS, enumerate(MISTAKES)):
        if (broken := mistaken(alert)) != alert:
            alerts.append(replace(broken, name=f"{alert.name}_{place}"))
            checks.append(checks_of_alert(alert, alerts[-1].name))
    for (record, expr), (place, mistaken) in itertools.product(RECORDED.items(), enumerate(MISRECORDED)):
        if (broken := mistaken(expr)) != expr:
            records[f"{record}_{place}"] = broken
            checks.append(checks_of_record(record, f"{record}_{place}"))
    assert len(alerts) > 4 * len(ALERTS)
    monkeypatch.setattr(_rules, "ALERTS", tuple(alerts))
    monkeypatch.setattr(_rules, "RECORDED", RECORDED | records)
    wrong = wrong_in(_rules.text(RUNBOOK), unit_tests(*checks))
    assert set(re.findall(r'alertname=\\"(\w+)', wrong)) == {alert.name for alert in alerts}
    assert set(re.findall(r'expr: "round\(([\w:]+)', wrong)) == set(records)
