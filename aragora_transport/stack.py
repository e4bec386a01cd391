"""The whole standard stack, ready made: `resilient()`, `resilient_sync()` and `wrap_client()`."""

from __future__ import annotations

import random
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

from aragora_transport._clock import SYSTEM, Clock
from aragora_transport._correlation_header import with_header
from aragora_transport._credentials import CredentialTransport, Secret, credentials_of
from aragora_transport._describe import LONGEST_GATE
from aragora_transport._flavor import flavor_of
from aragora_transport._network import network
from aragora_transport._scope import CallScope
from aragora_transport._stack import BlockingStack, Stack
from aragora_transport._tokens import TokenSource
from aragora_transport.events import Observer, Observers
from aragora_transport.layers import (
    AttemptTracingTransport,
    AuthTransport,
    BreakerTransport,
    DeadlineTransport,
    LogTransport,
    MetricsTransport,
    RateLimitTransport,
    RetryTransport,
    TimeoutTransport,
    Tracing,
    TracingTransport,
)
from aragora_transport.layers._layer import checked, layers_of
from aragora_transport.policy import (
    BreakerPolicy,
    Policy,
    RateLimitPolicy,
    RetryPolicy,
    TimeoutPolicy,
)
from aragora_transport.profile import Profile
from aragora_transport.profiles import profile_for
from aragora_transport.state import State
from aragora_transport.sync import Driven, Driver

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from prometheus_client import CollectorRegistry

    from aragora_transport._flavor import FlavorName

__all__ = ["BlockingStack", "Stack", "resilient", "resilient_sync", "wrap_client"]

ClientT = TypeVar("ClientT")

_LAYER_POLICIES = {
    "timeout": TimeoutPolicy,
    "retry": RetryPolicy,
    "breaker": BreakerPolicy,
    "rate_limit": RateLimitPolicy,
}


def _build(  # noqa: C901  # one statement a layer
    below: Any,
    *,
    platform: str,
    policy: Policy,
    state: State,
    profile: Profile,
    registry: Any,
    auth: TokenSource | None,
    tracing: Tracing | None,
) -> Any:
    """Put the layers around a transport, the innermost first.

    (TracingTransport)   call      where OpenTelemetry is wanted: one span over all of it
    LogTransport         call      one record for each retry, failure and circuit change
    MetricsTransport     call      what the caller saw
    DeadlineTransport    call      the total limit, over everything below
    RetryTransport       call      each attempt passes the layers below anew
    (AuthTransport)      attempt   inside the deadline: refreshes, and answers a 401 with a new token once
    RateLimitTransport   attempt   waits here hold no permit, and no attempt limit runs
    BreakerTransport     attempt   a circuit that opens stops the rest of the retries
    (AttemptTracingTransport)      a span for what is really sent
    TimeoutTransport     attempt   a timeout is a failure that the breaker sees
    (CredentialTransport)          secrets are written on a copy of the request, where any were given
    the real transport
    """
    common: dict[str, Any] = {"platform": platform, "clock": state.clock}
    transport = below
    if policy.timeout is not None:
        transport = TimeoutTransport(transport, policy=policy.timeout, profile=profile, **common)
    if tracing is not None:
        transport = AttemptTracingTransport(transport, tracing=tracing, profile=profile, **common)
    if policy.breaker is not None:
        transport = BreakerTransport(
            transport, policy=policy.breaker, circuits=state.circuits, profile=profile, **common
        )
    if policy.rate_limit is not None:
        longest = policy.retry.max_retry_after if policy.retry is not None else LONGEST_GATE
        transport = RateLimitTransport(
            transport,
            policy=policy.rate_limit,
            gates=state.gates,
            max_retry_after=longest,
            profile=profile,
            **common,
        )
    if auth is not None:
        transport = AuthTransport(transport, source=auth, profile=profile, **common)
    if policy.retry is not None:
        transport = RetryTransport(
            transport,
            policy=policy.retry,
            budget=state.budget,
            profile=profile,
            rng=state.rng,
            **common,
        )
    if policy.timeout is not None:
        transport = DeadlineTransport(transport, policy=policy.timeout, **common)
    if policy.metrics:
        transport = MetricsTransport(transport, registry=registry, profile=profile, **common)
    if policy.log:
        transport = LogTransport(transport, profile=profile, **common)
    if tracing is not None:
        transport = TracingTransport(transport, tracing=tracing, profile=profile, **common)
    return transport


def _check_platform(platform: object) -> None:
    if not isinstance(platform, str) or not platform.strip():
        raise TypeError(
            f"platform={reprlib.repr(platform)}: it must be the platform's name for logs and metrics, such "
            "as 'my-api'; a transport comes after it"
        )


