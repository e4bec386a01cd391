"""Tokens: fresh ones before sending, one more try after a 401, one refresh for everybody."""

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from aragora_transport import (
    DeadlineExceededError,
    Policy,
    Secret,
    TimeoutPolicy,
    TokenRefreshError,
    call_options,
    resilient,
    resilient_sync,
    wrap_client,
)
from aragora_transport._credentials import CredentialTransport
from aragora_transport.events import AttemptFinished, RetryRefused
from aragora_transport.layers import (
    AuthTransport,
    BreakerTransport,
    RetryTransport,
    TimeoutTransport,
    Token,
    TokenRefused,
    TokenSource,
)
from aragora_transport.profile import Judgement, Profile
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport

HOME = "http://platform.test"


class Tokens(TokenSource):
    """Gives "token-1", "token-2" and so on, each after `seconds`; or fails as it is told."""

    def __init__(self, *, seconds=0.5, expires_in=3600.0, **keywords):
        super().__init__(origin=HOME, **keywords)
        self.seconds = seconds
        self.expires_in = expires_in
        self.asked = 0
        self.fails = None

    async def fetch(self, *, blocking, clock):
        self.asked += 1
        number = self.asked
        await clock.sleep(self.seconds, blocking=blocking)
        if self.fails is not None:
            raise self.fails
        return Token(value=f"token-{number}", expires_in=self.expires_in)


class Platform:
    """Answers 200 to who brings the one token that it takes, else 401."""

    def __init__(self, takes):
        self.takes = takes

    def __call__(self, request):
        if request.headers.get("authorization") == f"Bearer {self.takes}":
            return Reply(body=b"welcome")
        return Reply(status=401, body=b"who are you?")


def tokens_of(network):
    return [sent.headers.get("authorization", "-").removeprefix("Bearer ") for sent in network.sent]


def statuses(answer):
    return [attempt.status for attempt in answer.extensions["aragora_transport"].attempts]


async def until(condition):
    for _ in range(10_000):
        if condition():
            return
        await anyio.lowlevel.checkpoint()
    raise AssertionError("it never came so far")


async def test_an_attempt_goes_with_a_token_that_only_the_network_sees(world, caplog):
    caplog.set_level(logging.DEBUG)
    network = world.scripted(Platform("token-1"))
    stack = world.stack(network, auth=Tokens())
    for _ in range(2):
        answer = await world.get(stack, url=HOME, headers={"X-Other": "kept"})
    assert tokens_of(network) == ["token-1", "token-1"]
    assert network.sent[1].headers["x-other"] == "kept"
    assert "authorization" not in answer.request.headers
    record = answer.extensions["aragora_transport"]
    assert record.credential is None
    shown = [stack.describe(), record, vars(record), answer.request.headers, *world.events, caplog.text]
    assert [text for text in map(repr, shown) if "token-1" in text] == []


async def test_a_401_is_answered_once_with_a_new_token(world):
    source = Tokens()
    network = world.scripted(Platform("token-2"))
    answer = await world.post(world.stack(network, auth=source), url=HOME, content=b"the body")
    assert (answer.status_code, answer.content) == (200, b"welcome")
    assert tokens_of(network) == ["token-1", "token-2"]
    assert [sent.body for sent in network.sent] == [b"the body", b"the body"]
    assert statuses(answer) == [401, 200]
    assert [event.status for event in world.events if isinstance(event, AttemptFinished)] == [401, 200]
    assert network.open_responses == 0
    assert {
        status: world.sample("platform_attempts_total", platform="test", operation="POST", status=status)
        for status in ("401", "200")
    } == {"401": 1, "200": 1}


async def test_a_401_to_the_new_token_is_returned_as_it_is(world):
    source = Tokens()
    network = world.scripted(Platform("none of these"))
    answer = await world.get(world.stack(network, auth=source), url=HOME)
    assert (answer.status_code, answer.content) == (401, b"who are you?")
    assert tokens_of(network) == ["token-1", "token-2"]
    assert statuses(answer) == [401, 401]
    assert network.open_responses == 0


