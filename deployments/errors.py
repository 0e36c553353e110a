"""Error class -> status and body, one table. The body is OpenAI's {"error": {message, type, param, code}}."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.exceptions import HTTPException

from deployments.voices.consents import ConsentNotFound
from deployments.voices.previews import PreviewNotFound
from deployments.voices.store import StoreFull, VoiceExists, VoiceNotFound
from qwen_tts.errors import EngineStopped, InvalidRequest, Overloaded, QwenTTSError

log = logging.getLogger("ray.serve")


# Status of an InvalidRequest by its code, where it is not 400.
_INVALID_STATUS = {"unknown_voice": 404, "url_too_large": 413, "text_timeout": 408}


class HttpError(Exception):
    """A refusal with its status. `type`, `param` and `code` are the fields of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def error(self) -> dict[str, str | None]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.error}

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(math.ceil(self.retry_after_s))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, status_code=self.status, headers=headers)


def not_loaded() -> HttpError:
    message = "the models are still loading; see /readyz"
    return HttpError(503, message, "server_error", code="not_ready", retry_after_s=2.0)


def to_http_error(error: BaseException) -> HttpError:
    """The answer to `error`, perhaps from another process. What is not in the table is logged, not shown."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    match cause:
        case HttpError():
            return cause
        case InvalidRequest():
            return HttpError(
                _INVALID_STATUS.get(cause.code or "", 400), cause.message, param=cause.param, code=cause.code
            )
        case VoiceNotFound():
            return HttpError(404, str(cause), param="voice", code="voice_not_found")
        case ConsentNotFound():
            return HttpError(404, str(cause), param="consent", code="consent_not_found")
        case PreviewNotFound():
            return HttpError(404, str(cause), param="preview_id", code="preview_not_found")
        case VoiceExists():
            return HttpError(409, f"{cause}; send overwrite=true to replace it", param="name", code="voice_exists")
        case StoreFull():
            return HttpError(507, str(cause), code="voice_library_full")
        case Overloaded():
            return _overloaded(cause.message, cause.retry_after_s)
        case BackPressureError():
            return _overloaded("too many requests are waiting", 1.0)
        case EngineStopped() | RayActorError() | DeploymentUnavailableError():
            log.warning("a replica failed under a request: %s", cause)
            return HttpError(
                500, "a model replica failed; the request may be sent again", "server_error", code="replica_failed"
            )
        case _:
            log.error("unexpected error", exc_info=error)
            return HttpError(500, "the server failed to process the request", "server_error", code="internal_error")


def _overloaded(message: str, retry_after_s: float) -> HttpError:
    return HttpError(429, message, "rate_limit_exceeded", code="rate_limit_exceeded", retry_after_s=retry_after_s)


@contextmanager
def renamed_fields(sent_as: Mapping[str, str]) -> Iterator[None]:
    """Refusals of a field within are of the one that the caller sent in its place."""
    try:
        yield
    except (InvalidRequest, HttpError) as error:
        refusal = to_http_error(error)
        name = refusal.param or ""
        if name not in sent_as:
            raise
        sent = sent_as[name]
        if refusal.message.startswith(name):
            refusal.message = sent + refusal.message.removeprefix(name)
        refusal.param = sent
        raise refusal from None


def install_error_handlers(app: FastAPI) -> None:
    """Make every failure of every route answer in the one shape."""
    for kind in (HttpError, QwenTTSError, RayTaskError, Exception):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(RequestValidationError, _refuse_query)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    return to_http_error(error).response()


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return HttpError(error.status_code, message, code="not_found" if error.status_code == 404 else None).response()


async def _refuse_query(request: Request, error: Exception) -> JSONResponse:
    """Parameters of a URL; bodies are parsed by `schemas.parse_body`."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    field = str(fault["loc"][-1])
    return HttpError(400, f"{field}: {fault['msg']}", param=field, code="invalid_value").response()