def _owner(
    platform: str, policy: Policy, clock: Clock | None, rng: random.Random | None, state: State | None
) -> State:
    """The state that a stack goes by: a new one, or a given one that fits."""
    _check_platform(platform)
    for name, kind in _LAYER_POLICIES.items():
        if isinstance(policy, kind):
            raise TypeError(
                f"{platform}: policy is a {kind.__name__}; the whole stack takes a Policy({name}=...)"
            )
    checked(f"{platform}: policy", policy, Policy)
    if clock is not None:
        checked(f"{platform}: clock", clock, Clock)
    if rng is not None:
        checked(f"{platform}: rng", rng, random.Random)
    if state is None:
        return State(policy, clock=clock or SYSTEM, rng=rng)
    checked(f"{platform}: state", state, State)
    if (clock is not None and clock is not state.clock) or (rng is not None and rng is not state.rng):
        raise ValueError(f"{platform}: state= brings its own clock and rng; leave clock= and rng= out")
    shared = {
        "breaker": None if state.circuits is None else state.circuits.policy,
        "retry.budget": None if state.budget is None else state.budget.policy,
    }
    wanted = {"breaker": policy.breaker, "retry.budget": policy.retry.budget if policy.retry else None}
    for name, value in wanted.items():
        if value is not None and value != shared[name]:
            raise ValueError(
                f"{platform}: state= goes by {name}={shared[name]}, the policy says {value}; "
                "stacks that share a state must agree on it"
            )
    if policy.rate_limit is not None and state.gates is None:
        raise ValueError(
            f"{platform}: state= has no gates; its policy said rate_limit=None, this one does not"
        )
    return state


def _make(
    platform: str,
    below: Any,
    *,
    policy: Policy,
    registry: Any,
    on_event: Observer | Iterable[Observer],
    clock: Clock | None,
    rng: random.Random | None,
    state: State | None,
    profile: Profile | None,
    auth: TokenSource | None,
    credentials: Secret | Iterable[Secret],
    correlation_header: str | None,
    correlation_hosts: Collection[str],
    tracing: bool | Tracing,
) -> Stack:
    state = _owner(platform, policy, clock, rng, state)
    if profile is not None:
        checked(f"{platform}: profile", profile, Profile)
    if not hasattr(below, "handle_async_request"):
        hint = "; it is a blocking one: use resilient_sync()" if hasattr(below, "handle_request") else ""
        raise TypeError(f"{platform}: {reprlib.repr(below)} is no async transport{hint}")
    if isinstance(below, CallScope | Driver) or layers_of(below):
        raise ValueError(
            f"{platform}: the transport below is a resilient one already; two would multiply their retries"
        )
    users = Observers(on_event)
    given = credentials_of(platform, credentials)
    if auth is not None:
        checked(f"{platform}: auth", auth, TokenSource)
    below = with_header(platform, below, correlation_header, correlation_hosts)
    if given or auth is not None:
        below = CredentialTransport(below, given)
    traced = (Tracing() if tracing else None) if isinstance(tracing, bool) else tracing
    if traced is not None:
        checked(f"{platform}: tracing", traced, Tracing)
    top = _build(
        below,
        platform=platform,
        policy=policy,
        state=state,
        profile=profile or profile_for(platform),
        registry=registry,
        auth=auth,
        tracing=traced,
    )
    return Stack(
        top,
        policy=policy,
        state=state,
        platform=platform,
        users=users,
        auth=auth,
        credentials=given,
        tracing=traced,
    )


def _below(platform: str, transport: Any, flavor: FlavorName, *, blocking: bool) -> Any:
    if transport is None:
        return network(flavor, blocking=blocking)
    if flavor == "httpx2" and flavor_of(transport).name != flavor:
        raise ValueError(
            f"{platform}: flavor={flavor!r}, but {reprlib.repr(transport)} is httpx's; "
            "give a transport of httpx2, or none"
        )
    return transport


