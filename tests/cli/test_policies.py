"""Policies as a command line names them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aragora_transport import Policy, RetryBudget
from aragora_transport.cli._policies import parse_policy

ADVISED = Policy.recommended()


def test_the_two_ready_ones_go_by_their_names():
    assert parse_policy("guide") == Policy()
    assert parse_policy("recommended") == ADVISED


def test_changes_follow_the_name():
    found = parse_policy(
        "recommended,breaker.cooldown=5,retry.jitter=decorrelated,retry.budget.cap=7.5,log=false"
    )
    assert found.breaker == replace(ADVISED.breaker, cooldown=5)
    assert found.retry == replace(ADVISED.retry, jitter="decorrelated", budget=RetryBudget(cap=7.5))
    assert not found.log


def test_off_removes_a_layer_a_budget_or_a_limit():
    found = parse_policy("recommended,breaker=off,retry.budget=off,timeout.total=false")
    assert found.breaker is None
    assert found.retry.budget is None
    assert found.timeout == replace(ADVISED.timeout, total=None)


def test_a_layer_that_was_off_is_on_again_when_one_of_its_values_is_set():
    assert parse_policy("guide,retry=off,retry.max_attempts=2").retry.max_attempts == 2


def test_a_file_begins_with_the_guide_or_with_its_base(tmp_path):
    file = tmp_path / "ours.toml"
    file.write_text(
        '[retry]\nstatuses = [503, 429]\n[retry.budget]\nper_second = 2\n[breaker]\nkey = "host"\n'
    )
    found = parse_policy(str(file))
    assert found.retry == replace(
        Policy().retry, statuses=frozenset({429, 503}), budget=RetryBudget(per_second=2)
    )
    assert found.breaker == replace(Policy().breaker, key="host")
    file.write_text('base = "recommended"\nrate_limit = false\n')
    assert parse_policy(f"{file},retry.max_attempts=2") == replace(
        ADVISED, rate_limit=None, retry=replace(ADVISED.retry, max_attempts=2)
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("advised", "advised: it is neither guide nor recommended, nor a file that can be read"),
        ("guide,retry.attempts=3", "RetryPolicy has no 'attempts'; it has max_attempts, base_delay"),
        ("guide,jitter=full", "Policy has no 'jitter'; it has timeout, retry, breaker"),
        ("guide,retry.max_attempts.most=3", "max_attempts is one value; it has no 'most'"),
        ("guide,retry.max_attempts=0", "must be a whole number of at least 1"),
        ("guide,retry.max_attempts=many", "must be a whole number of at least 1"),
        ("guide,retry.wait=5", "wait must be a tenacity wait strategy or None"),
        ("guide,log=perhaps", "log must be True or False"),
        ("guide,retry=3", "retry must be a RetryPolicy or None"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(text, complaint):
    with pytest.raises(ValueError, match=complaint) as refused:
        parse_policy(text)
    assert str(refused.value).startswith(f"{text}: ")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("base = 7\n", "base = 7: it must be one of guide, recommended"),
        ("retry = \n", "Invalid value"),
        ("[retri]\nmax_attempts = 3\n", "Policy has no 'retri'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_too(lines, complaint, tmp_path):
    file = tmp_path / "ours.toml"
    file.write_text(lines)
    with pytest.raises(ValueError, match=complaint):
        parse_policy(str(file))
