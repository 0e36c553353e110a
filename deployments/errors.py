"""Errors of the service, and the one table that turns an error into the answer to the caller.

A mistake of the caller is an InvalidRequest, raised by the library or by this service. Its `code` decides the status.
Each protocol sends a Refusal in the shape that its clients expect.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from qwen_tts.errors import EngineStopped, InvalidRequest, Overloaded, QwenTTSError, RequestFailed

log = logging.getLogger("ray.serve")

# Status of a caller's mistake by its code. Every other code has the status 400.
_STATUS_OF_CODE: Mapping[str, int] = {
    "invalid_api_key": 401,
    "model_not_found": 404,
    "not_found": 404,
    "unknown_voice": 404,
    "voice_not_found": 404,
    "consent_not_found": 404,
    "preview_not_found": 404,
    "body_timeout": 408,
    "idle_timeout": 408,
    "text_timeout": 408,
    "response_cancel_not_active": 409,
    "voice_exists": 409,
    "audio_too_large": 413,
    "batch_too_large": 413,
    "body_too_large": 413,
    "message_too_large": 413,
    "url_too_large": 413,
    "unsupported_media_type": 415,
    "no_fit_candidate": 422,
    "too_many_responses": 429,
    "too_many_utterances": 429,
    "voice_library_full": 507,
}

Kept = Literal["voice", "consent", "preview"]
_PARAM_OF_KEPT: Mapping[Kept, str] = {"voice": "voice", "consent": "consent", "preview": "preview_id"}
assert set(_PARAM_OF_KEPT) == set(get_args(Kept)), "a kind of stored thing has no parameter"
assert all(f"{kind}_not_found" in _STATUS_OF_CODE for kind in _PARAM_OF_KEPT), "its absence would be answered with 400"


class NotFound(InvalidRequest):
    """A stored voice, consent or preview does not exist, or does not exist for this caller."""

    def __init__(self, what: Kept, name: str) -> None:
        hint = "; it may have expired, or been stored already" if what == "preview" else ""
        super().__init__(f"there is no {what} {name[:64]!r}{hint}", _PARAM_OF_KEPT[what], f"{what}_not_found")
        self.args = (what, name)


class Exists(InvalidRequest):
    """A voice of that name, in any case of its letters, is stored already."""

    def __init__(self, name: str) -> None:
        message = f"a voice named {name!r} exists; send overwrite=true to replace it"
        super().__init__(message, "name", "voice_exists")
        self.args = (name,)


class Full(InvalidRequest):
    """The library holds as many entries of a kind as the settings allow."""

    def __init__(self, what: Kept, most: int) -> None:
        super().__init__(f"the library is full ({most} {what}s); delete some", None, "voice_library_full")
        self.args = (what, most)


class Unavailable(QwenTTSError):
    """The service cannot answer now; `retry_after_s` says when to send the request again."""

    def __init__(self, message: str, code: str, retry_after_s: float) -> None:
        super().__init__(message, code, retry_after_s)
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class Silence(QwenTTSError):
    """A replica hangs: nothing has come from it for `seconds`. `replica` is its name, if it has ever sent something."""

    def __init__(self, replica: str | None, seconds: float) -> None:
        super().__init__(replica, seconds)
        self.replica = replica
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.replica or 'a replica'} has sent nothing for {self.seconds:g} s"


# A replica, its node, or the connection to it was lost. Another replica can serve the request.
REPLICA_LOST = (
    EngineStopped,
    Silence,
    RayActorError,
    DeploymentUnavailableError,
    ObjectLostError,
    WorkerCrashedError,
    NodeDiedError,
    OutOfMemoryError,  # Ray's memory monitor has killed it
)


def loss_cause(error: BaseException) -> Literal["hung", "stopped", "died"]:
    """Return in which way the replica was lost that raised `error`, one of REPLICA_LOST."""
    return "hung" if isinstance(error, Silence) else "stopped" if isinstance(error, EngineStopped) else "died"


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that failed. `type`, `param` and `code` are the fields of OpenAI's error object."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @property
    def error(self) -> dict[str, str | None]:
        """OpenAI's error object: https://platform.openai.com/docs/guides/error-codes."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


def refusal_of(error: BaseException) -> Refusal:
    """Return the answer to a request that failed with `error`, which may come from another process.

    An error that is not in the table is logged with its traceback. The answer then says only that there was an error.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    match cause:
        case InvalidRequest():
            status = _STATUS_OF_CODE.get(cause.code or "", 400)
            return Refusal(status, cause.message, param=cause.param, code=cause.code)
        case Overloaded():
            return _overloaded(cause.message, cause.retry_after_s)
        case BackPressureError():
            return _overloaded("too many requests are waiting", 1.0)
        case Unavailable():
            return Refusal(503, cause.message, "server_error", code=cause.code, retry_after_s=cause.retry_after_s)
        case RequestFailed():
            return Refusal(500, str(cause), "server_error", code="request_failed")
        case _ if isinstance(cause, REPLICA_LOST):
            log.warning("a replica failed under a request: %s", cause)
            message = "a model replica failed; send the request again"
            return Refusal(503, message, "server_error", code="replica_failed", retry_after_s=1.0)
        case _:
            log.error("unexpected error", exc_info=error)
            message = "the server failed to process the request"
            return Refusal(500, message, "server_error", code="internal_error")


def _overloaded(message: str, retry_after_s: float) -> Refusal:
    return Refusal(429, message, "rate_limit_exceeded", code="rate_limit_exceeded", retry_after_s=retry_after_s)


@contextmanager
def renamed_fields(sent_as: Mapping[str, str]) -> Iterator[None]:
    """Report a refused field under the name by which the caller sent it.

    `sent_as` maps this service's names of fields to the caller's.
    """
    try:
        yield
    except InvalidRequest as error:
        name = error.param or ""
        if name not in sent_as:
            raise
        sent, message = sent_as[name], error.message
        if message.startswith(name):
            message = sent + message.removeprefix(name)
        raise InvalidRequest(message, sent, error.code) from None