def resilient(
    platform: str,
    transport: Any = None,
    *,
    policy: Policy = Policy(),
    registry: CollectorRegistry | None = None,
    on_event: Observer | Iterable[Observer] = (),
    clock: Clock | None = None,
    rng: random.Random | None = None,
    state: State | None = None,
    profile: Profile | None = None,
    auth: TokenSource | None = None,
    credentials: Secret | Iterable[Secret] = (),
    correlation_header: str | None = None,
    correlation_hosts: Collection[str] = (),
    tracing: bool | Tracing = False,
    flavor: FlavorName = "httpx",
) -> Stack:
    """The standard behaviour for an `httpx.AsyncClient`, as its `transport=`.

    `platform`: a name for logs and metrics; a known one brings its profile.
    `transport`: what sends (default: a new `httpx.AsyncHTTPTransport` that honours proxies from the
        environment as httpx does; httpx itself ignores them once it is given a transport).
    `policy`: what each layer does (default: the guide's numbers).
    `registry`: the prometheus registry (default: prometheus_client's own).
    `on_event`: one or several callables that are told of every event; see `aragora_transport.events`.
    `clock`, `rng`: whose time and chance the stack goes by, for tests.
    `state`: another stack's `state`, to share circuits, gates and the retry budget with it.
    `profile`: what makes an answer a success (default: by the platform's name, else plain HTTP).
    `auth`: where the tokens come from that requests are sent with; see `layers.TokenSource`.
    `credentials`: one `Secret` or several, whose placeholders stand in URLs and headers.
    `correlation_header`: the header that the correlation id is sent in, to `correlation_hosts` alone: names
        of hosts, such as your own gateway's (default: it is not sent).
    `tracing`: `True`, or a `layers.Tracing`, for spans of OpenTelemetry, of each call and each attempt.
    `flavor`: "httpx2" makes that package's network transport; a given transport knows its own.

    Raises `ValueError` or `TypeError` when the parts do not fit together.
    """
    below = _below(platform, transport, flavor, blocking=False)
    return _make(
        platform,
        below,
        policy=policy,
        registry=registry,
        on_event=on_event,
        clock=clock,
        rng=rng,
        state=state,
        profile=profile,
        auth=auth,
        credentials=credentials,
        correlation_header=correlation_header,
        correlation_hosts=correlation_hosts,
        tracing=tracing,
    )


def resilient_sync(
    platform: str,
    transport: Any = None,
    *,
    policy: Policy = Policy(),
    registry: CollectorRegistry | None = None,
    on_event: Observer | Iterable[Observer] = (),
    clock: Clock | None = None,
    rng: random.Random | None = None,
    state: State | None = None,
    profile: Profile | None = None,
    auth: TokenSource | None = None,
    credentials: Secret | Iterable[Secret] = (),
    correlation_header: str | None = None,
    correlation_hosts: Collection[str] = (),
    tracing: bool | Tracing = False,
    flavor: FlavorName = "httpx",
) -> BlockingStack:
    """The same for an `httpx.Client`; see `resilient`. `transport` is a blocking one."""
    below = _below(platform, transport, flavor, blocking=True)
    return BlockingStack(
        _make(
            platform,
            Driven(below),
            policy=policy,
            registry=registry,
            on_event=on_event,
            clock=clock,
            rng=rng,
            state=state,
            profile=profile,
            auth=auth,
            credentials=credentials,
            correlation_header=correlation_header,
            correlation_hosts=correlation_hosts,
            tracing=tracing,
        )
    )


def wrap_client(
    client: ClientT,
    platform: str,
    *,
    policy: Policy = Policy(),
    registry: CollectorRegistry | None = None,
    on_event: Observer | Iterable[Observer] = (),
    clock: Clock | None = None,
    rng: random.Random | None = None,
    state: State | None = None,
    profile: Profile | None = None,
    auth: TokenSource | None = None,
    credentials: Secret | Iterable[Secret] = (),
    correlation_header: str | None = None,
    correlation_hosts: Collection[str] = (),
    tracing: bool | Tracing = False,
) -> ClientT:
    """Put the stack around the transport and every mount of a client that exists; returns that client.

    Proxies, HTTP/2 and all else that its transports were made with go on working; the mounts share one
    state. For the arguments see `resilient`. Raises `ValueError` for a client that is wrapped already.
    """
    inner: Any = client
    try:
        transport, mounts = inner._transport, inner._mounts  # noqa: SLF001  # httpx has no public way to them
    except AttributeError:
        raise TypeError(
            f"wrap_client({reprlib.repr(client)}): not an httpx client (or its inside has changed); "
            "pass resilient(...) as its transport= instead"
        ) from None
    blocking = not hasattr(client, "aclose")
    shared = _owner(platform, policy, clock, rng, state)
    # An iterator can be read once, and there may be several mounts.
    observers, secrets = tuple(Observers(on_event)), credentials_of(platform, credentials)

    def around(below: Any) -> Any:
        stack = _make(
            platform,
            Driven(below) if blocking else below,
            policy=policy,
            registry=registry,
            on_event=observers,
            clock=clock,
            rng=rng,
            state=shared,
            profile=profile,
            auth=auth,
            credentials=secrets,
            correlation_header=correlation_header,
            correlation_hosts=correlation_hosts,
            tracing=tracing,
        )
        return BlockingStack(stack) if blocking else stack

    wrapped = around(transport)
    # Two mounts may be one transport; it must be entered and closed once, as before.
    by_identity = {id(below): around(below) for below in mounts.values() if below is not None}
    by_identity[id(transport)] = wrapped
    inner._mounts = {  # noqa: SLF001  # as above
        pattern: None if below is None else by_identity[id(below)] for pattern, below in mounts.items()
    }
    inner._transport = wrapped  # noqa: SLF001  # as above
    return client
