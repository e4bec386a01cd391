from __future__ import annotations

import math
import threading

import anyio
import httpx
import pytest

from aragora_transport import RetryPolicy, call_options
from aragora_transport.layers import RetryTransport
from aragora_transport.sync import Driver
from aragora_transport.testing import Hang, ManualClock, Reply, ScriptedTransport

pytestmark = pytest.mark.anyio

URL = "http://platform.test/"


def client_of(world, network, **keywords):
    """A client straight over the scripted network, with no layer between."""
    kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
    return kind(transport=network, trust_env=False, **{"timeout": None, **keywords})


async def get(world, network, **keywords):
    answer = client_of(world, network, **keywords).get(URL)
    return answer if world.blocking else await answer


async def streamed(world, client):
    """Send a request and leave its body unread."""
    answer = client.send(client.build_request("GET", URL), stream=True)
    return answer if world.blocking else await answer


async def read(world, answer):
    if world.blocking:
        answer.read()
    else:
        await answer.aread()


async def close(world, answer):
    if world.blocking:
        answer.close()
    else:
        await answer.aclose()


async def test_the_script_is_followed_and_its_last_step_repeated(world):
    network = world.scripted(503, 404, 200)
    statuses = [(await get(world, network)).status_code for _ in range(5)]
    assert statuses == [503, 404, 200, 200, 200]
    assert [sent.status for sent in network.sent] == statuses


async def test_a_reply_has_status_headers_and_body(world):
    network = world.scripted(Reply(status=429, headers={"retry-after": "7"}, body=b"slow down"))
    answer = await get(world, network)
    assert (answer.status_code, answer.headers["retry-after"], answer.content) == (429, "7", b"slow down")
    assert isinstance(answer, world.httpx.Response)


async def test_headers_and_chunks_take_their_time(world):
    network = world.scripted(Reply(after=2.0, body=(b"a", b"b"), between=0.5))
    answer = await streamed(world, client_of(world, network))
    assert world.clock.monotonic() == 2.0
    await read(world, answer)
    assert (answer.content, world.clock.monotonic()) == (b"ab", 3.0)


async def test_an_attempt_is_noted_as_it_was_sent(world):
    network = world.scripted(Reply(after=3.0), 200)
    client = client_of(world, network)
    options = call_options(operation="send")
    request = client.build_request(
        "POST", f"{URL}path?a=1", content=b"body", headers={"x-id": "7"}, extensions=options
    )
    answer = client.send(request) if world.blocking else await client.send(request)
    request.headers["x-id"] = "changed later"
    sent = network.sent[0]
    assert (sent.method, sent.url, sent.body, sent.at) == ("POST", f"{URL}path?a=1", b"body", 0.0)
    assert sent.headers["x-id"] == "7"
    assert sent.extensions["aragora_transport"].operation == "send"
    assert (sent.status, sent.consumed, sent.closed) == (answer.status_code, True, True)
    await get(world, network)
    assert network.sent[1].at == 3.0


async def test_a_body_that_is_sent_in_pieces_is_noted_whole(world):
    def pieces():
        yield b"one "
        yield b"two"

    async def async_pieces():
        for piece in pieces():
            yield piece

    network = world.scripted(200)
    client = client_of(world, network)
    content = pieces() if world.blocking else async_pieces()
    answer = client.post(URL, content=content)
    if not world.blocking:
        await answer
    assert network.sent[0].body == b"one two"


async def test_an_answer_is_open_until_its_body_is_closed(world):
    network = world.scripted(Reply(body=(b"a", b"b")))
    client = client_of(world, network)
    first, second = await streamed(world, client), await streamed(world, client)
    assert network.open_responses == 2
    await read(world, first)
    assert network.open_responses == 1
    await close(world, second)
    assert network.open_responses == 0
    assert [sent.consumed for sent in network.sent] == [True, False]


async def test_an_error_is_raised_as_a_class_or_as_it_is(world):
    mine = world.httpx.ReadError("mine")
    network = world.scripted(world.httpx.ConnectError, mine, OSError, KeyError("not httpx's"))
    with pytest.raises(world.httpx.ConnectError, match="scripted") as caught:
        await get(world, network)
    assert caught.value.request.url == URL
    with pytest.raises(world.httpx.ReadError) as caught:
        await get(world, network)
    assert caught.value is mine
    with pytest.raises(OSError, match="scripted"):
        await get(world, network)
    for _ in range(3):
        with pytest.raises(KeyError, match="not httpx's") as caught:
            await get(world, network)
    assert [sent.status for sent in network.sent] == [None] * 6


