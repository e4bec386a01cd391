from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import httpx
import httpx2
import pytest

from aragora_transport import (
    BreakerPolicy,
    CircuitOpenError,
    DeadlineExceededError,
    Policy,
    RateLimitedError,
    TimeoutPolicy,
    call_options,
    errors,
)
from aragora_transport._flavor import flavor
from aragora_transport.testing import Hang, Reply

WHOSE = {"platform": "slack", "operation": "chat.postMessage"}
CIRCUIT = {**WHOSE, "key": "slack", "retry_after": 41.2, "failures": 5, "cause": "503"}
LIMITED = {**WHOSE, "key": "slack", "retry_after": 90.0, "reason": "wait_too_long"}
DEADLINE = {**WHOSE, "limit": "total", "seconds": 10.0, "attempt": 2, "elapsed": 10.004, "last": "503"}
KINDS = [
    (CircuitOpenError, CIRCUIT, "TransportError"),
    (RateLimitedError, LIMITED, "TransportError"),
    (DeadlineExceededError, DEADLINE, "TimeoutException"),
]


def pickled_and_back(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes


def made(kind, fields, name="httpx", **more):
    return getattr(flavor(name), kind.__name__)(**{**fields, **more})


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (
            CircuitOpenError,
            CIRCUIT,
            "slack chat.postMessage: circuit open after 5 failures (last: 503); next probe in 41.2 s",
        ),
        (
            CircuitOpenError,
            {**CIRCUIT, "retry_after": 0.0},
            "slack chat.postMessage: circuit open after 5 failures (last: 503); a probe is under way",
        ),
        (
            CircuitOpenError,
            {**CIRCUIT, "retry_after": math.inf, "failures": 0, "cause": None},
            "slack chat.postMessage: circuit open; it was isolated by hand and stays open until reset()",
        ),
        (
            RateLimitedError,
            LIMITED,
            (
                "slack chat.postMessage: rate limited, the gate of 'slack' opens in 90 s and that is "
                "longer than max_retry_after; try again after that"
            ),
        ),
        (
            RateLimitedError,
            {**LIMITED, "reason": "deadline"},
            (
                "slack chat.postMessage: rate limited, the gate of 'slack' opens in 90 s and that is "
                "past the call's deadline; try again after that"
            ),
        ),
        (
            RateLimitedError,
            {**LIMITED, "reason": "queue_full"},
            (
                "slack chat.postMessage: rate limited, the gate of 'slack' opens in 90 s and too many "
                "calls wait for it already; try again after that"
            ),
        ),
        (
            DeadlineExceededError,
            DEADLINE,
            (
                "slack chat.postMessage: no end within the total limit of 10 s, in attempt 2, 10 s after the "
                "call began (before that: 503)"
            ),
        ),
        (
            DeadlineExceededError,
            {**DEADLINE, "limit": "attempt", "last": None},
            (
                "slack chat.postMessage: no end within the attempt limit of 10 s, in attempt 2, 10 s "
                "after the call began"
            ),
        ),
    ],
)
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_an_error_says_what_happened_why_and_what_happens_next(kind, fields, says, name):
    assert str(made(kind, fields, name)) == says


@pytest.mark.parametrize(("kind", "fields", "base"), KINDS)
def test_ours_are_errors_of_httpx(kind, fields, base):
    error = made(kind, fields)
    assert isinstance(error, getattr(httpx, base))
    assert isinstance(error, httpx.TransportError)
    assert not isinstance(error, httpx2.TransportError)


@pytest.mark.parametrize(("kind", "fields", "base"), KINDS)
def test_the_twins_are_ours_and_errors_of_httpx2(kind, fields, base):
    error = made(kind, fields, "httpx2")
    assert isinstance(error, kind)
    assert isinstance(error, getattr(httpx2, base))
    assert isinstance(error, httpx2.TransportError)


@pytest.mark.parametrize(("kind", "fields", "base"), KINDS)
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_an_error_keeps_its_fields_and_its_request(kind, fields, base, name):
    request = flavor(name).module.Request("GET", "http://platform.test/")
    error = made(kind, fields, name, request=request)
    assert {field: getattr(error, field) for field in fields} == fields
    assert error.request is request


@pytest.mark.parametrize(("kind", "fields", "base"), KINDS)
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled_and_back])
def test_an_error_survives_copying_and_pickling(kind, fields, base, name, again):
    error = made(kind, fields, name, request=flavor(name).module.Request("GET", "http://platform.test/"))
    copied = again(error)
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert {field: getattr(copied, field) for field in fields} == fields


def test_an_error_of_httpx2_is_unpickled_by_a_process_that_has_made_none_yet():
    pickled = pickle.dumps([made(kind, fields, "httpx2") for kind, fields, _ in KINDS])
    code = (
        "import pickle, sys\n"
        "for error in pickle.loads(bytes.fromhex(sys.argv[1])):\n"
        "    print(type(error).__name__, isinstance(error, __import__('httpx2').TransportError))\n"
    )
    done = subprocess.run(  # noqa: S603  # our own interpreter and our own code
        [sys.executable, "-W", "error", "-c", code, pickled.hex()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [
        *("CircuitOpenError", "True"),
        *("RateLimitedError", "True"),
        *("DeadlineExceededError", "True"),
    ]


@pytest.mark.parametrize("name", ["Nothing", "Nothing_httpx2", "_httpx2"])
def test_a_name_that_the_module_has_not_is_missing_as_in_any_module(name):
    with pytest.raises(AttributeError, match="no attribute"):
        getattr(errors, name)


@pytest.mark.anyio
class TestRaised:
    """By a whole stack, as a caller meets them."""

    async def test_a_circuit_that_is_open(self, world):
        policy = Policy(retry=None, breaker=BreakerPolicy(failure_threshold=1, cooldown=30.0))
        stack = world.stack(world.scripted(503), "slack", policy=policy)
        await world.get(stack)
        with pytest.raises(CircuitOpenError, match=r"circuit open after 1 failure \(last: 503\)") as caught:
            await world.get(stack, extensions=call_options(operation="chat.postMessage"))
        self.is_theirs(world, caught.value, world.httpx.TransportError)
        assert (caught.value.key, caught.value.retry_after) == ("slack", 30.0)

    async def test_a_rate_limit_longer_than_one_waits_for(self, world):
        network = world.scripted(Reply(status=429, headers={"retry-after": "90"}))
        stack = world.stack(network, "slack")
        assert (await world.get(stack)).status_code == 429
        with pytest.raises(RateLimitedError, match="longer than max_retry_after") as caught:
            await world.get(stack)
        self.is_theirs(world, caught.value, world.httpx.TransportError)
        assert caught.value.retry_after == 90.0

    @pytest.mark.parametrize("limits", [TimeoutPolicy(total=3.0), TimeoutPolicy(attempt=3.0)])
    async def test_a_limit_that_ran_out(self, world, limits):
        stack = world.stack(world.scripted(Hang()), policy=Policy(timeout=limits, retry=None))
        with pytest.raises(DeadlineExceededError, match="limit of 3 s, in attempt 1") as caught:
            await world.get(stack)
        self.is_theirs(world, caught.value, world.httpx.TimeoutException)
        assert caught.value.elapsed == pytest.approx(3.0)

    @staticmethod
    def is_theirs(world, error, base):
        assert isinstance(error, base)
        assert error.request.url == "http://platform.test/"
        assert error.request.method == "GET"
