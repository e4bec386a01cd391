"""The metric families: their names, help texts, labels and buckets. All times are seconds."""

from __future__ import annotations

from typing import Literal

_Mode = Literal["liveall", "livesum"]

CALL_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds
WAIT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 300.0)  # seconds
MAX_NAMES = 100  # of a platform's operations, and of its error codes; more become "other"
STATES = {"closed": 0, "open": 1, "half-open": 2}  # the guide's codes

_OF_CALL = ("platform", "operation")
COUNTERS = {
    "platform_requests_total": ("Calls as their callers saw them.", (*_OF_CALL, "status")),
    "platform_attempts_total": ("Sends, by what came back.", (*_OF_CALL, "status")),
    "platform_retry_total": ("Sends after the first one of a call.", _OF_CALL),
    "platform_retry_success_total": ("Calls that a retry saved.", _OF_CALL),
    "platform_retry_refused_total": ("Failures that were final, by reason.", ("platform", "reason")),
    "platform_rate_limit_total": ("Attempts at the gate, allowed or blocked.", ("platform", "result")),
    "platform_circuit_breaker_transitions_total": (
        "Circuits that went from one state to another.",
        ("platform", "from_state", "to_state"),
    ),
    "platform_deadline_exceeded_total": ("Limits of ours that ran out.", ("platform", "limit")),
    "platform_body_failures_total": ("Bodies that died or stalled.", ("platform", "error")),
    "platform_api_errors_total": ("Failures inside of answers, by code.", ("platform", "code")),
    "platform_label_overflow_total": ("Label values that became 'other'.", ("label",)),
    "platform_telemetry_errors_total": ("Failures to record something.", ("where",)),
}
GAUGES: dict[
    str, tuple[str, tuple[str, ...], _Mode]
] = {  # the last value: how several processes' gauges become one
    "platform_circuit_breaker_state": (
        "The worst circuit of the platform: 0 closed, 1 open, 2 half-open.",
        ("platform",),
        "liveall",  # one series per process: no sum or maximum of state codes means anything
    ),
    "platform_circuit_breaker_circuits": (
        "How many circuits are in a state.",
        ("platform", "state"),
        "livesum",
    ),
    "platform_requests_in_flight": ("Calls under way, bodies included.", ("platform",), "livesum"),
}
HISTOGRAMS = {
    "platform_request_latency_seconds": (
        "From the beginning of a call to the end of its body.",
        _OF_CALL,
        CALL_BUCKETS,
    ),
    "platform_attempt_latency_seconds": (
        "From the beginning of a send to what came of it; of a call's last one to the end of its body.",
        _OF_CALL,
        CALL_BUCKETS,
    ),
    "platform_retry_delay_seconds": (
        "Waits before another send, as planned.",
        ("platform", "source"),
        WAIT_BUCKETS,
    ),
    "platform_rate_limit_wait_seconds": (
        "Time that attempts were held at the gate.",
        ("platform",),
        WAIT_BUCKETS,
    ),
}
