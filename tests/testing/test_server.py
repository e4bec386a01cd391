"""Every fault as a bare httpx client sees it, over real sockets, blocking and under asyncio and trio."""

import asyncio
import gc
import hashlib
import itertools
import re
import socket
import struct
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.to_thread
import httpx
import pytest

from aragora_transport.testing import (
    Answer,
    FaultServer,
    Wire,
    close_before_headers,
    close_without_reading,
    drip,
    echo,
    garbage,
    half_headers,
    reset_after_headers,
    reset_before_headers,
    reset_while_reading_request,
    server_sent_events,
    stall_while_reading_request,
    stalled_body,
    stalled_headers,
    truncated_body,
    wrong_length,
)
from aragora_transport.testing._connection import BadRequestError, Connection

AN_HOUR = 3600.0
PATIENT = httpx.Timeout(30)
# which of them depends on whether the client was still writing when the connection broke
BROKEN_UPLOAD = (httpx.ReadError, httpx.RemoteProtocolError)


def a_client(timeout=PATIENT, **options):
    return httpx.Client(timeout=timeout, trust_env=False, **options)


def an_async_client(timeout=PATIENT, **options):
    return httpx.AsyncClient(timeout=timeout, trust_env=False, **options)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def call():
    """A thread for a client that hangs."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


# ------------------------------------------------------------------------------------------ every fault

# fault, the class of error, the status and the body seen before it, where the client has to lose patience
FAULTS = {
    "close_without_reading": (close_without_reading(), httpx.ReadError, None, b"", None),
    "reset_while_reading": (reset_while_reading_request(after_bytes=3), httpx.ReadError, None, b"", None),
    "close_before_headers": (close_before_headers(), httpx.RemoteProtocolError, None, b"", None),
    "reset_before_headers": (reset_before_headers(), httpx.ReadError, None, b"", None),
    "stalled_headers": (stalled_headers(), httpx.ReadTimeout, None, b"", "headers"),
    "half_headers": (half_headers(), httpx.RemoteProtocolError, None, b"", None),
    "half_headers_stalled": (half_headers(stall=True), httpx.ReadTimeout, None, b"", "headers"),
    "garbage": (garbage(), httpx.RemoteProtocolError, None, b"", None),
    "reset_after_headers": (reset_after_headers(), httpx.ReadError, 200, b"", None),
    "reset_in_body": (reset_after_headers(status=201, body=b"abc"), httpx.ReadError, 201, b"abc", None),
    "wrong_length": (wrong_length(), httpx.RemoteProtocolError, 200, b"short", None),
    "truncated_body": (truncated_body(body=b"abc"), httpx.RemoteProtocolError, 200, b"abc", None),
    "stalled_body": (stalled_body(status=503, body=b"abc"), httpx.ReadTimeout, 503, b"abc", "body"),
    "dripping_headers": (drip(interval=AN_HOUR, headers_too=True), httpx.ReadTimeout, None, b"", "headers"),
    "dripping_body": (drip(interval=AN_HOUR), httpx.ReadTimeout, 200, b"", "body"),
    "delay": (Answer(delay=AN_HOUR), httpx.ReadTimeout, None, b"", "headers"),
    "chunks_far_apart": (Answer(body=(b"a", b"b"), interval=AN_HOUR), httpx.ReadTimeout, 200, b"", "body"),
    "events_far_apart": (server_sent_events("a", interval=AN_HOUR), httpx.ReadTimeout, 200, b"", "body"),
}
EVERY_FAULT = pytest.mark.parametrize(
    ("fault", "error", "status", "body", "impatient"), FAULTS.values(), ids=FAULTS.keys()
)


def a_request(client, url, fault, impatient):
    """A GET, or a POST for a fault that wants a body."""
    body = b"a body" if isinstance(fault, Wire) and fault.reads not in {"all", "nothing"} else None
    request = client.build_request("POST" if body else "GET", url, content=body)
    if impatient == "headers":  # a server that would never answer gives the same end at any limit
        request.extensions["timeout"]["read"] = 0.05
    return request


@EVERY_FAULT
def test_a_fault_is_the_error_that_httpx_has_for_it(fault, error, status, body, impatient):
    seen: list[object] = []
    content = b""
    with FaultServer(fault) as server, a_client() as client:
        request = a_request(client, server.url, fault, impatient)
        try:
            response = client.send(request, stream=True)
            seen.append(response.status_code)
            if impatient == "body":
                request.extensions["timeout"]["read"] = 0.05
            for chunk in response.iter_raw():
                content += chunk
        except httpx.TransportError as caught:
            seen.append(type(caught))
        assert (seen, content) == ([error] if status is None else [status, error], body)
        server.wait_until(lambda: server.open_connections == 0)


@EVERY_FAULT
@pytest.mark.anyio
async def test_a_fault_is_the_same_error_for_an_async_client(fault, error, status, body, impatient):
    seen: list[object] = []
    content = b""
    with FaultServer(fault) as server:
        async with an_async_client() as client:
            request = a_request(client, server.url, fault, impatient)
            try:
                response = await client.send(request, stream=True)
                seen.append(response.status_code)
                if impatient == "body":
                    request.extensions["timeout"]["read"] = 0.05
                async for chunk in response.aiter_raw():
                    content += chunk
            except httpx.TransportError as caught:
                seen.append(type(caught))
        assert (seen, content) == ([error] if status is None else [status, error], body)
        server.wait_until(lambda: server.open_connections == 0)


def test_an_upload_that_is_not_read_on_times_out_in_writing():
    with FaultServer(stall_while_reading_request(after_bytes=5)) as server:
        with a_client(httpx.Timeout(30, write=0.05)) as client, pytest.raises(httpx.WriteTimeout):
            client.post(server.url, content=bytes(64 * 1024 * 1024))
        server.wait_for_requests(1)
        assert server.requests[0].body_size == 5
        assert not server.requests[0].complete
        assert not server.requests[0].finished


# ---------------------------------------------------------------------------------------------- scripts


def test_steps_are_served_in_order_and_the_last_one_goes_on():
    with (
        FaultServer(503, Answer(status=429, headers={"Retry-After": "7"}), 204) as server,
        a_client() as client,
    ):
        responses = [client.get(server.url) for _ in range(5)]
    assert [response.status_code for response in responses] == [503, 429, 204, 204, 204]
    assert responses[1].headers["retry-after"] == "7"


def test_after_the_script_comes_what_then_says():
    with FaultServer(503, then=Answer(body=b"well again")) as server, a_client() as client:
        assert client.get(server.url).status_code == 503
        assert [client.get(server.url).text for _ in range(3)] == ["well again"] * 3


def test_without_a_script_every_answer_is_200():
    with FaultServer() as server, a_client() as client:
        assert [client.get(server.url).status_code for _ in range(2)] == [200, 200]


def test_a_function_serves_a_whole_api():
    turns = itertools.count()

    def api(request):
        match request.method, request.path:
            case "GET", "/flaky":
                return 503 if next(turns) % 2 == 0 else 200
            case "POST", "/echo":
                return echo
            case "DELETE", _:
                return reset_before_headers()
            case _:
                return Answer.json({"error": request.path}, status=404)

    with FaultServer(api) as server, a_client(base_url=server.url) as client:
        assert [client.get("/flaky").status_code for _ in range(4)] == [503, 200, 503, 200]
        assert client.post("/echo", content=b"abc").content == b"abc"
        missing = client.get("/nowhere")
        assert (missing.status_code, missing.json()) == (404, {"error": "/nowhere"})
        assert missing.headers["content-type"] == "application/json"
        with pytest.raises(httpx.ReadError):
            client.delete("/flaky")


def test_a_function_stands_among_other_steps():
    with FaultServer(503, lambda request: Answer(body=request.body), 204) as server, a_client() as client:
        got = [client.post(server.url, content=b"abc") for _ in range(3)]
    assert [(response.status_code, response.content) for response in got] == [
        (503, b""),
        (200, b"abc"),
        (204, b""),
    ]


def test_what_a_function_raises_is_answered_with_500_and_raised_at_the_end():
    def broken(request):
        raise LookupError("no such chat")

    with a_client() as client:
        server = FaultServer(broken).__enter__()
        response = client.get(server.url)
        assert (response.status_code, response.text) == (500, "LookupError('no such chat')")
        with pytest.raises(LookupError, match="no such chat"):
            server.close()
        server.close()


def test_what_a_function_raises_hides_no_error_of_the_block():
    def broken(request):
        raise LookupError("no such chat")

    with pytest.raises(httpx.HTTPStatusError) as raised, FaultServer(broken) as server, a_client() as client:
        client.get(server.url).raise_for_status()
    assert raised.value.__notes__ == ["FaultServer: LookupError('no such chat')"]


def test_an_error_of_the_block_alone_is_left_as_it_is():
    with pytest.raises(KeyError) as raised, FaultServer():
        raise KeyError("mine")
    assert not hasattr(raised.value, "__notes__")


def test_a_function_that_returns_no_step_is_told_so():
    with pytest.raises(TypeError, match="None is no step"), FaultServer(lambda request: None) as server:
        httpx.get(server.url, trust_env=False)


def test_what_cannot_be_sent_is_raised_at_the_end():
    server = FaultServer(Wire(pieces=("text",))).__enter__()
    with a_client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.get(server.url)
    with pytest.raises(TypeError, match="bytes-like"):
        server.close()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FaultServer("503"), TypeError, "'503' is no step"),
        (lambda: FaultServer(200, then=3.5), TypeError, "3.5 is no step"),
        (lambda: FaultServer(503, 100), ValueError, "Answer(status=100): status must be"),
        (lambda: Answer(status=1000), ValueError, "Answer(status=1000): status must be"),
        (lambda: Answer(delay=-1), ValueError, "Answer(delay=-1): delay must be"),
        (lambda: Answer(interval=float("nan")), ValueError, "Answer(interval=nan): interval must be"),
        (lambda: drip(interval=float("inf")), ValueError, "Wire(interval=inf): interval must be"),
        (lambda: Wire(end="open"), ValueError, "Wire(end='open'): end must be"),
        (lambda: reset_while_reading_request(after_bytes=-1), ValueError, "Wire(reads=-1): reads must be"),
        (lambda: Wire(reads=5, end="keep"), ValueError, "Wire(reads=5): reads must be all for end='keep'"),
    ],
    ids=["text", "float", "informational", "status", "negative", "nan", "infinite", "end", "reads", "keep"],
)
def test_a_value_that_cannot_be_served_is_refused_where_it_is_written(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


# ---------------------------------------------------------------------------------------------- answers


def test_headers_are_sent_in_order_and_as_often_as_given():
    headers = [("Set-Cookie", "a=1"), ("X-Arabic", "٣"), ("Set-Cookie", "b=2"), ("X-Raw", b"\xff")]
    with FaultServer(Answer(headers=headers)) as server, a_client() as client:
        raw = client.get(server.url).headers.raw
    assert raw[:4] == [
        (b"Set-Cookie", b"a=1"),
        (b"X-Arabic", "٣".encode()),
        (b"Set-Cookie", b"b=2"),
        (b"X-Raw", b"\xff"),
    ]


def test_a_status_without_a_name_is_sent_too():
    with FaultServer(799) as server, a_client() as client:
        response = client.get(server.url)
    assert (response.status_code, response.reason_phrase) == (799, "")


@pytest.mark.parametrize(
    ("method", "answer", "framing"),
    [
        ("HEAD", Answer(body=b"abc"), {"content-length": "3"}),
        ("HEAD", Answer(body=(b"a", b"b")), {"transfer-encoding": "chunked"}),
        ("HEAD", Answer(body=(b"a", b"b"), interval=AN_HOUR), {"transfer-encoding": "chunked"}),
        ("GET", Answer(status=204), {}),
        ("GET", Answer(status=304, body=b"abc"), {"content-length": "3"}),
    ],
    ids=["head", "head-chunked", "head-slowly", "204", "304"],
)
def test_an_answer_that_may_have_no_body_has_none_and_keeps_the_connection(method, answer, framing):
    with FaultServer(answer, Answer(body=b"next")) as server, a_client() as client:
        response = client.request(method, server.url)
        assert (dict(response.headers), response.content) == (framing, b"")
        assert client.get(server.url).text == "next"
        assert server.connections == 1


@pytest.mark.parametrize("interval", [0.0, 0.001])
def test_a_tuple_is_sent_as_chunks(interval):
    step = Answer(body=(b"first, ", b"", b"second"), interval=interval)
    with FaultServer(step, Answer(body=(), interval=interval)) as server, a_client() as client:
        response = client.get(server.url)
        assert (response.headers["transfer-encoding"], response.text) == ("chunked", "first, second")
        assert client.get(server.url).content == b""
        assert server.connections == 1


def test_a_body_with_framing_of_its_own_goes_out_as_it_is():
    step = Answer(headers={"Content-Length": "6"}, body=(b"abc", b"def"))
    with FaultServer(step) as server, a_client() as client:
        response = client.get(server.url)
    assert response.content == b"abcdef"
    assert "transfer-encoding" not in response.headers


def test_server_sent_events_come_one_by_one():
    step = server_sent_events("one", "two\nlines", interval=0.001)
    with FaultServer(step) as server, httpx.stream("GET", server.url, trust_env=False) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert list(response.iter_lines()) == ["data: one", "", "data: two", "data: lines", ""]


def test_a_stream_is_seen_before_it_ends():
    step = Answer(body=(b"first", b"second"), interval=AN_HOUR)
    with FaultServer(Wire(pieces=step.wire("GET").pieces[:2], end="stall")) as server, a_client() as client:
        with client.stream("GET", server.url) as response:
            chunks = response.iter_raw()
            assert next(chunks) == b"first"
            assert not server.requests[0].finished
        server.wait_for_idle()
        assert server.requests[0].client_closed_early


@pytest.mark.parametrize("headers_too", [False, True])
def test_a_drip_is_a_whole_answer_in_the_end(headers_too):
    with (
        FaultServer(drip(body=b"drop", interval=0.001, headers_too=headers_too)) as server,
        a_client() as client,
    ):
        assert [client.get(server.url).text for _ in range(2)] == ["drop", "drop"]
        assert server.connections == 1


def test_a_drip_is_sent_in_single_bytes():
    head, *drops = drip(body=b"drop", interval=0.5).pieces
    assert (head, drops) == (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", [b"d", b"r", b"o", b"p"])
    nothing, *drops = drip(body=b"drop", interval=0.5, headers_too=True).pieces
    assert (nothing, b"".join(drops), set(map(len, drops))) == (b"", head + b"drop", {1})


def test_garbage_of_ones_own_is_sent():
    with FaultServer(garbage(data=b"HTTP/1.1 two hundred\r\n\r\n")) as server, a_client() as client:
        message = "two hundred"
        with pytest.raises(httpx.RemoteProtocolError, match=message):
            client.get(server.url)


def test_wrong_length_lacks_as_much_as_told():
    with FaultServer(wrong_length(body=b"abc", missing=2)) as server, a_client() as client:
        message = "received 3 bytes, expected 5"
        with pytest.raises(httpx.RemoteProtocolError, match=message):
            client.get(server.url)


# ------------------------------------------------------------------------------------------ connections


def test_a_connection_serves_one_request_after_another():
    with FaultServer(503, 200) as server, a_client() as client:
        for _ in range(3):
            client.post(server.url, content=b"abc")
        assert [request.connection for request in server.requests] == [1, 1, 1]
        assert (server.connections, server.open_connections) == (1, 1)
        client.close()
        server.wait_until(lambda: server.open_connections == 0)
        assert server.connections == 1


def test_an_answer_may_close_its_connection():
    with FaultServer(Answer(close=True, body=b"abc"), 200) as server, a_client() as client:
        closing = client.get(server.url)
        assert (closing.headers["connection"], closing.text) == ("close", "abc")
        client.get(server.url)
        client.get(server.url)
        assert [request.connection for request in server.requests] == [1, 2, 2]


def test_a_client_may_ask_for_its_connection_to_be_closed():
    with FaultServer() as server, raw_client(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_a_kept_connection_that_is_closed_under_the_next_request_breaks_that_request():
    with FaultServer(200, close_before_headers(), 200) as server, a_client() as client:
        client.get(server.url)
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected without sending a response"):
            client.get(server.url)
        client.get(server.url)
        assert [request.connection for request in server.requests] == [1, 1, 2]


def test_a_connection_that_is_closed_unread_leaves_no_request():
    with FaultServer(close_without_reading(), 200) as server, a_client() as client:
        with pytest.raises(httpx.ReadError):
            client.get(server.url)
        client.get(server.url)
        assert server.connections == 2
        assert [request.connection for request in server.requests] == [2]


def test_a_connection_without_a_request_uses_up_no_step():
    with FaultServer(503, 200) as server, a_client() as client:
        with raw_client(server):
            server.wait_until(lambda: server.open_connections == 1)
        server.wait_until(lambda: server.open_connections == 0)
        with raw_client(server) as sock:
            reset_on_close(sock)
        server.wait_until(lambda: server.connections == 2 and server.open_connections == 0)
        assert client.get(server.url).status_code == 503


@pytest.mark.anyio
async def test_many_requests_are_served_at_once():
    with FaultServer(stalled_headers()) as server:
        async with (
            an_async_client(limits=httpx.Limits(max_connections=None)) as client,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(100):
                tasks.start_soon(client.get, server.url)
            await anyio.to_thread.run_sync(server.wait_for_requests, 100)
            assert sorted(request.connection for request in server.requests) == list(range(1, 101))
            assert server.open_connections == 100
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(server.wait_for_idle)
        assert all(request.client_closed_early for request in server.requests)


def test_a_whole_url_as_the_target_is_understood():
    with FaultServer(Answer(body=b"by proxy")) as server, a_client(proxy=server.url) as client:
        for path in ("/one?x=1", "/two"):
            assert client.get(f"http://elsewhere.invalid{path}").text == "by proxy"
        first, second = server.requests
    assert (first.target, first.path, first.query) == ("http://elsewhere.invalid/one?x=1", "/one", "x=1")
    assert (second.target, second.path, second.query) == ("http://elsewhere.invalid/two", "/two", "")
    assert second.connection == first.connection
    assert first.headers["host"] == "elsewhere.invalid"


def test_requests_that_come_in_one_piece_are_answered_in_order():
    script = Answer(body=b"1", delay=0.001), Answer(body=b"2", close=True)
    with FaultServer(*script) as server, raw_client(server) as sock:
        sock.sendall(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n")
        answers = b"".join(iter(lambda: sock.recv(1000), b""))
    assert [part[-1:] for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2"]
    assert [request.path for request in server.requests] == ["/a", "/b"]


# ---------------------------------------------------------------------------------------------- records


def test_a_request_is_recorded_as_it_came():
    with FaultServer() as server, a_client() as client:
        client.put(f"{server.url}/a/b%20c?d=e&f", content=b"abc", headers={"X-Two": "yes"})
        client.get(f"{server.url}//double")
        server.wait_for_idle()
        put, get = server.requests
    assert (put.method, put.target, put.path, put.query) == ("PUT", "/a/b%20c?d=e&f", "/a/b%20c", "d=e&f")
    assert (put.headers["x-two"], put.body, put.body_size) == ("yes", b"abc", 3)
    assert put.body_sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (put.complete, put.finished, put.client_closed_early) == (True, True, False)
    assert (get.method, get.path, get.query, get.body, get.complete) == ("GET", "//double", "", b"", True)
    assert put.arrived <= get.arrived


def test_a_chunked_upload_is_put_together():
    pieces = [b"abc", b"x" * 100_000, b"def"]
    with FaultServer(echo) as server, a_client() as client:
        response = client.post(server.url, content=iter(pieces), headers={"Content-Type": "text/x-test"})
        assert server.requests[0].headers["transfer-encoding"] == "chunked"
    assert (response.content, response.headers["content-type"]) == (b"".join(pieces), "text/x-test")


def test_chunks_with_extensions_and_trailers_are_understood():
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with FaultServer(204, Answer(close=True)) as server, raw_client(server) as sock:
        sock.sendall(head + b"A;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\n" + head + b"0\r\n\r\n")
        server.wait_for_requests(2)
        server.wait_for_idle()
    assert [request.body for request in server.requests] == [b"0123456789", b""]
    assert all(request.complete for request in server.requests)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_upload_leaves_its_size_and_hash_and_takes_little_memory(chunked):
    piece = bytes(range(256)) * 256
    count = 100 * 1024 * 1024 // len(piece)
    headers = {} if chunked else {"Content-Length": str(count * len(piece))}
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(piece)
    with FaultServer() as server, a_client() as client:
        tracemalloc.start()
        try:
            client.post(server.url, content=itertools.repeat(piece, count), headers=headers)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        request = server.requests[0]
        assert (request.body_size, request.body_sha256) == (100 * 1024 * 1024, digest.hexdigest())
        with pytest.raises(ValueError, match="104857600 bytes was not kept, longer than keep_body=1048576"):
            _ = request.body
    assert peak < 5_000_000


def test_a_body_is_kept_up_to_the_size_told():
    with FaultServer(keep_body=3) as server, a_client() as client:
        client.post(server.url, content=b"abc")
        client.post(server.url, content=b"abcd")
        assert server.requests[0].body == b"abc"
        with pytest.raises(ValueError, match="keep_body=3"):
            _ = server.requests[1].body


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("after", [0, 3, 70_000])
def test_a_reset_while_reading_records_exactly_what_was_read(chunked, after):
    body = bytes(100_000)
    with FaultServer(reset_while_reading_request(after_bytes=after)) as server, a_client() as client:
        with pytest.raises(BROKEN_UPLOAD):
            client.post(server.url, content=iter([body]) if chunked else body)
        server.wait_for_idle()
        request = server.requests[0]
    assert (request.body, request.complete, request.client_closed_early) == (body[:after], False, False)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_reset_that_waits_for_more_than_there_is_comes_after_the_body(chunked):
    with FaultServer(reset_while_reading_request(after_bytes=10)) as server, a_client() as client:
        with pytest.raises(BROKEN_UPLOAD):
            client.post(server.url, content=iter([b"ab", b"c"]) if chunked else b"abc")
        assert (server.requests[0].body, server.requests[0].complete) == (b"abc", True)


def test_a_client_that_leaves_in_the_middle_of_its_upload_is_recorded():
    with FaultServer() as server:
        with raw_client(server) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
            server.wait_until(lambda: bool(server.requests) and server.requests[0].body_size == 3)
        server.wait_for_idle()
        request = server.requests[0]
    assert (request.body, request.complete, request.client_closed_early) == (b"abc", False, True)


def test_a_client_that_leaves_in_the_middle_of_its_headers_is_no_request():
    with FaultServer() as server:
        with raw_client(server) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Le")
        server.wait_until(lambda: server.connections == 1 and server.open_connections == 0)
        assert server.requests == ()


WAITING = {
    "delay": Answer(delay=AN_HOUR),
    "interval": Answer(body=(b"a", b"b"), interval=AN_HOUR),
    "drip": drip(interval=AN_HOUR),
    "stalled_headers": stalled_headers(),
    "half_headers": half_headers(stall=True),
    "stalled_body": stalled_body(),
    "endless_body": Answer(body=bytes(64 * 1024 * 1024)),
}


@pytest.mark.parametrize("step", WAITING.values(), ids=WAITING.keys())
@pytest.mark.parametrize("leaving", ["closes", "resets"])
def test_a_wait_ends_when_the_client_leaves(step, leaving):
    with FaultServer(step) as server:
        with raw_client(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            server.wait_for_requests(1)
            assert not server.requests[0].finished
            if leaving == "resets":
                reset_on_close(sock)
        server.wait_for_idle()
        assert server.requests[0].client_closed_early


@pytest.mark.parametrize("step", WAITING.values(), ids=WAITING.keys())
def test_a_wait_ends_when_the_server_closes(step):
    with FaultServer(step) as server, raw_client(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        server.wait_for_requests(1)
        server.close()
        assert server.open_connections == 0
        assert server.requests[0].finished
        assert not server.requests[0].client_closed_early


# ------------------------------------------------------------------------------------- waiting, closing


def test_waiting_for_requests_sees_one_that_is_not_answered_yet(call):
    with FaultServer(stalled_headers()) as server, a_client() as client:
        hanging = call(client.get, server.url)
        server.wait_for_requests(1)
        assert not server.requests[0].finished
        server.close()
        assert isinstance(hanging.exception(), httpx.RemoteProtocolError)


def test_a_wait_is_woken_by_each_piece_of_a_body(call):
    seen = [threading.Event() for _ in range(4)]

    def all_read():
        size = server.requests[0].body_size if server.requests else None
        if size is not None:
            seen[size].set()
        return size == 3

    with FaultServer() as server, raw_client(server) as sock:
        woken = call(server.wait_until, all_read, timeout=60)
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        for size_seen, piece in zip(seen, (b"a", b"b", b"c"), strict=False):
            assert size_seen.wait(30)
            sock.sendall(piece)
        woken.result(timeout=30)


def test_a_wait_in_vain_says_what_there_is_instead(call):
    with FaultServer(200, stalled_headers()) as server, a_client() as client:
        client.get(server.url)
        hanging = call(client.get, server.url)
        server.wait_for_requests(2)
        state = r"not so after 0.01 s: 2 requests, 1 of them unfinished, 1 of 1 connections open"
        with pytest.raises(TimeoutError, match=state):
            server.wait_for_requests(3, timeout=0.01)
        with pytest.raises(TimeoutError, match=state):
            server.wait_for_idle(timeout=0.01)
        with pytest.raises(TimeoutError, match=state):
            server.wait_until(lambda: server.connections == 2, timeout=0.01)
        server.close()
        assert isinstance(hanging.exception(), httpx.RemoteProtocolError)


@pytest.mark.parametrize("answered", [False, True])
def test_leaving_closes_the_port_the_connections_and_the_thread(call, answered):
    with a_client() as client:
        with FaultServer(200 if answered else stalled_headers()) as server:
            get = call(client.get, server.url)
            server.wait_for_requests(1)
            if answered:
                assert get.result().status_code == 200
        assert isinstance(get.exception(), type(None) if answered else httpx.RemoteProtocolError)
        assert server.open_connections == 0
        with pytest.raises(httpx.ConnectError):
            client.get(server.url)
    assert not any(thread.name == "FaultServer" for thread in threading.enumerate())
    gc.collect()  # an unclosed socket or loop would warn here, which is an error


def test_leaving_ends_an_upload_that_never_pauses(call):
    with FaultServer() as server, raw_client(server) as sock:

        def upload():
            sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n")
            block = bytes(1024 * 1024)
            while True:
                sock.sendall(block)

        uploading = call(upload)
        server.wait_until(lambda: bool(server.requests) and server.requests[0].body_size > 0)
        server.close()
        assert isinstance(uploading.exception(), ConnectionError)
        assert (server.requests[0].complete, server.requests[0].finished) == (False, True)


def test_an_upload_that_never_pauses_leaves_the_loop_to_others_between_its_pieces():
    order = []

    async def read():
        loop = asyncio.get_running_loop()

        def feed(piece):
            order.append("piece")
            loop.call_soon(order.append, "other")

        connection = Connection(ours, number=1, loop=loop)
        await connection.read_body(httpx.Headers({"Content-Length": "100000"}), feed, at_most=100_000)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as theirs,
        listener.accept()[0] as ours,
    ):
        theirs.sendall(bytes(100_000))  # all there before the first of it is read
        asyncio.run(read())
    assert order[:3] == ["piece", "other", "piece"]


def test_leaving_while_clients_connect_leaves_nothing_open():
    for _ in range(20):
        with FaultServer() as server:
            socks = [raw_client(server) for _ in range(20)]
        for sock in socks:
            sock.close()
        assert server.open_connections == 0
    assert not any(thread.name == "FaultServer" for thread in threading.enumerate())
    gc.collect()


def test_a_server_may_come_back_on_its_port():
    with a_client() as client:
        with FaultServer(503) as server:
            assert client.get(server.url).status_code == 503
        with pytest.raises(httpx.ConnectError):
            client.get(server.url)
        with FaultServer(200, port=server.port) as again:
            assert again.url == server.url
            assert client.get(server.url).status_code == 200


def test_closing_twice_or_before_the_start_does_nothing():
    server = FaultServer()
    server.close()
    with server:
        server.close()
        server.close()


def test_a_server_that_has_served_is_not_started_again():
    with FaultServer() as server, pytest.raises(RuntimeError, match="serves once"):
        server.__enter__()


def test_a_function_that_blocks_makes_closing_fail_in_time(call):
    blocked, go_on = threading.Event(), threading.Event()

    def block(request):
        blocked.set()
        go_on.wait()
        return 200

    with a_client() as client, FaultServer(block) as server:
        hanging = call(client.get, server.url)
        blocked.wait()
        with pytest.raises(
            TimeoutError, match=r"still running after 0\.01 s: does the function of a step block"
        ):
            server.close(timeout=0.01)
        go_on.set()
        assert hanging.result().status_code == 200


# ------------------------------------------------------------------------------------------ bad requests


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"hello\r\n\r\n", r"not an HTTP/1.1 request: b'hello'"),
        (b"PRI * HTTP/2.0\r\n\r\n", r"not an HTTP/1.1 request: b'PRI \* HTTP/2.0'"),
        (
            b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000,
            "no end of the headers or chunk size within 262144 bytes",
        ),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", "the length of a body cannot be 'many'"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "the length of a body cannot be b'xyz'",
        ),
    ],
    ids=["hello", "http2", "endless", "length", "chunk-size"],
)
def test_what_is_no_request_is_answered_with_400_and_raised_at_the_end(sent, message):
    server = FaultServer().__enter__()
    with raw_client(server) as sock:
        sock.sendall(sent)
        head, *_ = sock.recv(1000).split(b"\r\n\r\n")
        first, *headers = head.split(b"\r\n")
        assert first == b"HTTP/1.1 400 Bad Request"
        assert b"Connection: close" in headers
        server.wait_until(lambda: server.open_connections == 0)
    with pytest.raises(BadRequestError, match=message):
        server.close()


def raw_client(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def reset_on_close(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
