"""The spans of one request through all deployments: one trace, and each span below the right one."""

import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deployments.http.openapi import DocumentedAPI
from deployments.settings import TracingArgs
from deployments.wire import tracing
from qwen_tts.errors import EngineStopped
from tests.deployments.in_process import MODEL, Handle, application
from tests.recordings import wav

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Application = tuple[DocumentedAPI, Handle, Handle]


@pytest.fixture
def app(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    with application(base, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.trace_with(SimpleSpanProcessor(exporter), 1.0, "all")
    yield exporter
    tracing.stop_tracing()


async def speak(api: DocumentedAPI, **headers: str) -> httpx.Response:
    body = {
        "input": "Hello there.",
        "model": MODEL,
        "ref_audio": "data:audio/wav;base64," + base64.b64encode(wav()).decode(),
        "x_vector_only_mode": True,
        "max_new_tokens": 6,
        "response_format": "pcm",
        "seed": 1,
    }
    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await client.post("/v1/audio/speech", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), [span.name for span in spans]
    return found


def parent(span: ReadableSpan) -> str:
    assert span.parent is not None, f"{span.name} has no parent"
    return format(span.parent.span_id, "016x")


def id_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    assert format(context.trace_id, "032x") == TRACE, f"{span.name} is in another trace"
    return format(context.span_id, "016x")


async def test_one_request_is_one_trace(app: Application, exported: InMemorySpanExporter) -> None:
    await speak(app[0], traceparent=f"00-{TRACE}-{CALLER}-01", **{"X-Request-Id": "find-me"})
    spans = by_name(exported)
    request, decode, generate = (spans[name] for name in ("POST /v1/audio/speech", "decode", "generate"))
    assert parent(request) == CALLER
    assert parent(decode) == id_of(request)
    assert parent(generate) == id_of(decode)
    below = {name: parent(span) for name, span in spans.items()}
    assert {name for name, above in below.items() if above == id_of(request)} == {
        "encode",
        "queue",
        "decode",
        "first byte",
    }
    assert {name for name, above in below.items() if above == id_of(generate)} == {
        "wait for a slot",
        "prefill",
        "first frame",
    }
    assert dict(request.attributes or {}) == {
        "request_id": "find-me",
        "status": "200",
        "key": "-",
        "model": MODEL,
        "finish_reason": "length",
    }
    for span in spans.values():
        assert id_of(span)
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time, span.name


async def test_a_resumed_stream_is_an_event(app: Application, exported: InMemorySpanExporter) -> None:
    api, _, talkers = app
    lost = iter([False, False, True])  # the heartbeat and a chunk come, the next one does not

    def interrupt() -> None:
        if next(lost, False):
            raise EngineStopped("the talker is lost")

    talkers.interrupt = interrupt
    await speak(api, traceparent=f"00-{TRACE}-{CALLER}-01")
    (decode,) = [span for span in exported.get_finished_spans() if span.name == "decode"]
    (event,) = decode.events
    assert (event.name, dict(event.attributes or {})) == ("resumed", {"frame": 1, "cause": "EngineStopped"})
    again = [span for span in exported.get_finished_spans() if span.name == "generate"]
    assert [parent(span) for span in again] == 2 * [id_of(decode)]


async def test_the_caller_decides_that_a_request_has_no_spans(app: Application, exported: InMemorySpanExporter) -> None:
    await speak(app[0], traceparent=f"00-{TRACE}-{CALLER}-00")
    assert exported.get_finished_spans() == ()


async def test_requests_of_one_service_are_different_traces(app: Application, exported: InMemorySpanExporter) -> None:
    for _ in range(2):
        await speak(app[0])
    traces = {span.context.trace_id for span in exported.get_finished_spans() if span.context is not None}
    assert len(traces) == 2


async def test_nothing_is_sent_along_while_tracing_is_off(app: Application) -> None:
    api, decoders, talkers = app
    tracing.start_tracing(None, 1.0, "all")
    await speak(api, traceparent=f"00-{TRACE}-{CALLER}-01")
    named = [dict(given) for handle in (decoders, talkers) for method, given in handle.calls if "e" in method]
    assert named
    assert all("trace" not in given for given in named)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(RuntimeError, match=r"pip install 'qwen-tts-serve\[tracing\]'"):
        tracing.start_tracing("http://collector:4318/v1/traces", TracingArgs().sampling_ratio, "ingress")
