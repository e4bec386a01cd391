from __future__ import annotations

import httpx
import httpx2
import pytest

from aragora_transport import BreakerPolicy, CircuitOpenError, Policy, Secret, resilient, wrap_client
from aragora_transport.events import CallFinished
from aragora_transport.stack import BlockingStack, Stack

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"


def client_of(world, **keywords):
    """A client as an SDK makes it."""
    kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
    keywords.setdefault("timeout", None)
    return kind(trust_env=False, **keywords)


def wrap(world, client, platform="sdk", **keywords):
    keywords.setdefault("policy", Policy())
    return wrap_client(client, platform, clock=world.clock, registry=world.registry, **keywords)


async def get(world, client, url=URL):
    return client.get(url) if world.blocking else await client.get(url)


async def test_the_same_client_comes_back_and_survives_a_503(world):
    network = world.scripted(503, 200)
    client = client_of(world, transport=network)
    assert wrap(world, client) is client
    answer = await get(world, client)
    assert (answer.status_code, len(network.sent)) == (200, 2)
    assert answer.extensions["aragora_transport"].platform == "sdk"


async def test_what_the_client_was_made_with_goes_on_working(world):
    network = world.scripted(503, 200)
    client = client_of(
        world, transport=network, base_url=URL, headers={"x-sdk": "7"}, auth=("user", "word"), timeout=7.0
    )
    wrap(world, client)
    answer = await get(world, client, "path")
    assert str(answer.request.url) == "http://platform.test/path"
    assert [sent.headers["x-sdk"] for sent in network.sent] == ["7", "7"]
    assert all(sent.headers["authorization"].startswith("Basic ") for sent in network.sent)
    assert {sent.extensions["timeout"]["read"] for sent in network.sent} == {7.0}


async def test_every_mount_is_wrapped_and_none_stays_none(world):
    plain, mounted = world.scripted(503, 200), world.scripted(503, 200)
    client = client_of(
        world, transport=plain, mounts={"http://mounted.test": mounted, "http://direct.test": None}
    )
    wrap(world, client)
    assert (await get(world, client, "http://mounted.test/")).status_code == 200
    assert (await get(world, client, "http://direct.test/")).status_code == 200
    assert (len(mounted.sent), len(plain.sent)) == (2, 2)
    kind = BlockingStack if world.blocking else Stack
    assert [type(each) for each in client._mounts.values() if each is not None] == [kind]
    assert list(client._mounts.values()).count(None) == 1


async def test_secrets_and_observers_that_come_as_iterators_are_there_for_every_mount(world):
    plain, mounted, events = world.scripted(200), world.scripted(200), []
    client = client_of(world, transport=plain, mounts={"http://mounted.test": mounted})
    token = Secret("s3cret", origin=["http://platform.test", "http://mounted.test"])
    wrap(world, client, credentials=iter([token]), on_event=iter([events.append]))
    for url in ("http://platform.test/", "http://mounted.test/"):
        await get(world, client, f"{url}{token}")
    assert [sent.url.rpartition("/")[2] for sent in (*plain.sent, *mounted.sent)] == ["s3cret"] * 2
    assert sum(isinstance(event, CallFinished) for event in events) == 2


async def test_a_transport_that_is_mounted_twice_is_wrapped_once(world):
    network, shared = world.scripted(200), world.scripted(200)
    mounts = {"http://a.test": shared, "http://b.test": shared, "http://c.test": network}
    client = client_of(world, transport=network, mounts=mounts)
    wrap(world, client)
    by_pattern = {pattern.pattern: transport for pattern, transport in client._mounts.items()}
    assert by_pattern["http://a.test"] is by_pattern["http://b.test"]
    assert by_pattern["http://c.test"] is client._transport


async def test_the_mounts_share_one_state(world):
    plain, mounted = world.scripted(200), world.scripted(503)
    client = client_of(world, transport=plain, mounts={"http://mounted.test": mounted})
    wrap(world, client, policy=Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1)))
    await get(world, client, "http://mounted.test/")
    with pytest.raises(CircuitOpenError):
        await get(world, client)
    assert plain.sent == []


async def test_a_given_state_is_shared_with_another_stack(world):
    policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1))
    stack = world.stack(world.scripted(503), "sdk", policy=policy)
    await world.get(stack)
    client = wrap(world, client_of(world, transport=world.scripted(200)), policy=policy, state=stack.state)
    with pytest.raises(CircuitOpenError):
        await get(world, client)


