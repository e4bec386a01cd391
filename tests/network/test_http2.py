"""HTTP/2 beneath the stack: many calls on one connection, streams that fail alone, and nothing lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

import anyio
import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

pytestmark = [
    pytest.mark.anyio,
    # httpx and httpcore drop the iterators of bodies that are closed early, and trio complains of it.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2?\\._:ResourceWarning"),
]

RESET = object()  # the stream is reset without an answer
CUT = object()  # the stream is reset in the middle of its answer's body
SILENCE = object()  # there is no answer, ever
GOODBYE = object()  # an answer, and no further streams on this connection


@dataclass
class Stream:
    """One request as the server got it."""

    connection: int
    headers: dict
    body: bytearray = field(default_factory=bytearray)
    reset: bool = False

    @property
    def path(self):
        return self.headers[b":path"].decode()


class H2Server:
    """A small HTTP/2 server, without TLS, for clients that know; a thread for each connection.

    `script` is asked for each request, by its path's steps: a status or one of the above. Then all is well.
    """

    def __init__(self, script):
        self.script = {path: list(steps) for path, steps in script.items()}
        self.streams = []
        self.changed = threading.Condition()
        self.threads = []
        self.sockets = []
        self.errors = []

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        for sock in (self.listener, *self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in (self.listener, *self.sockets):
            sock.close()
        assert self.errors == []

    @property
    def connections(self):
        return len(self.sockets)

    def wait_until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 10)

    def _start(self, target, *arguments):
        def run():
            try:
                target(*arguments)
            except OSError:
                pass  # the client, or the end of the test, closed the connection
            except Exception as error:  # noqa: BLE001  # told at the end
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            sock, _ = self.listener.accept()
            self.sockets.append(sock)
            self._start(self._converse, sock, len(self.sockets))

    def _converse(self, sock, number):
        h2_connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        h2_connection.initiate_connection()
        sock.sendall(h2_connection.data_to_send())
        streams = {}
        while data := sock.recv(65_536):
            for event in h2_connection.receive_data(data):
                with self.changed:
                    self._on_event(h2_connection, event, streams, number)
                    self.changed.notify_all()
            sock.sendall(h2_connection.data_to_send())
            if h2_connection.state_machine.state is h2.connection.ConnectionState.CLOSED:
                break  # after a goodbye; what still comes is of no interest
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    def _on_event(self, connection, event, streams, number):
        match event:
            case h2.events.RequestReceived():
                stream = Stream(connection=number, headers=dict(event.headers))
                streams[event.stream_id] = stream
                self.streams.append(stream)
            case h2.events.DataReceived():
                streams[event.stream_id].body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                streams[event.stream_id].reset = True
            case h2.events.StreamEnded():
                steps = self.script.get(streams[event.stream_id].path)
                self._answer(connection, event.stream_id, steps.pop(0) if steps else 200)

    def _answer(self, connection, stream_id, step):
        if step is SILENCE:
            return
        if step is RESET:
            connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            return
        status = step if isinstance(step, int) else 200
        connection.send_headers(stream_id, [(":status", str(status)), ("x-server", "h2")])
        if step is CUT:
            connection.send_data(stream_id, b"the begin")
            connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
            return
        connection.send_data(stream_id, b"fine" if status == 200 else b"busy", end_stream=True)
        if step is GOODBYE:
            connection.close_connection(last_stream_id=stream_id)


@pytest.fixture
def serve():
    """Starts a server with a script; it is closed at the end."""
    with contextlib.ExitStack() as servers:
        yield lambda **script: servers.enter_context(
            H2Server({f"/{path}": steps for path, steps in script.items()})
        )


def h2_network(sockets, *, connections=1):
    return sockets.network(connections=connections, http1=False, http2=True)


async def test_a_call_over_http2_is_a_call(sockets, serve):
    server = serve()
    async with sockets.caller(h2_network(sockets)) as caller:
        answer = await caller.get(f"{server.url}/x")
        assert (answer.http_version, answer.status_code, answer.content) == ("HTTP/2", 200, b"fine")
        assert caller.taken == []


async def test_the_retries_of_a_call_share_one_connection(sockets, serve):
    server = serve(x=[503, 503])
    async with sockets.caller(h2_network(sockets)) as caller:
        assert (await caller.get(f"{server.url}/x")).content == b"fine"
        assert [stream.connection for stream in server.streams] == [1, 1, 1]
        assert caller.taken == []


async def test_an_upload_is_sent_again_byte_for_byte(sockets, serve):
    server = serve(x=[503])
    async with sockets.caller(h2_network(sockets)) as caller:
        answer = await caller.request("POST", f"{server.url}/x", content=b"y" * 100_000)
        assert answer.content == b"fine"
        assert [bytes(stream.body) for stream in server.streams] == [b"y" * 100_000] * 2


async def test_a_streamed_upload_is_sent_once(sockets, serve):
    server = serve(x=[503])
    async with sockets.caller(h2_network(sockets)) as caller:
        content = sockets.body(b"one", b"two")
        answer = await caller.request("PUT", f"{server.url}/x", content=content)
        assert (answer.status_code, answer.content) == (503, b"busy")
        assert [bytes(stream.body) for stream in server.streams] == [b"onetwo"]


async def test_a_stream_that_is_reset_is_sent_again_where_that_is_harmless(sockets, serve):
    server = serve(x=[RESET, RESET], y=[RESET])
    async with sockets.caller(h2_network(sockets)) as caller:
        assert (await caller.get(f"{server.url}/x")).content == b"fine"
        with pytest.raises(sockets.httpx.RemoteProtocolError) as caught:
            await caller.request("POST", f"{server.url}/y", content=b"y")
        assert caught.value.request.method == "POST"
        assert [stream.path for stream in server.streams] == ["/x", "/x", "/x", "/y"]
        assert caller.taken == []
        assert (await caller.get(f"{server.url}/z")).content == b"fine"


async def test_a_body_that_is_cut_off_is_httpxs_own_error(sockets, serve):
    server = serve(x=[CUT])
    async with sockets.caller(h2_network(sockets)) as caller:
        response = await caller.open("GET", f"{server.url}/x")
        assert response.status_code == 200
        with pytest.raises(sockets.httpx.RemoteProtocolError) as caught:
            await caller.read(response)
        assert caught.value.request is response.request
        assert caller.stack.circuits()["test"]["failures"] == 1
        assert len(server.streams) == 1
        assert caller.taken == []
        assert (await caller.get(f"{server.url}/z")).content == b"fine"


async def test_a_server_that_says_goodbye_gets_a_new_connection(sockets, serve):
    server = serve(x=[GOODBYE])
    async with sockets.caller(h2_network(sockets)) as caller:
        for _ in range(3):
            assert (await caller.get(f"{server.url}/x")).content == b"fine"
        assert server.connections == 2
        assert caller.taken == []


async def test_many_calls_at_once_share_one_connection_and_fail_alone(async_sockets, serve):
    server = serve(**{f"bad{number}": [503, RESET] for number in range(10)})
    answers = {}
    async with async_sockets.caller(h2_network(async_sockets)) as caller:

        async def call(path):
            answers[path] = (await caller.get(f"{server.url}/{path}")).content

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(call, f"good{number}")
                tasks.start_soon(call, f"bad{number}")
        assert list(answers.values()) == [b"fine"] * 20
        assert len(server.streams) == 40
        assert caller.taken == []
    assert {stream.connection for stream in server.streams} == {1}


async def test_a_cancelled_call_leaves_the_connection_to_the_others(async_sockets, serve, tools):
    server = serve(slow=[SILENCE])
    async with async_sockets.caller(h2_network(async_sockets)) as caller:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller.get, f"{server.url}/slow")
            await async_sockets.wait(server.wait_until, lambda: len(server.streams) == 1)
            assert (await caller.get(f"{server.url}/x")).content == b"fine"
            tasks.cancel_scope.cancel()
        assert caller.taken == []
        assert (await caller.get(f"{server.url}/y")).content == b"fine"
    assert server.connections == 1


async def test_an_attempt_that_takes_too_long_is_followed_by_another(sockets, serve):
    server = serve(slow=[SILENCE])
    # Both flavours give the connection up after a timeout; in a pool of one httpx2 would wait for it.
    async with sockets.caller(h2_network(sockets, connections=2)) as caller:
        timeout = sockets.httpx.Timeout(10, read=0.05)
        assert (await caller.get(f"{server.url}/slow", timeout=timeout)).content == b"fine"
        assert caller.taken == []