EXPIRED = b'{"error": "expired"}'


def by_its_body(response, body):
    expired = body == EXPIRED
    return Judgement(verdict="success", unauthenticated=expired, code="expired" if expired else None)


READING = Profile(classify=by_its_body, reads_body=lambda response: True)


@pytest.mark.parametrize(("takes", "ends"), [("token-2", None), ("none of these", "expired")])
async def test_what_a_profile_calls_unauthenticated_is_as_a_401(world, takes, ends):
    network = world.scripted(
        lambda request: Reply(
            body=b"welcome" if request.headers["authorization"] == f"Bearer {takes}" else EXPIRED
        )
    )
    stack = world.stack(network, auth=Tokens(), profile=READING)
    answer = await world.post(stack, url=HOME, content=b"the body")
    assert (answer.status_code, answer.content) == (200, EXPIRED if ends else b"welcome")
    assert tokens_of(network) == ["token-1", "token-2"]
    assert [sent.body for sent in network.sent] == [b"the body", b"the body"]
    attempts = answer.extensions["aragora_transport"].attempts
    assert [(attempt.status, attempt.error) for attempt in attempts] == [(200, "expired"), (200, ends)]
    finished = [event.error for event in world.events if isinstance(event, AttemptFinished)]
    assert finished == ["expired", ends]
    assert network.open_responses == 0


@pytest.mark.anyio
async def test_the_failure_inside_the_first_answer_is_not_taken_for_one_of_the_second():
    clock = ManualClock()
    network = ScriptedTransport(Reply(body=EXPIRED), Reply(body=b"welcome"), clock=clock)
    alone = AuthTransport(network, source=Tokens(), profile=READING, clock=clock)
    async with httpx.AsyncClient(transport=alone) as client:
        answer = await client.get(HOME)
    attempts = answer.extensions["aragora_transport"].attempts
    assert [attempt.error for attempt in attempts] == ["expired", None]


class TheSame(Tokens):
    async def fetch(self, *, blocking, clock):
        await super().fetch(blocking=blocking, clock=clock)
        return Token(value="always the same")


class Fixed(TheSame):
    refreshes = False


@pytest.mark.parametrize(("kind", "asked"), [(TheSame, 2), (Fixed, 1)])
async def test_a_401_is_not_answered_with_the_same_token_again(world, kind, asked):
    source = kind()
    network = world.scripted(Platform("another"))
    stack = world.stack(network, auth=source)
    answer = await world.get(stack, url=HOME)
    assert (answer.status_code, answer.content) == (401, b"who are you?")
    assert len(network.sent) == 1
    assert source.asked == asked
    assert statuses(answer) == [401]
    assert stack.describe()["worst_case_sends"] == (6 if kind.refreshes else 3)
    assert (stack.describe()["worst_case_seconds"] is None) == kind.refreshes


async def test_a_body_that_was_read_is_not_sent_again(world):
    def blocking_parts():
        yield b"once"

    async def parts():
        yield b"once"

    network = world.scripted(Platform("token-2"))
    content = blocking_parts() if world.blocking else parts()
    answer = await world.post(world.stack(network, auth=Tokens()), url=HOME, content=content)
    assert (answer.status_code, answer.content) == (401, b"who are you?")
    assert len(network.sent) == 1


async def test_a_body_that_nobody_read_can_be_sent_with_the_new_token(async_world):
    async def parts():
        yield b"once"

    class Hasty(type(async_world.scripted(200))):
        async def handle_async_request(self, request):
            if not self.sent:  # refused by its headers
                self._record(request)
                return async_world.httpx.Response(401)
            return await super().handle_async_request(request)

    network = Hasty(200, clock=async_world.clock, flavor=async_world.flavor_name)
    transport = async_world.layer(AuthTransport, network, source=Tokens())
    answer = await async_world.post(transport, url=HOME, content=parts())
    assert answer.status_code == 200
    assert network.sent[1].body == b"once"