async def test_wrapping_twice_is_refused_and_leaves_the_client_as_it_was(world):
    network = world.scripted(503, 200)
    client = wrap(world, client_of(world, transport=network))
    before = client._transport
    with pytest.raises(ValueError, match=r"sdk: .* is a resilient one already; two would multiply"):
        wrap(world, client)
    assert client._transport is before
    assert (await get(world, client)).status_code == 200
    assert len(network.sent) == 2


async def test_a_client_with_one_mount_that_is_wrapped_already_is_refused_whole(world):
    network = world.scripted(200)
    mounted = world.stack(world.scripted(200))
    client = client_of(world, transport=network, mounts={"http://mounted.test": mounted})
    with pytest.raises(ValueError, match="is a resilient one already"):
        wrap(world, client)
    assert client._transport is network


@pytest.mark.parametrize(
    "thing",
    [
        "slack",
        None,
        object(),
        httpx.AsyncClient,
        httpx.AsyncHTTPTransport(),
        resilient("test", httpx.AsyncHTTPTransport(), policy=Policy(metrics=False)),
    ],
    ids=["name", "nothing", "object", "class", "transport", "stack"],
)
def test_what_is_no_client_is_refused_with_a_way_out(thing):
    with pytest.raises(
        TypeError, match=r"wrap_client\(.*\): not an httpx client .* as its transport= instead"
    ):
        wrap_client(thing, "sdk")


@pytest.mark.parametrize(
    "kind",
    [httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
@pytest.mark.parametrize(
    ("keywords", "error", "says"),
    [
        ({"platform": ""}, TypeError, "must be the platform's name"),
        ({"policy": 3}, TypeError, "sdk: policy is 3, but it must be a Policy"),
        ({"on_event": 3}, TypeError, "on_event=3: it must be a callable"),
        ({"registry": 3}, TypeError, "registry=3 must be a prometheus_client"),
    ],
    ids=["platform", "policy", "on_event", "registry"],
)
def test_what_is_refused_leaves_the_client_as_it_was(kind, keywords, error, says):
    client = kind()
    before = (client._transport, dict(client._mounts))
    with pytest.raises(error, match=says):
        wrap_client(client, **{"platform": "sdk", **keywords})
    assert (client._transport, client._mounts) == before


async def test_events_and_metrics_of_all_mounts_come_together(world):
    client = client_of(
        world, transport=world.scripted(200), mounts={"http://mounted.test": world.scripted(200)}
    )
    wrap(world, client, on_event=world.events.append)
    for url in (URL, "http://mounted.test/"):
        await get(world, client, url)
    assert [type(event).__name__ for event in world.events] == ["AttemptFinished", "CallFinished"] * 2
    assert world.sample("platform_requests_total", platform="sdk", operation="GET", status="200") == 2


def noting(world, entered):
    """A transport that notes how it is opened and closed."""
    base = world.httpx.BaseTransport if world.blocking else world.httpx.AsyncBaseTransport

    def enter(self):
        entered.append("enter")
        return self

    def leave(self, kind=None, error=None, traceback=None):
        entered.append(("exit", kind, error))

    def close(self):
        entered.append("close")

    def awaited(function):
        async def wrapper(*arguments):
            return function(*arguments)

        return wrapper

    names = {"__enter__": enter, "__exit__": leave, "close": close}
    if not world.blocking:
        names = {"__aenter__": awaited(enter), "__aexit__": awaited(leave), "aclose": awaited(close)}
    return type("Noting", (base,), {**names, "handle_request": None, "handle_async_request": None})()


@pytest.mark.parametrize("how", ["stack", "wrap_client"])
async def test_opening_and_closing_reach_the_network_once_and_whole(world, how):
    def made(entered):
        network = noting(world, entered)
        if how == "stack":
            return client_of(world, transport=world.stack(network))
        return wrap(world, client_of(world, transport=network, mounts={"http://a.test": noting(world, [])}))

    problem = KeyError("problem")
    entered = []
    client = made(entered)
    try:
        if world.blocking:
            with client:
                raise problem
        async with client:
            raise problem
    except KeyError as error:
        assert error is problem  # noqa: PT017  # two kinds of `with` raise it
    assert entered == ["enter", ("exit", KeyError, problem)]
    closed = []
    client = made(closed)
    if world.blocking:
        client.close()
    else:
        await client.aclose()
    assert closed == ["close"]


async def test_a_stack_is_a_context_manager_of_its_own(world):
    entered = []
    stack = world.stack(noting(world, entered))
    if world.blocking:
        with stack as inside:
            assert inside is stack
    else:
        async with stack as inside:
            assert inside is stack
    assert entered == ["enter", ("exit", None, None)]
