"""The statistics of the benchmarks, on a clock that each batch moves by what it is said to cost."""

import gc
import itertools
import random

import pytest

from aragora_transport.cli import bench

harness = bench.part("_harness")
counts = bench.part("counts")
paths = bench.part("paths")
peers = bench.part("_peers")
progress = bench.part("_progress")
stacks = bench.part("_stacks")


def effort(rounds, batch=10):
    return harness.Effort(rounds=rounds, batch=batch, in_flight=1)


class Machine:
    """Its clock, in nanoseconds, and the order of all that ran on it."""

    def __init__(self):
        self.now = 0
        self.ran = []

    def batch(self, name, *microseconds):
        """Requests that cost that much each, in one batch after the other, beginning anew at the end."""
        costs = itertools.cycle(microseconds)

        def run(count):
            self.ran.append(name)
            self.now += round(count * next(costs) * 1000)

        return run

    def measure(self, bare, cases, *, rounds=3, tell=lambda _done, _of: None):
        return harness.measure(bare, cases, effort(rounds), tell=tell, clock=lambda: self.now)


def test_a_case_is_told_by_what_it_adds_to_the_bare_one():
    machine = Machine()
    added = machine.measure(machine.batch("bare", 10.0), {"half more": machine.batch("half more", 15.0)})
    assert list(added) == ["control", "half more"]
    assert (added["control"].p10, added["control"].median, added["control"].ratio) == (0.0, 0.0, 1.0)
    more = added["half more"]
    assert (more.p10, more.median, more.bare, more.total, more.ratio) == (5.0, 5.0, 10.0, 15.0, 1.5)


def test_a_machine_that_slows_down_steadily_changes_no_difference():
    machine = Machine()
    slower = itertools.count(1)
    slow = machine.batch("bare", 10.0)

    def bare(count):
        slow(count)
        machine.now += count * next(slower) * 1000

    def case(count):
        bare(count)
        machine.now += count * 5000

    added = machine.measure(bare, {"case": case})
    assert added["case"].median == pytest.approx(5.0)
    assert added["control"].median == pytest.approx(0.0)


def test_one_slow_batch_moves_neither_figure_by_much():
    machine = Machine()
    costs = [15.0] * 10 + [900.0]  # the first one warms up
    added = machine.measure(machine.batch("bare", 10.0), {"case": machine.batch("case", *costs)}, rounds=10)
    assert (added["case"].p10, added["case"].median) == (5.0, 5.0)


def test_each_case_runs_between_two_bare_batches_in_an_order_that_changes():
    machine = Machine()
    cases = {name: machine.batch(name, 1.0) for name in "abcdef"}
    machine.measure(machine.batch("bare", 1.0), cases, rounds=4)
    warm_up, measured = machine.ran[:7], machine.ran[7:]
    assert warm_up == ["bare", *cases]
    turns = [tuple(measured[i : i + 3]) for i in range(0, len(measured), 3)]
    assert {(before, after) for before, _, after in turns} == {("bare", "bare")}
    rounds = [[case for _, case, _ in turns[i : i + 7]] for i in range(0, len(turns), 7)]
    assert [sorted(order) for order in rounds] == [sorted(["bare", *cases])] * 4
    assert len(set(map(tuple, rounds))) > 1


def test_progress_is_told_and_the_collector_is_on_again_whatever_happens():
    machine, told = Machine(), []
    machine.measure(machine.batch("bare", 1.0), {}, rounds=3, tell=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def fails_when_measured(_count):
        if not gc.isenabled():
            raise RuntimeError("measured")

    with pytest.raises(RuntimeError, match="measured"):
        machine.measure(fails_when_measured, {})
    assert gc.isenabled()


def test_percentiles():
    values = [float(value) for value in range(101)]
    random.Random(1).shuffle(values)
    assert [harness.percentile(values, percent) for percent in (10, 50, 99)] == [10.0, 50.0, 99.0]
    assert harness.percentile([0.0, 10.0], 10) == 1.0
    assert harness.percentile([7.0], 99) == 7.0


def test_counts_are_the_same_each_time():
    once = counts.figures(stacks.stack())
    again = counts.figures(stacks.stack())
    # The window's slices begin by the clock: one more or less of them is counted.
    assert once[:2] == pytest.approx(again[:2], abs=1.5)
    assert once[1] > 0


def test_frames_are_counted_alike_by_both_ways():
    if counts.monitoring is None:
        assert counts.figures(stacks.stack())[::2] == (None, None)
    else:
        added = {}
        for way in (counts.by_profile, lambda transport: sum(counts.by_place(transport)[1].values())):
            added[way] = way(stacks.transports()["five bare layers"]) - way(stacks.NullTransport())
        assert list(added.values()) == pytest.approx([5, 5])


@pytest.mark.skipif(counts.monitoring is None, reason="Python 3.11 cannot count bytecodes")
@pytest.mark.parametrize("names", stacks.OFF)
def test_what_a_layer_executes_is_found_by_its_file(names):
    looks_on = names == "log"  # which has nothing to do while all goes well
    assert (counts.executed_in(names, stacks.stack()) > 0) != looks_on


def table_of(**whole):
    columns = dict.fromkeys(("bytecodes", "frames", "allocations"), ".0f")
    rows = {stacks.WHOLE: tuple(whole.get(name) for name in columns)}
    return bench.part("_table").Table(name="added", title="", columns=columns, rows=rows)


def test_more_than_the_budget_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(counts, "BUDGETS", {(3, 99): {"bytecodes": 100, "frames": 9}, (3, 98): {"frames": 9}})
    assert counts.over_budget(table_of(bytecodes=100, frames=9), (3, 99)) == []
    (problem,) = counts.over_budget(table_of(bytecodes=101, frames=9), (3, 99))
    assert problem.startswith(
        "the whole stack takes 101 bytecodes on Python 3.99, 100 is the budget: make it"
    )
    assert counts.over_budget(table_of(frames=9), (3, 98)) == []
    (problem,) = counts.over_budget(table_of(frames=9), (3, 97))
    assert problem.startswith("Python 3.97 has no budget: add one to BUDGETS in benchmarks/counts.py")


def test_a_peer_that_is_not_installed_is_told_and_the_others_are_measured(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'left'", name="left")

    monkeypatch.setattr(peers, "PEERS", {"left": missing, "right": object})
    found, notes = peers.peers()
    assert list(found) == ["right"]
    (note,) = notes
    assert note.startswith(
        "left: not measured (No module named 'left'); pip install 'aragora-transport[bench]'"
    )


def test_a_retry_is_measured_as_one_call_of_two_sends(monkeypatch):
    sends = []
    send = paths.EveryOther.handle_async_request

    async def counted(network, request):
        answer = await send(network, request)
        sends.append(answer.status_code)
        return answer

    monkeypatch.setattr(paths.EveryOther, "handle_async_request", counted)
    with paths.asyncio.Runner() as runner:
        for batch in paths.PATHS["one retry"](runner):
            batch(20)
    assert sends == [503, 200] * 40


def test_an_open_circuit_refuses_before_the_network(monkeypatch):
    async def reached(_network, _request):
        raise AssertionError("sent")

    monkeypatch.setattr(paths.NullTransport, "handle_async_request", reached)
    with paths.asyncio.Runner() as runner:
        _, ours = paths.PATHS[paths.REFUSED](runner)
        ours(3)
