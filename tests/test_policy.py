from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aragora_transport import (
    BreakerPolicy,
    Policy,
    RateLimitPolicy,
    RetryBudget,
    RetryPolicy,
    TimeoutPolicy,
)

VALUES = (TimeoutPolicy, RetryBudget, RetryPolicy, BreakerPolicy, RateLimitPolicy, Policy)

# Every field that is a number of seconds, a share or a count, with whether None is one of its values.
SECONDS = {
    TimeoutPolicy: {"attempt": True, "total": True, "body_idle": True},
    RetryBudget: {"per_success": False, "per_second": False, "cap": False},
    RetryPolicy: {"base_delay": False, "max_delay": False, "max_retry_after": False},
    BreakerPolicy: {
        "cooldown": False,
        "failure_rate": False,
        "window": False,
        "probe_lease": False,
        "cooldown_jitter": False,
        "max_cooldown": True,
        "max_told_open": False,
        "slow_call": True,
    },
    RateLimitPolicy: {"rate": True, "per": False},
}
COUNTS = {
    RetryPolicy: ("max_attempts",),
    BreakerPolicy: (
        "failure_threshold",
        "half_open_probes",
        "success_threshold",
        "max_keys",
        "min_attempts",
    ),
    RateLimitPolicy: ("max_waiters", "max_keys", "max_in_flight"),
}
NUMBERS = [(kind, name) for kind, names in SECONDS.items() for name in names]
WHOLE = [(kind, name) for kind, names in COUNTS.items() for name in names]


def refusal(kind, **values):
    """The message by which a value refuses an argument."""
    with pytest.raises(ValueError, match=kind.__name__) as caught:
        kind(**values)
    return str(caught.value)


def test_the_defaults_are_the_guides_numbers():
    assert dataclasses.asdict(Policy()) == {
        "timeout": {"attempt": 30.0, "total": None, "body_idle": 30.0},
        "retry": {
            "max_attempts": 3,
            "base_delay": 1.0,
            "max_delay": 30.0,
            "jitter": "guide",
            "statuses": {429, 500, 502, 503, 504},
            "max_retry_after": 60.0,
            "resend_unsafe": "statuses",
            "budget": {"per_success": 1.0, "per_second": 1.0, "cap": 100.0},
            "wait": None,
        },
        "breaker": {
            "failure_threshold": 5,
            "cooldown": 60.0,
            "failure_rate": 0.5,
            "window": 10.0,
            "min_attempts": None,
            "half_open_probes": 1,
            "success_threshold": 1,
            "probe_lease": 10.0,
            "cooldown_jitter": 0.0,
            "max_cooldown": None,
            "max_told_open": 300.0,
            "slow_call": None,
            "key": "platform",
            "max_keys": 1000,
        },
        "rate_limit": {
            "rate": None,
            "per": 1.0,
            "published": False,
            "max_in_flight": None,
            "max_waiters": 1000,
            "max_keys": 1000,
        },
        "metrics": True,
        "log": True,
    }


def test_the_recommended_policy_is_what_the_docs_say_of_it():
    policy = Policy.recommended()
    assert (policy.retry.jitter, policy.retry.max_attempts) == ("full", 4)
    assert policy.timeout.total is not None
    assert policy.breaker.cooldown * (1 + policy.breaker.cooldown_jitter) <= 0.9
    assert (policy.breaker.failure_rate, policy.breaker.window) == (0.85, 0.6)
    assert policy.breaker.min_attempts == 15


@pytest.mark.parametrize("kind", VALUES)
def test_a_policy_is_a_frozen_value(kind):
    one, other = kind(), kind()
    assert one == other
    assert one is not other
    assert hash(one) == hash(other)
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one  # noqa: S301  # our own bytes
    name = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, name, getattr(one, name))


@pytest.mark.parametrize("kind", VALUES)
def test_a_policy_takes_keywords_only(kind):
    with pytest.raises(TypeError, match="positional argument"):
        kind(1)


@pytest.mark.parametrize("kind", VALUES)
def test_every_field_is_told_in_the_docstring(kind):
    missing = [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in kind.__doc__]
    assert missing == []


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize(
    "value", ["1", math.nan, math.inf, -math.inf, -0.001, True, 10**400, [1.0], 1j], ids=lambda v: repr(v)[:6]
)
def test_what_is_no_sane_number_is_refused_by_name(kind, name, value):
    message = refusal(kind, **{name: value})
    assert f"{kind.__name__}({name}=" in message
    assert f"{name} must be a finite number" in message
    assert len(message) < 300


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_none_is_a_number_only_where_it_switches_something_off(kind, name):
    if SECONDS[kind][name]:
        assert getattr(kind(**{name: None}), name) is None
    else:
        assert "must be a finite number" in refusal(kind, **{name: None})


