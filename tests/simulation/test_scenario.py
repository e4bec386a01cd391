"""What happens in a simulation, before anybody meets it: times of calls, outages, servers."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from aragora_transport.simulation import Outage, Scenario
from aragora_transport.simulation.servers import KINDS
from aragora_transport.simulation.traffic import arrivals
from aragora_transport.testing import VirtualTime

TWO = (Outage(start=50.0, seconds=10.0), Outage(start=10.0, seconds=20.0))


def test_a_time_is_before_during_or_after_an_outage():
    scenario = Scenario(seconds=100.0, outages=TWO, severity=0.4)
    times = (0.0, 10.0, 29.9, 30.0, 49.9, 50.0, 60.0)
    assert [scenario.phase_at(at) for at in times] == [
        *("before", "during", "during", "after", "after", "during", "after"),
    ]
    assert [scenario.severity_at(at) for at in times] == [0.0, 0.4, 0.4, 0.0, 0.0, 0.4, 0.0]
    assert scenario.last_end == 60.0
    assert Scenario(outages=()).last_end is None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"server": "tcp"}, "server 'tcp' must be one of failing, queue"),
        ({"arrivals": "never"}, "arrivals 'never' must be one of steady"),
        ({"severity": 1.1}, "must be a share from 0 to 1"),
        ({"rate": 0.0}, "rate 0.0 must be above 0"),
        ({"latency": float("nan")}, "latency nan must be above 0"),
        ({"seconds": 40.0}, "the outage of 30 s from 10 s on must end before the run does, at 40 s"),
        (
            {"outages": (Outage(start=1.0, seconds=9.0), Outage(start=9.0, seconds=1.0))},
            "two outages overlap",
        ),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        Scenario(**wrong)


@pytest.mark.parametrize(("start", "seconds"), [(-1.0, 1.0), (0.0, 0.0), (0.0, float("inf"))])
def test_an_outage_begins_and_ends(start, seconds):
    with pytest.raises(ValueError, match="must begin at 0 s or later and last"):
        Outage(start=start, seconds=seconds)


def came(pattern):
    scenario = Scenario(arrivals=pattern, rate=100.0, seconds=100.0)
    times = list(arrivals(scenario, Random(1)))
    assert times == sorted(times)
    assert 0.0 < times[0] < times[-1] < 100.0
    assert len(times) == pytest.approx(10_000, rel=0.04)
    return times


def test_steady_calls_come_at_random_times():
    times = came("steady")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)  # a Poisson process


def test_half_of_a_bursts_calls_come_in_a_tenth_of_the_time():
    times = came("burst")
    assert sum(at % 10.0 < 1.0 for at in times) / len(times) == pytest.approx(0.5, abs=0.02)


def test_a_day_begins_quietly_and_is_busy_at_its_middle():
    times = came("diurnal")
    assert sum(at < 10.0 for at in times) < 300
    assert sum(45.0 <= at < 55.0 for at in times) > 1700


def server(kind, **keywords):
    outages = (Outage(start=100.0, seconds=50.0),)
    scenario = Scenario(server=kind, outages=outages, seconds=1000.0, latency=0.1, **keywords)
    return KINDS[kind](scenario, VirtualTime(), Random(1))


@pytest.mark.parametrize(
    ("kind", "struck"),
    [
        ("failing", lambda answer: answer.status == 503),
        ("slow", lambda answer: answer.wait == 20.0),
        ("bodies", lambda answer: answer.breaks),
    ],
)
def test_an_outage_strikes_the_share_that_its_severity_says(kind, struck):
    one = server(kind, severity=0.3)
    assert not any(struck(one.answer(at)) for at in (0.0, 99.9, 150.0) for _ in range(100))
    assert sum(struck(one.answer(100.0)) for _ in range(10_000)) / 10_000 == pytest.approx(0.3, abs=0.015)
    assert one.drained() is None


def test_an_ordinary_answer_takes_half_to_one_and_a_half_of_the_latency():
    one = server("failing")
    waits = [one.answer(0.0).wait for _ in range(1000)]
    assert 0.05 <= min(waits) < 0.055
    assert 0.145 < max(waits) <= 0.15
    assert max(waits) <= one.scenario.usual


def test_a_limited_server_answers_so_many_a_second_and_tells_the_others_to_wait():
    one = server("limited", capacity=10.0, severity=0.5)
    calm = [one.answer(10.0) for _ in range(15)]
    assert [answer.status for answer in calm] == [200] * 10 + [429] * 5
    assert {answer.retry_after for answer in calm} == {None, 1}
    assert [one.answer(120.0).status for _ in range(6)] == [200] * 5 + [429]


def test_a_queue_serves_one_after_the_other_at_the_capacity_that_it_has_then():
    one = server("queue", capacity=10.0, severity=0.9)
    done = [one.answer(99.5).wait + 99.5 for _ in range(7)]
    # Five until the outage begins, and then one a second; each has its own latency on the way.
    for at, expected in zip(done, (99.6, 99.7, 99.8, 99.9, 100.0, 101.0, 102.0), strict=True):
        assert expected + 0.05 <= at <= expected + 0.15
    assert one.drained() is None


def test_a_queue_tells_when_the_work_that_an_outage_left_was_done():
    one = server("queue", capacity=10.0, severity=1.0)
    for _ in range(20):
        one.answer(120.0)
    assert one.answer(151.0).wait > 1.0  # twenty that waited for the end, and itself
    one.answer(200.0)
    assert one.drained() == pytest.approx(152.1)
