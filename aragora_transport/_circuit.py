"""Circuits: pybreaker is the state machine, a gate of ours admits, a windowed storage of ours counts.

pybreaker is told outcomes after the fact, through its public API, and its lock is never held over an
await; called around one it would count cancellations and let every caller through as a probe. This is
the only file that imports it.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict, deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pybreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from aragora_transport._call import Hook
    from aragora_transport._clock import Clock, Waiter
    from aragora_transport.events import CircuitState
    from aragora_transport.policy import BreakerPolicy

CLOSED: CircuitState = "closed"
OPEN: CircuitState = "open"
HALF_OPEN: CircuitState = "half-open"
ENOUGH = 1000  # successes that are kept before they are counted in one go
_SLICES = 20  # the window slides in twentieths of its length


class FailedAnswerError(Exception):
    """What pybreaker's listeners are given as the failure when an answer, not an error, was one."""


class WindowStorage(pybreaker.CircuitBreakerStorage):
    """Counts the attempts of the last `window` seconds, or the last few where those are more.

    pybreaker opens the circuit when `counter` reaches its `fail_max`. So `counter` stays one below
    that as long as the policy's share of failures is not reached.
    """

    def __init__(self, policy: BreakerPolicy, clock: Clock) -> None:
        super().__init__("window")
        self._policy = policy
        self._clock = clock
        self._least = policy.min_attempts or policy.failure_threshold
        self._now = clock.monotonic
        self._slices_a_second = _SLICES / policy.window
        self._state: str = CLOSED
        self._successes = 0
        self._opened_at = 0.0
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget every outcome."""
        self._recent: deque[bool] = deque(maxlen=self._least)  # True is a failure
        self._slices: deque[list[int]] = deque()  # [slice number, attempts, failures]
        self._newest: list[int] = [-1, 0, 0]
        self.fresh: deque[float] = deque()  # when attempts succeeded; noted without a lock
        self._attempts = 0
        self._failures = 0

    def take_in(self) -> None:
        """Count the successes that were only noted so far."""
        with self._lock:
            self._take_in()

    def _take_in(self) -> None:
        fresh = self.fresh
        if fresh:
            # Those that are noted meanwhile are for the next time.
            times = [fresh.popleft() for _ in range(len(fresh))]
            for number, successes in Counter(int(time * self._slices_a_second) for time in times).items():
                self._slide(number)
                self._newest[1] += successes
                self._attempts += successes
            self._recent.extend([False] * min(len(times), self._least))
        self._slide(int(self._now() * self._slices_a_second))

    def increment_counter(self) -> None:
        """One attempt failed."""
        with self._lock:
            self._take_in()
            self._newest[1] += 1
            self._newest[2] += 1
            self._attempts += 1
            self._failures += 1
            self._recent.append(True)

    def _slide(self, number: int) -> None:
        """Forget the slices that lie outside of the window, and begin that of `number`."""
        slices = self._slices
        while slices and slices[0][0] <= number - _SLICES:
            _, attempts, failures = slices.popleft()
            self._attempts -= attempts
            self._failures -= failures
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
        self._newest = slices[-1]

    def _seen(self) -> tuple[int, int]:
        """The attempts that count at present, and how many of them failed."""
        with self._lock:
            self._take_in()
            if self._attempts < len(self._recent):
                return len(self._recent), sum(self._recent)
            return self._attempts, self._failures

    @property
    def failures(self) -> int:
        return self._seen()[1]

    @property
    def counter(self) -> int:
        attempts, failures = self._seen()
        threshold = self._policy.failure_threshold
        if failures < threshold:
            return failures
        enough = attempts >= self._least and failures >= self._policy.failure_rate * attempts
        return failures if enough else threshold - 1

    def reset_counter(self) -> None:
        # pybreaker resets a consecutive count on every success, and when it closes the circuit.
        if self._state == CLOSED:
            self.fresh.append(self._now())
        else:
            self.clear()

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
    def opened_at(self) -> datetime:
        # Told as wall-clock time, kept as monotonic time: a step of the wall clock changes nothing.
        return datetime.now(UTC) - timedelta(seconds=self._clock.monotonic() - self._opened_at)

    @opened_at.setter
    def opened_at(self, datetime: object) -> None:
        del datetime  # by the wall clock
        self._opened_at = self._clock.monotonic()


class Era:
    """One stay in one state. That of a closed circuit is the permit of every attempt it lets through.

    An outcome counts only while its era lasts, so that a late result moves no later state.
    """

    __slots__ = ("closed", "free", "hook", "polls", "probes", "reopens_at", "state")

    def __init__(self, state: CircuitState, reopens_at: float = 0.0, *, shared: bool = False) -> None:
        self.state = state
        self.closed = state == CLOSED
        self.free = self.closed and not shared  # nobody need ask to be let through
        self.hook: Hook | None = None  # the breaker's, for the bodies of what this era let through
        self.probes: list[Probe] = []  # under way, the oldest first
        self.polls: list[Probe] = []  # long polls among them, which must not hold up the others
        self.reopens_at = reopens_at  # when an open circuit lets a probe through


class Probe:
    """The permit of one attempt while half-open: one place of its own, until it is settled or too old."""

    __slots__ = ("era", "since")

    closed = False
    hook: Hook | None = None  # each has one of its own

    def __init__(self, era: Era, since: float) -> None:
        self.era = era
        self.since = since

    def give_back(self) -> None:
        for places in (self.era.probes, self.era.polls):
            if self in places:
                places.remove(self)


Permit = Era | Probe


class Change(NamedTuple):
    """One transition of one circuit, with what it looked like right after."""

    key: str
    old: CircuitState
    new: CircuitState
    failures: int
    next_probe_in: float | None
    cause: str | None


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        del cb
        self._circuit.entered(old_state.name if old_state else CLOSED, new_state.name)


class _Guarded(pybreaker.CircuitBreakerListener):
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
        self._clock = clock
        self._rng = rng
        self._lock = threading.RLock()
        self._reopenings = 0
        self._hold = 0.0
        self._sleepers: set[Waiter] = set()
        self._window = None if storage is not None else WindowStorage(policy, clock)
        users = tuple(listeners)
        # A success of a closed circuit is only noted, unless a listener or a storage of others must know.
        self._straight = None if users else self._window
        self.breaker = pybreaker.CircuitBreaker(
            fail_max=policy.failure_threshold,
            reset_timeout=0.0,  # when to probe is the gate's to say
            success_threshold=policy.success_threshold,
            listeners=[_Listener(self), *users],
            state_storage=storage or self._window,
            name=key,
            throw_new_error_on_trip=False,
        )
        self._shared = storage is not None
        self.era = Era(cast("CircuitState", self.breaker.current_state), shared=self._shared)

    # --- admitting ---

    def admit(self, *, poll: bool = False) -> Permit | None:
        """The permit for one attempt, or `None` when it is refused. `poll`: its answer may take long."""
        era = self.era
        if era.free:
            return era
        with self._lock:
            self._look_around()
            if self.era.state == OPEN:
                if self._clock.monotonic() < self.era.reopens_at:
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
            probe = Probe(era, self._clock.monotonic())
            places.append(probe)
            return probe

    def _look_around(self) -> None:
        """Notice, as pybreaker does, that others who share a user's storage have moved the circuit."""
        if self._shared:
            _ = self.breaker.state

    def _under_way(self, places: list[Probe]) -> int:
        # A probe that neither comes back nor fails (a hung task, say) must not hold up the rest.
        oldest = self._clock.monotonic() - self.policy.probe_lease
        while places and places[0].since <= oldest:
            del places[0]
        return len(places)

    def refusing(self) -> float | None:
        """Seconds until an attempt would be let through, `None` if one would be now."""
        era = self.era
        if era.state == OPEN:
            left = era.reopens_at - self._clock.monotonic()
            return left if left > 0 else None
        if era.state == HALF_OPEN:
            with self._lock:
                return 0.0 if self._under_way(era.probes) >= self.policy.half_open_probes else None
        return None

    # --- settling: each permit is settled once ---

    def success(self, permit: Permit) -> None:
        if self._straight is not None and permit is self.era:
            self._straight.fresh.append(self._clock.monotonic())
            if len(self._straight.fresh) > ENOUGH:
                self._straight.take_in()
            return
        with self._lock:
            if self._counts(permit):
                self.breaker.call(_fine)

    def failure(self, permit: Permit, cause: str, error: Exception | None = None) -> None:
        with self._lock:
            if not self._counts(permit):
                return
            self.cause = cause
            told = error or FailedAnswerError(cause)
            traceback, context = told.__traceback__, told.__context__
            try:
                self.breaker.call(_fail, told)
            except Exception as raised:  # pybreaker raises what it was told of
                if raised is not told and not isinstance(raised, pybreaker.CircuitBreakerError):
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
        until = self._clock.monotonic() + min(seconds, self.policy.max_told_open)
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
            reopens_at = self._clock.monotonic() + self._cooldown(again=old == HALF_OPEN)
            reopens_at = max(reopens_at, self._hold)
        elif new == CLOSED:
            self._reopenings, self._hold = 0, 0.0
        self.era = Era(new, reopens_at, shared=self._shared)
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
        taken: list[Change] = []
        while self.changes:
            taken.append(self.changes.popleft())
        return taken

    @property
    def busy(self) -> bool:
        """Whether somebody would miss it if it were forgotten now."""
        return bool(self._sleepers or self.era.probes or self.era.polls)

    def snapshot(self) -> dict[str, Any]:
        """State for people and programs: `state`, `failures`, `next_probe_in`, `cause`."""
        era = self.era
        left: float | None = None
        if era.state == OPEN and era.reopens_at != math.inf:
            left = max(0.0, era.reopens_at - self._clock.monotonic())
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


