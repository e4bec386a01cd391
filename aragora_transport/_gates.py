"""The gates of one platform: a request passes all of its buckets' at once, or waits and has taken nothing.

Who waits stands in the line of the gate that holds it the longest, and moves on to another's when that one
does. It goes by the number of its arrival in each of them, so a bucket's callers leave in the order in
which they came, and nobody is held up by a bucket that is not its own.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from aragora_transport._clock import Waiter
from aragora_transport._gate import Gate, Place
from aragora_transport._rate import Pace, Window

if TYPE_CHECKING:
    from random import Random

    from aragora_transport._call import Interrupter
    from aragora_transport._clock import Clock
    from aragora_transport.policy import RateLimitPolicy
    from aragora_transport.profile import Bucket


class Hold(NamedTuple):
    """How a wait ended: let out of `gates`, or interrupted, or `refused` with `left` seconds to go."""

    key: str  # of the bucket that held the caller last
    gates: tuple[Gate, ...] = ()
    refused: str | None = None
    left: float = 0.0


class Gates(OrderedDict[str, Gate]):
    """The gates by bucket, the least recently used forgotten beyond `max_keys`."""

    def __init__(self, clock: Clock, rng: Random, policy: RateLimitPolicy) -> None:
        super().__init__()
        self._clock = clock
        self._rng = rng
        self._policy = policy
        self._lock = threading.Lock()
        self._arrivals = 0
        self._told_names: OrderedDict[str, str] = OrderedDict()  # of buckets that answers have named
        # Else a gate that is open knows nothing, and there need be none.
        self.keeps_all = policy.rate is not None or policy.published or policy.max_in_flight is not None

    def enter(self, buckets: tuple[Bucket, ...]) -> tuple[Gate, ...] | None:
        """Pass the gates that there are without waiting; `None` where that is not possible now."""
        with self._lock:
            if self.keeps_all:
                gates = tuple(map(self._made, buckets))
            else:
                known = (self.get(self._name(bucket)) for bucket in buckets)
                gates = tuple(gate for gate in known if gate is not None)
            now = self._clock.monotonic()
            if self._holder(gates, now, math.inf) is not None:
                return None
            for gate in gates:
                gate.take(now, self._rng)
                if not self.keeps_all and gate.idle:
                    self.pop(gate.key, None)  # it is open, and that is all it knows
            return gates

    def leave(self, gates: tuple[Gate, ...]) -> None:
        """One that passed is in flight no longer."""
        with self._lock:
            for gate in gates:
                if gate.most is not None:
                    gate.in_flight -= 1
                    _wake(gate)

    def shut(self, bucket: Bucket, seconds: float) -> float:
        """Close the gate of a bucket for `seconds`; returns when it opens."""
        with self._lock:
            gate = self._made(bucket)
            now = self._clock.monotonic()
            # Some may wait yet where the platform's own name was unknown.
            for each in {gate: None, self.get(bucket.key, gate): None}:
                each.close(now, seconds, self._rng)
                turn_at = each.turn_at(0)
                # Those alone for whom it is too late now: a long line is not woken for every 429.
                for place in each.line:
                    if turn_at >= place.deadline or turn_at - now > place.longest:
                        place.waiter.wake()
            return gate.opens_at

    def name(self, bucket: Bucket, told: str) -> None:
        """The platform's own name of a bucket: all buckets of one name share a gate from now on."""
        with self._lock:
            self._told_names[bucket.key] = told
            self._told_names.move_to_end(bucket.key)
            if len(self._told_names) > self._policy.max_keys:
                self._told_names.popitem(last=False)

    async def wait(
        self,
        buckets: tuple[Bucket, ...],
        *,
        blocking: bool,
        deadline: float | None = None,
        longest: float = math.inf,
        most: int = 1000,
        interrupter: Interrupter | None = None,
    ) -> Hold:
        """Wait for the caller's turn, unless it will not come in time.

        That is not before `deadline`, or not within `longest` seconds of when a gate is closed anew, or of
        when the caller came where all places in flight are taken; nor where `most` wait there already. The
        wait also ends when `interrupter` begins to refuse: the attempt would come to nothing. A caller that
        is cancelled has taken nothing, and gives its place in the line up.
        """
        waiter = Waiter(self._clock, blocking=blocking)
        me = self._come(buckets, waiter, math.inf if deadline is None else deadline, longest)
        if interrupter is not None:
            interrupter.watch(me.waiter)
        try:
            hold = self._turn(me, most)
            while hold is None:
                if interrupter is not None and interrupter.refusing() is not None:
                    return Hold(me.gate.key)
                if await me.waiter.wait(me.until):
                    me.waiter.woken = False
                hold = self._turn(me)
            return hold
        finally:
            if interrupter is not None:
                interrupter.unwatch(me.waiter)
            self._go(me)

    def _come(self, buckets: tuple[Bucket, ...], waiter: Waiter, deadline: float, longest: float) -> Place:
        with self._lock:
            gates = tuple(
                map(self._made, buckets)
            )  # also those that are open now: they may be closed meanwhile
            now = self._clock.monotonic()
            self._arrivals += 1
            for gate in gates:
                gate.expected += 1
            gate = self._holder(gates, now, self._arrivals) or gates[0]  # it has opened this very moment
            me = Place(
                gates,
                gate,
                number=self._arrivals,
                waiter=waiter,
                began=now,
                deadline=deadline,
                longest=longest,
            )
            gate.line.append(me)
            return me

    def _go(self, me: Place) -> None:
        """Out of the line, where it still stands in one."""
        with self._lock:
            for gate in me.gates:
                gate.expected -= 1
            line = me.gate.line
            at = bisect_left(line, me.number, key=_number)
            if at < len(line) and line[at] is me:
                del line[at]
            _wake(me.gate)

    def _turn(self, me: Place, most: int | None = None) -> Hold | None:
        """Whether it is the caller's turn; `None` while it may still come in time. `most`: who just came."""
        with self._lock:
            now = self._clock.monotonic()
            gate = me.gate
            if gate.line[0] is me and not gate.full and now >= gate.next_at:
                other = self._holder(me.gates, now, me.number)
                if other is None:
                    gate.line.pop(0)
                    for each in me.gates:
                        each.take(now, self._rng)
                    return Hold(gate.key, me.gates)
                self._move(me, other)
                gate = other
            turn_at = gate.turn_at(0 if most is None else len(gate.line) - 1)
            give_up = me.began + me.longest
            refused = None
            if turn_at - now > me.longest:
                refused = "wait_too_long"
            elif max(now, turn_at) >= me.deadline:
                refused = "deadline"
            elif most is not None and len(gate.line) > most:
                refused = "queue_full"
            elif gate.full and now >= give_up:
                refused = "in_flight"
            if refused is not None:
                return Hold(gate.key, refused=refused, left=max(0.0, turn_at - now))
            look_again = give_up if gate.full else gate.next_at if gate.line[0] is me else math.inf
            until = min(look_again, me.deadline)
            me.until = None if until == math.inf else until
            return None

    @staticmethod
    def _holder(gates: tuple[Gate, ...], now: float, number: float) -> Gate | None:
        """The gate that holds up the longest whoever came as the `number`th, if one does."""
        holding = [
            gate
            for gate in gates
            if now < gate.next_at or gate.full or (gate.line and gate.line[0].number < number)
        ]
        return max(holding, key=lambda gate: gate.next_at, default=None)

    @staticmethod
    def _move(me: Place, gate: Gate) -> None:
        """The first of a line goes on to another, and with it all behind it whom that gate holds as well."""
        left = me.gate
        staying: list[Place] = []
        for place in left.line:
            if gate in place.gates:
                place.gate = gate
                insort(gate.line, place, key=_number)
            else:
                staying.append(place)
        left.line = staying
        _wake(left)

    def _name(self, bucket: Bucket) -> str:
        return self._told_names.get(bucket.key, bucket.key)

    def _made(self, bucket: Bucket) -> Gate:
        key = self._name(bucket)
        gate = self.get(key)
        if gate is None:
            policy = self._policy
            rates: list[Pace | Window] = []
            if policy.rate is not None:
                rates.append(Pace(policy.rate, policy.per))
            if policy.published:
                rates += [Window(requests, seconds) for requests, seconds in bucket.rates]
            gate = self[key] = Gate(key, tuple(rates), policy.max_in_flight)
            self._forget(gate)
        self.move_to_end(key)
        return gate

    def _forget(self, kept: Gate) -> None:
        """Make room: two are looked at for each that is made, so that many which are in use cost no more."""
        for gate in list(islice(self.values(), 2)):
            if len(self) > self._policy.max_keys and gate is not kept:
                if gate.idle:
                    del self[gate.key]
                else:
                    self.move_to_end(gate.key)


def _number(place: Place) -> int:
    return place.number


def _wake(gate: Gate) -> None:
    if gate.line:
        gate.line[0].waiter.wake()