async def test_a_token_goes_to_its_origin_alone(world):
    def platform(request):
        if request.url.host == "platform.test":
            return Reply(status=307, headers={"location": "http://elsewhere.test/"})
        return 401

    network = world.scripted(platform)
    client = world.client(world.stack(network, auth=Tokens()), follow_redirects=True)
    answer = client.get(HOME)
    answer = answer if world.blocking else await answer
    assert answer.status_code == 401
    assert tokens_of(network) == ["token-1", "-"]


async def test_a_request_that_is_sent_elsewhere_below_goes_without_its_token(async_world):
    class Moved(async_world.httpx.AsyncBaseTransport):
        def __init__(self, transport):
            self.transport = transport

        async def handle_async_request(self, request):
            request.url = request.url.copy_with(host="elsewhere.test")
            return await self.transport.handle_async_request(request)

    network = async_world.scripted(200)
    moved = Moved(CredentialTransport(network))
    await async_world.get(async_world.layer(AuthTransport, moved, source=Tokens()), url=HOME)
    assert tokens_of(network) == ["-"]


async def test_it_works_alone_and_with_other_credentials(world):
    key = Secret("the api key", origin=HOME)
    source = Tokens(header="X-Token", scheme="")
    network = world.scripted(200)
    stack = world.stack(network, auth=source, credentials=key)
    await world.get(stack, url=f"{HOME}/?key={key}", headers={"x-token": "the caller's own"})
    assert network.sent[0].url == f"{HOME}/?key=the%20api%20key"
    assert network.sent[0].headers.get_list("X-Token") == ["token-1"]
    network = world.scripted(Platform("token-2"))
    alone = world.layer(AuthTransport, world.layer(TimeoutTransport, network), source=Tokens())
    answer = await world.get(alone, url=HOME)
    assert statuses(answer) == [401, 200]


async def test_many_calls_with_an_expired_token_make_one_refresh(async_world):
    source = Tokens(expires_in=100.0)
    network = async_world.scripted(Platform("token-1"))
    client = async_world.client(async_world.stack(network, auth=source))
    assert (await client.get(HOME)).status_code == 200
    async_world.clock.advance(100.0)
    network._steps = [Platform("token-2")]
    answers = []

    async def call():
        answers.append(await client.get(HOME))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(call)
    assert source.asked == 2
    assert [answer.status_code for answer in answers] == [200] * 100
    assert tokens_of(network) == ["token-1"] + ["token-2"] * 100


async def test_many_calls_that_are_told_401_make_one_refresh(async_world):
    source = Tokens(expires_in=None)
    platform = Platform("token-1")
    network = async_world.scripted(platform)
    client = async_world.client(async_world.stack(network, auth=source))
    await client.get(HOME)
    platform.takes = "token-2"
    answers = []

    async def call():
        answers.append(await client.get(HOME))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(call)
    assert source.asked == 2
    assert [answer.status_code for answer in answers] == [200] * 100


