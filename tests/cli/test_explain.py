"""The command that says what a policy does."""

from __future__ import annotations

import json
import re

import pytest

from aragora_transport import Policy, RetryPolicy
from aragora_transport.cli import main
from aragora_transport.cli._explain_text import waits


def said(capsys, *options):
    assert main(["explain", *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def explained(capsys, *options):
    return json.loads(said(capsys, *options, "--json"))


def fate(found, outcome):
    row = next(row for row in found["sent_again"] if row["outcome"] == outcome)
    return [(row[kind]["again"], row[kind]["reason"]) for kind in ("idempotent", "unsafe")]


def test_the_guide_in_lines(capsys):
    out = said(capsys)
    assert out.startswith("my-api: plain HTTP; policy guide\n")
    assert "at most 3 sends, at most 273 s to its headers" in out
    assert "wait before attempt 2: 1 to 1.1 s" in out
    assert "wait before attempt 3: 2 to 2.2 s" in out
    assert re.search(r"^  429, 500, 502, 503, 504, .*yes +yes$", out, re.MULTILINE)
    assert "no: it may have been carried out already" in out
    assert "DeadlineTransport   total off" in out
    assert "*" not in out.replace("(* is", "")
    assert max(map(len, out.splitlines())) <= 80


def test_what_is_not_the_guides_is_marked(capsys):
    out = said(capsys, "slack", "--policy", "recommended")
    assert "its profile knows what its answers mean, its rate-limit buckets" in out
    for marked in ("total* 60", "max_attempts* 4", "jitter* full", "cooldown* 0.6", "min_attempts* 15"):
        assert marked in " ".join(out.split())
    assert "failure_threshold 5" in out
    assert "wait before attempt 4: 0 to 4 s" in out


def test_json_has_the_values_the_waits_and_the_worst_case(capsys):
    found = explained(capsys, "telegram", "--policy", "recommended,breaker=off")
    assert (found["platform"], found["profile"], found["policy"]) == (
        *("telegram", "telegram", "recommended,breaker=off"),
    )
    assert "BreakerTransport" not in {layer["layer"] for layer in found["layers"]}
    assert found["waits"] == [
        {"attempt": 2, "least": 0.0, "most": 1.0},
        {"attempt": 3, "least": 0.0, "most": 2.0},
        {"attempt": 4, "least": 0.0, "most": 4.0},
    ]
    assert found["told_waits"] == {"kept_up_to": 60.0}
    assert (found["worst_case_sends"], found["worst_case_seconds"]) == (4, 60.0)


AGAIN, UNSAFE = (True, None), (False, "unsafe_method")


@pytest.mark.parametrize(
    ("outcome", "by_statuses", "unprocessed", "always"),
    [
        ("429", [AGAIN, AGAIN], [AGAIN, AGAIN], [AGAIN, AGAIN]),
        ("500", [AGAIN, AGAIN], [AGAIN, UNSAFE], [AGAIN, AGAIN]),
        ("404", [(False, None)] * 2, [(False, None)] * 2, [(False, None)] * 2),
        ("no connection", [AGAIN, AGAIN], [AGAIN, AGAIN], [AGAIN, AGAIN]),
        ("no answer in time", [AGAIN, UNSAFE], [AGAIN, UNSAFE], [AGAIN, AGAIN]),
        ("certificate not trusted", [(False, None)] * 2, [(False, None)] * 2, [(False, None)] * 2),
        ("503 with Retry-After: 3600", *[[(False, "retry_after_too_long")] * 2] * 3),
    ],
)
def test_what_is_sent_again_is_what_the_layers_do(outcome, by_statuses, unprocessed, always, capsys):
    for mode, expected in (("statuses", by_statuses), ("unprocessed", unprocessed), ("always", always)):
        assert fate(explained(capsys, "--policy", f"guide,retry.resend_unsafe={mode}"), outcome) == expected


def test_a_profile_changes_what_is_sent_again(capsys):
    assert fate(explained(capsys, "teams"), "412")[0] == AGAIN
    assert fate(explained(capsys), "412")[0] == (False, None)


def test_a_policy_without_retries_or_limits_is_explained_too(capsys):
    out = said(capsys, "--policy", "guide,retry=off,timeout.attempt=off")
    assert "at most 1 send, nothing bounds its time" in out
    assert "no: the policy makes one attempt" in out
    assert "wait before" not in out
    assert "attempt* off" in out


def test_the_waits_of_each_jitter_and_of_a_strategy_of_ones_own():
    found = waits(RetryPolicy(jitter="decorrelated", base_delay=0.5, max_delay=8.0))
    assert [(wait["least"], wait["most"]) for wait in found] == [(0.5, 8.0), (0.5, 8.0)]
    own = RetryPolicy(wait=lambda _: 1.0)
    assert [(wait["least"], wait["most"]) for wait in waits(own)] == [(None, None), (None, None)]


def test_a_strategy_of_ones_own_is_named_in_lines(capsys, monkeypatch):
    own = Policy(retry=RetryPolicy(wait=lambda _: 1.0))
    monkeypatch.setattr("aragora_transport.cli._policies.parse_policy", lambda _: own)
    assert "wait before attempt 2: by your own strategy" in said(capsys)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ["--policy", "guide,retry.max_attempts=0"],
            "argument --policy: guide,retry.max_attempts=0: RetryPolicy",
        ),
        (["--policy", "none"], "argument --policy: none: it is neither guide nor recommended"),
        ([" "], "argument PLATFORM: it must be a name"),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(options, complaint, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["explain", *options])
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err