class Circuits:
    """The circuits of one platform by key, the least recently used forgotten beyond `max_keys`."""

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Clock,
        rng: Random,
        *,
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
        storage: Callable[[str], pybreaker.CircuitBreakerStorage] | None = None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._rng = rng
        self._listeners = tuple(_Guarded(listener) for listener in listeners)
        self._storage = storage
        self._lock = threading.Lock()
        self._by_key: OrderedDict[str, Circuit] = OrderedDict()

    def get(self, key: str) -> Circuit:
        """The circuit of a key, made when it is first asked for."""
        with self._lock:
            circuit = self._by_key.get(key)
            if circuit is not None:
                self._by_key.move_to_end(key)
                return circuit
            circuit = self._by_key[key] = Circuit(
                key,
                self.policy,
                self._clock,
                self._rng,
                listeners=self._listeners,
                storage=None if self._storage is None else self._storage(key),
            )
            self._forget_some()
            return circuit

    def _forget_some(self) -> None:
        excess = len(self._by_key) - self.policy.max_keys
        for closed in (True, False):  # an open one would be missed
            for key, circuit in list(self._by_key.items())[:-1]:
                if excess <= 0:
                    return
                if circuit.era.closed == closed and not circuit.busy:
                    del self._by_key[key]
                    excess -= 1

    @property
    def listener_failures(self) -> int:
        """How often a pybreaker listener raised."""
        return sum(listener.failures for listener in self._listeners)

    def worst(self) -> CircuitState:
        """The worst state of all keys: open, then half-open, then closed."""
        states = {circuit.era.state for circuit in self._copy().values()}
        return OPEN if OPEN in states else HALF_OPEN if HALF_OPEN in states else CLOSED

    def snapshot(self) -> dict[str, dict[str, Any]]:
        return {key: circuit.snapshot() for key, circuit in self._copy().items()}

    def _copy(self) -> dict[str, Circuit]:
        with self._lock:
            return dict(self._by_key)