async def test_an_error_that_is_raised_again_does_not_grow(world):
    network = world.scripted(world.httpx.ReadError("always"))
    depths = []
    for _ in range(3):
        with pytest.raises(world.httpx.ReadError) as caught:
            await get(world, network)
        depths.append(len(caught.traceback))
    assert depths[0] == depths[1] == depths[2]


async def test_a_body_may_end_in_an_error(world):
    network = world.scripted(Reply(body=b"half", then=world.httpx.RemoteProtocolError))
    answer = await streamed(world, client_of(world, network))
    with pytest.raises(world.httpx.RemoteProtocolError, match="scripted"):
        await read(world, answer)
    assert network.sent[0].consumed is False


async def test_a_callable_answers_by_the_request(world):
    network = world.scripted(lambda request: 201 if request.method == "POST" else Reply(body=b"got"))
    assert (await get(world, network)).content == b"got"
    answer = client_of(world, network).post(URL)
    assert (answer if world.blocking else await answer).status_code == 201


async def test_a_silence_ends_by_the_clients_own_read_timeout(world):
    network = world.scripted(Hang(), Reply(after=5.1), Reply(after=4.9), Reply(body=b"x", stall=True))
    for _ in range(2):
        with pytest.raises(world.httpx.ReadTimeout):
            await get(world, network, timeout=5.0)
    assert world.clock.monotonic() == 10.0
    assert (await get(world, network, timeout=5.0)).status_code == 200
    answer = await streamed(world, client_of(world, network, timeout=5.0))
    with pytest.raises(world.httpx.ReadTimeout):
        await read(world, answer)
    assert world.clock.monotonic() == pytest.approx(19.9)


async def test_a_hang_without_a_timeout_lasts_until_it_is_cancelled(async_world):
    network = async_world.scripted(Hang())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, async_world, network)
        await anyio.wait_all_tasks_blocked()
        async_world.clock.advance(1e6)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    (sent,) = network.sent
    assert (sent.status, network.open_responses) == (None, 0)


async def test_opening_and_closing_are_counted(world):
    network = world.scripted(200)
    client = client_of(world, network)
    if world.blocking:
        with client:
            pass
    else:
        async with client:
            pass
    assert (network.opened, network.closed) == (1, 1)
    client = client_of(world, network)
    if world.blocking:
        client.close()
    else:
        await client.aclose()
    assert (network.opened, network.closed) == (1, 2)


def test_layers_of_a_blocking_client_may_stand_on_it_directly():
    network = ScriptedTransport(503, Reply(body=b"fine"))
    layers = RetryTransport(network, policy=RetryPolicy(base_delay=0.0))
    with httpx.Client(transport=Driver(layers)) as client:
        assert client.get(URL).content == b"fine"
    assert network.open_responses == 0


def test_threads_share_a_script_step_by_step():
    network = ScriptedTransport(*range(200, 300), 404)
    statuses = []

    def work():
        with httpx.Client(transport=network) as client:
            statuses.extend(client.get(URL).status_code for _ in range(25))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == list(range(200, 300))


def test_it_keeps_the_systems_time_unless_told_otherwise():
    network = ScriptedTransport(Reply(after=0.01))
    with httpx.Client(transport=network) as client:
        assert client.get(URL).elapsed.total_seconds() >= 0.009


@pytest.mark.parametrize(
    "step",
    [99, 600, True, "200", None, 2.0, object(), ScriptedTransport, int],
    ids=lambda step: repr(step)[:12],
)
def test_what_is_no_step_is_refused_with_those_that_are(step):
    with pytest.raises(
        TypeError, match=r"is no step of a script: use a status from 100 to 599, Reply\(...\), Hang"
    ):
        ScriptedTransport(200, step)
    client = httpx.Client(transport=ScriptedTransport(lambda request: step))
    with client, pytest.raises(TypeError, match="is no step of a script"):
        client.get(URL)


def test_a_script_without_a_step_is_refused():
    with pytest.raises(ValueError, match="needs at least one step, such as 200"):
        ScriptedTransport(clock=ManualClock())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"status": 99}, "status must be a whole number from 100 to 999"),
        ({"status": "200"}, "status must be a whole number from 100 to 999"),
        ({"after": -1.0}, "after must be seconds of at least 0"),
        ({"between": math.nan}, "between must be seconds of at least 0"),
        ({"body": "text"}, "body must be bytes, or a tuple of bytes"),
        ({"body": ("a", "b")}, "body must be bytes, or a tuple of bytes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value),
)
def test_a_reply_that_makes_no_sense_is_refused(values, says):
    with pytest.raises(ValueError, match=says):
        Reply(**values)
