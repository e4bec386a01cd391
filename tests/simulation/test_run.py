"""Runs: what is counted, whose luck is whose, and that the same seed is the same run."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import pytest

from aragora_transport import Policy
from aragora_transport.simulation import Outage, Scenario, bare, numbers, ours, peers, simulate
from aragora_transport.simulation.numbers import median, worst

SHORT = Scenario(rate=40.0, seconds=14.0, outages=(Outage(start=4.0, seconds=6.0),))
ADVISED = ours("recommended", Policy.recommended())


def test_the_same_seed_is_the_same_run_and_another_one_is_not():
    one, again, other = (numbers(simulate(ADVISED, SHORT, seed)) for seed in (1, 1, 2))
    assert asdict(one) == asdict(again)
    assert asdict(one) != asdict(other)


def test_every_contender_meets_the_same_calls():
    runs = [simulate(contender, SHORT, 1) for contender in (bare(), ADVISED)]
    assert [call.at for call in runs[0].calls] == [call.at for call in runs[1].calls]


def test_bare_httpx_sends_each_call_once_and_fails_as_the_server_does():
    run = simulate(bare(), SHORT, 1)
    found = numbers(run)
    assert [phase.served for phase in found.phases.values()] == [1.0, 0.0, 1.0]
    assert found.sends_per_call == 1.0
    assert found.layers is None
    assert found.failures == {"503": found.phases["during"].calls}
    assert found.calls == len(run.server.sends) == sum(phase.calls for phase in found.phases.values())
    assert found.recovered_after == 0.0
    assert 0.025 <= found.phases["before"].p50 <= found.phases["before"].p99 <= 0.075


def test_what_the_layers_did_is_told_by_their_events():
    found = numbers(simulate(ADVISED, SHORT, 1))
    told = found.layers
    assert told["breaker"]["opened"] >= 5
    assert 5.0 <= told["breaker"]["open_seconds"] <= 7.0
    assert told["breaker"]["refused"] == found.failures["CircuitOpenError"]
    assert told["retry"]["retries"] >= 1
    assert set(told["retry"]["refused"]) == {"circuit_open"}
    assert found.phases["during"].sends_per_call < 0.3


def test_attempts_that_time_out_and_waits_at_gates_are_told_too():
    slow = replace(SHORT, server="slow", slow=8.0, client_timeout=None)
    hasty = replace(Policy(), timeout=replace(Policy().timeout, attempt=1.0))
    assert numbers(simulate(ours("hasty", hasty), slow, 1)).layers["timeout"]["timed_out"] >= 5
    limited = replace(SHORT, server="limited", capacity=30.0, severity=0.5, rate=20.0)
    one_waits = replace(Policy(), rate_limit=replace(Policy().rate_limit, max_waiters=5))
    gate = numbers(simulate(ours("guide", one_waits), limited, 1)).layers["rate_limit"]
    assert gate["waits"] > 0 < gate["refused"]
    assert gate["seconds"] > 0.0


def test_processes_share_the_calls_and_each_has_a_circuit_of_its_own():
    run = simulate(ADVISED, replace(SHORT, processes=4, rate=200.0), 1)
    assert len(run.deeds) == 4
    assert all(any(new == "open" for _, new in told.circuit) for told in run.deeds)


def test_a_read_timeout_ends_what_a_server_keeps_waiting():
    slow = replace(SHORT, server="slow", slow=7.0)
    found = numbers(simulate(bare(), slow, 1))
    assert set(found.failures) == {"ReadTimeout"}
    assert found.phases["during"].p99 == pytest.approx(5.0)
    assert numbers(simulate(bare(), replace(slow, client_timeout=None), 1)).failures == {}


def test_a_broken_body_is_a_failure_to_the_caller():
    found = numbers(simulate(bare(), replace(SHORT, server="bodies", severity=0.5, body=1.0), 1))
    assert set(found.failures) == {"ReadError"}
    assert 0.35 < found.phases["during"].served < 0.65
    assert found.phases["before"].p50 > 0.5


def test_what_is_not_as_usual_before_the_run_ends_has_not_recovered():
    assert numbers(simulate(ours("guide", Policy()), SHORT, 1)).recovered_after is None
    queue = replace(SHORT, server="queue", severity=0.9, capacity=60.0)
    found = numbers(simulate(bare(), queue, 1))
    assert found.drained_after > 4.0  # when nobody called any more
    assert (found.recovered_after, found.recovered_after_drain) == (None, None)


def test_a_run_without_an_outage_or_without_calls_has_numbers_too():
    calm = numbers(simulate(bare(), Scenario(seconds=5.0, outages=()), 1))
    assert (calm.recovered_after, calm.phases["during"].calls, calm.phases["during"].served) == (
        None,
        0,
        None,
    )
    nobody = numbers(simulate(bare(), Scenario(rate=0.0001, seconds=5.0, outages=()), 1))
    assert (nobody.calls, nobody.served, nobody.peak_load) == (0, None, 0)


def test_never_is_worse_than_any_number():
    assert (median([1.0, None, 2.0]), worst([1.0, None, 2.0], high=True)) == (2.0, None)
    assert (median([1.0, None, None]), worst([0.9, 1.0], high=False)) == (None, 0.9)


@pytest.mark.parametrize("name", peers.NAMES)
def test_another_library_meets_the_same_calls_and_the_same_seed_is_its_same_run(name):
    if name == "clientwright" and sys.version_info < (3, 12):
        with pytest.raises(LookupError, match="not installed; the extra `bench`"):
            peers.peer(name)
        return
    contender = peers.peer(name)
    assert contender.name in {one.name for one in peers.installed()}
    runs = [simulate(contender, SHORT, 1) for _ in range(2)]
    assert [call.at for call in runs[0].calls] == [call.at for call in simulate(bare(), SHORT, 1).calls]
    assert asdict(numbers(runs[0])) == asdict(numbers(runs[1]))
    assert numbers(runs[0]).phases["during"].sends_per_call != 1.0


def test_another_library_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LookupError, match="tenacity is not installed; the extra `bench`"):
        peers.peer("tenacity")
    assert peers.installed() == []
