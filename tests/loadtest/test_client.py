"""The tool's clock against that of a server which writes down when it sent what. Time is what is tested here, so it is
virtual: work takes none, and what is off by a microsecond is wrong."""

import asyncio
import socket
from collections.abc import Callable
from itertools import pairwise

import pytest

from loadtest.client import _WORDS_PER_S, Target
from loadtest.record import Record
from loadtest.scenarios import Call, Request
from tests.loadtest.fake_server import FakeServer, Step, running, silence, tone
from tests.loadtest.measuring import REQUEST, TEXT, sent, virtual

_WITHIN_S = 1e-6
# The first audible sample comes with the second piece; without a buffer a player runs dry before the third and fourth.
_SCRIPT = [
    Step(0.10, silence(0.20)),
    Step(0.05, tone(0.08)),
    Step(0.50, tone(0.16)),
    Step(0.40, tone(0.60)),
    Step(0.10, tone(0.08)),
]


def _error_s(record: Record, server: FakeServer, number: int, origin: float, scheduled_s: float) -> float:
    """Return the tool's largest error, among the three kinds of TTFA, the gaps, the silence and the end."""
    moments = [moment - origin for moment in server.sent[str(number)]]
    gaps = [after - before for before, after in pairwise(moments)]
    missing = (moments[2] - moments[0] - 0.28) + (gaps[2] - 0.16)
    errors = [
        record.first_byte_ms / 1000 - (moments[0] - scheduled_s),
        record.ttfa_ms / 1000 - (moments[1] - scheduled_s),
        record.heard_ms / 1000 - (moments[0] + 0.20 - scheduled_s),
        *(found / 1000 - gap for found, gap in zip(record.gaps_ms, gaps, strict=True)),
        record.silence_s - missing,
        record.end_s - moments[-1],
    ]
    return max(map(abs, errors))


@virtual
async def test_what_was_scripted_is_what_is_measured() -> None:
    moments = [0.0, 0.15, 0.3]
    async with running(FakeServer(lambda _: _SCRIPT)) as server:
        records, origin = await sent(Target(server.url, start_buffer_s=0.0), moments)
    for record in records:
        assert record.error is None
        assert [size for _, size in record.chunks] == [len(step.data) for step in _SCRIPT]
        assert record.underruns == 2
        assert record.audio_s == pytest.approx(1.12)
        assert record.finish_reason == "stop"
        assert record.received_bytes == sum(len(step.data) for step in _SCRIPT)
        assert _error_s(record, server, record.index, origin, moments[record.index]) < _WITHIN_S


@virtual
async def test_a_player_with_a_buffer_begins_later_and_hears_no_gap() -> None:
    async with running(FakeServer(lambda _: _SCRIPT)) as server:
        (impatient, *_), _ = await sent(Target(server.url, start_buffer_s=0.0), [0.0])
        (patient, *_), _ = await sent(Target(server.url, start_buffer_s=0.9), [0.0])
    assert (impatient.underruns, patient.underruns) == (2, 0)
    assert patient.silence_s == 0.0
    # The first audible sample lies behind 200 ms of silence.
    assert impatient.heard_ms == pytest.approx(300)
    assert patient.heard_ms == pytest.approx(1250), "its fourth piece filled it"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(429, "http 429"), (503, "http 503"), (400, "http 400"), ("reset", "reset"), ("short", "truncated")],
)
async def test_errors_by_their_kind(fault: str | int, kind: str) -> None:
    async with running(FakeServer(lambda _: [Step(0.0, tone(0.1)), Step(0.05, tone(0.1))], fault)) as server:
        (record,), _ = await sent(Target(server.url), [0.0])
    assert record.error == kind


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (lambda _: [], "no audio"),
        (lambda _: [Step(0.0, silence(0.3))], "silent"),
        (lambda _: [Step(5.0, tone(0.1))], "timeout"),
        (lambda _: [Step(0.0, tone(0.1)), Step(5.0, tone(0.1))], "timeout"),
    ],
    ids=["empty", "silent", "nothing comes", "nothing more comes"],
)
@virtual
async def test_answers_that_are_none(script: Callable[[int], list[Step]], kind: str) -> None:
    async with running(FakeServer(script)) as server:
        (record,), _ = await sent(Target(server.url, timeout_s=0.3), [0.0])
    assert record.error == kind


async def test_what_is_not_pcm_is_not_taken_for_it() -> None:
    async with running(FakeServer(content_type="audio/mpeg")) as server:
        (record,), _ = await sent(Target(server.url), [0.0])
    assert record.error == "not PCM: audio/mpeg"


async def test_nobody_is_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        (record,), _ = await sent(Target(f"http://127.0.0.1:{unused.getsockname()[1]}"), [0.0])
    assert record.error == "refused"


@virtual
async def test_live_text_arrives_whole_and_is_timed() -> None:
    request = Request("live_text", TEXT, {"voice": "someone"}, live=True)
    pieces = len(TEXT.words.split())
    async with running(FakeServer()) as server:
        (record,), _ = await sent(Target(server.url), [0.0], request)
    assert server.bodies == [{"input": TEXT.words}]
    assert (record.error, record.finish_reason) == (None, "length")
    assert record.audio_s == pytest.approx(0.2)
    assert record.ttfa_ms == pytest.approx(1000 * pieces / _WORDS_PER_S), "the words were written one after the other"


@pytest.mark.parametrize(("fault", "kind"), [("event", "event broken"), ("short", "truncated"), ("odd", "protocol")])
async def test_live_text_that_fails(fault: str, kind: str) -> None:
    request = Request("live_text", TEXT, {}, live=True)
    async with running(FakeServer(fault=fault)) as server:
        (record,), _ = await sent(Target(server.url), [0.0], request)
    assert record.error == kind


@virtual
async def test_what_is_done_before_the_speech_takes_of_the_callers_time() -> None:
    before = Call("POST", "/v1/audio/speech", {"input": "first"})
    request = Request("design_then_clone", TEXT, {}, before=(before,))
    async with running(FakeServer(lambda number: [Step(0.2 if number == 0 else 0.0, tone(0.1))])) as server:
        (record,), _ = await sent(Target(server.url), [0.0], request)
    assert record.error is None
    assert record.ttfa_ms == pytest.approx(200)
    assert [body["input"] for body in server.bodies] == ["first", TEXT.words]


async def test_the_key_is_sent_and_every_caller_is_a_new_one() -> None:
    connections = list[tuple[str, str]]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line for line in head.splitlines() if line.lower().startswith("authorization"))
        connections.append((key, str(writer.get_extra_info("peername"))))
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        target = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", api_key="secret")
        records, _ = await sent(target, [0.0, 0.05], REQUEST)
    assert [record.error for record in records] == ["http 503"] * 2
    assert {key for key, _ in connections} == {"Authorization: Bearer secret"}
    assert len({port for _, port in connections}) == 2
