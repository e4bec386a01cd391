"""The recording and alert rules for Prometheus, as values; `text` writes them as a rule file.

Counters of ours appear with their first count. So a share whose upper part has no series yet is made 0,
not nothing, by `or 0 * ...`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from textwrap import indent

WINDOW = "5m"  # what a rate is taken over: at least four scrapes of the usual 15 s or 60 s
# What its caller was not given: no answer, or one that tells of the platform's trouble. Answers that tell
# of the caller's own, such as 404, are none of these.
FAILED = 'status=~"429|5..|[a-z_]+", status!="cancelled"'


def rate(family: str, matching: str = "", *, by: str = "platform", window: str = WINDOW) -> str:
    """How much a counter grows in a second."""
    selector = f"{family}{{{matching}}}" if matching else family
    return f"sum by ({by}) (rate({selector}[{window}]))"


def share(part: str, whole: str) -> str:
    """`part` of `whole`, where a part without a series is 0."""
    return f"(\n  {part}\n  or\n  0 * {whole}\n)\n/\n{whole}"


_REQUESTS = rate("platform_requests_total")
_LATENCY = rate("platform_request_latency_seconds_bucket", by="platform, le")

RECORDED = {
    "platform:requests:rate5m": _REQUESTS,
    "platform:attempts:rate5m": rate("platform_attempts_total"),
    "platform:requests_failed:ratio_rate5m": share(rate("platform_requests_total", FAILED), _REQUESTS),
    "platform:attempts_per_request:ratio_rate5m": share(rate("platform_attempts_total"), _REQUESTS),
    "platform:retries_useful:ratio_rate5m": share(
        rate("platform_retry_success_total"), rate("platform_retry_total")
    ),
    "platform:retry_budget_exhausted:ratio_rate5m": share(
        rate("platform_retry_refused_total", 'reason="budget"'), _REQUESTS
    ),
    "platform:rate_limit_blocked:ratio_rate5m": share(
        rate("platform_rate_limit_total", 'result="blocked"'), rate("platform_rate_limit_total")
    ),
    "platform:deadline_exceeded:ratio_rate5m": share(
        rate("platform_requests_total", 'status="deadline_exceeded"'), _REQUESTS
    ),
    "platform:circuits_not_closed:sum": (
        'sum by (platform) (platform_circuit_breaker_circuits{state!="closed"})'
    ),
    **{
        f"platform:request_latency_seconds:p{percent}_rate5m": f"histogram_quantile(0.{percent}, {_LATENCY})"
        for percent in (50, 95, 99)
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """An alert; `lasting` is how long `expr` must hold, `summary` and `description` are its annotations."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """Its heading in the runbook."""
        return self.name.lower()


def _new_or_growing(family: str, by: str) -> str:
    """Counts in the last 15 minutes, the very first one included, which no rate sees."""
    return (
        f"sum by ({by}) (increase({family}[15m])) > 0\nor\n"
        f"sum by ({by}) ({family} unless {family} offset 15m) > 0"
    )


ALERTS = (
    Alert(
        name="PlatformCallsFailing",
        expr="platform:requests_failed:ratio_rate5m > 0.05",
        lasting="5m",
        severity="warning",
        summary="Calls to {{ $labels.platform }} fail",
        description="More than 1 of 20 calls ended in a failure, after all their retries, for five minutes.",
    ),
    Alert(
        name="PlatformDown",
        expr="platform:requests_failed:ratio_rate5m > 0.5",
        lasting="2m",
        severity="critical",
        summary="Most calls to {{ $labels.platform }} fail",
        description="More than half of all calls ended in a failure, after all their retries.",
    ),
    Alert(
        name="PlatformCircuitOpen",
        expr="platform:circuits_not_closed:sum > 0",
        lasting="2m",
        severity="critical",
        summary="A circuit of {{ $labels.platform }} stays open",
        description="For two minutes a circuit was open or half-open: calls are refused without being sent.",
    ),
    Alert(
        name="PlatformCircuitFlapping",
        expr=(
            "sum by (platform) (increase(platform_circuit_breaker_transitions_total"
            '{from_state="closed", to_state="open"}[15m])) > 4.5'
        ),
        lasting="0m",
        severity="warning",
        summary="A circuit of {{ $labels.platform }} opens again and again",
        description="Circuits went from closed to open about five times in a quarter of an hour, or more.",
    ),
    Alert(
        name="PlatformLoadAmplified",
        expr="platform:attempts_per_request:ratio_rate5m > 1.5",
        lasting="10m",
        severity="warning",
        summary="Retries multiply the load on {{ $labels.platform }}",
        description="For ten minutes there were more than 1.5 sends for each call.",
    ),
    Alert(
        name="PlatformRetriesUseless",
        expr=(
            "platform:retries_useful:ratio_rate5m < 0.1\nand\n"
            "platform:attempts_per_request:ratio_rate5m > 1.1"
        ),
        lasting="10m",
        severity="warning",
        summary="Retries to {{ $labels.platform }} save next to nothing",
        description="More than 1 of 11 sends is a retry, and fewer than 1 of 10 retries saved its call.",
    ),
    Alert(
        name="PlatformRetryBudgetExhausted",
        expr="platform:retry_budget_exhausted:ratio_rate5m > 0.01",
        lasting="5m",
        severity="warning",
        summary="The retry budget of {{ $labels.platform }} is spent",
        description="More than 1 of 100 calls ended in a failure that was not retried for want of a budget.",
    ),
    Alert(
        name="PlatformRateLimited",
        expr="platform:rate_limit_blocked:ratio_rate5m > 0.1",
        lasting="10m",
        severity="warning",
        summary="{{ $labels.platform }} limits our rate",
        description="For ten minutes gates held or refused more than 1 of 10 attempts.",
    ),
    Alert(
        name="PlatformDeadlinesMissed",
        expr="platform:deadline_exceeded:ratio_rate5m > 0.01",
        lasting="5m",
        severity="warning",
        summary="Calls to {{ $labels.platform }} run out of time",
        description="More than 1 of 100 calls reached their total time limit before an answer was there.",
    ),
    Alert(
        name="PlatformTelemetryErrors",
        expr=_new_or_growing("platform_telemetry_errors_total", "job, where"),
        lasting="0m",
        severity="warning",
        summary="The telemetry of {{ $labels.job }} has gaps",
        description="Something could not be recorded in {{ $labels.where }}. Calls are not affected.",
    ),
    Alert(
        name="PlatformLabelOverflow",
        expr=_new_or_growing("platform_label_overflow_total", "job, label"),
        lasting="0m",
        severity="info",
        summary="Names in {{ $labels.job }} became 'other'",
        description="There are too many values of the label {{ $labels.label }}, or some that are no name.",
    ),
)


def text(runbook: str) -> str:
    """The rule file; `runbook` is the address of the page that says what to do."""
    recorded = [f"- record: {name}\n  expr: |-\n{indent(expr, '    ')}\n" for name, expr in RECORDED.items()]
    return "\n".join(
        (
            "# Prometheus rules for the metrics of aragora_transport.\ngroups:",
            _group("aragora_transport.recording", recorded),
            _group("aragora_transport.alerts", [_alert(alert, runbook) for alert in ALERTS]),
        )
    )


def _group(name: str, rules: list[str]) -> str:
    return f"  - name: {name}\n    rules:\n" + indent("".join(rules), "      ")


def _alert(alert: Alert, runbook: str) -> str:
    quoted = json.dumps  # a JSON string is one of YAML's as well
    return (
        f"- alert: {alert.name}\n"
        f"  expr: |-\n{indent(alert.expr, '    ')}\n"
        f"  for: {alert.lasting}\n"
        f"  labels:\n    severity: {alert.severity}\n"
        "  annotations:\n"
        f"    summary: {quoted(alert.summary)}\n"
        f"    description: {quoted(alert.description)}\n"
        f"    runbook_url: {quoted(f'{runbook}#{alert.anchor}')}\n"
    )
