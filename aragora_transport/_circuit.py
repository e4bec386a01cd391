"""Circuits: pybreaker is the state machine, a gate of ours admits, a windowed storage of ours counts.

pybreaker is told outcomes after the fact, through its public API, and its lock is never held over an
await; called around one it would count cancellations and let every caller through as a probe. This is
the only file that imports it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import pybreaker

from aragora_transport._era import CLOSED, HALF_OPEN, OPEN, Change, Era, Permit, Probe, take_all
from aragora_transport._window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from aragora_transport._clock import Clock, Waiter
    from aragora_transport.events import CircuitState
    from aragora_transport.policy import BreakerPolicy


class FailedAnswerError(Exception):
    """What pybreaker's listeners are given as the failure when an answer, not an error, was one."""


class WindowStorage(pybreaker.CircuitBreakerStorage):
    """pybreaker's view of a window: it opens the circuit when `counter` reaches its `fail_max`."""

    def __init__(self, window: Window) -> None:
        super().__init__("window")
        self._window = window
        self._state: str = CLOSED
        self._successes = 0

    @property
    def counter(self) -> int:
        return self._window.count()

    def increment_counter(self) -> None:
        self._window.failed()

    def reset_counter(self) -> None:
        # pybreaker resets a consecutive count on every success, and when it closes the circuit.
        if self._state == CLOSED:
            self._window.succeeded()
        else:
            self._window.clear()

    @property
    def state(self) -> str:
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state

    @property
    def success_counter(self) -> int:
        return self._successes

    def increment_success_counter(self) -> None:
        self._successes += 1

    def reset_success_counter(self) -> None:
        self._successes = 0

    @property
    def opened_at(self) -> None:
        """Nobody asks: when to probe is the gate's to say, by a clock that nobody sets."""

    @opened_at.setter
    def opened_at(self, datetime: object) -> None:
        """By the wall clock, which is not asked."""


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        del cb
        self._circuit.entered(old_state.name if old_state else CLOSED, new_state.name)


class GuardedListener(pybreaker.CircuitBreakerListener):
    """A user's listener, which must not break a call or stop a transition."""

    def __init__(self, listener: pybreaker.CircuitBreakerListener) -> None:
        self.failures = 0
        for name in ("before_call", "success", "failure", "state_change"):
            setattr(self, name, self._guard(getattr(listener, name)))

    def _guard(self, method: Callable[..., object]) -> Callable[..., None]:
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                method(*args, **kwargs)
            except Exception:  # noqa: BLE001  # whatever a listener raises, the call goes on
                self.failures += 1

        return guarded


