"""Connections without messages, and texts that pause."""

import asyncio

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from deployments.protocols.dashscope.socket import DashScopeSocket
from deployments.protocols.sockets import EventSocket, Turns, until_one_ends
from deployments.settings import IngressArgs
from deployments.speech.limits import TextLimits
from deployments.speech.live_speech import LiveText
from qwen_tts.errors import InvalidRequest
from tests.virtual_time import in_virtual_time


class Nobody:
    """A speaker of which only the settings are used."""

    def __init__(self, args: IngressArgs) -> None:
        self.args = args

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} must not be used")


def test_a_silent_connection_is_closed() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def route(socket: WebSocket) -> None:
        await DashScopeSocket(socket, Nobody(IngressArgs(live_text_timeout_s=0.1))).run()  # type: ignore[arg-type]

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
        with pytest.raises(InvalidRequest, match="no message came"):
            await events.receive(0.01, busy)
        await socket.send_json({"asked": asked})

    with TestClient(app).websocket_connect("/") as client:
        assert client.receive_json() == {"type": "ready"}
        assert client.receive_json() == {"asked": 3}


def limits(live_characters: int = 100) -> TextLimits:
    return TextLimits(IngressArgs(max_input_characters=live_characters))


@in_virtual_time()
async def test_a_pause_ends_a_text() -> None:
    text = LiveText(limits())
    text.append("One ")
    text.append("two.")
    assert [await text.next_piece(10) for _ in range(2)] == ["One ", "two."]
    reading = asyncio.create_task(text.next_piece(10))
    await asyncio.sleep(9.9)
    assert not reading.done()
    await asyncio.sleep(0.2)
    assert reading.done()
    assert reading.result() is None
    assert (text.ended, text.characters, text.blank) == (True, 8, False)


@in_virtual_time()
async def test_a_text_that_may_pause_is_read_to_its_end() -> None:
    text = LiveText(limits())
    reading = asyncio.create_task(text.next_piece(None))
    await asyncio.sleep(3600)
    assert not reading.done()
    text.append("One")
    text.end()
    text.end()
    assert (await reading, await text.next_piece(None)) == ("One", None)


async def test_a_text_that_gets_too_long_stays_as_it_was() -> None:
    text = LiveText(limits(5))
    text.append("Hello")
    assert not text.has_room_for("!")
    with pytest.raises(InvalidRequest, match="input has 6 characters; the limit is 5") as caught:
        text.append("!")
    assert (caught.value.code, text.characters) == ("input_too_long", 5)


async def test_turns_come_in_order_and_are_bounded() -> None:
    turns = Turns[str](2, "texts")
    turns.put("one")
    turns.put("note", counted=False)
    turns.put("two")
    with pytest.raises(InvalidRequest, match="2 texts are waiting or being spoken") as caught:
        turns.put("three")
    assert caught.value.code == "too_many_texts"
    turns.end()
    seen = [(item, turns.ahead) async for item in turns]
    assert seen == [("one", 3), ("note", 2), ("two", 1)], "an item was done before the next one was requested"
    assert turns.ahead == 0


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
