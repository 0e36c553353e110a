"""Bodies of requests: read within limits of type, size and time, and parsed field by field."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_args

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import from_json

from deployments.settings import IngressArgs
from qwen_tts.errors import InvalidRequest, Overloaded

JSON = "application/json"
FORM = "multipart/form-data"

# Headers by which a client could tell Serve's proxy to keep working after the client left, or to stop early.
_SERVE_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")

Body = TypeVar("Body", bound=BaseModel)


class BodyReader:
    """Reads the bodies of one ingress replica. `args` returns the present settings."""

    def __init__(self, args: Callable[[], IngressArgs]) -> None:
        self._args = args
        self._bytes_under_way = 0  # of bodies that are being read or worked on

    @asynccontextmanager
    async def read(self, request: Request, expected_type: str) -> AsyncIterator[bytes]:
        """Yield the body. Its bytes count as under way until the context ends. Raises InvalidRequest or Overloaded."""
        if refused := [name for name in _SERVE_HEADERS if name in request.headers]:
            raise InvalidRequest(f"the header {refused[0]} is not accepted; omit it", None, "header_not_accepted")
        content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if content_type != expected_type:
            message = f"content type {content_type or 'missing'!r}; send {expected_type}"
            raise InvalidRequest(message, None, "unsupported_media_type")
        body = bytearray()
        try:
            await self._read(request, body)
            yield bytes(body)
        finally:
            self._bytes_under_way -= len(body)
            assert self._bytes_under_way >= 0, "a body was released twice"

    async def _read(self, request: Request, body: bytearray) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._args().max_body_bytes:
            raise self._too_large()
        stream = request.stream()
        try:
            async with asyncio.timeout(self._args().body_timeout_s):
                while (piece := await self._next_piece(stream)) is not None:
                    body += piece
                    self._bytes_under_way += len(piece)
                    if len(body) > self._args().max_body_bytes:
                        raise self._too_large()
                    if self._bytes_under_way > self._args().max_bytes_under_way:
                        raise Overloaded("too many large requests are under way")
        except TimeoutError:
            total_s, pause_s = self._args().body_timeout_s, self._args().body_pause_s
            message = f"the body took too long; it may take {total_s:g} s, with pauses of up to {pause_s:g} s"
            raise InvalidRequest(message, None, "body_timeout") from None

    async def _next_piece(self, stream: AsyncIterator[bytes]) -> bytes | None:
        async with asyncio.timeout(self._args().body_pause_s):
            return await anext(stream, None)

    def _too_large(self) -> InvalidRequest:
        return InvalidRequest(f"the body is larger than {self._args().max_body_bytes} bytes", None, "body_too_large")


def parse_body(kind: type[Body], body: bytes) -> Body:
    """Return a `kind` parsed from JSON. Raises InvalidRequest naming the field at fault and its valid values."""
    return parse_fields(kind, parse_object(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises InvalidRequest."""
    try:
        fields = from_json(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", None, "invalid_json") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object", None, "invalid_body")
    return fields


def parse_fields(kind: type[Body], fields: Mapping[str, Any]) -> Body:
    """Return a `kind` made of `fields`. Raises InvalidRequest naming the field at fault and its valid values."""
    # Before validation, which would report each of a million unknown fields.
    _refuse_unknown(kind, fields)
    try:
        return kind.model_validate(fields)
    except ValidationError as invalid:
        fault = invalid.errors(include_url=False)[0]
        field = str(fault["loc"][0])
        path = ".".join(map(str, fault["loc"]))
        if fault["type"] == "missing":
            message, code = f"{path} is missing", "missing_field"
        else:
            message, code = f"{path}: {fault['msg']}", "invalid_value"
        raise InvalidRequest(message, field, code) from None


def _refuse_unknown(kind: type[BaseModel], fields: Mapping[str, Any], prefix: str = "") -> None:
    if (unknown := next((name for name in fields if name not in kind.model_fields), None)) is not None:
        name = prefix + unknown[:100]
        message = f"unknown field {name!r}; known fields: {', '.join(kind.model_fields)}"
        raise InvalidRequest(message, name, "unknown_field")
    for name, field in kind.model_fields.items():
        value = fields.get(name)
        first = value[0] if isinstance(value, list) and value else value
        before = [one.json_schema_input_type for one in field.metadata if isinstance(one, BeforeValidator)]
        accepted = [field.annotation, *before]
        nested = next((found for one in accepted if (found := _model_in(one)) is not None), None)
        if isinstance(first, dict) and nested is not None:
            _refuse_unknown(nested, first, f"{prefix}{name}.")


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the class of objects in an annotation such as `list[Reference] | None`, or None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