class Circuit:
    """The circuit of one key."""

    def __init__(
        self,
        key: str,
        policy: BreakerPolicy,
        clock: Clock,
        rng: Random,
        *,
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
        storage: pybreaker.CircuitBreakerStorage | None = None,
    ) -> None:
        self.key = key
        self.policy = policy
        self.cause: str | None = None  # the last failure, for people
        self.failures_when_opened = 0
        self.changes: deque[Change] = deque(maxlen=100)  # not yet told to observers
        self.now = clock.monotonic
        self._rng = rng
        self._lock = threading.RLock()
        self._reopenings = 0
        self._hold = 0.0
        self._sleepers: set[Waiter] = set()
        # A user's storage counts by itself, and is told of every outcome.
        self._window = None if storage is not None else Window(policy, clock)
        users = tuple(listeners)
        # Where a success of a closed circuit is noted, unless a listener or a storage of others must know.
        self.noted = None if users or self._window is None else self._window.fresh
        self.breaker = pybreaker.CircuitBreaker(
            fail_max=policy.failure_threshold,
            reset_timeout=0.0,  # when to probe is the gate's to say
            success_threshold=policy.success_threshold,
            listeners=[_Listener(self), *users],
            state_storage=storage if self._window is None else WindowStorage(self._window),
            name=key,
            throw_new_error_on_trip=False,
        )
        self.shared = storage is not None  # others may move it, too
        self.era = Era(cast("CircuitState", self.breaker.current_state), shared=self.shared)

    # --- admitting ---

    def admit(self, *, poll: bool = False) -> Permit | None:
        """The permit for one attempt, or `None` when it is refused. `poll`: its answer may take long."""
        with self._lock:
            self._look_around()
            if self.era.state == OPEN:
                if self.now() < self.era.reopens_at:
                    return None
                self.breaker.half_open()
            era = self.era
            if era.state == CLOSED:
                return era
            places = era.polls if poll else era.probes
            under_way = self._under_way(places)
            # Not just so many at once, but so many in all: callers that keep asking while probes come
            # back must not get further ones through.
            policy = self.policy
            wanted = max(policy.half_open_probes, policy.success_threshold)
            if under_way >= policy.half_open_probes or under_way + self.breaker.success_counter >= wanted:
                return None
            probe = Probe(era, self.now())
            places.append(probe)
            return probe

    def _look_around(self) -> None:
        """Notice, as pybreaker does, that others who share a user's storage have moved the circuit."""
        if self.shared:
            _ = self.breaker.state

    def _under_way(self, places: list[Probe]) -> int:
        # A probe that neither comes back nor fails (a hung task, say) must not hold up the rest.
        oldest = self.now() - self.policy.probe_lease
        while places and places[0].since <= oldest:
            del places[0]
        return len(places)

    def refusing(self) -> float | None:
        """Seconds until an attempt would be let through, `None` if one would be now."""
        era = self.era
        if era.state == OPEN:
            left = era.reopens_at - self.now()
            return left if left > 0 else None
        if era.state == HALF_OPEN:
            with self._lock:
                return 0.0 if self._under_way(era.probes) >= self.policy.half_open_probes else None
        return None

    # --- settling: each permit is settled once ---

    def success(self, permit: Permit) -> None:
        with self._lock:
            if self._counts(permit):
                try:
                    self.breaker.call(_fine)
                except pybreaker.CircuitBreakerError:
                    pass  # others who share its storage have opened it just now

    def failure(self, permit: Permit, cause: str, error: Exception | None = None) -> None:
        with self._lock:
            if not self._counts(permit):
                return
            self.cause = cause
            told = error or FailedAnswerError(cause)
            traceback, context = told.__traceback__, told.__context__
            try:
                self.breaker.call(_fail, told)
            except pybreaker.CircuitBreakerError:
                pass  # as above
            except Exception as raised:  # pybreaker raises what it was told of
                if raised is not told:
                    raise
            finally:
                # The caller gets this error next; it should not show where we told of it.
                told.__traceback__, told.__context__ = traceback, context
                del told

    def neither(self, permit: Permit) -> None:
        """Give the permit back without a word on the platform's health."""
        if isinstance(permit, Probe):
            with self._lock:
                permit.give_back()

    def _counts(self, permit: Permit) -> bool:
        """Take the permit back; whether its outcome still counts."""
        self._look_around()
        if isinstance(permit, Era):
            return permit is self.era
        permit.give_back()
        return permit.era is self.era

    def hold(self, seconds: float) -> None:
        """The platform asked to be left alone that long: an opening of this circuit lasts until then."""
        until = self.now() + min(seconds, self.policy.max_told_open)
        with self._lock:
            self._hold = max(self._hold, until)
            if self.era.state == OPEN:
                self.era.reopens_at = max(self.era.reopens_at, until)

    # --- by hand ---

    def isolate(self) -> None:
        """Open it until `reset()`."""
        with self._lock:
            self.cause = "isolated by hand"
            self._hold = math.inf
            self.breaker.open()

    def reset(self) -> None:
        """Close it and forget what it counted."""
        with self._lock:
            self.cause, self.failures_when_opened, self._hold = None, 0, 0.0
            if self._window is not None:
                self._window.clear()
            if self.era.state != CLOSED:
                self.breaker.close()

    # --- called by pybreaker's listener, so without a lock of ours: the order is theirs, then ours ---

    def entered(self, old: CircuitState, new: CircuitState) -> None:
        reopens_at = 0.0
        if new == OPEN:
            by_hand = self._hold == math.inf
            failed_probe = self.failures_when_opened + 1
            failures = self.breaker.fail_counter if old == CLOSED else failed_probe
            self.failures_when_opened = 0 if by_hand else failures
            reopens_at = self.now() + self._cooldown(again=old == HALF_OPEN)
            reopens_at = max(reopens_at, self._hold)
        elif new == CLOSED:
            self._hold = 0.0
        self.era = Era(new, reopens_at, shared=self.shared)
        if old != new:
            told = self.snapshot()
            self.changes.append(
                Change(self.key, old, new, self.failures_when_opened, told["next_probe_in"], self.cause)
            )
        if new == OPEN:
            for waiter in list(self._sleepers):
                waiter.wake()

    def _cooldown(self, *, again: bool) -> float:
        policy = self.policy
        self._reopenings = self._reopenings + 1 if again else 0
        cooldown = policy.cooldown
        if policy.max_cooldown is not None:
            # Doubling by a shift would overflow a float after a thousand failed probes.
            cooldown = min(policy.max_cooldown, cooldown * 2.0 ** min(self._reopenings, 60))
        return cooldown * (1.0 + self._rng.uniform(0.0, policy.cooldown_jitter))

    # --- sleepers: calls of this key that wait before a retry ---

    def watch(self, waiter: Waiter) -> None:
        self._sleepers.add(waiter)
        if self.era.state == OPEN and self.refusing() is not None:
            waiter.wake()  # it opened after the waiter's call had asked

    def unwatch(self, waiter: Waiter) -> None:
        self._sleepers.discard(waiter)

    def take_changes(self) -> list[Change]:
        """The transitions that no observer was told of yet."""
        return take_all(self.changes)

    @property
    def busy(self) -> bool:
        """Whether somebody would miss it if it were forgotten now."""
        return bool(self._sleepers or self.era.probes or self.era.polls)

    def snapshot(self) -> dict[str, Any]:
        """State for people and programs: `state`, `failures`, `next_probe_in`, `cause`."""
        era = self.era
        left: float | None = None
        if era.state == OPEN and era.reopens_at != math.inf:
            left = max(0.0, era.reopens_at - self.now())
        return {
            "state": era.state,
            "failures": self.breaker.fail_counter if self._window is None else self._window.failures,
            "next_probe_in": left,
            "cause": self.cause,
        }


def _fine() -> None:
    """What a success looks like to pybreaker."""


def _fail(error: Exception) -> None:
    raise error
