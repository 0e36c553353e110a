"""Calls that stream between deployments: opened, iterated with `async for` or `anext`, and cancelled by the caller.

Leaving a loop over a Serve response stream does not stop its producer, so every holder of a stream ends with
`finally: cancel(stream)`.
"""

from typing import Any, TypeAlias, cast

from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

ResponseStream: TypeAlias = DeploymentResponseGenerator[Any]


def open_stream(handle: DeploymentHandle[Any], method: str, *args: object) -> ResponseStream:
    """Call the streaming `method` of a deployment."""
    return cast("ResponseStream", getattr(handle.options(stream=True), method).remote(*args))


def cancel(stream: ResponseStream) -> None:
    """Stop the producer. Harmless when it has ended."""
    stream.cancel()  # type: ignore[no-untyped-call]
