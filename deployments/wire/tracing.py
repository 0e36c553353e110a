"""OpenTelemetry spans of requests, across deployments. Nothing is imported or measured unless tracing is on.

A request has one span in the ingress, one in each codec decoder that works on it, and one in each talker. All other
spans of a process are children of its span of the request. The span of the caller travels in the call itself, as a
`traceparent` of the W3C.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger("ray.serve")

_tracer: "Tracer | None" = None
# The span of the request in this process. It is set once at the beginning of a task, and copied into further tasks.
_request: "ContextVar[Span | None]" = ContextVar("request_span", default=None)


def start_tracing(endpoint: str | None, sampling_ratio: float, deployment: str) -> None:
    """Send the spans of this process to `endpoint`. Raises RuntimeError if a package is missing."""
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"tracing.endpoint needs {error.name}: pip install 'qwen-tts-serve[tracing]', or remove the setting"
        ) from None
    trace_with(BatchSpanProcessor(OTLPSpanExporter(endpoint)), sampling_ratio, deployment)
    log.info("spans of requests go to %s", endpoint)


def trace_with(processor: "SpanProcessor", sampling_ratio: float, deployment: str) -> None:
    """Give the spans of this process to `processor`."""
    global _tracer  # one per process, like the loggers of a process
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    resource = Resource.create({"service.name": f"qwen-tts-{deployment}"})
    # It does not become OpenTelemetry's global provider, which Serve's own tracing sets.
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(sampling_ratio), resource=resource)
    provider.add_span_processor(processor)
    _tracer = provider.get_tracer("qwen_tts")


def stop_tracing() -> None:
    """Make no more spans in this process."""
    global _tracer
    _tracer = None


@contextmanager
def request_span(name: str, traceparent: str | None) -> Iterator[None]:
    """Make the span of a request in this process, below the caller's `traceparent`. Other spans of this task, and of
    the tasks that it starts, are its children."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract({} if traceparent is None else {"traceparent": traceparent})
    span = _tracer.start_span(name, above)
    _request.set(span)  # not reset: the end may come in another task than the beginning
    try:
        yield
    except Exception as error:
        span.record_exception(error)
        span.set_status(StatusCode.ERROR, str(error))
        raise
    finally:
        span.end()


@contextmanager
def span(name: str) -> Iterator[None]:
    """Make a span of a part of the present request."""
    began_s = time.monotonic()
    try:
        yield
    finally:
        note_span(name, began_s, time.monotonic())


def note_span(name: str, began_s: float, ended_s: float) -> None:
    """Make a span of a part of the present request that has ended. The times are of `time.monotonic`."""
    request = _request.get()
    if _tracer is None or request is None:
        return
    from opentelemetry.trace import set_span_in_context

    now_s, now_ns = time.monotonic(), time.time_ns()
    start_ns, end_ns = (now_ns - round(1e9 * (now_s - at_s)) for at_s in (began_s, ended_s))
    _tracer.start_span(name, set_span_in_context(request), start_time=start_ns).end(end_ns)


def note_event(name: str, **attributes: str | int) -> None:
    """Note what happened to the present request, in its span."""
    if (request := _request.get()) is not None:
        request.add_event(name, attributes)


def describe_request(name: str, **attributes: str | int) -> None:
    """Rename the span of the present request, and add `attributes` to it."""
    if (request := _request.get()) is not None:
        request.update_name(name)
        request.set_attributes(attributes)


def traceparent() -> str | None:
    """Return what a call for the present request must send along, or None."""
    if (request := _request.get()) is None:
        return None
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(request))
    return carrier.get("traceparent")
