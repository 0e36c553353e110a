"""The gate and the request log, around an application whose answers the test chooses."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
import yaml
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import Message

from deployments.access.key_file import hash_key
from deployments.access.limits import CallerLimits
from deployments.http.gate import Gate, GateMiddleware, caller_of
from deployments.http.request_log import RequestLogMiddleware, note_finish
from deployments.settings import ApiKeyArgs


class Service:
    """The application behind a gate, and its log lines."""

    def __init__(self, keys: Path | None, caplog: pytest.LogCaptureFixture) -> None:
        self.app = FastAPI(docs_url=None, openapi_url=None)
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()
        self._caplog = caplog
        gate = Gate(ApiKeyArgs(file=keys))
        gate.limits = CallerLimits(lambda: 0.0)  # on this clock a test takes no time, even on a slow machine
        self.app.add_middleware(GateMiddleware, gate=gate)
        self.app.add_middleware(RequestLogMiddleware)
        self.app.get("/healthz")(lambda: PlainTextResponse("alive"))
        self.app.get("/who/{text}")(self.who)
        self.app.post("/speak")(self.speak)
        self.app.post("/fail")(self.fail)
        self.app.websocket("/live")(self.live)

    async def who(self, request: Request, text: str) -> PlainTextResponse:
        return PlainTextResponse(str(caller_of(request).name))

    async def speak(self) -> StreamingResponse:
        async def body() -> object:
            yield b"one"
            self.begun.release()
            await self.go_on.wait()
            yield b"two"
            note_finish("stop")

        return StreamingResponse(body(), headers={"X-Model": "demo"})  # type: ignore[arg-type]

    async def fail(self) -> None:
        raise ZeroDivisionError

    async def live(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(str(caller_of(socket).name))
        note_finish("length")
        await socket.close()

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers)

    def log(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if hasattr(record, "request_log")]


@pytest.fixture
def open_service(caplog: pytest.LogCaptureFixture) -> Service:
    caplog.set_level(logging.INFO, "ray.serve")
    return Service(None, caplog)


@pytest.fixture
def service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Service:
    file = tmp_path / "keys.yaml"
    limits = {"max_concurrent": 2, "requests_per_minute": 4}
    file.write_text(
        yaml.safe_dump([{"name": "alice", "hash": hash_key("a"), **limits}, {"name": "bob", "hash": hash_key("b")}])
    )
    caplog.set_level(logging.INFO, "ray.serve")
    return Service(file, caplog)


async def test_without_keys_all_is_open_and_the_log_says_so(
    open_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    (warning,) = [record.getMessage() for record in caplog.get_records("setup") if record.levelno == 30]
    assert "open to everyone" in warning
    async with open_service.client() as client:
        assert (await client.get("/who/x")).text == "None"
    assert open_service.log()[0].startswith("GET /who/{text} 200 ")


async def test_no_key_no_route_known_or_unknown(service: Service) -> None:
    async with service.client() as client:
        assert (await client.get("/healthz")).text == "alive"
        for path in ("/who/x", "/nowhere", "/healthz/", "//healthz"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await client.post("/speak")).status_code == 401
    async with service.client("b") as client:
        assert (await client.get("/who/x")).text == "bob"
        assert (await client.get("/nowhere")).status_code == 404


async def test_a_stream_is_under_way_until_its_body_ends(service: Service) -> None:
    async with service.client("a") as alice, service.client("b") as bob:
        running = [asyncio.create_task(alice.post("/speak")) for _ in range(2)]
        await service.begun.acquire()
        await service.begun.acquire()
        refused = await alice.post("/speak")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert (await alice.get("/who/x")).status_code == 200, "a request without work was counted"
        others = [asyncio.create_task(bob.post("/speak")) for _ in range(5)]
        service.go_on.set()
        for answer in await asyncio.gather(*running, *others):
            assert (answer.status_code, answer.text) == (200, "onetwo")
        assert (await alice.post("/speak")).status_code == 200


async def test_a_client_that_leaves_is_no_longer_under_way(service: Service) -> None:
    async with service.client("a") as alice:
        running = [asyncio.create_task(alice.post("/speak")) for _ in range(2)]
        await service.begun.acquire()
        await service.begun.acquire()
        assert (await alice.post("/speak")).status_code == 429
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        service.go_on.set()
        assert (await alice.post("/speak")).status_code == 200
    assert [line.split("finish=")[1] for line in service.log() if " 200 " in line] == ["cut", "cut", "stop"]


async def test_a_minute_has_an_end(service: Service) -> None:
    service.go_on.set()
    async with service.client("a") as alice:
        answers = [await alice.post("/speak") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429]
        assert answers[-1].headers["Retry-After"] == "15"
        assert "4 requests a minute" in answers[-1].json()["error"]["message"]


async def test_every_request_has_a_line_that_says_whose_and_how(service: Service) -> None:
    service.go_on.set()
    async with service.client("b") as bob, service.client() as nobody:
        await bob.post("/speak")
        await bob.post("/fail")
        await bob.get("/who/secret%0Aline")
        await bob.get("/nowhere%0A")
        await nobody.post("/speak")
    lines = [line.split("ms ", 1) for line in service.log()]
    assert [(head.rsplit(" ", 1)[0], tail) for head, tail in lines] == [
        ("POST /speak 200", "key=bob model=demo finish=stop"),
        ("POST /fail 500", "key=bob model=- finish=-"),
        ("GET /who/{text} 200", "key=bob model=- finish=-"),
        ("GET - 404", "key=bob model=- finish=-"),
        ("POST - 401", "key=- model=- finish=-"),
    ]


@pytest.mark.parametrize(("request_id", "status"), [("a" * 128, 200), ("a" * 129, 400), ("a b", 400), ("", 400)])
async def test_a_request_id_is_short_and_printable(open_service: Service, request_id: str, status: int) -> None:
    async with open_service.client() as client:
        answer = await client.get("/who/x", headers={"X-Request-Id": request_id})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "invalid_request_id"


async def connect(service: Service, extensions: dict[str, object], **headers: str) -> list[Message]:
    """Return the messages that a WebSocket's server receives."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/live", "raw_path": b"/live", "query_string": b"", "headers": raw}
    await service.app({**scope, "extensions": extensions, "subprotocols": []}, receive, send)
    return sent


async def test_websockets_pass_the_same_gate(service: Service) -> None:
    (closed,) = await connect(service, {})
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    start, body = await connect(service, {"websocket.http.response": {}}, authorization="Bearer wrong")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert b"invalid_api_key" in body["body"]
    accepted, text, _ = await connect(service, {}, xi_api_key="b", x_request_id="one")
    assert (b"x-request-id", b"one") in accepted["headers"]
    assert text["text"] == "bob"
    for _ in range(4):
        await connect(service, {}, xi_api_key="a")
    assert len(await connect(service, {}, xi_api_key="a")) == 1, "a connection was not counted as a request"
    assert [line.split("ms ")[1] for line in service.log()[:3]] == [
        "key=- model=- finish=-", "key=- model=- finish=-", "key=bob model=- finish=length",
    ]  # fmt: skip
    assert [line.split(" ")[-5] for line in service.log()[:3]] == ["403", "401", "101"]
