"""Bodies that arrive slowly, or many at once, on a fake clock."""

import asyncio
from collections.abc import Iterable

import pytest
from fastapi import Request
from starlette.types import Message

from deployments.http.bodies import JSON, BodyReader
from deployments.settings import IngressArgs
from qwen_tts.errors import InvalidRequest, Overloaded
from tests.virtual_time import in_virtual_time

ARGS = IngressArgs(max_body_bytes=1000, max_bytes_under_way=6000, body_pause_s=10, body_timeout_s=60)


def sent(pieces: Iterable[bytes], pause_s: float, *, ends: bool = True) -> Request:
    """Return a request whose body arrives in pieces, with a pause after each. Without an end, the body stays open."""
    coming = iter(pieces)

    async def receive() -> Message:
        piece = next(coming, None)
        if piece is None:
            if not ends:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": piece, "more_body": True}

    return Request({"type": "http", "headers": [(b"content-type", JSON.encode())]}, receive)


async def read(reader: BodyReader, request: Request) -> bytes:
    async with reader.read(request, JSON) as body:
        return body


@in_virtual_time()
async def test_a_slow_body_is_read_as_long_as_it_goes_on() -> None:
    assert await read(BodyReader(lambda: ARGS), sent([b"ab"] * 5, 9.9)) == b"ab" * 5


@pytest.mark.parametrize(
    ("request_", "after_s"),
    [
        (sent([b"a"], 0, ends=False), 10),
        (sent([b"a", b"b"], 10.1), 10),
        (sent([b"a"] * 7, 9.9), 60),
    ],
    ids=["no end", "a pause that is too long", "too long in all"],
)
@in_virtual_time()
async def test_a_body_that_takes_too_long_is_given_up(request_: Request, after_s: float) -> None:
    begun = asyncio.get_running_loop().time()
    with pytest.raises(InvalidRequest, match="60 s, with pauses of up to 10 s") as caught:
        await read(BodyReader(lambda: ARGS), request_)
    assert caught.value.code == "body_timeout"
    assert asyncio.get_running_loop().time() - begun == pytest.approx(after_s)


@in_virtual_time()
async def test_bodies_under_way_have_a_bound_together() -> None:
    """Eight bodies of nearly the largest size begin. Six have room, and time out because they do not go on."""
    reader = BodyReader(lambda: ARGS)
    requests = [sent([b" " * 990], 0, ends=False) for _ in range(8)]
    answers = await asyncio.gather(*(read(reader, request) for request in requests), return_exceptions=True)
    assert [type(answer) for answer in answers] == [InvalidRequest] * 6 + [Overloaded] * 2
    assert await read(reader, sent([b" " * 1000], 0)) == b" " * 1000, (
        "a body that was refused or timed out still counts"
    )
