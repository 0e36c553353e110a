"""The gate before every route: no key, no entry; too much at once, not now."""

import logging
from collections.abc import Callable
from contextlib import ExitStack

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access.api_keys import ApiKeys
from deployments.access.limits import CallerLimits
from deployments.errors import HttpError, to_http_error
from deployments.settings import ApiKeyArgs
from qwen_tts.errors import Overloaded

log = logging.getLogger("ray.serve")

# Probes come without a key. Everything else, known or not, needs one.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})


class Gate:
    """One ingress replica's keys and what it has counted of them. Raises KeyFileError."""

    def __init__(self, args: ApiKeyArgs) -> None:
        self.keys = ApiKeys(args.file)
        self.limits = CallerLimits()
        log.log(logging.WARNING if args.file is None else logging.INFO, self.keys.describe())


class GateMiddleware:
    """Lets in who may enter, known to `caller_of` from then on.

    What makes the service work counts towards the limits, from here to the end of its answer's body: a POST, and a
    WebSocket as long as it is open. `gate` finds the gate of this process, which Serve makes after the application.
    """

    def __init__(self, app: ASGIApp, gate: Callable[[], Gate]) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _route_path(scope) in OPEN_PATHS:
            return await self._app(scope, receive, send)
        with ExitStack() as under_way:
            try:
                gate, connection = self._gate(), HTTPConnection(scope)
                caller = gate.keys.authenticate(connection.headers)
                connection.state.caller = caller
                if scope["type"] == "websocket" or scope["method"] == "POST":
                    under_way.enter_context(gate.limits.admit(caller))
            except (HttpError, Overloaded) as refusal:
                return await refuse(to_http_error(refusal), scope, receive, send)
            return await self._app(scope, receive, send)


async def refuse(error: HttpError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before any route does. A WebSocket's upgrade is answered with 403 where the server can say no more."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.message})
    else:
        await error.response()(scope, receive, send)


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
