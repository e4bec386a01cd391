"""What is sent again, what is not, and what the caller gets in the end."""

from __future__ import annotations

import ssl

import pytest

from aragora_transport import RetryPolicy, call_options
from aragora_transport.layers import RetryTransport
from aragora_transport.profile import Profile
from aragora_transport.testing import Reply

pytestmark = pytest.mark.anyio

TRANSPORT_ERRORS = (
    "ConnectError",
    "ConnectTimeout",
    "ReadError",
    "ReadTimeout",
    "WriteError",
    "WriteTimeout",
    "CloseError",
    "PoolTimeout",
    "RemoteProtocolError",
    "ProxyError",
)


class Keeps:
    """Hands on every answer and error of the transport below, and keeps them."""

    def __init__(self, below):
        self.below = below
        self.flavor = below.flavor
        self.answers = []

    async def handle_async_request(self, request):
        answer = await self.below.handle_async_request(request)
        self.answers.append(answer)
        return answer

    def handle_request(self, request):
        answer = self.below.handle_request(request)
        self.answers.append(answer)
        return answer


def instances(world, *names):
    """Errors to script, as objects that a test can recognise again."""
    return [getattr(world.httpx, name)(f"number {number}") for number, name in enumerate(names)]


async def test_a_503_is_sent_again(world):
    network = world.scripted(503, 503, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert len(network.sent) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_the_guides_statuses_are_sent_again(world, status):
    network = world.scripted(status, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert len(network.sent) == 2


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 409, 410, 412, 413, 422, 451, 501, 505])
async def test_an_answer_that_would_not_change_is_returned_at_once(world, status):
    network = world.scripted(status, 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == status
    assert len(network.sent) == 1
    assert world.clock.monotonic() == 0.0


@pytest.mark.parametrize("status", [202, 400, 418])
async def test_the_policy_says_which_statuses_are_sent_again(world, status):
    network = world.scripted(status, 503, 200)
    policy = RetryPolicy(statuses=frozenset({status}))
    answer = await world.get(world.layer(RetryTransport, network, policy=policy))
    assert answer.status_code == 503
    assert len(network.sent) == 2


@pytest.mark.parametrize("name", TRANSPORT_ERRORS)
async def test_a_transport_error_is_sent_again(world, name):
    network = world.scripted(getattr(world.httpx, name), 200)
    answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert len(network.sent) == 2


@pytest.mark.parametrize(
    "name", ["LocalProtocolError", "UnsupportedProtocol", "InvalidURL", "TooManyRedirects"]
)
async def test_the_callers_own_mistake_is_not_sent_again(world, name):
    network = world.scripted(getattr(world.httpx, name), 200)
    with pytest.raises(getattr(world.httpx, name)):
        await world.get(world.layer(RetryTransport, network))
    assert len(network.sent) == 1


async def test_an_error_that_is_none_of_httpx_is_not_sent_again(world):
    error = KeyError("ours")
    network = world.scripted(error, 200)
    with pytest.raises(KeyError) as caught:
        await world.get(world.layer(RetryTransport, network))
    assert caught.value is error
    assert len(network.sent) == 1


def untrusted(world, via):
    """What httpx raises for a certificate that it does not trust, as its backends chain it."""
    error = world.httpx.ConnectError("untrusted")
    verification = ssl.SSLCertVerificationError("self-signed certificate")
    if via == "context":
        error.__context__ = verification
    elif via == "cause":
        error.__cause__ = verification
    else:  # trio puts one error more in between
        error.__cause__ = OSError("broken")
        error.__cause__.__cause__ = verification
    return error


@pytest.mark.parametrize("via", ["cause", "context", "cause of the cause"])
async def test_a_certificate_that_is_not_trusted_is_not_tried_again(world, via):
    error = untrusted(world, via)
    network = world.scripted(error, 200)
    with pytest.raises(world.httpx.ConnectError) as caught:
        await world.get(world.layer(RetryTransport, network))
    assert caught.value is error
    assert len(network.sent) == 1


async def test_a_call_made_because_of_an_untrusted_certificate_elsewhere_is_retried_as_any_other(world):
    network = world.scripted(world.httpx.ConnectError, 200)
    try:
        raise untrusted(world, "cause")
    except world.httpx.ConnectError:
        answer = await world.get(world.layer(RetryTransport, network))
    assert answer.status_code == 200
    assert len(network.sent) == 2


async def test_max_attempts_counts_tries_in_all(world):
    network = world.scripted(503)
    answer = await world.get(world.layer(RetryTransport, network, policy=RetryPolicy(max_attempts=5)))
    assert answer.status_code == 503
    assert len(network.sent) == 5


async def test_one_attempt_is_no_retry(world):
    network = world.scripted(503, 200)
    answer = await world.get(world.layer(RetryTransport, network, policy=RetryPolicy(max_attempts=1)))
    assert answer.status_code == 503
    assert len(network.sent) == 1
    assert world.clock.monotonic() == 0.0


@pytest.mark.parametrize("most", [1, 2, 6])
async def test_a_call_can_say_how_often_it_is_sent(world, most):
    network = world.scripted(503)
    extensions = call_options(max_attempts=most)
    answer = await world.get(world.layer(RetryTransport, network), extensions=extensions)
    assert answer.status_code == 503
    assert len(network.sent) == most


async def test_the_last_answer_is_handed_on_as_it_came(world):
    keeps = Keeps(
        world.scripted(503, Reply(status=500, body=b"still broken"), Reply(status=502, body=b"last"))
    )
    answer = await world.get(world.layer(RetryTransport, keeps))
    assert answer is keeps.answers[-1]
    assert (answer.status_code, answer.content) == (502, b"last")


async def test_the_first_good_answer_is_handed_on_as_it_came(world):
    keeps = Keeps(world.scripted(503, Reply(body=b"good")))
    answer = await world.get(world.layer(RetryTransport, keeps))
    assert answer is keeps.answers[-1]
    assert answer.content == b"good"


async def test_the_last_error_is_raised_as_it_came(world):
    errors = instances(world, "ConnectError", "ReadError", "RemoteProtocolError")
    network = world.scripted(*errors)
    with pytest.raises(world.httpx.TransportError) as caught:
        await world.get(world.layer(RetryTransport, network))
    assert caught.value is errors[-1]
    assert caught.value.request.url.host == "platform.test"
    assert len(network.sent) == 3


async def test_an_error_after_answers_is_what_the_caller_gets(world):
    errors = instances(world, "ReadError")
    network = world.scripted(503, 503, *errors)
    with pytest.raises(world.httpx.ReadError) as caught:
        await world.get(world.layer(RetryTransport, network))
    assert caught.value is errors[0]
    assert network.open_responses == 0


async def test_an_answer_after_errors_is_what_the_caller_gets(world):
    network = world.scripted(world.httpx.ReadError, world.httpx.ConnectError, Reply(status=503, body=b"down"))
    answer = await world.get(world.layer(RetryTransport, network))
    assert (answer.status_code, answer.content) == (503, b"down")


async def test_the_record_lists_every_attempt(world):
    network = world.scripted(
        world.httpx.ConnectError, Reply(status=503, after=2.0), Reply(after=0.5, body=b"good")
    )
    answer = await world.get(world.layer(RetryTransport, network))
    first, second, third = answer.extensions["aragora_transport"].attempts
    assert (first.status, first.error, first.seconds) == (None, "ConnectError", 0.0)
    assert (second.status, second.error, second.seconds) == (503, None, pytest.approx(2.0))
    assert (third.status, third.error, third.seconds) == (200, None, pytest.approx(0.5))
    assert [1.0 <= first.wait <= 1.1, 2.0 <= second.wait <= 2.2, third.wait] == [True, True, 0.0]
    total = answer.extensions["aragora_transport"].total_seconds
    assert total == pytest.approx(2.5 + first.wait + second.wait)


async def test_headers_and_body_are_sent_again_byte_for_byte(world):
    network = world.scripted(503, world.httpx.ConnectError, 200)
    headers = [("X-Token", "a"), ("x-token", "b"), ("Idempotency-Key", "1")]
    await world.post(world.layer(RetryTransport, network), content=b"\x00payload\xff", headers=headers)
    assert [sent.body for sent in network.sent] == [b"\x00payload\xff"] * 3
    first, *others = [sent.headers.raw for sent in network.sent]
    assert others == [first, first]


async def test_a_body_that_dies_while_it_is_judged_is_a_failed_attempt(world):
    profile = Profile(classify=lambda response, body: None, reads_body=lambda response: True)
    network = world.scripted(Reply(body=b"x", then=world.httpx.ReadError), Reply(body=b"good"))
    answer = await world.get(world.layer(RetryTransport, network, profile=profile))
    assert answer.content == b"good"
    assert network.open_responses == 0


async def test_a_judgement_that_raises_ends_the_call_and_leaves_no_answer_open(world):
    def broken(response, body):
        raise KeyError("broken profile")

    network = world.scripted(Reply(body=b"x"), 200)
    with pytest.raises(KeyError, match="broken profile"):
        await world.get(world.layer(RetryTransport, network, profile=Profile(classify=broken)))
    assert len(network.sent) == 1
    assert network.open_responses == 0