def test_threads_and_event_loops_share_one_refresh():
    source = Tokens(seconds=0.05, expires_in=None)
    platform = Platform("token-1")
    networks = []
    answers = []
    go = threading.Barrier(12)

    def blocking():
        networks.append(ScriptedTransport(platform))
        with httpx.Client() as client:
            client._transport = networks[-1]
            wrap_client(client, "test", auth=source)
            go.wait()
            answers.extend(client.get(HOME).status_code for _ in range(3))

    async def several():
        networks.append(ScriptedTransport(platform))
        transport = resilient("test", networks[-1], auth=source)
        async with httpx.AsyncClient(transport=transport) as client:
            got = await asyncio.gather(*(client.get(HOME) for _ in range(3)))
        answers.extend(answer.status_code for answer in got)

    def loop(backend):
        go.wait()
        anyio.run(several, backend=backend)

    arguments = [(blocking, ())] * 6 + [(loop, ("asyncio",))] * 6
    threads = [threading.Thread(target=target, args=args) for target, args in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert source.asked == 1
    assert answers == [200] * 36


async def test_every_waiter_hears_that_the_refresh_failed_and_nobody_tries_for_itself(async_world):
    source = Tokens()
    source.fails = TokenRefused("invalid_grant: the grant is gone\r\n", code="invalid_grant")
    network = async_world.scripted(200)
    client = async_world.client(async_world.stack(network, auth=source))
    errors = []

    async def call():
        with pytest.raises(TokenRefreshError) as caught:
            await client.get(HOME, extensions=call_options(operation="get_thing"))
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(call)
    assert source.asked == 1
    assert network.sent == []
    assert len(set(map(id, errors))) == 20
    assert str(errors[0]) == (
        "test get_thing: no token: invalid_grant: the grant is gone\\r\\n; look at the credentials"
    )
    assert isinstance(errors[0], async_world.httpx.TransportError)
    assert (errors[0].code, errors[0].retryable) == ("invalid_grant", False)
    assert errors[0].request.url.host == "platform.test"
    assert async_world.sample(
        "platform_requests_total", platform="test", operation="get_thing", status="no_token"
    )
    assert not async_world.sample(
        "platform_attempts_total", platform="test", operation="get_thing", status="no_token"
    )


FAILURES = [
    (httpx.ConnectError("no route"), "ConnectError: no route; the next call asks again"),
    (TypeError("a bug"), "TypeError: a bug; look at the credentials"),
    (TokenRefused("down", retryable=True), "down; the next call asks again"),
]


@pytest.mark.parametrize(("failure", "told"), FAILURES, ids=lambda value: type(value).__name__)
async def test_after_a_failed_refresh_the_next_call_tries_again(world, failure, told):
    source = Tokens()
    source.fails = failure
    stack = world.stack(world.scripted(200), auth=source)
    with pytest.raises(TokenRefreshError, match=told):
        await world.get(stack, url=HOME)
    source.fails = None
    assert (await world.get(stack, url=HOME)).status_code == 200


async def test_what_is_no_token_is_said_so(world):
    class Odd(TokenSource):
        async def fetch(self, *, blocking, clock):
            return "a string"

    with pytest.raises(TokenRefreshError, match=r"Odd\.fetch\(\) returned a str, not a Token"):
        await world.get(world.stack(world.scripted(200), auth=Odd(origin=HOME)), url=HOME)
    with pytest.raises(TokenRefreshError, match="NotImplementedError: TokenSource is no source of tokens"):
        await world.get(world.stack(world.scripted(200), auth=TokenSource(origin=HOME)), url=HOME)


async def test_a_refresh_that_fails_after_a_401_leaves_the_401(world):
    source = Tokens()
    platform = Platform("token-1")
    network = world.scripted(platform)
    stack = world.stack(network, auth=source)
    await world.get(stack, url=HOME)
    platform.takes = "token-2"
    source.fails = TokenRefused("the grant is gone")
    answer = await world.get(stack, url=HOME)
    assert (answer.status_code, answer.content) == (401, b"who are you?")
    assert answer.extensions["aragora_transport"].token_refused.startswith("the grant")
    assert statuses(answer) == [401]
    assert network.open_responses == 0


async def test_a_retry_that_gets_no_token_ends_with_the_answer_before(world):
    source = Tokens(expires_in=1.0, seconds=0.0)

    def unwell(_):
        world.clock.advance(1.0)
        source.fails = TokenRefused("the grant is gone")
        return Reply(status=503, body=b"unwell")

    network = world.scripted(unwell)
    answer = await world.get(world.stack(network, auth=source), url=HOME)
    assert (answer.status_code, answer.content) == (503, b"unwell")
    assert statuses(answer) == [503]
    assert [e.reason for e in world.events if isinstance(e, RetryRefused)] == ["no_token"]


async def test_a_refreshed_attempt_does_not_use_up_a_retry(world):
    def unwell(request):
        return 401 if request.headers["authorization"] == "Bearer token-1" else 503

    network = world.scripted(unwell)
    answer = await world.get(world.stack(network, auth=Tokens()), url=HOME)
    assert statuses(answer) == [401, 503, 503, 503]
    assert tokens_of(network) == ["token-1", "token-2", "token-2", "token-2"]


async def test_a_cancelled_caller_neither_stops_the_refresh_nor_fails_the_others(every_async_world):
    world = every_async_world
    source = Tokens(seconds=5.0)
    network = world.scripted(Platform("token-1"))
    client = world.client(world.stack(network, auth=source))
    answers = []

    async def call():
        answers.append((await client.get(HOME)).status_code)

    async with anyio.create_task_group() as tasks:

        async def far_enough():
            await world.until(lambda: source.asked)
            tasks.start_soon(call)
            tasks.start_soon(call)
            await anyio.lowlevel.checkpoint()

        await world.cancelled(far_enough, call)
    assert source.asked == 1
    assert answers == [200, 200]


async def test_all_cancelled_the_refresh_still_comes_to_its_end(async_world):
    source = Tokens(seconds=5.0)
    client = async_world.client(async_world.stack(async_world.scripted(Platform("token-1")), auth=source))
    await async_world.cancelled(lambda: async_world.until(lambda: source.asked), client.get, HOME)
    assert (await client.get(HOME)).status_code == 200
    assert source.asked == 1


async def test_a_call_waits_for_a_token_no_longer_than_its_deadline(world):
    source = Tokens(seconds=10.0)
    network = world.scripted(Platform("token-1"))
    policy = Policy(timeout=TimeoutPolicy(total=3.0))
    stack = world.stack(network, auth=source, policy=policy)
    with pytest.raises(DeadlineExceededError, match="total limit of 3 s"):
        await world.get(stack, url=HOME)
    assert world.clock.monotonic() == pytest.approx(3.0, abs=0.01)
    assert network.sent == []
    assert not world.sample(
        "platform_attempts_total", platform="test", operation="GET", status="deadline_exceeded"
    )
    world.clock.advance(10.0)
    assert (await world.get(stack, url=HOME)).status_code == 200
    assert source.asked == 1  # the refresh had gone on


async def test_a_401_is_returned_where_a_new_token_would_come_too_late(world):
    source = Tokens()
    platform = Platform("token-1")
    policy = Policy(timeout=TimeoutPolicy(total=3.0))
    stack = world.stack(world.scripted(platform), auth=source, policy=policy)
    await world.get(stack, url=HOME)
    platform.takes, source.seconds = "token-2", 10.0
    answer = await world.get(stack, url=HOME)
    assert (answer.status_code, answer.content) == (401, b"who are you?")


async def test_a_token_is_refreshed_before_its_end_while_others_go_on_with_it(async_world):
    source = Tokens(seconds=5.0, expires_in=1000.0)
    network = async_world.scripted(200)
    client = async_world.client(async_world.stack(network, auth=source))
    await client.get(HOME)
    async_world.clock.advance(933.0 - async_world.clock.monotonic())  # 66 s at most before its end
    await client.get(HOME)
    assert source.asked == 1
    async_world.clock.advance(7.1)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(client.get, HOME)
    assert source.asked == 2
    assert sorted(tokens_of(network)) == ["token-1"] * 6 + ["token-2"]


async def test_while_a_token_is_good_a_refresh_that_fails_harms_nobody(world):
    source = Tokens(seconds=0.0, expires_in=1000.0)
    network = world.scripted(200)
    stack = world.stack(network, auth=source)
    await world.get(stack, url=HOME)
    source.fails = TokenRefused("down", retryable=True)
    world.clock.advance(950.0)
    for _ in range(3):
        await world.get(stack, url=HOME)
    assert source.asked == 2  # not by every call
    world.clock.advance(7.0)
    await world.get(stack, url=HOME)
    assert source.asked == 3
    assert tokens_of(network) == ["token-1"] * 5
    world.clock.advance(50.0)
    with pytest.raises(TokenRefreshError):
        await world.get(stack, url=HOME)


async def test_a_token_that_lives_shortly_is_used_for_half_of_its_time(world):
    source = Tokens(seconds=0.0, expires_in=10.0)
    stack = world.stack(world.scripted(200), auth=source)
    for asked, later in [(1, 4.9), (1, 0.2), (2, 0.0)]:
        await world.get(stack, url=HOME)
        assert source.asked == asked
        world.clock.advance(later)


def test_a_refresh_that_went_with_its_event_loop_is_begun_again():
    clock = ManualClock(auto=False)
    source = Tokens(seconds=5.0)
    stack = resilient("test", ScriptedTransport(Platform("token-2"), clock=clock), auth=source, clock=clock)

    async def ask():
        async with httpx.AsyncClient(transport=stack) as client:
            return await client.get(HOME)

    async def begin():
        task = asyncio.create_task(ask())
        await until(lambda: source.asked)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(begin())  # at its end it cancels the refresh

    async def again():
        source.seconds = 0.0
        return await ask()

    assert asyncio.run(again()).status_code == 200
    assert source.asked == 2


class Told(set):
    """Waiters, and what is set when there are two."""

    def __init__(self, waiters, both):
        super().__init__(waiters)
        self.both = both

    def add(self, waiter):
        super().add(waiter)
        self.both.set()


def test_a_refresh_that_is_lost_is_handed_on_to_who_waits_for_it_elsewhere():
    clock = ManualClock(auto=False)
    source = Tokens(seconds=5.0)
    stack = resilient("test", ScriptedTransport(Platform("token-2"), clock=clock), auth=source, clock=clock)

    async def ask():
        async with httpx.AsyncClient(transport=stack) as client:
            return await client.get(HOME)

    async def begin():
        task = asyncio.create_task(ask())
        await until(lambda: source.asked)
        source.seconds = 0.0
        both_wait = threading.Event()
        source._flight.waiters = Told(source._flight.waiters, both_wait)
        waiting = threads.submit(asyncio.run, ask())
        await anyio.to_thread.run_sync(both_wait.wait, 20)
        task.cancel()
        return waiting

    with ThreadPoolExecutor() as threads:
        assert asyncio.run(begin()).result(20).status_code == 200
    assert source.asked == 2


async def test_a_401_that_comes_after_a_refresh_makes_no_other(async_world):
    source = Tokens(expires_in=None)

    def platform(request):
        if request.headers["authorization"] == "Bearer token-2":
            return 200
        return Reply(status=401, after=9.0 if request.url.path == "/slow" else 1.0)

    network = async_world.scripted(platform)
    client = async_world.client(async_world.stack(network, auth=source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, f"{HOME}/slow")
        tasks.start_soon(client.get, HOME)
    assert source.asked == 2
    assert tokens_of(network) == ["token-1", "token-1", "token-2", "token-2"]


def test_a_refresh_in_an_event_loop_that_stands_still_is_given_up():
    clock = ManualClock(auto=False)
    source = Tokens(seconds=5.0, timeout=20.0)
    network = ScriptedTransport(Platform("token-2"), clock=clock)
    stack = resilient("test", network, auth=source, clock=clock)

    async def ask():
        async with httpx.AsyncClient(transport=stack) as client:
            return await client.get(HOME)

    async def begin():
        task = asyncio.create_task(ask())
        await until(lambda: source.asked)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    standing = asyncio.new_event_loop()
    standing.run_until_complete(begin())

    async def wait_for_it():
        source.seconds = 0.0
        task = asyncio.create_task(ask())
        for _ in range(50):
            await asyncio.sleep(0)
        assert source.asked == 1
        clock.advance(25.0)  # the time limit, and a little grace
        return await task

    with ThreadPoolExecutor() as threads:  # a manual clock lets the waits of one thread go one by one
        assert threads.submit(asyncio.run, wait_for_it()).result(20).status_code == 200
    assert source.asked == 2
    standing.run_until_complete(asyncio.sleep(0.01))  # the first one ends at last, and changes nothing
    assert source._held.secret.reveal() == "token-2"
    standing.close()


async def test_a_refresh_has_the_correlation_id_of_the_call_that_began_it(world):
    seen = []

    class Seeing(Tokens):
        async def fetch(self, *, blocking, clock):
            from aragora_transport import correlation_id

            seen.append(correlation_id())
            return await super().fetch(blocking=blocking, clock=clock)

    answer = await world.get(world.stack(world.scripted(200), auth=Seeing()), url=HOME)
    assert seen == [answer.extensions["aragora_transport"].correlation_id]


@pytest.mark.parametrize("clock", [None, ManualClock()], ids=["system", "manual"])
def test_a_refresh_that_cannot_be_begun_keeps_nobody_waiting(monkeypatch, clock):
    source = Tokens(seconds=0.0)
    network = httpx.MockTransport(lambda _: httpx.Response(200))
    stack = resilient_sync("test", network, auth=source, clock=clock)
    start = threading.Thread.start

    def refused(_):
        raise RuntimeError("can't start new thread")

    with httpx.Client(transport=stack) as client:
        monkeypatch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="thread"):
            client.get(HOME)
        monkeypatch.setattr(threading.Thread, "start", start)
        assert client.get(HOME).status_code == 200  # and 35 s later it would, had it been left as begun
    assert source.asked == 1


async def test_after_a_fork_a_call_does_not_wait_for_the_parents_refresh(async_world, monkeypatch):
    world = async_world
    source = Tokens()
    stack = world.stack(world.scripted(200), auth=source)
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, HOME)
        await until(lambda: source.asked == 1)
        monkeypatch.setattr("os.getpid", lambda: -1)  # as a child has it
        assert (await client.get(HOME)).status_code == 200
    assert source.asked == 2


