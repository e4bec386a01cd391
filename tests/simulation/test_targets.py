"""What this project promises in an outage: each target held, in runs short enough for every day.

`aragora-transport simulate --targets --seeds 10` holds it to the same in runs of full length.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from aragora_transport import Policy
from aragora_transport.simulation.targets import POLICIES, check, targets

SHORT = targets(partial=30.0, after=15.0)
ADVISED = Policy.recommended()
LUCK = 3 * 0.75 / math.sqrt(30 * 50)  # three standard errors of the mean of sends per call in runs so short


def label(target):
    return f"{target.policy}: {target.what}"


def of_one_run(targets):
    """Those that the same runs decide stand together."""
    found = {}
    for target in targets:
        found.setdefault((target.policy, target.scenario), []).append(target)
    return found.values()


@pytest.mark.parametrize("wanted", of_one_run(SHORT), ids=lambda wanted: label(wanted[0]))
def test_a_target_is_held(wanted):
    lucky = [replace(target, limit=target.limit + LUCK) if target.mean else target for target in wanted]
    assert [(verdict.target.what, verdict.value) for verdict in check(lucky, [1]) if not verdict.held] == []


def circuit(**changes):
    return replace(ADVISED, breaker=replace(ADVISED.breaker, **changes))


WORSE = {
    "counts five failures": (circuit(failure_rate=0.0), {"30 % fail: served", "50 % fail: served"}),
    "opens at half": (circuit(failure_rate=0.5), {"50 % fail: served"}),
    "probes without a pause": (circuit(cooldown=0.05), {"all fail: sends per call"}),
    "looks again after seven seconds": (circuit(cooldown=7.0), {"all fail: all served again after"}),
    "has neither circuit nor budget": (  # so the budget is what holds where there is no circuit
        replace(ADVISED, breaker=None, retry=replace(ADVISED.retry, budget=None, max_attempts=2)),
        {"all fail, no circuit: sends per call", "weak for 20 s: normal after its queue drained"},
    ),
}


@pytest.mark.parametrize("worse", WORSE)
def test_a_worse_policy_misses_what_the_advised_one_holds(worse):
    policy, missed = WORSE[worse]
    wanted = [target for target in SHORT if target.policy != "guide" and target.what in missed]
    found = check(wanted, [1], policies={target.policy: lambda: policy for target in wanted})
    assert {verdict.target.what for verdict in found if not verdict.held} == missed


def test_the_guides_circuit_is_what_holds_at_thirty_percent():
    (wanted,) = (target for target in SHORT if target.policy == "guide")
    counts = replace(Policy(), breaker=replace(Policy().breaker, failure_rate=0.0))
    assert not next(check([wanted], [1], policies={"guide": lambda: counts})).held


def test_a_number_that_there_never_is_misses_its_target():
    (wanted,) = (target for target in SHORT if target.what == "all fail: all served again after")
    (found,) = check([wanted], [1], policies={"recommended": lambda: circuit(cooldown=100.0)})
    assert (found.value, found.held) == (None, False)


def test_every_policy_of_a_target_is_known():
    assert {target.policy for target in targets()} == set(POLICIES)
