"""Connections that fall silent, and texts that pause."""

import asyncio

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from deployments.errors import HttpError
from deployments.protocols.dashscope.socket import DashScopeSocket
from deployments.protocols.sockets import EventSocket, until_one_ends
from deployments.settings import IngressArgs
from deployments.speech.order import PendingText


class Nobody:
    """A speaker that is not asked."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was not to be asked for")


def test_a_silent_connection_is_closed() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def route(socket: WebSocket) -> None:
        await DashScopeSocket(socket, Nobody(), IngressArgs(live_text_timeout_s=0.1)).run()  # type: ignore[arg-type]

    with TestClient(app).websocket_connect("/?model=x") as client:
        assert client.receive_json()["session"]["model"] == "x"
        assert client.receive_json()["error"]["code"] == "idle_timeout"
        with pytest.raises(WebSocketDisconnect) as closed:
            client.receive_json()
    assert closed.value.code == 1008


def test_silence_counts_from_what_was_last_said_and_not_while_the_server_works() -> None:
    app = FastAPI()
    asked = 0

    def busy() -> bool:
        nonlocal asked
        asked += 1
        return asked < 3

    @app.websocket("/")
    async def route(socket: WebSocket) -> None:
        events = EventSocket(socket, 100)
        await events.accept()
        await events.send({"type": "ready"})
        with pytest.raises(HttpError, match="nothing came"):
            await events.receive(0.01, busy)
        await socket.send_json({"asked": asked})

    with TestClient(app).websocket_connect("/") as client:
        assert client.receive_json() == {"type": "ready"}
        assert client.receive_json() == {"asked": 3}


class Written:
    """A speech that notes what is written."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.finished = False

    async def append(self, text: str) -> None:
        self.pieces.append(text)

    async def finish(self) -> None:
        self.finished = True


async def test_a_pause_ends_a_text() -> None:
    text, speech = PendingText(), Written()
    text.append("One ")
    text.append("two.")
    await text.write_to(speech, 0.01)  # type: ignore[arg-type]
    assert (speech.pieces, speech.finished, text.ended, text.characters) == (["One ", "two."], True, True, 8)


async def test_a_text_that_may_pause_is_written_to_its_end() -> None:
    text, speech = PendingText(), Written()
    writing = asyncio.create_task(text.write_to(speech, None))  # type: ignore[arg-type]
    await asyncio.sleep(0.02)
    text.append("One")
    text.end()
    text.end()
    await writing
    assert (speech.pieces, speech.finished) == (["One"], True)


async def test_the_first_to_end_ends_the_others() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiter")

    async def fail() -> None:
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await until_one_ends(wait(), fail())
    await until_one_ends(wait(), asyncio.sleep(0))
    assert ended == ["waiter", "waiter"]
