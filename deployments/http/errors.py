"""Error answers over HTTP, in OpenAI's shape {"error": {message, type, param, code}}."""

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from ray.exceptions import RayTaskError
from starlette.exceptions import HTTPException

from deployments.errors import Refusal, refusal_of
from qwen_tts.errors import QwenTTSError


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: ErrorDetail


def error_response(refusal: Refusal, body: object = None) -> JSONResponse:
    """Return the answer to a refused request: `body`, or OpenAI's error object where no other shape is given."""
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(math.ceil(refusal.retry_after_s))}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    content = {"error": refusal.error} if body is None else body
    return JSONResponse(content, status_code=refusal.status, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make every failure of every route answer in this shape."""
    for kind in (QwenTTSError, RayTaskError, Exception):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(RequestValidationError, _refuse_query)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    return error_response(refusal_of(error))


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """Answer an unknown path or method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    code = "not_found" if error.status_code == 404 else None
    return error_response(Refusal(error.status_code, message, code=code))


async def _refuse_query(request: Request, error: Exception) -> JSONResponse:
    """Answer a wrong parameter of a URL; `http/bodies.py` checks the fields of bodies."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    field = str(fault["loc"][-1])
    return error_response(Refusal(400, f"{field}: {fault['msg']}", param=field, code="invalid_value"))
