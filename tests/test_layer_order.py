from __future__ import annotations

import itertools
from unittest import mock

import httpx
import httpx2
import pytest
from prometheus_client import CollectorRegistry

from aragora_transport import BreakerPolicy, Policy, RetryPolicy, resilient, resilient_sync
from aragora_transport.layers import (
    AttemptTracingTransport,
    BreakerTransport,
    DeadlineTransport,
    LogTransport,
    MetricsTransport,
    RateLimitTransport,
    RetryTransport,
    TimeoutTransport,
    TracingTransport,
)
from aragora_transport.sync import Driven, Driver
from aragora_transport.testing import ManualClock

pytestmark = pytest.mark.anyio

# Outermost first; the first two may stand either way round.
LAYERS = [
    LogTransport,
    MetricsTransport,
    DeadlineTransport,
    RetryTransport,
    RateLimitTransport,
    BreakerTransport,
    TimeoutTransport,
]
REGISTRY = CollectorRegistry()
TRACED = [TracingTransport, *LAYERS[:-1], AttemptTracingTransport, LAYERS[-1]]
PAIRS = list(itertools.product(TRACED, TRACED))


def network():
    return httpx.MockTransport(lambda request: httpx.Response(200))


def around(layer, below):
    return layer(below, registry=REGISTRY) if layer is MetricsTransport else layer(below)


def nested(layers, below=None):
    """The layers around each other, the first one outermost."""
    transport = network() if below is None else below
    for layer in reversed(layers):
        transport = around(layer, transport)
    return transport


def in_order(outer, inner):
    either = {LogTransport, MetricsTransport}
    return outer is not inner and ({outer, inner} == either or TRACED.index(outer) < TRACED.index(inner))


class Passing:
    """A layer as a user writes one; what it calls the transport below is its own affair."""

    def __init__(self, below, name="_wrapped"):
        setattr(self, name, below)
        self._name = name

    async def handle_async_request(self, request):
        request.headers["x-foreign"] = "was here"
        return await getattr(self, self._name).handle_async_request(request)


class Foreign(Passing, httpx.AsyncBaseTransport):
    pass


@pytest.mark.parametrize(("outer", "inner"), PAIRS, ids=lambda layer: layer.__name__)
def test_two_layers_fit_or_are_refused_with_the_reason(outer, inner):
    if in_order(outer, inner):
        assert nested([outer, inner]).below.below is not None
    elif outer is inner:
        with pytest.raises(
            ValueError, match=f"{outer.__name__} stands around another .*would multiply; give"
        ):
            nested([outer, inner])
    else:
        with pytest.raises(
            ValueError, match=f"{inner.__name__} belongs outside of it: .{{20,}}. Swap the two"
        ):
            nested([outer, inner])


def test_of_all_orders_of_the_whole_stack_only_the_sensible_ones_are_accepted():
    accepted = []
    for order in itertools.permutations(LAYERS):
        try:
            nested(order)
        except ValueError:
            continue
        accepted.append(list(order))
    log, metrics, *rest = LAYERS
    assert accepted == [LAYERS, [metrics, log, *rest]]


def test_any_layer_may_be_left_out():
    for size in range(1, len(LAYERS)):
        for chosen in itertools.combinations(LAYERS, size):
            assert type(nested(chosen)) is chosen[0]


@pytest.mark.parametrize(
    "name", ["below", "transport", "_transport", "wrapped", "_wrapped", "inner", "_inner"]
)
def test_a_double_is_found_through_a_layer_of_somebody_else(name):
    with pytest.raises(ValueError, match="RetryTransport stands around another RetryTransport"):
        RetryTransport(Foreign(RetryTransport(network()), name))
    with pytest.raises(ValueError, match="RetryTransport belongs outside"):
        BreakerTransport(Foreign(RetryTransport(network()), name))


def test_a_subclass_counts_as_the_layer_that_it_is():
    class MyRetry(RetryTransport):
        pass

    with pytest.raises(ValueError, match="RetryTransport stands around another RetryTransport"):
        MyRetry(RetryTransport(network()))
    with pytest.raises(ValueError, match="RetryTransport belongs outside"):
        BreakerTransport(MyRetry(network()))


def test_a_layer_around_a_whole_stack_is_refused():
    with pytest.raises(ValueError, match="RetryTransport stands around another RetryTransport"):
        RetryTransport(resilient("test", network(), registry=REGISTRY))
    with pytest.raises(ValueError, match="RetryTransport stands around another RetryTransport"):
        RetryTransport(Driven(Driver(RetryTransport(Driven(httpx.HTTPTransport())))))


@pytest.mark.parametrize("layer", LAYERS)
async def test_every_layer_works_alone(world, layer):
    keywords = {"registry": REGISTRY} if layer is MetricsTransport else {}
    network = world.scripted(200)
    alone = world.layer(layer, network, **keywords)
    for number in (1, 2):
        answer = await world.get(alone)
        assert (answer.status_code, len(network.sent)) == (200, number)
        assert answer.extensions["aragora_transport"].platform == "default"


