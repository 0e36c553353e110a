"""The header by which a client says how long its request may wait."""

from starlette.requests import Request

from qwen_tts.errors import InvalidRequest

HEADER = "X-Max-Wait-Ms"
_MOST_MS = 60_000


def max_wait_of(request: Request) -> float | None:
    """Return the seconds for which a request may wait for its place, or None without the header.

    Raises InvalidRequest.
    """
    value = request.headers.get(HEADER)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 9 or int(value) > _MOST_MS:
        message = f"the header {HEADER} must be a whole number from 0 to {_MOST_MS}"
        raise InvalidRequest(message, HEADER, "out_of_range")
    return int(value) / 1000
