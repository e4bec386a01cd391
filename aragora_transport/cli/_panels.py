"""What the Grafana dashboard shows: rows of panels, each with its queries.

The queries go by the metrics themselves, so that it works without the rules.
"""

from __future__ import annotations

from dataclasses import dataclass

from aragora_transport.cli._rules import FAILED

_OF_CALLS = 'platform=~"$platform", operation=~"$operation"'
OF_PLATFORM = 'platform=~"$platform"'


def _rate(family: str, matching: str, by: str = "platform") -> str:
    return f"sum by ({by}) (rate({family}{{{matching}}}[$__rate_interval]))"


def _or_zero(part: str, whole: str) -> str:
    """Counters of ours appear with their first count: until then 0 is meant."""
    return f"({part} or 0 * {whole})"


_CALLS = _rate("platform_requests_total", _OF_CALLS)
_SENDS = _rate("platform_attempts_total", _OF_CALLS)
_FAILED = _or_zero(_rate("platform_requests_total", f"{_OF_CALLS}, {FAILED}"), _CALLS)
_RETRIES = _rate("platform_retry_total", _OF_CALLS)


def _new(family: str, by: str) -> str:
    return f"sum by ({by}) (increase({family}[$__range])) or vector(0)"


def _quantiles(family: str, matching: str, *percents: int) -> tuple[tuple[str, str], ...]:
    buckets = _rate(f"{family}_bucket", matching, by="platform, le")
    return tuple((f"histogram_quantile(0.{p}, {buckets})", f"{{{{platform}}}} p{p}") for p in percents)


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One picture. `queries`: each with the legend of its lines. `unit` is Grafana's name for it."""

    title: str
    tells: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    bad: float | None = None  # from here on it is shown in red
    states: dict[str, tuple[str, str]] | None = None  # the word and the colour of a value


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel(
            title="Calls",
            tells="Calls a second, as their callers saw them.",
            queries=((f"sum({_CALLS})", "calls"),),
            unit="reqps",
            kind="stat",
        ),
        Panel(
            title="Failed calls",
            tells="The share of calls that ended in a failure, after all their retries.",
            queries=((f"sum({_FAILED}) / sum({_CALLS})", "failed"),),
            unit="percentunit",
            kind="stat",
            bad=0.05,
        ),
        Panel(
            title="Sends for each call",
            tells="1 is a call without a retry; below 1, circuits or gates refuse.",
            queries=((f"sum({_or_zero(_SENDS, _CALLS)}) / sum({_CALLS})", "sends"),),
            kind="stat",
            bad=1.5,
        ),
        Panel(
            title="Circuits not closed",
            tells="Circuits that are open or half-open.",
            queries=(
                (f'sum(platform_circuit_breaker_circuits{{{OF_PLATFORM}, state!="closed"}})', "circuits"),
            ),
            kind="stat",
            bad=1,
        ),
    ),
    "Calls": (
        Panel(
            title="Calls by outcome",
            tells="The status of the answer, or why there was none.",
            queries=((_rate("platform_requests_total", _OF_CALLS, by="status"), "{{status}}"),),
            unit="reqps",
        ),
        Panel(
            title="Failed calls by platform",
            tells="The share of calls that ended in a failure, after all their retries.",
            queries=((f"{_FAILED} / {_CALLS}", "{{platform}}"),),
            unit="percentunit",
            bad=0.05,
        ),
        Panel(
            title="Latency of calls",
            tells="To the end of the body, with all waits. The median, and what 1 of 20 and 1 of 100 exceed.",
            queries=_quantiles("platform_request_latency_seconds", _OF_CALLS, 50, 95, 99),
            unit="s",
        ),
        Panel(
            title="Calls in flight",
            tells="Calls under way, bodies included.",
            queries=((f"sum by (platform) (platform_requests_in_flight{{{OF_PLATFORM}}})", "{{platform}}"),),
        ),
    ),
    "Attempts": (
        Panel(
            title="Sends by outcome",
            tells="What the platform was sent and what came back: retries are in it, refused calls are not.",
            queries=((_rate("platform_attempts_total", _OF_CALLS, by="status"), "{{status}}"),),
            unit="reqps",
        ),
        Panel(
            title="Sends for each call, by platform",
            tells="How much retries multiply the load.",
            queries=((f"{_or_zero(_SENDS, _CALLS)} / {_CALLS}", "{{platform}}"),),
            bad=1.5,
        ),
        Panel(
            title="Latency of sends",
            tells="Without our waits: how quick the platform is. The median, and what 1 of 20 exceeds.",
            queries=_quantiles("platform_attempt_latency_seconds", _OF_CALLS, 50, 95),
            unit="s",
        ),
    ),
    "Retries": (
        Panel(
            title="Retries, and calls that they saved",
            tells="Retries that save nothing are load without a use.",
            queries=(
                (_RETRIES, "{{platform}} retries"),
                (_or_zero(_rate("platform_retry_success_total", _OF_CALLS), _RETRIES), "{{platform}} saved"),
            ),
            unit="reqps",
        ),
        Panel(
            title="Failures that were not retried",
            tells="By reason; 'attempts' is a call that had all it may have, 'budget' a platform that had.",
            queries=((_rate("platform_retry_refused_total", OF_PLATFORM, by="reason"), "{{reason}}"),),
            unit="reqps",
        ),
        Panel(
            title="Waits before retries",
            tells="The median, and what 1 of 20 exceeds.",
            queries=_quantiles("platform_retry_delay_seconds", OF_PLATFORM, 50, 95),
            unit="s",
        ),
    ),
    "Circuits": (
        Panel(
            title="The worst circuit of each platform",
            tells="Open: nothing is sent. Half-open: a probe finds out whether the platform is back.",
            queries=(
                (f"max by (platform) (platform_circuit_breaker_state{{{OF_PLATFORM}}})", "{{platform}}"),
            ),
            kind="state-timeline",
            states={"0": ("closed", "green"), "1": ("open", "red"), "2": ("half-open", "yellow")},
        ),
        Panel(
            title="Circuits by state",
            tells="How many there are of each kind, over all processes.",
            queries=((f"sum by (state) (platform_circuit_breaker_circuits{{{OF_PLATFORM}}})", "{{state}}"),),
        ),
        Panel(
            title="Circuits that changed",
            tells="A second, by the states that they went from and to.",
            queries=(
                (
                    _rate(
                        "platform_circuit_breaker_transitions_total", OF_PLATFORM, by="from_state, to_state"
                    ),
                    "{{from_state}} to {{to_state}}",
                ),
            ),
        ),
    ),
    "Limits": (
        Panel(
            title="Attempts at the gates",
            tells="Allowed at once, or blocked: held for a rate limit, or refused.",
            queries=(
                (
                    _rate("platform_rate_limit_total", OF_PLATFORM, by="platform, result"),
                    "{{platform}} {{result}}",
                ),
            ),
            unit="reqps",
        ),
        Panel(
            title="Waits at the gates",
            tells="The median, and what 1 of 20 exceeds.",
            queries=_quantiles("platform_rate_limit_wait_seconds", OF_PLATFORM, 50, 95),
            unit="s",
        ),
        Panel(
            title="Time limits that ran out",
            tells="By limit: of one attempt, of the whole call, or of a body's silence.",
            queries=((_rate("platform_deadline_exceeded_total", OF_PLATFORM, by="limit"), "{{limit}}"),),
            unit="reqps",
        ),
    ),
    "What failed inside of answers": (
        Panel(
            title="Bodies that died or stalled",
            tells="After good headers; by error.",
            queries=(
                (
                    _rate("platform_body_failures_total", OF_PLATFORM, by="platform, error"),
                    "{{platform}} {{error}}",
                ),
            ),
            unit="reqps",
        ),
        Panel(
            title="Failures by the platform's own code",
            tells="Inside of answers whose status told of none.",
            queries=(
                (
                    _rate("platform_api_errors_total", OF_PLATFORM, by="platform, code"),
                    "{{platform}} {{code}}",
                ),
            ),
            unit="reqps",
        ),
    ),
    "Telemetry": (
        Panel(
            title="Failures to record something",
            tells="In the time shown. Calls are not affected.",
            queries=((_new("platform_telemetry_errors_total", "where"), "{{where}}"),),
            kind="stat",
            bad=1,
        ),
        Panel(
            title="Label values that became 'other'",
            tells="In the time shown. Too many operations, or names that hold ids.",
            queries=((_new("platform_label_overflow_total", "label"), "{{label}}"),),
            kind="stat",
            bad=1,
        ),
    ),
}
