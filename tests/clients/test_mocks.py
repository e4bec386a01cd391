"""Mock libraries beneath our transports: they see attempts, as a network would."""

from __future__ import annotations

import httpx
import pytest
import respx

from aragora_transport import CircuitOpenError, Policy, resilient, resilient_sync, wrap_client
from aragora_transport.testing import ManualClock

pytestmark = pytest.mark.anyio

URL = "https://platform.test/things"

only_httpx = pytest.mark.parametrize(
    "world", [f"{kind}-httpx" for kind in ("asyncio", "trio", "blocking")], indirect=True
)  # all that respx knows


class TestMockTransport:
    """The one in httpx itself."""

    @staticmethod
    def mock(world, *statuses):
        """A mock that answers with these statuses, and the requests it was asked."""
        left, seen = list(statuses), []

        def handler(request):
            seen.append(request)
            return world.httpx.Response(left.pop(0), json={"number": len(seen)}, headers={"x-mock": "yes"})

        return world.httpx.MockTransport(handler), seen

    async def test_it_is_asked_again_after_a_503(self, world):
        network, seen = self.mock(world, 503, 503, 200)
        answer = await world.post(world.stack(network), url=URL, json={"name": "one"})
        assert (answer.status_code, answer.json(), answer.headers["x-mock"]) == (200, {"number": 3}, "yes")
        assert [request.content for request in seen] == [b'{"name":"one"}'] * 3

    async def test_the_last_failure_can_be_read(self, world):
        network, seen = self.mock(world, 503, 503, 503)
        answer = await world.get(world.stack(network), url=URL)
        assert (answer.status_code, answer.json()) == (503, {"number": 3})
        assert len(seen) == 3

    async def test_the_very_answer_of_the_handler_is_handed_on(self, world):
        made = world.httpx.Response(200, content=b"x")
        network = world.httpx.MockTransport(lambda request: made)
        assert await world.get(world.stack(network), url=URL) is made

    async def test_an_error_that_it_raises_is_raised_as_it_was_after_the_last_attempt(self, world):
        error, seen = world.httpx.ReadTimeout("scripted"), []

        def handler(request):
            seen.append(request)
            raise error

        with pytest.raises(world.httpx.ReadTimeout) as caught:
            await world.get(world.stack(world.httpx.MockTransport(handler)), url=URL)
        assert caught.value is error
        assert len(seen) == 3

    async def test_each_of_its_failures_counts_towards_the_circuit(self, world):
        network, seen = self.mock(world, *[503] * 5)
        stack = world.stack(network, policy=Policy(retry=None))
        for _ in range(5):
            await world.get(stack, url=URL)
        with pytest.raises(CircuitOpenError) as caught:
            await world.get(stack, url=URL)
        assert isinstance(caught.value, world.httpx.TransportError)
        assert len(seen) == 5

    async def test_around_a_client_that_has_one_it_stays_beneath(self, world, tools):
        network, seen = self.mock(world, 503, 200)
        kind = world.httpx.Client if world.blocking else world.httpx.AsyncClient
        client = wrap_client(kind(transport=network, trust_env=False), "test", clock=world.clock)
        answer = await tools.result(client.get(URL))
        assert answer.status_code == 200
        assert len(seen) == 2

    async def test_an_async_handler_will_do(self, async_world):
        world = async_world

        async def handler(request):
            return world.httpx.Response(200, content=await request.aread())

        answer = await world.post(world.stack(world.httpx.MockTransport(handler)), url=URL, content=b"echo")
        assert answer.content == b"echo"


@only_httpx
class TestRespx:
    """respx, which stands in for httpcore beneath httpx's own network transport."""

    @staticmethod
    def stack(world, **keywords):
        """The whole stack over the network transport that it makes itself."""
        make = resilient_sync if world.blocking else resilient
        return make("test", clock=world.clock, **keywords)

    async def test_a_route_is_called_as_often_as_we_send(self, world, respx_mock):
        route = respx_mock.get(URL)
        route.side_effect = [httpx.Response(503), httpx.Response(503), httpx.Response(200, json={"a": 1})]
        answer = await world.get(self.stack(world), url=URL)
        assert (answer.status_code, answer.json()) == (200, {"a": 1})
        assert route.call_count == 3

    async def test_an_error_of_a_route_is_retried_and_then_raised(self, world, respx_mock):
        route = respx_mock.get(URL).mock(side_effect=httpx.ConnectError)
        with pytest.raises(httpx.ConnectError) as caught:
            await world.get(self.stack(world), url=URL)
        assert caught.value.request.url == URL
        assert route.call_count == 3

    async def test_an_upload_reaches_every_attempt_whole(self, world, respx_mock):
        route = respx_mock.post(URL)
        route.side_effect = [httpx.Response(503), httpx.Response(201)]
        await world.post(self.stack(world), url=URL, files={"file": ("name.txt", b"content" * 100)})
        first, second = (call.request for call in route.calls)
        assert b"content" * 100 in first.content
        assert second.content == first.content

    async def test_with_an_open_circuit_no_route_is_called(self, world, respx_mock):
        route = respx_mock.get(URL).respond(503)
        stack = self.stack(world, policy=Policy(retry=None))
        for _ in range(5):
            await world.get(stack, url=URL)
        with pytest.raises(CircuitOpenError):
            await world.get(stack, url=URL)
        assert route.call_count == 5

    @pytest.mark.respx(base_url="https://platform.test", assert_all_called=True)
    async def test_its_marker_and_fixture_work_as_ever(self, world, respx_mock):
        respx_mock.get("/things", params={"page": "2"}).respond(json=[1, 2])
        answer = await world.get(self.stack(world), url=URL, params={"page": "2"})
        assert answer.json() == [1, 2]

    async def test_its_own_transport_can_be_given(self, world):
        router = respx.Router()
        route = router.get(URL)
        route.side_effect = [httpx.Response(503), httpx.Response(204)]
        network = httpx.MockTransport(router.handler if world.blocking else router.async_handler)
        answer = await world.get(world.stack(network), url=URL)
        assert answer.status_code == 204
        assert route.call_count == 2

    async def test_its_mock_of_the_client_stands_above_ours_and_sees_calls(self, world):
        with respx.mock(using="httpx") as router:
            route = router.get(URL).respond(503)
            answer = await world.get(self.stack(world), url=URL)
        assert answer.status_code == 503
        assert route.call_count == 1


async def test_the_waits_of_a_mocked_test_can_be_those_of_a_manual_clock(respx_mock):
    clock = ManualClock()
    respx_mock.get(URL).respond(503, headers={"Retry-After": "30"})
    async with httpx.AsyncClient(transport=resilient("test", clock=clock)) as client:
        answer = await client.get(URL)
    assert answer.status_code == 503
    assert clock.monotonic() >= 60.0