async def test_one_request_that_is_sent_several_times_at_once_is_as_many_calls(async_world):
    world = async_world
    platform = Platform("token-1")
    stack = world.stack(world.scripted(platform), auth=Tokens())
    answers = []
    async with world.client(stack) as client, anyio.create_task_group() as tasks:
        request = client.build_request("GET", HOME)

        async def send():
            answers.append(await client.send(request))

        for _ in range(5):
            tasks.start_soon(send)
    assert [answer.status_code for answer in answers] == [200] * 5
    records = {id(answer.extensions["aragora_transport"]) for answer in answers}
    assert len(records) == 5


def test_its_place_is_between_retry_and_gate():
    network = ScriptedTransport(200)
    layers = [layer["layer"] for layer in resilient("test", network, auth=Tokens()).describe()["layers"]]
    at = layers.index("AuthTransport")
    assert layers[at - 1 : at + 2] == ["RetryTransport", "AuthTransport", "RateLimitTransport"]
    with pytest.raises(ValueError, match="Swap the two"):
        BreakerTransport(AuthTransport(network, source=Tokens()))
    RetryTransport(AuthTransport(network, source=Tokens()))
    assert repr(Tokens()) == "<Tokens for http://platform.test>"
    with pytest.raises(TypeError, match="source"):
        AuthTransport(network, source="a token")
    with pytest.raises(TypeError, match="test: auth"):
        resilient("test", network, auth="a token")


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"header": "a b"}, "header"),
        ({"scheme": "Bearer\r\nX"}, "scheme"),
        ({"margin": -1.0}, "margin"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_a_source_is_told_what_makes_no_sense(keywords, told):
    with pytest.raises(ValueError, match=told):
        Tokens(**keywords)
    with pytest.raises(ValueError, match="origin"):
        TokenSource(origin="platform.test")


@pytest.mark.parametrize("expires_in", [-1, float("nan"), float("inf"), True, "3600"])
def test_a_token_lasts_for_a_number_of_seconds(expires_in):
    with pytest.raises(ValueError, match="expires_in"):
        Token(value="x", expires_in=expires_in)
    assert "secret" not in repr(Token(value="secret", expires_in=1))