@pytest.mark.parametrize("based", [True, False], ids=["of the flavour's base", "of no base"])
async def test_a_layer_of_somebody_else_may_stand_anywhere(async_world, based):
    world = async_world
    bases = (Passing, world.httpx.AsyncBaseTransport) if based else (Passing,)
    foreign = type("Theirs", bases, {})
    for place in range(len(LAYERS) + 1):
        network = world.scripted(503, 200)
        transport = network
        for number, layer in enumerate(reversed(LAYERS)):
            if number == place:
                transport = foreign(transport)
            keywords = {"registry": world.registry} if layer is MetricsTransport else {}
            transport = world.layer(layer, transport, **keywords)
        if place == len(LAYERS):
            transport = foreign(transport)
        answer = await transport.handle_async_request(world.httpx.Request("GET", "http://platform.test/"))
        assert isinstance(answer.stream, world.httpx.AsyncByteStream)
        await answer.aread()
        assert answer.status_code == 200
        assert [sent.headers["x-foreign"] for sent in network.sent] == ["was here"] * 2
        assert [a.status for a in answer.extensions["aragora_transport"].attempts] == [503, 200]


def test_a_transport_that_is_a_mock_can_be_wrapped():
    assert RetryTransport(mock.AsyncMock(spec=httpx.AsyncBaseTransport)).below is not None
    assert RetryTransport(mock.MagicMock()).below is not None


@pytest.mark.parametrize("kind", [Foreign, Passing])
def test_a_transport_that_holds_itself_can_be_wrapped(kind):
    loop = kind(None)
    loop._wrapped = loop
    assert RetryTransport(loop).below is loop


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_the_flavour_is_that_of_the_transport_whatever_stands_around_it(module):
    class Derived(module.AsyncHTTPTransport):
        pass

    mock_transport = module.MockTransport(lambda request: module.Response(200))
    for transport in (
        module.AsyncHTTPTransport(),
        Derived(),
        mock_transport,
        Passing(Passing(Derived()), "inner"),
        RetryTransport(Passing(Derived())),
    ):
        assert LogTransport(transport).flavor.module is module
    assert resilient("test", mock_transport, registry=REGISTRY).describe()["flavor"] == module.__name__


@pytest.mark.parametrize(
    ("below", "says"),
    [
        (None, "RetryTransport.None.: the first argument must be an async transport$"),
        ("http://platform.test/", "the first argument must be an async transport$"),
        (
            httpx.HTTPTransport(),
            "it is a blocking transport: use resilient_sync.., or wrap it in sync.Driven",
        ),
    ],
    ids=["nothing", "url", "blocking"],
)
def test_what_cannot_be_wrapped_is_refused(below, says):
    with pytest.raises(TypeError, match=says):
        RetryTransport(below)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: RetryTransport(t, policy=Policy()), "RetryTransport.policy=.* must be a RetryPolicy"),
        (
            lambda t: BreakerTransport(t, policy=RetryPolicy()),
            "BreakerTransport.policy=.* must be a BreakerPolicy",
        ),
        (
            lambda t: DeadlineTransport(t, policy=30.0),
            "DeadlineTransport.policy=.* 30.0, .* must be a TimeoutPolicy",
        ),
        (lambda t: TimeoutTransport(t, policy=None), "TimeoutTransport.policy=.* must be a TimeoutPolicy"),
        (
            lambda t: RateLimitTransport(t, policy={}),
            "RateLimitTransport.policy=.* must be a RateLimitPolicy",
        ),
        (
            lambda t: BreakerTransport(t, policy=BreakerPolicy),
            r"must be a BreakerPolicy; call it: BreakerPolicy\(\)",
        ),
        (lambda t: LogTransport(t, clock=ManualClock), r"must be a Clock; call it: ManualClock\(\)"),
        (lambda t: LogTransport(t, platform=None), "LogTransport.platform=.* is None, but it must be a str"),
        (lambda t: RetryTransport(t, RetryPolicy()), "positional argument"),
    ],
    ids=[
        "whole policy",
        "other policy",
        "number",
        "none",
        "dict",
        "class",
        "clock class",
        "platform",
        "position",
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused_by_name(make, says):
    with pytest.raises(TypeError, match=says):
        make(network())


@pytest.mark.parametrize("make", [resilient, resilient_sync])
def test_a_stack_around_a_stack_is_refused(make):
    inner = make("inner", registry=REGISTRY)
    for below in (inner, Foreign(inner) if make is resilient else Driver(Foreign(Driven(inner)))):
        with pytest.raises(ValueError, match=r"outer: .* is a resilient one already; two would multiply"):
            make("outer", below, registry=REGISTRY)