@pytest.mark.parametrize(("kind", "name"), WHOLE, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("value", [-1, 1.0, 2.5, "3", True, math.nan])
def test_a_count_is_a_whole_number(kind, name, value):
    message = refusal(kind, **{name: value})
    assert f"{kind.__name__}({name}={value!r}): {name} must be a whole number of at least " in message


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (TimeoutPolicy, {"attempt": 0}, "attempt must be a finite number above 0, or None"),
        (RetryBudget, {"cap": 0.5}, "cap must be a finite number of at least 1"),
        (RetryPolicy, {"max_attempts": 0}, "max_attempts must be a whole number of at least 1"),
        (RetryPolicy, {"jitter": "none"}, "jitter must be one of guide, full, decorrelated"),
        (RetryPolicy, {"jitter": ["guide"]}, "jitter must be one of guide, full, decorrelated"),
        (RetryPolicy, {"resend_unsafe": True}, "must be one of statuses, unprocessed, always"),
        (RetryPolicy, {"statuses": 503}, "statuses must be a set of HTTP statuses"),
        (RetryPolicy, {"statuses": None}, "statuses must be a set of HTTP statuses"),
        (RetryPolicy, {"statuses": "503"}, "is not an HTTP status from 100 to 599"),
        (RetryPolicy, {"statuses": {503, 600}}, "600 is not an HTTP status from 100 to 599"),
        (RetryPolicy, {"wait": 5.0}, "wait must be a tenacity wait strategy or None"),
        (RetryPolicy, {"budget": 10}, "budget must be a RetryBudget or None"),
        (BreakerPolicy, {"key": "url"}, "key must be one of platform, host, operation"),
        (
            BreakerPolicy,
            {"failure_rate": 1.5},
            "failure_rate must be a finite number of at least 0 and at most 1",
        ),
        (BreakerPolicy, {"max_cooldown": 5.0}, "max_cooldown must be at least cooldown (60.0)"),
        (RateLimitPolicy, {"rate": 0}, "rate must be a finite number above 0, or None"),
        (RateLimitPolicy, {"published": 1}, "published must be True or False"),
        (Policy, {"retry": BreakerPolicy()}, "retry must be a RetryPolicy or None"),
        (Policy, {"timeout": 30.0}, "timeout must be a TimeoutPolicy or None"),
        (Policy, {"retry": False}, "retry must be a RetryPolicy or None"),
        (Policy, {"log": None}, "log must be True or False"),
        (Policy, {"metrics": 1}, "metrics must be True or False"),
    ],
)
def test_a_refusal_names_the_argument_the_value_and_what_is_wanted(kind, values, says):
    message = refusal(kind, **values)
    assert says in message
    assert message.startswith(f"{kind.__name__}({next(iter(values))}=")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (RetryPolicy, {"base_delay": 0, "max_delay": 0, "max_retry_after": 0}),
        (RetryBudget, {"per_success": 0, "per_second": 0, "cap": 1}),
        (BreakerPolicy, {"cooldown": 0, "failure_rate": 0, "cooldown_jitter": 0, "max_told_open": 0}),
        (BreakerPolicy, {"failure_rate": 1, "cooldown_jitter": 1, "max_cooldown": 60.0}),
        (RateLimitPolicy, {"max_waiters": 0, "max_in_flight": 1}),
    ],
)
def test_what_lies_on_the_border_is_allowed(kind, values):
    policy = kind(**values)
    assert {name: getattr(policy, name) for name in values} == values


def test_an_attempt_limit_that_the_total_never_lets_it_reach_is_refused():
    message = refusal(TimeoutPolicy, attempt=20.0, total=10.0)
    assert message == (
        "TimeoutPolicy(attempt=20.0, total=10.0): the attempt limit can never be reached; "
        "lower attempt or raise total"
    )


def test_a_total_below_the_default_attempt_limit_is_no_mistake():
    assert TimeoutPolicy(total=10.0).total == 10.0


def test_a_policy_field_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match="max_retries"):
        RetryPolicy(max_retries=3)


@given(
    st.sets(st.integers(100, 599)) | st.lists(st.integers(100, 599)) | st.frozensets(st.integers(100, 599))
)
def test_statuses_come_in_any_collection_and_are_kept_as_a_frozen_set(statuses):
    kept = RetryPolicy(statuses=statuses).statuses
    assert isinstance(kept, frozenset)
    assert kept == set(statuses)


@pytest.mark.parametrize("name", ["timeout", "retry", "breaker", "rate_limit"])
def test_none_takes_a_layer_out_and_leaves_the_rest(name):
    policy = dataclasses.replace(Policy(), **{name: None})
    assert getattr(policy, name) is None
    assert dataclasses.replace(policy, **{name: getattr(Policy(), name)}) == Policy()


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.text() | st.none())
def test_whatever_is_passed_as_a_limit_holds_or_is_refused_by_a_value_error(value):
    try:
        policy = TimeoutPolicy(total=value)
    except ValueError as error:
        assert "total must be a finite number above 0, or None" in str(error)  # noqa: PT017  # either way
    else:
        assert policy.total is None or 0 < policy.total < math.inf
